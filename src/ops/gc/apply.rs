//! Looking for what may go, and removing it: each branch is looked at again just before.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::open_prs::OpenPullRequests;
use super::plan::{Decision, Plan, Reason, Rules, plan};
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
    /// Whether it is gone.
    pub(crate) deleted: bool,
    /// Why it stayed after all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Reason>,
    /// Why it could not be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
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
}

/// Reads all branches of `projects`, or of every project when none is named, and plans.
///
/// Fails when a project cannot be read: half a picture proves nothing.
pub(crate) async fn look(
    api: &Client,
    projects: Vec<ProjectName>,
    open: &OpenPullRequests,
    now: Timestamp,
    rules: &Rules,
) -> Result<Plan> {
    let branches = branch::list(api, projects).await?;
    Ok(plan(&branches, open, now, rules))
}

/// Deletes what `planned` lets go; `report` hears of each branch.
///
/// A branch that became a source, default, protected or busy since then stays, and so does one
/// whose project cannot be read again.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    planned: &Plan,
    open: &OpenPullRequests,
    rules: &Rules,
    wait: Duration,
) -> Vec<Removed> {
    let mut of_project: BTreeMap<ProjectName, Vec<Decision>> = BTreeMap::new();
    for decision in planned.deletions() {
        of_project.entry(decision.name.parent()).or_default().push(decision.clone());
    }
    let one = |(project, decisions): (ProjectName, Vec<Decision>)| async move {
        clear(api, steps, &project, decisions, open, rules, wait).await
    };
    parallel::each(of_project, one).await.into_iter().flatten().collect()
}

/// Removes branches of one project, children before their sources.
async fn clear(
    api: &Client,
    steps: &Steps,
    project: &ProjectName,
    decisions: Vec<Decision>,
    open: &OpenPullRequests,
    rules: &Rules,
    wait: Duration,
) -> Vec<Removed> {
    let mut removed: Vec<Removed> = Vec::new();
    let mut left: Vec<BranchName> = decisions.into_iter().map(|decision| decision.name).collect();
    while !left.is_empty() {
        let branches = match api.list_branches(project).await {
            Ok(branches) => branches,
            Err(error) => {
                let error = names::explain_project(api, project, error).await.to_string();
                removed.extend(left.into_iter().map(|name| failed(name, error.clone())));
                return removed;
            }
        };
        let now = plan(&branches, open, Timestamp::now(), rules);
        let Some(name) = next(&mut left, &branches) else { return removed };
        let _step = steps.lane(name.short(), "deleting");
        removed.push(match now.branches.iter().find(|decision| decision.name == name) {
            // Gone by itself since the plan, which is what was wanted.
            None => Removed { name, deleted: true, kept: None, error: None },
            Some(decision) if !decision.reason.deletes() => {
                Removed { name, deleted: false, kept: Some(decision.reason), error: None }
            }
            Some(_) => remove(api, name, &branches, wait).await,
        });
    }
    removed
}

/// Takes a branch out of `left` that no other branch of `left` was copied from.
fn next(left: &mut Vec<BranchName>, branches: &[Branch]) -> Option<BranchName> {
    let is_source = |name: &BranchName| {
        branches
            .iter()
            .filter(|branch| left.contains(&branch.name))
            .any(|branch| branch.status.source_branch.as_ref() == Some(name))
    };
    let index = left.iter().position(|name| !is_source(name)).unwrap_or(0);
    (!left.is_empty()).then(|| left.remove(index))
}

async fn remove(api: &Client, name: BranchName, branches: &[Branch], wait: Duration) -> Removed {
    let what = || format!("could not delete branch `{}`", name.short());
    let found = branches.iter().find(|branch| branch.name == name);
    let done = match found.map(DeletableBranch::disposable).transpose() {
        Ok(Some(branch)) => branch::remove(api, &branch, wait).await.doing(what),
        Ok(None) => Ok(()),
        Err(dear) => Err(dear).doing(what),
    };
    match done {
        Ok(()) => Removed { name, deleted: true, kept: None, error: None },
        Err(error) => failed(name, error.to_string()),
    }
}

fn failed(name: BranchName, error: String) -> Removed {
    Removed { name, deleted: false, kept: None, error: Some(error) }
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
        let mut left: Vec<BranchName> = branches.iter().map(|branch| branch.name.clone()).collect();

        let order: Vec<String> =
            std::iter::from_fn(|| next(&mut left, &branches)).map(|name| name.branch).collect();

        assert_eq!(order, ["pr-3", "pr-2", "pr-1"]);
    }
}
