//! Deleting branches: planned, agreed to, then done.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{Client, DeletableBranch, Unconfirmed};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Action, Change};
use crate::ops::deploy::{Entry, Others};
use crate::ops::names::{self, Resolved};
use crate::ops::{deploy, parallel, protection};
use crate::ui::Steps;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::Branch;

/// What is to be deleted, children before their sources.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct DeletePlan {
    /// The branches.
    pub(crate) branches: Vec<BranchToDelete>,
    /// Branches that are deleted already, by an earlier run perhaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) deleted: Vec<BranchName>,
}

/// A branch to delete.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BranchToDelete {
    /// Full name.
    pub(crate) name: BranchName,
    /// When it was created.
    pub(crate) create_time: Option<Timestamp>,
    /// The branch it was copied from.
    pub(crate) source: Option<BranchName>,
    /// Whether its protection is taken off first.
    pub(crate) protected: bool,
    #[serde(skip)]
    deletable: DeletableBranch,
}

impl BranchToDelete {
    /// Takes `branch`, which goes without being asked for by name only when it can be done without.
    fn new(branch: &Branch, confirmed: &[String]) -> Result<Self, Unconfirmed> {
        let deletable = DeletableBranch::confirmed(branch, confirmed)?;
        Ok(BranchToDelete {
            name: branch.name.clone(),
            create_time: branch.create_time,
            source: branch.status.source_branch.clone(),
            protected: deletable.is_protected(),
            deletable,
        })
    }
}

/// A branch that was deleted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deleted {
    /// Full name.
    pub(crate) name: BranchName,
}

/// Looks at the branches to delete and refuses what is not safe.
///
/// `confirm` holds the exact ids or full names of branches that may go although they are default,
/// protected or their project's production. With `some_missing` a branch that does not exist in some
/// projects is passed over, and so is in any case one that is deleted already. Fails with `NotFound`, and with `Refused` for a branch that needs
/// `confirm` or that others were copied from.
pub(crate) async fn plan_delete(
    api: &Client,
    branches: Vec<Resolved>,
    confirm: &[String],
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
    let (mut missing, mut unconfirmed, mut parents) = (None, Vec::new(), Ok(()));
    for (names, known) in parallel::all(wanted, one).await? {
        for name in &names {
            match known.iter().find(|branch| branch.name == *name) {
                None if is_deleted(api, name).await => plan.deleted.push(name.clone()),
                None if some_missing => missing = Some(names::unknown_branch(name, &known)),
                None => return Err(names::unknown_branch(name, &known)),
                Some(branch) => parents = parents.and(refuse_parent(branch, &known, &names)),
            }
        }
        for branch in children_first(&names, &known) {
            let confirmed = in_full(confirm, &branch.name);
            unconfirmed.extend(managed(api, branch, &confirmed).await?);
            match BranchToDelete::new(branch, &confirmed) {
                Ok(branch) => plan.branches.push(branch),
                Err(one) => unconfirmed.push(one),
            }
        }
    }
    if !unconfirmed.is_empty() {
        return Err(Unconfirmed::refuse(&unconfirmed));
    }
    parents?;
    match missing {
        Some(missing) if plan.branches.is_empty() && plan.deleted.is_empty() => Err(missing),
        _ => Ok(plan),
    }
}

/// Asks for the name of a branch that a deployment manages, which would miss it.
async fn managed(api: &Client, branch: &Branch, names: &[String]) -> Result<Vec<Unconfirmed>> {
    let (short, full) = (branch.name.short(), branch.name.to_string());
    if names.contains(&short) || names.contains(&full) {
        return Ok(Vec::new());
    }
    let entry = Entry::of(&deletion(&branch.name));
    let others = Others::find(api, std::slice::from_ref(&entry), None).await?;
    let ask = |why| Unconfirmed { name: short.clone(), why };
    Ok(others.holders(&entry).into_iter().map(ask).collect())
}

/// Returns whether a branch that is not there is known to have been deleted.
async fn is_deleted(api: &Client, name: &BranchName) -> bool {
    let deleted = api.list_deleted_branches(&name.parent()).await.unwrap_or_default();
    deleted.iter().any(|branch| branch.name == *name)
}

/// Reads what `--confirm` says; an id alone is that of the branch in its own project.
fn in_full(confirm: &[String], branch: &BranchName) -> Vec<String> {
    let full = |name: &String| match name.contains('/') {
        true => name.clone(),
        false => branch.parent().branch(name).to_string(),
    };
    confirm.iter().map(full).collect()
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
fn children_first<'a>(names: &[BranchName], known: &'a [Branch]) -> Vec<&'a Branch> {
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
}

/// Deletes what `plan` holds; projects at the same time, within one in the plan's order.
///
/// Fails with `Partial` when some could not be deleted. Interrupted, it says which are deleted and
/// which are not; protection that was taken off what stays is put back.
pub(crate) async fn delete(
    api: &Client,
    steps: &Steps,
    plan: DeletePlan,
    wait: Duration,
) -> Result<Vec<Deleted>> {
    let names: Vec<BranchName> = plan.branches.iter().map(|branch| branch.name.clone()).collect();
    let mut of_project: BTreeMap<ProjectName, Vec<BranchToDelete>> = BTreeMap::new();
    for branch in plan.branches {
        of_project.entry(branch.name.parent()).or_default().push(branch);
    }
    let one = |branches: Vec<BranchToDelete>| async move {
        let mut results = Vec::new();
        for branch in branches {
            let _step = steps.lane(branch.name.short(), "deleting");
            results.push(delete_one(api, steps, &branch, wait).await);
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
    if let Some(error) = interruption(&failures) {
        let changes: Vec<Change> = names.iter().map(deletion).collect();
        return Err(deploy::explain(api, steps, &changes, error).await);
    }
    match (failures.len(), names.len()) {
        (0, _) => Ok(deleted),
        (1, 1) => Err(failures.remove(0)),
        (count, total) => {
            let error =
                Error::new(Kind::Partial, format!("{count} of {total} branches were not deleted"));
            Err(failures.iter().fold(error, |error, failure| error.why(failure.to_string())))
        }
    }
}

/// Makes one error of the interruption among `failures`, if there is one, and of what all of them say.
fn interruption(failures: &[Error]) -> Option<Error> {
    let is_signal = |error: &&Error| matches!(error.kind(), Kind::Interrupted | Kind::Terminated);
    let first = failures.iter().find(is_signal)?;
    let mut error = Error::new(first.kind(), first.message());
    for failure in failures {
        if is_signal(&failure) {
            error = failure.reasons().iter().fold(error, Error::why);
        } else {
            error = error.why(failure.to_string());
        }
        error = failure.hint_text().into_iter().fold(error, Error::hint);
    }
    Some(error)
}

fn deletion(name: &BranchName) -> Change {
    Change {
        action: Action::Delete,
        resource: format!("postgres_branches.{}", name.branch),
        name: name.to_string(),
    }
}

async fn delete_one(
    api: &Client,
    steps: &Steps,
    branch: &BranchToDelete,
    wait: Duration,
) -> Result<BranchName> {
    let name = &branch.name;
    let protected = branch.protected.then(|| name.clone());
    let deletion = async {
        let what = || format!("could not delete branch `{}`", name.short());
        remove(api, &branch.deletable, wait).await.doing(what)
    };
    protection::without(api, steps, protected, wait, deletion).await?;
    Ok(name.clone())
}

/// Deletes a branch; one that is gone by now is as good.
pub(crate) async fn remove(api: &Client, branch: &DeletableBranch, wait: Duration) -> Result<()> {
    let awaited = format!("deleting branch `{}`", branch.name().short());
    let done = match api.delete_branch(branch, false).await {
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
        let order: Vec<String> = children_first(&names, &known)
            .iter()
            .map(|branch| branch.name.branch.clone())
            .collect();
        assert_eq!(order, ["c", "b", "a"]);
    }
}
