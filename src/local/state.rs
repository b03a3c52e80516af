//! The state machine and what is on disk of it, kept in step.
//!
//! One change at a time goes from the state machine to the disk. A request's change that cannot be written is undone
//! and refused. What is noted has happened already, so it stays: it is written as soon as there is room.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use super::fault::{Answer, Fault};
use super::store::{Change, Shelf, Store};
use super::world::World;
use crate::error::Result;

/// The state of a running workspace.
pub(crate) struct State {
    world: Mutex<World>,
    store: Store,
    /// Held from a change to its end on disk.
    turn: Arc<tokio::sync::Mutex<Unwritten>>,
}

/// What was noted and could not be written yet, one change an object.
#[derive(Default)]
struct Unwritten {
    changes: Vec<Change>,
    /// Whether the last try to write failed.
    failing: bool,
}

type Turn = OwnedMutexGuard<Unwritten>;

/// What becomes of a change that cannot be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Undo,
    Keep,
}

impl State {
    /// Keeps `world` and `store`, where it was loaded from, in step.
    pub(crate) fn new(world: World, store: Store) -> Arc<Self> {
        Arc::new(State { world: Mutex::new(world), store, turn: Arc::default() })
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state and waits until the change is on disk.
    ///
    /// Fails, and leaves the state as it was, when `change` refuses or breaks off, or when it cannot be written.
    /// A caller that goes away meanwhile changes nothing of that.
    pub(crate) async fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Answer<T> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (result, changes) = self.apply(change);
        match result {
            Ok(value) => {
                self.write(turn, changes, Otherwise::Undo).await.map_err(Fault::internal)?;
                Ok(value)
            }
            Err(refused) => {
                self.undo(&turn, &changes);
                Err(refused)
            }
        }
    }

    /// Notes what has happened, and waits until that is on disk or cannot be written.
    pub(crate) async fn note(self: &Arc<Self>, change: impl FnOnce(&mut World)) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (result, changes) = self.apply(|world| {
            change(world);
            Ok(())
        });
        match result {
            // It is logged there, and tried again.
            Ok(()) => drop(self.write(turn, changes, Otherwise::Keep).await),
            Err(broken) => {
                self.undo(&turn, &changes);
                tracing::error!("{}", broken.failure.message);
            }
        }
    }

    /// Tries again to write what could not be written.
    pub(crate) async fn catch_up(self: &Arc<Self>) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if !turn.changes.is_empty() {
            let _ = self.write(turn, Vec::new(), Otherwise::Keep).await;
        }
    }

    /// Waits until everything so far is in its place on disk, as far as it can be.
    pub(crate) async fn flush(self: &Arc<Self>) {
        self.catch_up().await;
        if let Err(error) = self.store.settle().await {
            tracing::error!("{error}; it stays in the journal");
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A change that breaks off is undone before anybody else changes anything.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change; returns how that went, with the objects it has touched as they are now.
    fn apply<T>(&self, change: impl FnOnce(&mut World) -> Answer<T>) -> (Answer<T>, Vec<Change>) {
        let mut world = self.lock();
        let result = catch_unwind(AssertUnwindSafe(|| change(&mut world)));
        let result =
            result.unwrap_or_else(|_| Err(Fault::internal("a change of the state broke off")));
        (result, world.take_changes())
    }

    /// Writes `changes`, after what could not be written before.
    async fn write(
        self: &Arc<Self>,
        mut turn: Turn,
        changes: Vec<Change>,
        otherwise: Otherwise,
    ) -> Result<()> {
        if changes.is_empty() && turn.changes.is_empty() {
            return Ok(());
        }
        let state = Arc::clone(self);
        // On a task of its own: whoever asked may go away, and what was begun must come to its end.
        let written = tokio::spawn(async move {
            let all = [turn.changes.clone(), changes.clone()].concat();
            let result = state.store.commit(all).await;
            turn.tell(result.as_ref().err());
            match (&result, otherwise) {
                (Ok(()), _) => turn.changes.clear(),
                (Err(_), Otherwise::Undo) => state.undo(&turn, &changes),
                (Err(_), Otherwise::Keep) => turn.keep(changes),
            }
            result
        });
        written.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken).into()))
    }

    /// Makes the objects that were touched what they are on disk, or would be if they could be written.
    fn undo(&self, unwritten: &Unwritten, touched: &[Change]) {
        let mut world = self.lock();
        for Change { shelf, uid, .. } in touched {
            let was = self.last(unwritten, *shelf, uid).and_then(|was| {
                world
                    .restore(*shelf, uid, was.as_deref())
                    .map_err(|error| std::io::Error::from(error).into())
            });
            if let Err(error) = was {
                tracing::error!("a change of {shelf:?} {uid} could not be undone: {error}");
            }
        }
    }

    fn last(
        &self,
        unwritten: &Unwritten,
        shelf: Shelf,
        uid: &str,
    ) -> Result<Option<Box<RawValue>>> {
        match unwritten.changes.iter().find(|change| change.is_of(shelf, uid)) {
            Some(change) => Ok(change.content.clone()),
            None => self.store.committed(shelf, uid),
        }
    }
}

impl Unwritten {
    fn keep(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.changes.retain(|older| !older.is_of(change.shelf, &change.uid));
            self.changes.push(change);
        }
    }

    /// Logs that writing begins to fail, or is possible again.
    fn tell(&mut self, error: Option<&crate::error::Error>) {
        match error {
            Some(error) if !self.failing => {
                tracing::error!(
                    "{error}; changes are refused, and what has happened is written when there is room"
                );
            }
            None if self.failing => tracing::warn!("the state can be written again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::folder::OwnedFolder;
    use crate::local::store::trouble;
    use crate::local::world::Settings;

    const OBJECT: &str = "jobs/1";

    fn open(folder: &std::path::Path) -> Arc<State> {
        let store = Store::open(&OwnedFolder::of_test(folder)).unwrap();
        let settings = || Settings { workspace_id: 1, network: 1, port: 1 };
        State::new(World::load(&store, settings, 15).unwrap(), store)
    }

    fn grant(world: &mut World, user: &str) -> Answer<()> {
        let grant = serde_json::json!({ "user_name": user, "permission_level": "CAN_USE" });
        world.grant(OBJECT, vec![crate::local::world::parse(&grant)?], false)
    }

    fn granted(state: &State) -> Vec<String> {
        let list = state.read(|world| world.access(OBJECT));
        let name = |grant: &serde_json::Value| grant["user_name"].as_str().unwrap().to_owned();
        list["access_control_list"].as_array().unwrap().iter().map(name).collect()
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_is_undone_and_what_has_happened_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        state.change(|world| grant(world, "ana")).await.unwrap();
        let full = trouble::fill_after(folder.path(), 0);

        state.note(|world| grant(world, "ben").unwrap()).await;
        let refused = state.change(|world| grant(world, "eve")).await.unwrap_err();

        assert!(refused.failure.message.contains("could not write"), "{}", refused.failure.message);
        assert_eq!(granted(&state), ["ana", "ben"]);
        drop(full);
        state.catch_up().await;
        drop(state);
        assert_eq!(granted(&open(folder.path())), ["ana", "ben"]);
    }

    #[tokio::test]
    async fn a_change_that_is_refused_or_breaks_off_half_way_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        state.change(|world| grant(world, "ana")).await.unwrap();

        let refused = state.change(|world| {
            grant(world, "eve")?;
            Err::<(), _>(Fault::bad_request("no"))
        });
        assert_eq!(refused.await.unwrap_err().status, 400);
        let broken = state.change(|world| -> Answer<()> {
            grant(world, "eve")?;
            panic!("on purpose")
        });
        assert_eq!(broken.await.unwrap_err().status, 500);
        state
            .note(|world| {
                grant(world, "eve").unwrap();
                panic!("on purpose")
            })
            .await;

        assert_eq!(granted(&state), ["ana"]);
        state.change(|world| grant(world, "ben")).await.unwrap();
        drop(state);
        assert_eq!(granted(&open(folder.path())), ["ana", "ben"]);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_no_change_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(folder.path());
        for user in 0..100 {
            let (state, user) = (Arc::clone(&state), user.to_string());
            let caller =
                tokio::spawn(async move { state.change(|world| grant(world, &user)).await });
            tokio::task::yield_now().await;
            caller.abort();
        }
        // Whoever was in its turn has ended it when the next one begins.
        state.change(|world| grant(world, "last")).await.unwrap();

        let known = granted(&state);

        drop(state);
        assert_eq!(granted(&open(folder.path())), known);
    }
}
