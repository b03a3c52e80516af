//! Deleting branches: planned, agreed to, then done.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::Client;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::names::{self, Resolved};
use crate::ops::{parallel, precious};
use crate::ui::Steps;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Body, Branch, BranchSpec};

/// What is to be deleted, children before their sources.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct DeletePlan {
    /// The branches.
    pub(crate) branches: Vec<Victim>,
}

/// A branch to delete.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Victim {
    /// Full name.
    pub(crate) name: BranchName,
    /// When it was created.
    pub(crate) create_time: Option<Timestamp>,
    /// The branch it was copied from.
    pub(crate) source: Option<BranchName>,
    /// Whether its protection is taken off first.
    pub(crate) protected: bool,
}

/// A branch that was deleted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deleted {
    /// Full name.
    pub(crate) name: BranchName,
}

/// Looks at the branches to delete and refuses what is not safe.
///
/// `confirm` is the exact id or full name of the one branch that may go although it is default,
/// protected or the project's production. With `some_missing` a branch that does not exist in some
/// projects is passed over. Fails with `NotFound`, and with `Refused` for a branch that needs
/// `confirm` or that others were copied from.
pub(crate) async fn plan_delete(
    api: &Client,
    branches: Vec<Resolved>,
    confirm: Option<&str>,
    some_missing: bool,
) -> Result<DeletePlan> {
    let mut wanted: BTreeMap<ProjectName, Vec<BranchName>> = BTreeMap::new();
    for branch in branches {
        let of_project = wanted.entry(branch.name.parent()).or_default();
        if !of_project.contains(&branch.name) {
            of_project.push(branch.name);
        }
    }
    let one = |(project, names): (ProjectName, Vec<BranchName>)| async move {
        match api.list_branches(&project).await {
            Ok(known) => Ok((names, known)),
            Err(error) => Err(names::explain_project(api, &project, error).await),
        }
    };
    let mut plan = DeletePlan::default();
    let mut missing = None;
    for (names, known) in parallel::all(wanted, one).await? {
        for name in &names {
            match known.iter().find(|branch| branch.name == *name) {
                None if some_missing => missing = Some(names::unknown_branch(name, &known)),
                None => return Err(names::unknown_branch(name, &known)),
                Some(branch) => {
                    precious::refuse_branch(branch, confirm.as_slice())?;
                    refuse_parent(branch, &known, &names)?;
                }
            }
        }
        plan.branches.extend(children_first(&names, &known));
    }
    match missing {
        Some(missing) if plan.branches.is_empty() => Err(missing),
        _ => Ok(plan),
    }
}

fn refuse_parent(branch: &Branch, known: &[Branch], also: &[BranchName]) -> Result<()> {
    let children: Vec<&str> = known
        .iter()
        .filter(|child| child.status.source_branch.as_ref() == Some(&branch.name))
        .filter(|child| !also.contains(&child.name))
        .map(|child| child.name.branch.as_str())
        .collect();
    if children.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, format!("branch `{}` has children", branch.name.short()))
        .code("BRANCH_HAS_CHILDREN")
        .why(format!("copied from it: {}", children.join(", ")))
        .hint("delete those first, or name them too"))
}

/// Orders the branches so that each comes before the one it was copied from.
fn children_first(names: &[BranchName], known: &[Branch]) -> Vec<Victim> {
    let find = |name: &BranchName| known.iter().find(|branch| branch.name == *name);
    let depth = |branch: &Branch| {
        let mut depth = 0;
        let mut source = branch.status.source_branch.as_ref();
        // A lineage longer than all branches would be a circle.
        while let Some(parent) = source.and_then(find).filter(|_| depth <= known.len()) {
            depth += 1;
            source = parent.status.source_branch.as_ref();
        }
        depth
    };
    let mut found: Vec<&Branch> = names.iter().filter_map(find).collect();
    found.sort_by_key(|branch| std::cmp::Reverse(depth(branch)));
    found
        .into_iter()
        .map(|branch| Victim {
            name: branch.name.clone(),
            create_time: branch.create_time,
            source: branch.status.source_branch.clone(),
            protected: branch.status.is_protected,
        })
        .collect()
}

/// Deletes what `plan` holds; projects at the same time, within one in the plan's order.
///
/// Fails with `Partial` when some could not be deleted.
pub(crate) async fn delete(
    api: &Client,
    steps: &Steps,
    plan: DeletePlan,
    wait: Duration,
) -> Result<Vec<Deleted>> {
    let total = plan.branches.len();
    let mut of_project: BTreeMap<ProjectName, Vec<Victim>> = BTreeMap::new();
    for victim in plan.branches {
        of_project.entry(victim.name.parent()).or_default().push(victim);
    }
    let one = |victims: Vec<Victim>| async move {
        let mut results = Vec::new();
        for victim in victims {
            let _step = steps.lane(victim.name.short(), "deleting");
            results.push(delete_one(api, &victim, wait).await);
        }
        results
    };
    let mut deleted = Vec::new();
    let mut failures = Vec::new();
    for result in parallel::each(of_project.into_values(), one).await.into_iter().flatten() {
        match result {
            Ok(name) => deleted.push(Deleted { name }),
            Err(error) => failures.push(error),
        }
    }
    match failures.len() {
        0 => Ok(deleted),
        1 if total == 1 => Err(failures.remove(0)),
        count => {
            let error =
                Error::new(Kind::Partial, format!("{count} of {total} branches were not deleted"));
            Err(failures.iter().fold(error, |error, failure| error.why(failure.to_string())))
        }
    }
}

async fn delete_one(api: &Client, victim: &Victim, wait: Duration) -> Result<BranchName> {
    let name = &victim.name;
    let what = || format!("could not delete branch `{}`", name.short());
    if victim.protected {
        unprotect(api, name, wait).await.doing(what)?;
    }
    remove(api, name, wait).await.doing(what)?;
    Ok(name.clone())
}

/// Takes the protection off a branch.
pub(crate) async fn unprotect(api: &Client, name: &BranchName, wait: Duration) -> Result<()> {
    let spec = BranchSpec { is_protected: Some(false), ..BranchSpec::default() };
    let pending = api.update_branch(name, &Body { spec }, "spec.is_protected").await?;
    Ok(api.wait(pending, "taking the protection off", wait).await.map(drop)?)
}

/// Deletes a branch; one that is gone by now is as good.
pub(crate) async fn remove(api: &Client, name: &BranchName, wait: Duration) -> Result<()> {
    let awaited = format!("deleting branch `{}`", name.short());
    let done = match api.delete_branch(name, false).await {
        Ok(pending) => api.wait::<serde_json::Value>(pending, &awaited, wait).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(id: &str, source: Option<&str>, status: &str) -> Branch {
        let source = source.map_or(String::new(), |source| {
            format!(r#","source_branch":"projects/shop/branches/{source}""#)
        });
        serde_json::from_str(&format!(
            r#"{{"name":"projects/shop/branches/{id}","status":{{"branch_id":"{id}"{status}{source}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_source_goes_after_its_copies_or_not_at_all() {
        let known = [
            branch("production", None, r#","default":true"#),
            branch("a", Some("production"), ""),
            branch("b", Some("a"), ""),
            branch("c", Some("b"), ""),
        ];
        let names: Vec<BranchName> = known[1..].iter().map(|branch| branch.name.clone()).collect();

        assert!(refuse_parent(&known[1], &known, &names[..1]).is_err());
        assert!(refuse_parent(&known[1], &known, &names).is_ok());
        let order: Vec<String> =
            children_first(&names, &known).into_iter().map(|victim| victim.name.branch).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }
}
