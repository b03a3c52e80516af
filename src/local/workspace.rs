//! The running workspace: its state, what carries out the work, and the way both stay together.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};

use super::apps::Apps;
use super::fault::{Answer, Fault};
use super::faults::{self, Faults};
use super::files::Files;
use super::listeners::Listeners;
use super::postgres::Postgres;
use super::state::State;
use super::store::Store;
use super::tls::Authority;
use super::tokens::Keys;
use super::world::{Started, World, whole_millis};
use crate::wire::postgres::Operation;

/// How long a request waits for its own operation, so that quick ones come back finished.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clusters that are made or removed at the same time.
const JOBS: u32 = 4;

/// The running workspace.
pub(crate) struct Workspace {
    /// What it knows, in step with the disk.
    pub(crate) state: Arc<State>,
    /// What signs tokens.
    pub(crate) keys: Keys,
    /// The clusters behind the branches.
    pub(crate) postgres: Postgres,
    /// What certifies the endpoints.
    pub(crate) authority: Authority,
    /// The endpoints' sockets.
    pub(crate) listeners: Listeners,
    /// What is to go wrong on demand.
    pub(crate) faults: Faults,
    /// The apps' processes.
    pub(crate) apps: Apps,
    /// Workspace files.
    pub(crate) files: Files,
    /// Data folder.
    pub(crate) data: PathBuf,
    /// Base address of the REST API, without a slash at the end.
    pub(crate) host: String,
    /// Version of the PostgreSQL server.
    pub(crate) postgres_version: String,
    /// Turns true when the server is to stop.
    pub(crate) stop: watch::Sender<bool>,
    pub(super) jobs: Semaphore,
    /// One lock per branch whose roles and databases are being read or changed.
    catalogs: Mutex<HashMap<String, Weak<tokio::sync::Mutex<LastLook>>>>,
}

/// When the last look at the roles and databases of a branch began whose outcome is noted, for those who
/// waited meanwhile.
pub(super) type LastLook = Option<Instant>;

/// What a [`Workspace`] is made of.
pub(crate) struct Parts {
    pub(crate) world: World,
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) postgres: Postgres,
    pub(crate) authority: Authority,
    pub(crate) faults: Faults,
    pub(crate) apps: Apps,
    pub(crate) files: Files,
    pub(crate) data: PathBuf,
    pub(crate) host: String,
    pub(crate) postgres_version: String,
}

impl Workspace {
    /// Puts the parts together; nothing runs yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Workspace {
            listeners: Listeners::new(parts.world.settings.network),
            state: State::new(parts.world, parts.store),
            keys: parts.keys,
            postgres: parts.postgres,
            authority: parts.authority,
            faults: parts.faults,
            apps: parts.apps,
            files: parts.files,
            data: parts.data,
            host: parts.host,
            postgres_version: parts.postgres_version,
            stop: watch::Sender::new(false),
            jobs: Semaphore::new(JOBS as usize),
            catalogs: Mutex::default(),
        }
    }

    /// Returns the time as records keep it.
    pub(crate) fn now() -> Timestamp {
        whole_millis(Timestamp::now())
    }

    /// Returns the time by the clock that tokens are issued and checked by.
    pub(crate) fn token_time(&self) -> Timestamp {
        // A skew is a year at most.
        Workspace::now().saturating_add(self.faults.skew()).unwrap_or(Timestamp::MAX)
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        self.state.read(look)
    }

    /// Changes the state and waits until the change is on disk; see [`State::change`].
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Answer<T> {
        self.state.change(change).await
    }

    /// Notes what has happened; see [`State::note`].
    pub(crate) async fn note(&self, change: impl FnOnce(&mut World)) {
        self.state.note(change).await;
    }

    /// Starts a change that takes time and answers with its operation, finished if it was quick.
    ///
    /// A caller that goes away stops nothing.
    pub(crate) async fn start(
        self: &Arc<Self>,
        change: impl FnOnce(&mut World) -> Answer<Started> + Send + 'static,
    ) -> Answer<Operation> {
        let workspace = Arc::clone(self);
        // Asked here: what is spawned below is no longer part of the request.
        let extra = faults::extra_time();
        self.detached(async move {
            let started = workspace.change(change).await?;
            let doer = Arc::clone(&workspace);
            // First of all: whatever breaks off from here on, the change is carried out.
            let work = tokio::spawn(async move {
                if let Some(extra) = extra {
                    tokio::time::sleep(extra).await;
                }
                doer.carry_out(started.work).await;
            });
            if let Some(extra) = extra {
                workspace.faults.hold(&started.operation, extra);
            }
            // The work goes on when the wait ends first.
            let _ = tokio::time::timeout(PATIENCE, work).await;
            workspace.operation(&started.operation, None)
        })
        .await
    }

    /// Returns the operation `id`; `resource` is what the request's path names.
    pub(crate) fn operation(&self, id: &str, resource: Option<&str>) -> Answer<Operation> {
        self.read(|world| world.operation(id, resource)).map(|found| self.faults.veil(found))
    }

    /// Runs `task` to its end even when the caller goes away.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        task: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        match tokio::spawn(task).await {
            Ok(result) => result,
            Err(error) => Err(Fault::internal(error)),
        }
    }

    /// Waits for the turn to read or change the roles and databases of a branch, and to note what came of it.
    pub(crate) async fn catalog_turn(&self, uid: &str) -> OwnedMutexGuard<LastLook> {
        let turn = {
            let mut turns = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(uid).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(uid.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// Returns whether the server is on its way down.
    pub(crate) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Refuses new work on clusters and waits, for a while, for what is under way.
    pub(crate) async fn finish_jobs(&self) {
        let all = self.jobs.acquire_many(JOBS);
        let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
        self.jobs.close();
    }
}
