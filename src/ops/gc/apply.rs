//! Looking for what may go, and removing it: each branch is looked at again just before.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::confirm::Confirmed;
use super::plan::{Decision, Plan, Reason, Recheck, Rules, plan, recheck};
use crate::api::{Client, DeletableBranch};
use crate::error::{Doing, Result};
use crate::ops::branch;
use crate::ops::{names, parallel};
use crate::ui::Steps;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::Branch;

/// What became of one branch that was to go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Removed {
    /// Full name.
    pub(crate) name: BranchName,
    /// Whether it is known to be gone.
    pub(crate) deleted: bool,
    /// What kept it, or may have.
    #[serde(flatten)]
    pub(crate) obstacle: Option<Obstacle>,
}

/// What kept a branch that was to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Obstacle {
    /// It has to stay after all.
    Kept(Reason),
    /// It could not be deleted.
    Error(String),
    /// The program was interrupted before, or while, it was deleted.
    Interrupted(Stage),
}

/// How far a deletion was when the program was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The workspace was not asked for it.
    NotBegun,
    /// The workspace was being asked for it; the branch may be gone.
    UnderWay,
}

impl Removed {
    fn new(name: BranchName, obstacle: Option<Obstacle>) -> Self {
        Removed { name, deleted: obstacle.is_none(), obstacle }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Branches that were looked at.
    pub(crate) seen: usize,
    /// Branches that stay.
    pub(crate) kept: usize,
    /// Branches that go, or went.
    pub(crate) deleted: usize,
    /// Branches that could not be deleted.
    pub(crate) failed: usize,
    /// Branches that were still to be deleted when the program was interrupted.
    pub(crate) interrupted: usize,
}

/// Reads all branches of `projects` and plans.
///
/// Fails when a project cannot be read: half a picture proves nothing.
pub(crate) async fn look(
    api: &Client,
    steps: &Steps,
    projects: BTreeSet<ProjectName>,
    now: Timestamp,
    rules: &Rules,
) -> Result<Plan> {
    if projects.is_empty() {
        return Ok(Plan::default());
    }
    let _step = steps.start("Reading the branches");
    let branches = branch::list(api, projects.into_iter().collect()).await?;
    Ok(plan(&branches, now, rules))
}

/// Deletes what was confirmed; `on_outcome` hears of each branch as it ends.
///
/// A branch that became a source, default, protected or busy since the plan stays, and so do one
/// that was made anew and one whose project cannot be read again. Interrupted, no deletion begins
/// any more, `on_outcome` hears of the branches that are left, and the answer is `Interrupted` or
/// `Terminated`.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    confirmed: &Confirmed<'_>,
    rules: &Rules,
    wait: Duration,
    on_outcome: &dyn Fn(Removed),
) -> Result<()> {
    let of_project = confirmed.deletions();
    let left = of_project.values().flatten().map(|going| (going.name.clone(), Stage::NotBegun));
    let journal = Journal { left: RefCell::new(left.collect()), on_outcome };
    let one = |(project, going)| {
        let journal = &journal;
        async move { clear(api, steps, &project, going, rules, wait, journal).await }
    };
    let done = steps.unless_interrupted(parallel::each(of_project, one)).await;
    for (name, stage) in journal.left.take() {
        on_outcome(Removed::new(name, Some(Obstacle::Interrupted(stage))));
    }
    done.map(drop)
}

/// How far each deletion is that has not ended.
struct Journal<'a> {
    left: RefCell<BTreeMap<BranchName, Stage>>,
    on_outcome: &'a dyn Fn(Removed),
}

impl Journal<'_> {
    fn begin(&self, name: &BranchName) {
        self.left.borrow_mut().insert(name.clone(), Stage::UnderWay);
    }

    fn end(&self, name: &BranchName, obstacle: Option<Obstacle>) {
        self.left.borrow_mut().remove(name);
        (self.on_outcome)(Removed::new(name.clone(), obstacle));
    }
}

/// Removes branches of one project, children before their sources.
async fn clear(
    api: &Client,
    steps: &Steps,
    project: &ProjectName,
    mut left: Vec<&Decision>,
    rules: &Rules,
    wait: Duration,
    journal: &Journal<'_>,
) {
    while !left.is_empty() {
        let branches = match api.list_branches(project).await {
            Ok(branches) => branches,
            Err(error) => {
                let error = names::explain_project(api, project, error).await.to_string();
                for planned in left {
                    journal.end(&planned.name, Some(Obstacle::Error(error.clone())));
                }
                return;
            }
        };
        let Some(planned) = next(&mut left, &branches) else { return };
        let name = &planned.name;
        let obstacle = match recheck(planned, &branches, Timestamp::now(), rules) {
            // Gone by itself since the plan, which is what was wanted.
            Recheck::Gone => None,
            Recheck::Stays(reason) => Some(Obstacle::Kept(reason)),
            Recheck::Goes(branch) => {
                let _step = steps.lane(name.short(), "deleting");
                journal.begin(name);
                remove(api, branch, wait)
                    .await
                    .err()
                    .map(|error| Obstacle::Error(error.to_string()))
            }
        };
        journal.end(name, obstacle);
    }
}

/// Takes a branch out of `left` that no other branch of `left` was copied from.
fn next<'p>(left: &mut Vec<&'p Decision>, branches: &[Branch]) -> Option<&'p Decision> {
    let is_left = |branch: &&Branch| left.iter().any(|planned| planned.name == branch.name);
    let is_source = |planned: &Decision| {
        branches
            .iter()
            .filter(is_left)
            .any(|branch| branch.status.source_branch.as_ref() == Some(&planned.name))
    };
    let index = left.iter().position(|planned| !is_source(planned)).unwrap_or(0);
    (!left.is_empty()).then(|| left.remove(index))
}

async fn remove(api: &Client, branch: &Branch, wait: Duration) -> Result<()> {
    let what = || format!("could not delete branch `{}`", branch.name.short());
    let deletable = DeletableBranch::disposable(branch).doing(what)?;
    branch::remove(api, &deletable, wait).await.doing(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_before_their_sources() {
        let branch = |id: &str, source: &str| -> Branch {
            serde_json::from_str(&format!(
                r#"{{"name":"projects/shop/branches/{id}","status":{{"source_branch":"projects/shop/branches/{source}"}}}}"#
            ))
            .unwrap()
        };
        let branches =
            [branch("pr-1", "production"), branch("pr-2", "pr-1"), branch("pr-3", "pr-2")];
        let planned = branches.each_ref().map(|branch| Decision {
            name: branch.name.clone(),
            reason: Reason::Closed,
            uid: branch.uid.clone(),
            create_time: branch.create_time,
            update_time: None,
            expire_time: None,
            pull_request: None,
        });
        let mut left: Vec<&Decision> = planned.iter().collect();

        let order: Vec<&str> = std::iter::from_fn(|| next(&mut left, &branches))
            .map(|planned| planned.name.branch.as_str())
            .collect();

        assert_eq!(order, ["pr-3", "pr-2", "pr-1"]);
    }
}
