//! One branch in one project: look, create or reuse, wait until SQL works.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::create::{Create, Created, Expiry, Outcome};
use super::lineage::{refreshed, same_lineage};
use crate::api::{self, Client, Pending, Poll};
use crate::error::{Error, Kind, Result};
use crate::ops::{creds, names};
use crate::time::to_milliseconds;
use crate::ui::Step;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Body, Branch, BranchSpec, BranchState};

/// How often a creation whose answer was lost is sent in all.
const LOST_TRIES: u32 = 3;

/// The branches that a call has created, or may have.
#[derive(Debug, Default)]
pub(super) struct Journal {
    names: BTreeSet<BranchName>,
}

impl Journal {
    /// Returns the branches to remove when the call fails.
    pub(super) fn made(&self) -> Vec<BranchName> {
        self.names.iter().cloned().collect()
    }
}

/// Makes sure that the branch `name` exists as `request` wants it, and that it takes SQL.
pub(super) async fn branch(
    api: &Client,
    step: &Step,
    request: &Create,
    name: &BranchName,
    journal: &Mutex<Journal>,
) -> Result<Created> {
    let poll = Poll::new(request.wait);
    let (source, existing) = look(api, request, name).await?;
    if request.dry_run {
        return dry_run(request, name, &source, existing);
    }
    let (branch, outcome) = match existing {
        Some(existing) => {
            same_lineage(request, &source, &existing)?;
            let existing = settled(api, name, Poll::new(poll.left())).await?;
            (reuse(api, request, &source, existing).await?, Outcome::Reused)
        }
        None => {
            step.say(format!("copying `{}`", source.short()));
            make(api, request, name, &source, journal, poll.left()).await?
        }
    };
    step.say("waiting for SQL");
    let connection = creds::ready(api, name, poll.left()).await?;
    Ok(Created {
        endpoint: Some(connection.endpoint),
        host: Some(connection.host),
        ..answer(request, branch, outcome)
    })
}

/// Finds the source and whether the branch is there already.
async fn look(
    api: &Client,
    request: &Create,
    name: &BranchName,
) -> Result<(BranchName, Option<Branch>)> {
    let parent = name.parent();
    let (project, known) = tokio::join!(api.get_project(&parent), api.list_branches(&parent));
    let project = match project {
        Ok(project) => project,
        Err(error) => return Err(names::explain_project(api, &parent, error).await),
    };
    let known = known?;
    let source = match &request.from {
        Some(id) => {
            let source = parent.branch(id.clone());
            if !known.iter().any(|branch| branch.name == source) {
                return Err(names::unknown_branch(&source, &known));
            }
            source
        }
        None => project.status.default_branch.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("project `{}` has no default branch", parent.project),
            )
            .hint("name the branch to copy with --from")
        })?,
    };
    let existing = known.into_iter().find(|branch| branch.name == *name);
    Ok((source, existing))
}

fn dry_run(
    request: &Create,
    name: &BranchName,
    source: &BranchName,
    existing: Option<Branch>,
) -> Result<Created> {
    if let Some(existing) = existing {
        same_lineage(request, source, &existing)?;
        return Ok(answer(request, existing, Outcome::WouldReuse));
    }
    let expire_time = match request.expiry {
        Expiry::After(ttl) => Some(to_milliseconds(ttl.after(Timestamp::now()))),
        Expiry::At(moment) => Some(moment),
        Expiry::Never => None,
    };
    Ok(Created {
        name: name.clone(),
        outcome: Outcome::WouldCreate,
        created: false,
        source: Some(source.clone()),
        requested_time: request.at,
        source_time: request.at,
        expire_time,
        endpoint: None,
        host: None,
        elapsed_ms: 0,
    })
}

fn answer(request: &Create, branch: Branch, outcome: Outcome) -> Created {
    Created {
        name: branch.name,
        outcome,
        created: outcome == Outcome::Created,
        source: branch.status.source_branch,
        requested_time: request.at,
        source_time: branch.status.source_branch_time,
        expire_time: branch.status.expire_time,
        endpoint: None,
        host: None,
        elapsed_ms: 0,
    }
}

/// Creates the branch; a lost answer is settled by looking again.
async fn make(
    api: &Client,
    request: &Create,
    name: &BranchName,
    source: &BranchName,
    journal: &Mutex<Journal>,
    wait: Duration,
) -> Result<(Branch, Outcome)> {
    let journal = || journal.lock().unwrap_or_else(PoisonError::into_inner);
    let mut body = Body { spec: specification(request, source) };
    let poll = Poll::new(wait);
    for attempt in 1.. {
        // Before the request leaves: interrupted from here on, the branch may exist.
        journal().names.insert(name.clone());
        let error = match api.create_branch(name, &body, false).await {
            Ok(pending) => {
                let branch = finish(api, pending, name, poll.left()).await?;
                return Ok((branch, Outcome::Created));
            }
            Err(error) => error,
        };
        if error.is_reply_lost() {
            match api.get_branch(name).await {
                Ok(_) => return Ok((settled(api, name, poll).await?, Outcome::Created)),
                Err(again) if again.is_not_found() && attempt < LOST_TRIES => continue,
                Err(_) => return Err(error.into()),
            }
        }
        if error.is_conflict() && attempt > 1 {
            return Ok((settled(api, name, poll).await?, Outcome::Created));
        }
        journal().names.remove(name);
        if error.is_conflict() {
            let existing = settled(api, name, poll).await?;
            return Ok((reuse(api, request, source, existing).await?, Outcome::Reused));
        }
        match past_the_minute(&error, &body.spec) {
            Some(moment) => body.spec.source_branch_time = Some(moment),
            None => return Err(error.into()),
        }
    }
    unreachable!("the loop ends by itself")
}

/// Returns a moment one millisecond later when the workspace stumbled over a whole minute, which
/// live workspaces were reported to do.
fn past_the_minute(error: &api::Error, spec: &BranchSpec) -> Option<Timestamp> {
    let moment = spec.source_branch_time?;
    let whole = moment.as_millisecond() % 60_000 == 0;
    (error.is_internal() && whole).then(|| moment + SignedDuration::from_millis(1))
}

async fn finish(
    api: &Client,
    pending: Pending<Branch>,
    name: &BranchName,
    wait: Duration,
) -> Result<Branch> {
    let awaited = format!("creating branch `{}`", name.short());
    Ok(api.wait(pending, &awaited, wait).await?)
}

/// Waits until a branch whose operation is not known has left its first state.
async fn settled(api: &Client, name: &BranchName, mut poll: Poll) -> Result<Branch> {
    loop {
        let branch = api.get_branch(name).await?;
        if branch.status.current_state != BranchState::Init {
            return Ok(branch);
        }
        if !poll.pause().await {
            return Err(Error::new(
                Kind::TimedOut,
                format!("branch `{}` is still being created", name.short()),
            ));
        }
    }
}

fn specification(request: &Create, source: &BranchName) -> BranchSpec {
    let spec = BranchSpec {
        source_branch: Some(source.clone()),
        source_branch_time: request.at,
        is_protected: request.protected.then_some(true),
        ..BranchSpec::default()
    };
    match request.expiry {
        Expiry::After(ttl) => BranchSpec { ttl: Some(ttl), ..spec },
        Expiry::At(moment) => BranchSpec { expire_time: Some(moment), ..spec },
        Expiry::Never => BranchSpec { no_expiry: Some(true), ..spec },
    }
}

/// Takes over a branch that is there already: same source, expiry refreshed.
async fn reuse(
    api: &Client,
    request: &Create,
    source: &BranchName,
    existing: Branch,
) -> Result<Branch> {
    same_lineage(request, source, &existing)?;
    let (spec, mask) = refreshed(request, &existing);
    if mask.is_empty() {
        return Ok(existing);
    }
    let pending = api.update_branch(&existing.name, &Body { spec }, &mask.join(",")).await?;
    let awaited = format!("refreshing branch `{}`", existing.name.short());
    Ok(api.wait(pending, &awaited, request.wait).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_minute_that_the_workspace_stumbles_over_is_passed_by_a_millisecond() {
        let failure = crate::wire::failure::Failure {
            error_code: "INTERNAL_ERROR".to_owned(),
            ..Default::default()
        };
        let internal = api::Error::Operation { name: "o".to_owned(), failure: Box::new(failure) };
        let spec = |text: &str| BranchSpec {
            source_branch_time: Some(text.parse().unwrap()),
            ..BranchSpec::default()
        };

        assert_eq!(
            past_the_minute(&internal, &spec("2026-11-20T10:00:00Z")).unwrap().to_string(),
            "2026-11-20T10:00:00.001Z"
        );
        assert_eq!(past_the_minute(&internal, &spec("2026-11-20T10:00:01Z")), None);
    }
}
