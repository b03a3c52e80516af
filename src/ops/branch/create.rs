//! Creating and restoring branches: all projects or none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::make::{self, Journal};
use crate::api::{Client, DeletableBranch, Poll};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::names::Resolved;
use crate::ops::parallel;
use crate::time::Ttl;
use crate::ui::Steps;
use crate::wire::names::{BranchName, EndpointName};

/// How long removing what a failed call created may take.
const TIDY_LIMIT: Duration = Duration::from_secs(60);

/// When a new branch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// This long from now.
    After(Ttl),
    /// At a moment.
    At(Timestamp),
    /// Never.
    Never,
}

/// What to create: the same branch in each of several projects.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    /// The new branches, one per project.
    pub(crate) branches: Vec<Resolved>,
    /// Id of the branch to copy, instead of each project's default branch.
    pub(crate) from: Option<String>,
    /// Moment of the source to go back to.
    pub(crate) at: Option<Timestamp>,
    /// When the branches end.
    pub(crate) expiry: Expiry,
    /// Whether they are protected.
    pub(crate) protected: bool,
    /// How long to wait until SQL works.
    pub(crate) wait: Duration,
    /// Only look, and say what would be done.
    pub(crate) dry_run: bool,
}

/// What became of one branch.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Created {
    /// Full name.
    pub(crate) name: BranchName,
    /// What was done, or would be.
    pub(crate) outcome: Outcome,
    /// Whether this call created it.
    pub(crate) created: bool,
    /// The branch it was copied from.
    pub(crate) source: Option<BranchName>,
    /// The moment that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_time: Option<Timestamp>,
    /// The moment of the source it really starts from.
    pub(crate) source_time: Option<Timestamp>,
    /// When it ends.
    pub(crate) expire_time: Option<Timestamp>,
    /// Endpoint that took SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<EndpointName>,
    /// Host of that endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Time until SQL worked, in milliseconds.
    pub(crate) elapsed_ms: u64,
}

/// What was done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Created.
    Created,
    /// There already, with the same source; its expiry was refreshed.
    Reused,
    /// It would be created.
    WouldCreate,
    /// It would be reused.
    WouldReuse,
}

/// Creates the branches of `request`, or reuses those that have the same source, and waits until
/// SQL works on each.
///
/// All or nothing: when one fails or the user interrupts, what this call created is removed again.
/// Fails with `Conflict` when a branch exists with another source.
pub(crate) async fn create(api: &Client, steps: &Steps, request: Create) -> Result<Vec<Created>> {
    refuse_the_future(&request)?;
    let (journal, request) = (Mutex::new(Journal::default()), &request);
    let one = |target: &Resolved| {
        let name = target.name.clone();
        let journal = &journal;
        async move { timed(api, steps, request, &name, journal).await }
    };
    let work = parallel::all(&request.branches, one);
    match steps.unless_interrupted(work).await.flatten() {
        Ok(created) => Ok(created),
        Err(error) => {
            let made = journal.lock().unwrap_or_else(PoisonError::into_inner).made();
            Err(tidy(api, steps, made, error).await)
        }
    }
}

fn refuse_the_future(request: &Create) -> Result<()> {
    match request.at {
        Some(at) if at > Timestamp::now() => {
            Err(Error::new(Kind::Usage, "cannot restore to a moment in the future")
                .why(format!("{at} has not come yet")))
        }
        _ => Ok(()),
    }
}

async fn timed(
    api: &Client,
    steps: &Steps,
    request: &Create,
    name: &BranchName,
    journal: &Mutex<Journal>,
) -> Result<Created> {
    let start = Instant::now();
    let verb = if request.at.is_some() { "restore" } else { "create" };
    let step = steps.lane(name.short(), "looking at the project");
    let mut created = make::branch(api, &step, request, name, journal)
        .await
        .doing(|| format!("could not {verb} branch `{}`", name.short()))?;
    created.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(created)
}

/// Removes what this call created, after `error`, and says what could not be removed.
async fn tidy(api: &Client, steps: &Steps, made: Vec<BranchName>, error: Error) -> Error {
    if made.is_empty() {
        return error;
    }
    let names: Vec<String> = made.iter().map(BranchName::short).collect();
    steps.note(format!("removing what this call created: {}", names.join(", ")));
    let results = parallel::each(&made, |name| remove(api, name)).await;
    let left: Vec<&BranchName> = made
        .iter()
        .zip(&results)
        .filter(|(_, result)| result.is_err())
        .map(|(name, _)| name)
        .collect();
    if left.is_empty() {
        return error.why(format!("removed again: {}", names.join(", ")));
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    error
        .why(format!("could not be removed again: {}", left.join(", ")))
        .hint(format!("lakeforge branch delete {}", left.join(" ")))
}

/// Deletes a branch that is perhaps still being made; one that is gone is as good.
///
/// A request that was cut off may arrive after this one, so what is not there is looked for twice.
async fn remove(api: &Client, name: &BranchName) -> Result<()> {
    let mut poll = Poll::new(TIDY_LIMIT);
    let mut missing = false;
    loop {
        let branch = match api.get_branch(name).await {
            Ok(branch) => Ok(DeletableBranch::disposable(&branch)?),
            Err(error) => Err(error),
        };
        let pending = match branch {
            Ok(branch) => api.delete_branch(&branch, true).await,
            Err(error) => Err(error),
        };
        let done = match pending {
            Ok(pending) => api.wait::<serde_json::Value>(pending, "deletion", poll.left()).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() && missing => return Ok(()),
            Err(error) if error.is_not_found() => {
                missing = true;
                poll.pause().await;
            }
            // Busy with creating it: the workspace says so with 409.
            Err(error) if error.is_conflict() && poll.pause().await => {}
            Err(error) => return Err(error.into()),
        }
    }
}
