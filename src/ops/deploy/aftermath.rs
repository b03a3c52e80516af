//! What became of a plan that was cut off: the workspace is asked, as nobody else knows.

use std::time::Duration;

use super::remove::{Thing, exists};
use crate::api::Client;
use crate::error::{Error, Kind};
use crate::ops::change::{Action, Change};
use crate::ops::parallel;
use crate::ui::Steps;

/// How long looking may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Adds to `error` which of `changes` were carried out and which were not, when a signal is the
/// reason for it.
pub(crate) async fn explain(
    api: &Client,
    steps: &Steps,
    changes: &[Change],
    error: Error,
) -> Error {
    if !matches!(error.kind(), Kind::Interrupted | Kind::Terminated) {
        return error;
    }
    let unknown = || sentences(changes, &vec![None; changes.len()]);
    steps.would_leave(unknown().into_iter().fold(error.clone(), Error::why));
    let looked = parallel::each(changes, |change| is_done(api, change));
    let lines = match tokio::time::timeout(LIMIT, looked).await {
        Ok(done) => sentences(changes, &done),
        Err(_) => unknown(),
    };
    let error = lines.into_iter().fold(error, Error::why);
    match error.hint_text() {
        None => error.hint("the same command again goes on from there"),
        Some(_) => error,
    }
}

/// Returns whether `change` was carried out, where that can be seen.
async fn is_done(api: &Client, change: &Change) -> Option<bool> {
    let is_there = async || exists(api, &Thing::named(change.kind(), &change.name)?).await.ok();
    match change.action {
        Action::Create => is_there().await,
        Action::Delete => is_there().await.map(|there| !there),
        Action::Update | Action::Recreate | Action::Unchanged | Action::Unknown(_) => None,
    }
}

/// Says of all `changes` but those that change nothing whether they are done.
fn sentences(changes: &[Change], done: &[Option<bool>]) -> Vec<String> {
    let said = |change: &Change| {
        let name = if change.name.is_empty() { &change.resource } else { &change.name };
        format!("{} {name}", change.action.word())
    };
    let of = |wanted: Option<bool>| -> Vec<String> {
        let all = changes.iter().zip(done).filter(|(_, done)| **done == wanted);
        all.map(|(change, _)| change)
            .filter(|change| change.action != Action::Unchanged)
            .map(said)
            .collect()
    };
    [("done", Some(true)), ("not done", Some(false)), ("not known whether done", None)]
        .into_iter()
        .map(|(word, wanted)| (word, of(wanted)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(word, names)| format!("{word}: {}", names.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_told_from_what_is_not() {
        let change = |action, name: &str| Change {
            action,
            resource: "apps.key".to_owned(),
            name: name.to_owned(),
        };
        let changes = [
            change(Action::Create, "web"),
            change(Action::Delete, "old"),
            change(Action::Update, ""),
            change(Action::Unchanged, "same"),
        ];

        assert_eq!(
            sentences(&changes, &[Some(true), Some(false), None, None]),
            ["done: create web", "not done: delete old", "not known whether done: update apps.key"]
        );
        assert_eq!(sentences(&changes[3..], &[None]), Vec::<String>::new());
    }
}
