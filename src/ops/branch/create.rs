//! Creating and restoring branches: planned, then done in all projects or in none.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ensure;
use super::plan::{self, Planned};
use super::request::{Create, Created, Outcome};
use super::roll_back::{Journal, roll_back};
use crate::api::{Client, Poll};
use crate::error::{Doing, Result};
use crate::ops::creds::{self, Connection};
use crate::ops::parallel;
use crate::ui::Steps;
use crate::wire::names::BranchName;
use crate::wire::postgres::Branch;

/// Least and most time for removing what a failed call created; in between, as long as was to be
/// waited for the branch.
const ROLL_BACK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What is to be done for a request.
#[derive(Debug)]
pub(crate) struct CreatePlan {
    request: Create,
    branches: Vec<Planned>,
    start: Instant,
}

impl CreatePlan {
    /// Returns what would become of each branch.
    pub(crate) fn preview(&self, now: Timestamp) -> Vec<Created> {
        self.branches.iter().map(|planned| planned.preview(&self.request, now)).collect()
    }
}

/// Looks at the projects of `request` and refuses what would fail; changes nothing.
///
/// Fails with `Conflict` when a branch exists with another source.
pub(crate) async fn plan_create(
    api: &Client,
    steps: &Steps,
    request: Create,
) -> Result<CreatePlan> {
    request.check(Timestamp::now())?;
    let start = Instant::now();
    let wanted = &request;
    let one = async |name: &BranchName| {
        let step = steps.lane(name.short(), "looking at the project");
        plan::look(api, &step, wanted, name, Poll::new(wanted.wait))
            .await
            .doing(|| wanted.failure(name))
    };
    let branches = parallel::all(&request.branches, |target| one(&target.name)).await?;
    Ok(CreatePlan { request, branches, start })
}

/// Creates the branches of `plan`, or reuses those that are there, and waits until SQL works on each.
///
/// All or nothing: when one fails or the user interrupts, what this call created is removed again.
pub(crate) async fn create(api: &Client, steps: &Steps, plan: CreatePlan) -> Result<Vec<Created>> {
    create_until(api, steps, plan, &creds::ready).await
}

/// Creates the branches of `plan`; `ready` waits until one takes SQL.
pub(crate) async fn create_until(
    api: &Client,
    steps: &Steps,
    plan: CreatePlan,
    ready: &impl AsyncFn(&Client, &BranchName, Duration) -> Result<Connection>,
) -> Result<Vec<Created>> {
    let (journal, CreatePlan { request, branches, start }) = (Journal::default(), plan);
    let one = async |planned: Planned| {
        let name = planned.name.clone();
        let step = steps.lane(name.short(), planned.step());
        let mut created = ensure::branch(api, &step, &request, planned, &journal, ready)
            .await
            .doing(|| request.failure(&name))?;
        created.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(created)
    };
    let work = parallel::all(branches, one);
    match steps.unless_interrupted(work).await.flatten() {
        Ok(created) => {
            for name in journal.unproven() {
                steps.warn(format!(
                    "the answer to the creation of `{}` was lost: it counts as one that was there",
                    name.short()
                ));
            }
            Ok(created)
        }
        Err(error) => {
            let limit = request.wait.clamp(ROLL_BACK.0, ROLL_BACK.1);
            Err(roll_back(api, steps, &journal, limit, error).await)
        }
    }
}

impl Create {
    /// Says that the branch `name` could not be made.
    fn failure(&self, name: &BranchName) -> String {
        let verb = if self.at.is_some() { "restore" } else { "create" };
        format!("could not {verb} branch `{}`", name.short())
    }
}

impl Created {
    /// Returns the answer for a branch that is there.
    pub(super) fn of(request: &Create, branch: Branch, outcome: Outcome) -> Self {
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

    /// Adds where it took SQL.
    pub(super) fn at(self, connection: Connection) -> Self {
        Created { endpoint: Some(connection.endpoint), host: Some(connection.host), ..self }
    }
}
