//! One branch in one project: create or reuse, wait until SQL works.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::lineage::refreshed;
use super::plan::{self, Planned};
use super::request::{Create, Created, Expiry, Outcome};
use super::roll_back::Journal;
use crate::api::{self, Client, Poll, there};
use crate::error::{Error, Kind, Result};
use crate::ops::creds::Connection;
use crate::ui::Step;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Body, Branch, BranchSpec};

/// How often is begun again after somebody else was quicker, or an answer was lost.
const ROUNDS: u32 = 5;

/// What one try gave.
enum Attempt {
    /// The branch is there.
    There(Box<Branch>, Outcome),
    /// What was planned is not true any more: look again. The reason counts when that does not help.
    Again(Error),
}

/// Makes sure that the branch of `planned` exists as `request` wants it, and that it takes SQL,
/// which `ready` waits for.
///
/// A branch that another call made in the meantime is reused, and one that another call removed
/// while it was waited for is made anew.
pub(super) async fn branch(
    api: &Client,
    step: &Step,
    request: &Create,
    mut planned: Planned,
    journal: &Journal,
    ready: &impl AsyncFn(&Client, &BranchName, Duration) -> Result<Connection>,
) -> Result<Created> {
    let mut poll = Poll::new(request.wait);
    for round in 1.. {
        step.say(planned.step());
        let attempt = match &planned.existing {
            Some(existing) => reuse(api, request, existing, poll.left()).await?,
            None => make(api, request, &planned, journal, poll.left()).await?,
        };
        let again = match attempt {
            Attempt::There(branch, outcome) => {
                step.say("waiting for SQL");
                let connection = ready(api, &branch.name, poll.left()).await;
                if outcome == Outcome::Created || is_still(api, &branch).await? {
                    return Ok(Created::of(request, *branch, outcome).at(connection?));
                }
                Error::new(Kind::NotFound, "somebody else removed it while it was waited for")
            }
            Attempt::Again(error) => error,
        };
        if round == ROUNDS || !poll.pause().await {
            return Err(again);
        }
        step.say("looking again");
        planned = plan::look(api, step, request, &planned.name, Poll::new(poll.left())).await?;
    }
    unreachable!("the loop ends by itself")
}

/// Returns whether `branch` is still the one that has its name.
async fn is_still(api: &Client, branch: &Branch) -> Result<bool> {
    let now = there(api.get_branch(&branch.name).await)?;
    Ok(now.is_some_and(|now| now.uid == branch.uid))
}

/// Creates the branch.
///
/// A name that is taken by now, or an answer that was lost, is settled by looking again: nobody can
/// say of a branch that is there then that this call made it.
async fn make(
    api: &Client,
    request: &Create,
    planned: &Planned,
    journal: &Journal,
    wait: Duration,
) -> Result<Attempt> {
    let name = &planned.name;
    let mut spec = specification(request, &planned.source);
    loop {
        let error = match journal.send(api, name, Body { spec: spec.clone() }).await {
            Ok(pending) => {
                let awaited = format!("creating branch `{}`", name.short());
                let branch = api.wait(pending, &awaited, wait).await?;
                return Ok(Attempt::There(Box::new(branch), Outcome::Created));
            }
            Err(error) => error,
        };
        if error.is_reply_lost() || error.is_conflict() {
            return Ok(Attempt::Again(error.into()));
        }
        match past_the_minute(&error, &spec) {
            Some(moment) => spec.source_branch_time = Some(moment),
            None => return Err(error.into()),
        }
    }
}

/// Returns a moment one millisecond later when the workspace stumbled over a whole minute, which
/// live workspaces were reported to do.
fn past_the_minute(error: &api::Error, spec: &BranchSpec) -> Option<Timestamp> {
    let moment = spec.source_branch_time?;
    let whole = moment.as_millisecond() % 60_000 == 0;
    (error.is_internal() && whole).then(|| moment + SignedDuration::from_millis(1))
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

/// Refreshes the expiry of a branch that is there already, also where that changes nothing: it
/// tells the call that made the branch that somebody else uses it.
async fn reuse(
    api: &Client,
    request: &Create,
    existing: &Branch,
    wait: Duration,
) -> Result<Attempt> {
    let (spec, mask) = refreshed(request, existing);
    let gone = || Error::new(Kind::NotFound, "somebody else removed it before it could be used");
    let pending = match api.update_branch(&existing.name, &Body { spec }, &mask.join(",")).await {
        Ok(pending) => pending,
        Err(error) if error.is_not_found() => return Ok(Attempt::Again(gone())),
        Err(error) => return Err(error.into()),
    };
    let awaited = format!("refreshing branch `{}`", existing.name.short());
    let branch = api.wait(pending, &awaited, wait).await?;
    if branch.uid != existing.uid {
        return Ok(Attempt::Again(gone()));
    }
    Ok(Attempt::There(Box::new(branch), Outcome::Reused))
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
