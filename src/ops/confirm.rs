//! Consent to a plan that deletes. It is judged by the kind of what is lost, and fails closed: a
//! project, a branch that is default, protected or production, a provisioned instance, and any
//! project or branch that cannot be told from those go only when somebody names them exactly.

use std::collections::BTreeSet;

use crate::api::{self, Client, DeletableBranch, DeletableProject, Unconfirmed, there};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Change, ResourceKind};
use crate::ops::deploy::{Entry, Others};
use crate::ops::parallel;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Branch, Project};

/// A plan whose losses somebody agreed to; made by [`Confirmed::new`] alone.
#[derive(Debug)]
pub(crate) struct Confirmed<Plan> {
    plan: Plan,
    permits: Permits,
}

/// A plan that may delete.
pub(crate) trait Deletes {
    /// Returns what it loses.
    fn losses(&self) -> &Losses;
}

/// What a plan loses, as it was when it was looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses(Vec<Loss>);

#[derive(Debug, Clone)]
struct Loss {
    change: Change,
    found: Found,
    /// Other deployments that manage it too.
    holders: Vec<String>,
}

/// What was found under the name of a resource that is lost.
#[derive(Debug, Clone)]
enum Found {
    Project(Box<Project>, Vec<Branch>),
    Branch(Box<Branch>),
    /// Nothing: it is gone already.
    Nothing(Name),
    /// It was not looked at, and may be something that goes only by name.
    Unseen(&'static str),
    /// It was not looked at, as nothing of its kind needs a name.
    Ordinary,
}

/// The name of something that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Project(ProjectName),
    Branch(BranchName),
}

/// What may be deleted: as it was looked at, and confirmed where that is needed.
#[derive(Debug, Clone)]
pub(crate) struct Permits {
    projects: Vec<DeletableProject>,
    branches: Vec<DeletableBranch>,
    nothing: Vec<Name>,
}

impl<Plan: Deletes> Confirmed<Plan> {
    /// Takes `plan` when `names` confirms all of its losses that have to be.
    ///
    /// Fails as `Refused`, with what to type, when it does not.
    pub(crate) fn new(plan: Plan, names: &[String]) -> Result<Self> {
        let permits = plan.losses().permits(names)?;
        Ok(Confirmed { plan, permits })
    }
}

impl<Plan> Confirmed<Plan> {
    /// Returns the plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns what may be deleted.
    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }
}

impl Losses {
    /// Looks at what `changes` lose, and at who else manages it than the deployment in the folder
    /// `own`.
    pub(crate) async fn look(api: &Client, changes: &[Change], own: &str) -> Result<Self> {
        let lost: Vec<Entry> = changes
            .iter()
            .filter(|change| change.is_destructive() && !change.name.is_empty())
            .map(Entry::of)
            .collect();
        let others = &Others::find(api, &lost, Some(own)).await?;
        let one = |change: Change| async move {
            let looked = match name_of(&change) {
                Some(name) => find(api, name).await,
                None => Ok(unseen(change.kind())),
            };
            let found = looked
                .doing(|| format!("could not look at `{}`, which would be deleted", change.name))?;
            let holders = others.holders(&Entry::of(&change));
            Ok(Loss { change, found, holders })
        };
        let destructive = changes.iter().filter(|change| change.is_destructive()).cloned();
        Ok(Losses(parallel::all(destructive, one).await?))
    }

    /// Returns what `changes` lose in a workspace that holds `projects` and `branches`.
    #[cfg(test)]
    pub(crate) fn within(changes: &[Change], projects: &[Project], branches: &[Branch]) -> Self {
        let find = |name: Name| match &name {
            Name::Project(id) => match projects.iter().find(|project| project.name == *id) {
                Some(project) => {
                    let own = branches.iter().filter(|branch| branch.name.parent() == *id);
                    Found::Project(Box::new(project.clone()), own.cloned().collect())
                }
                None => Found::Nothing(name),
            },
            Name::Branch(id) => match branches.iter().find(|branch| branch.name == *id) {
                Some(branch) => Found::Branch(Box::new(branch.clone())),
                None => Found::Nothing(name),
            },
        };
        let one = |change: &Change| {
            let found = name_of(change).map_or_else(|| unseen(change.kind()), find);
            Loss { change: change.clone(), found, holders: Vec::new() }
        };
        Losses(changes.iter().filter(|change| change.is_destructive()).map(one).collect())
    }

    fn permits(&self, names: &[String]) -> Result<Permits> {
        let mut permits =
            Permits { projects: Vec::new(), branches: Vec::new(), nothing: Vec::new() };
        let mut missing: Vec<Unconfirmed> = Vec::new();
        let goes_too = |branch: &Branch| {
            self.0.iter().any(|loss| {
                matches!(&loss.found, Found::Project(project, _) if project.name == branch.name.parent())
            })
        };
        for Loss { change, found, holders } in &self.0 {
            missing.extend(unconfirmed_by_holders(change, holders, names));
            match found {
                Found::Project(project, branches) => {
                    match DeletableProject::confirmed(project, branches, names) {
                        Ok(project) => permits.projects.push(project),
                        Err(several) => missing.extend(several),
                    }
                }
                Found::Branch(branch) => match DeletableBranch::confirmed(branch, names) {
                    Ok(branch) => permits.branches.push(branch),
                    // The project's name, and those of its protected branches, speak for it.
                    Err(_) if goes_too(branch) => {}
                    Err(one) => missing.push(one),
                },
                Found::Unseen(what) => missing.extend(unnamed(change, what, names)),
                Found::Nothing(name) => permits.nothing.push(name.clone()),
                Found::Ordinary => {}
            }
        }
        if missing.is_empty() { Ok(permits) } else { Err(Unconfirmed::refuse(&missing)) }
    }
}

/// Returns what a change names, when that is a project or a branch, whatever the kind says.
fn name_of(change: &Change) -> Option<Name> {
    let project = change.name.parse().map(Name::Project);
    project.or_else(|_| change.name.parse().map(Name::Branch)).ok()
}

async fn find(api: &Client, name: Name) -> api::Result<Found> {
    Ok(match name {
        Name::Project(name) => {
            let (project, branches) =
                tokio::join!(api.get_project(&name), api.list_branches(&name));
            match there(project)? {
                Some(project) => Found::Project(Box::new(project), branches?),
                None => Found::Nothing(Name::Project(name)),
            }
        }
        Name::Branch(name) => match there(api.get_branch(&name).await)? {
            Some(branch) => Found::Branch(Box::new(branch)),
            None => Found::Nothing(Name::Branch(name)),
        },
    })
}

fn unseen(kind: ResourceKind) -> Found {
    match kind {
        ResourceKind::Project => Found::Unseen("a project whose full name is not known"),
        ResourceKind::Branch => Found::Unseen("a branch whose full name is not known"),
        ResourceKind::Instance => Found::Unseen("a database instance, with all it holds"),
        ResourceKind::Endpoint
        | ResourceKind::Role
        | ResourceKind::Database
        | ResourceKind::App
        | ResourceKind::Other => Found::Ordinary,
    }
}

/// Asks for the name of what another deployment manages too.
fn unconfirmed_by_holders(
    change: &Change,
    holders: &[String],
    names: &[String],
) -> Vec<Unconfirmed> {
    let short = match name_of(change) {
        Some(Name::Project(name)) => name.project,
        Some(Name::Branch(name)) => name.short(),
        None => change.name.clone(),
    };
    if names.contains(&short) || names.contains(&change.name) {
        return Vec::new();
    }
    holders.iter().map(|why| Unconfirmed { name: short.clone(), why: why.clone() }).collect()
}

/// Asks for the name of what was not looked at; where it has none, for its label.
fn unnamed(change: &Change, what: &str, names: &[String]) -> Option<Unconfirmed> {
    let label = &change.resource;
    let name = if change.name.is_empty() { label } else { &change.name };
    let why = match name == label {
        true => format!("`{label}` is {what}"),
        false => format!("`{label}` (`{name}`) is {what}"),
    };
    (!names.contains(name)).then(|| Unconfirmed { name: name.clone(), why })
}

impl Permits {
    /// Returns the project `name`, when it may go.
    pub(crate) fn project(&self, name: &ProjectName) -> Option<&DeletableProject> {
        self.projects.iter().find(|project| project.name() == name)
    }

    /// Returns the branch `name`, when it may go.
    pub(crate) fn branch(&self, name: &BranchName) -> Option<&DeletableBranch> {
        self.branches.iter().find(|branch| branch.name() == name)
    }

    /// Returns the branches whose protection has to be taken off first.
    pub(crate) fn protected(&self) -> BTreeSet<BranchName> {
        let branches = self.branches.iter().filter(|branch| branch.is_protected());
        let own = branches.map(|branch| branch.name().clone());
        own.chain(self.projects.iter().flat_map(DeletableProject::protected).cloned()).collect()
    }

    /// Looks at everything again, for a program that deletes without doing so: what it would delete
    /// has to be what was agreed to.
    ///
    /// Fails with a conflict when something was made anew, or has come into being, since.
    pub(crate) async fn recheck(&self, api: &Client) -> Result<()> {
        let doing = || "what was agreed to is not what would be deleted".to_owned();
        for project in &self.projects {
            there(api.recheck_project(project).await).doing(doing)?;
        }
        for branch in &self.branches {
            there(api.recheck_branch(branch).await).doing(doing)?;
        }
        for name in &self.nothing {
            let shown = match find(api, name.clone()).await.doing(doing)? {
                Found::Project(project, _) => project.name.to_string(),
                Found::Branch(branch) => branch.name.to_string(),
                Found::Nothing(_) | Found::Unseen(_) | Found::Ordinary => continue,
            };
            let error = Error::new(Kind::Conflict, doing()).code("CHANGED_MEANWHILE");
            return Err(error
                .why(format!("`{shown}` was not there when its deletion was agreed to"))
                .hint("look at it and run the same command again"));
        }
        Ok(())
    }
}
