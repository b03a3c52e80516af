//! What is noted of the roles and databases of branches, kept true while their computes sleep: a login is judged by
//! it, so that nobody starts a compute who has shown nothing yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::workspace::Workspace;
use crate::error::{Error, Kind, Result};

/// How long a compute may take to say what it has; one that hangs keeps nothing from going on.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

impl Workspace {
    /// Takes over the roles and databases of a branch if its compute runs at this moment. One that sleeps has what it
    /// had when it was suspended, and is not woken: `false` says that what is noted is from then.
    pub(crate) async fn look_at_catalog(&self, uid: &str) -> Result<bool> {
        let asked = Instant::now();
        let mut turn = self.catalog_turn(uid).await;
        if turn.is_some_and(|begun| begun > asked) {
            // Somebody else looked while this one waited: many at once ask once.
            return Ok(true);
        }
        let begun = Instant::now();
        let looked = tokio::time::timeout(LOOK_LIMIT, self.postgres.catalog_if_awake(uid)).await;
        let catalog = looked.unwrap_or_else(|_| {
            Err(Error::new(Kind::TimedOut, format!("the compute of `{uid}` does not answer")))
        })?;
        let Some(catalog) = catalog else { return Ok(false) };
        self.note(|world| world.note_catalog(uid, &catalog, Workspace::now())).await;
        *turn = Some(begun);
        Ok(true)
    }

    /// Suspends a compute, having noted what its branch has.
    pub(crate) async fn suspend(&self, compute: &str) -> Result<()> {
        self.note_before_sleep(compute).await;
        self.postgres.suspend(compute).await
    }

    /// Notes what the branch whose own compute this is has; nothing for one that follows another.
    pub(crate) async fn note_before_sleep(&self, compute: &str) {
        if let Err(error) = self.look_at_catalog(compute).await {
            tracing::warn!("what roles there are is not known for sure: {error}");
        }
    }

    /// Notes what all branches have before their computes are stopped with the server.
    pub(crate) async fn note_all_before_sleep(self: &Arc<Self>) {
        let open: Vec<String> =
            self.read(|world| world.open_branches().map(|branch| branch.uid.clone()).collect());
        let mut looks = JoinSet::new();
        for uid in open {
            let workspace = Arc::clone(self);
            looks.spawn(async move { workspace.note_before_sleep(&uid).await });
        }
        looks.join_all().await;
    }
}
