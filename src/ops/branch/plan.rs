//! What is to be done about one new branch: looked at, then decided.

use jiff::{SignedDuration, Timestamp};

use super::lineage::same_lineage;
use super::request::{Create, Created, Outcome};
use crate::api::{Client, Poll};
use crate::error::{Error, Kind, Result};
use crate::ops::names;
use crate::time::distance;
use crate::ui::Step;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Branch, BranchState, Project};

/// What is to be done about one branch.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Its full name.
    pub(super) name: BranchName,
    /// The branch to copy.
    pub(super) source: BranchName,
    /// The branch that is there already, of the same lineage.
    pub(super) existing: Option<Branch>,
}

impl Planned {
    /// Returns what is done first, as a step.
    pub(super) fn step(&self) -> String {
        match &self.existing {
            Some(_) => "refreshing its expiry".to_owned(),
            None => format!("copying `{}`", self.source.short()),
        }
    }

    /// Returns the answer of a dry run.
    pub(super) fn preview(&self, request: &Create, now: Timestamp) -> Created {
        match &self.existing {
            Some(existing) => Created::of(request, existing.clone(), Outcome::WouldReuse),
            None => Created {
                name: self.name.clone(),
                outcome: Outcome::WouldCreate,
                created: false,
                source: Some(self.source.clone()),
                requested_time: request.at,
                source_time: request.at,
                expire_time: request.expiry.moment(now),
                endpoint: None,
                host: None,
                elapsed_ms: 0,
            },
        }
    }
}

/// Looks at the project of `name` and decides what is to be done.
///
/// A branch that is just being made is waited for: what it holds is only known then.
pub(super) async fn look(
    api: &Client,
    step: &Step,
    request: &Create,
    name: &BranchName,
    mut poll: Poll,
) -> Result<Planned> {
    let parent = name.parent();
    loop {
        let (project, known) = tokio::join!(api.get_project(&parent), api.list_branches(&parent));
        let project = match project {
            Ok(project) => project,
            Err(error) => return Err(names::explain_project(api, &parent, error).await),
        };
        let known = known?;
        let is_new = |branch: &Branch| branch.status.current_state == BranchState::Init;
        if !known.iter().any(|branch| branch.name == *name && is_new(branch)) {
            return decide(request, name, &project, known, Timestamp::now());
        }
        step.say("somebody is making it; waiting for that");
        if !poll.pause().await {
            let still = format!("branch `{}` is still being created", name.short());
            return Err(Error::new(Kind::TimedOut, still));
        }
    }
}

/// Decides on a branch by all branches of its project, and refuses what the workspace would refuse.
fn decide(
    request: &Create,
    name: &BranchName,
    project: &Project,
    known: Vec<Branch>,
    now: Timestamp,
) -> Result<Planned> {
    let parent = name.parent();
    let default = || {
        project.status.default_branch.clone().ok_or_else(|| {
            let message = format!("project `{}` has no default branch", parent.project);
            Error::new(Kind::NotFound, message).hint("name the branch to copy with --from")
        })
    };
    let source = match &request.from {
        Some(id) => parent.branch(id.clone()),
        None => default()?,
    };
    let Some(copied) = known.iter().find(|branch| branch.name == source) else {
        return Err(names::unknown_branch(&source, &known));
    };
    match known.iter().find(|branch| branch.name == *name) {
        Some(existing) => {
            same_lineage(request, &source, existing)?;
            refuse_to_expire(request, existing, &known)?;
        }
        None => refuse_source(request, copied, project, now)?,
    }
    let existing = known.into_iter().find(|branch| branch.name == *name);
    Ok(Planned { name: name.clone(), source, existing })
}

/// Refuses an expiry that a branch cannot have.
///
/// Source: Lakebase documentation, "Branch expiration", and the Terraform provider's, read 2026-08.
fn refuse_to_expire(request: &Create, existing: &Branch, known: &[Branch]) -> Result<()> {
    let name = existing.name.short();
    let is_child = |other: &Branch| other.status.source_branch.as_ref() == Some(&existing.name);
    let why = if request.expiry == super::request::Expiry::Never {
        return Ok(());
    } else if existing.status.default {
        "it is the default branch of its project"
    } else if existing.status.is_protected {
        "it is protected"
    } else if known.iter().any(is_child) {
        "others were copied from it"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Usage, format!("branch `{name}` is there, and cannot expire"))
        .why(why)
        .hint("--no-expiry"))
}

/// Refuses a source that cannot be copied, or not as of the moment that is asked for.
///
/// Source: Lakebase documentation, "Branch expiration" and "Point-in-time restore", read 2026-08.
fn refuse_source(
    request: &Create,
    source: &Branch,
    project: &Project,
    now: Timestamp,
) -> Result<()> {
    let name = source.name.short();
    if let Some(end) = source.status.expire_time {
        return Err(Error::new(Kind::Usage, format!("`{name}` expires, so it cannot be copied"))
            .why(format!("it ends {}", distance(end, now)))
            .hint(format!(
                "copy another with --from, or: lakeforge branch create {name} --no-expiry"
            )));
    }
    let Some(at) = request.at else { return Ok(()) };
    let kept = project.status.history_retention_duration;
    let kept = kept.and_then(|kept| SignedDuration::try_from(kept.0).ok());
    let retained = kept.and_then(|kept| now.checked_sub(kept).ok());
    match [source.create_time, retained].into_iter().flatten().max() {
        Some(first) if at < first => {
            Err(Error::new(Kind::Usage, format!("`{name}` has no history as of {at}"))
                .why(format!("its history begins at {first} ({})", distance(first, now))))
        }
        _ => Ok(()),
    }
}
