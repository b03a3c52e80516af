//! What a failed call does with the branches it created.
//!
//! Ours is what our own operation returned. The platform knows neither an idempotency key nor a
//! conditional deletion: a creation whose answer was lost cannot be told from somebody else's, and
//! what somebody does between the last look at a branch and its deletion is not seen. Therefore the
//! former is never removed, and the latter is a soft deletion that `undelete` undoes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::api::{self, Client, DeletableBranch, Pending, Poll, there};
use crate::error::Error;
use crate::ops::parallel;
use crate::ui::Steps;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Body, Branch, BranchSpec};

/// A creation that was sent; whoever waits for it drives it, and it is kept until it was answered.
type Sent = Shared<BoxFuture<'static, api::Result<Pending<Branch>>>>;

/// The creations that a call has sent, and what was answered.
#[derive(Default)]
pub(super) struct Journal {
    sent: Mutex<BTreeMap<BranchName, Vec<Sent>>>,
}

impl Journal {
    /// Sends the creation of the branch `name`.
    ///
    /// Its answer arrives also when nobody waits for it here any more.
    pub(super) fn send(&self, api: &Client, name: &BranchName, body: Body<BranchSpec>) -> Sent {
        let (api, branch) = (api.clone(), name.clone());
        let call = async move { api.create_branch(&branch, &body, false).await };
        let sent = call.boxed().shared();
        self.locked().entry(name.clone()).or_default().push(sent.clone());
        sent
    }

    /// Returns the branches of which nobody can say whether this call created them.
    pub(super) fn unproven(&self) -> Vec<BranchName> {
        let mut open = self.open();
        open.retain(|_, sent| !sent.iter().any(|sent| matches!(sent.peek(), Some(Ok(_)))));
        open.into_keys().collect()
    }

    /// Returns the creations that took place, or may have.
    fn open(&self) -> BTreeMap<BranchName, Vec<Sent>> {
        let refused =
            |sent: &Sent| matches!(sent.peek(), Some(Err(error)) if !error.may_have_happened());
        let mut open = self.locked().clone();
        open.retain(|_, sent| !sent.iter().all(refused));
        open
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<BranchName, Vec<Sent>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of one branch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Undone {
    /// There was nothing to remove.
    Nothing,
    /// It is deleted.
    Removed,
    /// It is ours, and somebody else changed it since.
    Kept(String),
    /// It is there, and may be ours or somebody else's.
    Unproven,
    /// It is ours and could not be deleted.
    Left(String),
    /// Time was up.
    Unfinished,
}

/// Removes what this call created, after `error`, within `limit`; adds to the error what became of it.
pub(super) async fn roll_back(
    api: &Client,
    steps: &Steps,
    journal: &Journal,
    limit: Duration,
    error: Error,
) -> Error {
    let open = journal.open();
    if open.is_empty() {
        return error;
    }
    let names: Vec<String> = open.keys().map(BranchName::short).collect();
    steps.note(format!("removing what this call created: {}", names.join(", ")));
    let undone = open.keys().map(|name| (name.clone(), Undone::Unfinished)).collect();
    let undone: Mutex<BTreeMap<BranchName, Undone>> = Mutex::new(undone);
    let locked = || undone.lock().unwrap_or_else(PoisonError::into_inner);
    steps.would_leave(explain(&locked(), error.clone()));
    let one = async |(name, sent): (BranchName, Vec<Sent>)| {
        let outcome = undo(api, &name, sent, limit).await;
        let mut undone = locked();
        undone.insert(name, outcome);
        steps.would_leave(explain(&undone, error.clone()));
    };
    let all = parallel::each(open, one);
    // What is not finished by then is told as such.
    let _ = tokio::time::timeout(limit, all).await;
    explain(&locked(), error.clone())
}

/// Adds to `error` what became of each branch.
fn explain(undone: &BTreeMap<BranchName, Undone>, error: Error) -> Error {
    let error = sentences(undone).into_iter().fold(error, Error::why);
    let left: Vec<String> = undone
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Undone::Left(_) | Undone::Unfinished))
        .map(|(name, _)| name.short())
        .collect();
    if left.is_empty() {
        return error;
    }
    error.hint(format!("lakeforge branch delete {}", left.join(" ")))
}

/// Says what became of the branches, one sentence for those that are gone and one for each other.
fn sentences(undone: &BTreeMap<BranchName, Undone>) -> Vec<String> {
    let removed: Vec<String> = undone
        .iter()
        .filter(|(_, outcome)| **outcome == Undone::Removed)
        .map(|(name, _)| name.short())
        .collect();
    let removed = (!removed.is_empty()).then(|| format!("removed again: {}", removed.join(", ")));
    let rest = undone.iter().filter_map(|(name, outcome)| {
        let name = name.short();
        match outcome {
            Undone::Nothing | Undone::Removed => None,
            Undone::Kept(why) => Some(format!("kept: {name}: {why}")),
            Undone::Unproven => Some(format!(
                "left as it is: {name}: the answer to its creation was lost, so it may be somebody else's"
            )),
            Undone::Left(why) => Some(format!("left behind: {name}: {why}")),
            Undone::Unfinished => {
                Some(format!("left behind, if it was created: {name}: there was no time to remove it"))
            }
        }
    });
    removed.into_iter().chain(rest).collect()
}

/// Removes the branch `name` if this call created it.
async fn undo(api: &Client, name: &BranchName, sent: Vec<Sent>, limit: Duration) -> Undone {
    let poll = Poll::new(limit);
    let mut answered = None;
    for sent in sent {
        answered = sent.await.ok().or(answered);
    }
    let Some(pending) = answered else { return unproven(api, name, poll).await };
    let awaited = format!("creating branch `{}`", name.short());
    match api.wait(pending, &awaited, poll.left()).await {
        Ok(made) => remove(api, &made, poll).await,
        Err(api::Error::Operation { .. }) => unproven(api, name, poll).await,
        Err(error) => Undone::Left(Error::from(error).to_string()),
    }
}

/// Looks whether a branch is there that may be ours; its creation may arrive after the first look.
async fn unproven(api: &Client, name: &BranchName, mut poll: Poll) -> Undone {
    for last in [false, true] {
        match there(api.get_branch(name).await) {
            Ok(None) if last || !poll.pause().await => return Undone::Nothing,
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Undone::Unproven,
        }
    }
    Undone::Nothing
}

/// Deletes the branch `made`, unless it is not as our operation returned it any more.
async fn remove(api: &Client, made: &Branch, mut poll: Poll) -> Undone {
    let branch = match DeletableBranch::disposable(made) {
        Ok(branch) => branch,
        Err(dear) => return Undone::Kept(dear.why),
    };
    loop {
        let done = match api.delete_branch(&branch, false).await {
            Ok(pending) => {
                api.wait::<serde_json::Value>(pending, "its deletion", poll.left()).await
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => return Undone::Removed,
            Err(error) if error.is_not_found() => return Undone::Removed,
            // Busy with creating it: the workspace says so with 409.
            Err(error) if error.is_conflict() && poll.pause().await => {}
            Err(error) => return refused(api, &made.name, error).await,
        }
    }
}

/// Says why a branch of ours was not deleted.
async fn refused(api: &Client, name: &BranchName, error: api::Error) -> Undone {
    if let api::Error::Changed(error) = error {
        return Undone::Kept(error.reasons().join(", "));
    }
    let known = api.list_branches(&name.parent()).await.unwrap_or_default();
    let children: Vec<&str> = known
        .iter()
        .filter(|child| child.status.source_branch.as_ref() == Some(name))
        .map(|child| child.name.branch.as_str())
        .collect();
    if children.is_empty() {
        return Undone::Left(Error::from(error).to_string());
    }
    Undone::Kept(format!("others were copied from it: {}", children.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_error_says_of_each_branch_what_became_of_it() {
        let name =
            |id: &str| -> BranchName { format!("projects/shop/branches/{id}").parse().unwrap() };
        let undone = BTreeMap::from([
            (name("a"), Undone::Removed),
            (name("b"), Undone::Kept("somebody refreshed it since".to_owned())),
            (name("c"), Undone::Unproven),
            (name("d"), Undone::Left("no".to_owned())),
            (name("e"), Undone::Unfinished),
            (name("f"), Undone::Nothing),
            (name("g"), Undone::Removed),
        ]);

        let error = explain(&undone, Error::new(Kind::Failed, "no"));

        assert_eq!(error.hint_text(), Some("lakeforge branch delete shop/d shop/e"));
        let reasons = error.reasons();
        assert_eq!(reasons[0], "removed again: shop/a, shop/g");
        for (reason, start) in reasons[1..].iter().zip([
            "kept: shop/b: somebody",
            "left as it is: shop/c",
            "left behind: shop/d: no",
            "left behind, if it was created: shop/e",
        ]) {
            assert!(reason.starts_with(start), "{reason}");
        }
        assert_eq!(reasons.len(), 5);
    }
}
