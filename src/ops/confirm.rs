//! Consent to a plan that deletes: projects, and branches that are default, protected or called
//! `production`, go only when somebody names them exactly.

use std::collections::BTreeSet;

use crate::api::{Client, DeletableBranch, DeletableProject, Unconfirmed, there};
use crate::error::{Doing, Result};
use crate::ops::parallel;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Branch, Project};

/// What may be deleted, as it was looked at and confirmed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confirmed {
    projects: Vec<DeletableProject>,
    branches: Vec<DeletableBranch>,
}

impl Confirmed {
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
}

/// Looks at the resources called `targets` and refuses to delete them unless `names` confirms what
/// has to be: each project with its protected branches, and each default, protected or production
/// branch.
pub(crate) async fn confirm(api: &Client, targets: &[&str], names: &[String]) -> Result<Confirmed> {
    let doing = || "could not look at what would be deleted".to_owned();
    let projects: Vec<ProjectName> = targets.iter().filter_map(|name| name.parse().ok()).collect();
    let branches: Vec<BranchName> = targets.iter().filter_map(|name| name.parse().ok()).collect();
    let project = |name: ProjectName| async move {
        let (project, branches) = tokio::join!(api.get_project(&name), api.list_branches(&name));
        let project = there(project).doing(doing)?;
        Ok(project.zip(there(branches).doing(doing)?))
    };
    let branch = |name: BranchName| async move { there(api.get_branch(&name).await).doing(doing) };
    let projects: Vec<(Project, Vec<Branch>)> =
        parallel::all(projects, project).await?.into_iter().flatten().collect();
    let branches: Vec<Branch> =
        parallel::all(branches, branch).await?.into_iter().flatten().collect();
    agree(&projects, &branches, names)
}

fn agree(
    projects: &[(Project, Vec<Branch>)],
    branches: &[Branch],
    names: &[String],
) -> Result<Confirmed> {
    let mut confirmed = Confirmed::default();
    let mut missing: Vec<Unconfirmed> = Vec::new();
    for branch in branches {
        match DeletableBranch::confirmed(branch, names) {
            Ok(branch) => confirmed.branches.push(branch),
            // Where its project goes too, the project's name speaks for it.
            Err(_) if projects.iter().any(|(gone, _)| gone.name == branch.name.parent()) => {}
            Err(one) => missing.push(one),
        }
    }
    for (project, branches) in projects {
        match DeletableProject::confirmed(project, branches, names) {
            Ok(project) => confirmed.projects.push(project),
            Err(several) => missing.extend(several),
        }
    }
    if missing.is_empty() { Ok(confirmed) } else { Err(Unconfirmed::refuse(&missing)) }
}
