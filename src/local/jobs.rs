//! Work on clusters: what the state machine asked for, and what time asks for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::clock::Clock;
use super::fault::{Answer, Fault};
use super::faults::{Blow, Target};
use super::postgres::Moment;
use super::workspace::Workspace;
use super::world::{BranchRecord, CatalogWork, EndpointRecord, Work, World};
use crate::error::{Error, Kind, Result};
use crate::wire::failure::Failure;
use crate::wire::names::BranchName;
use crate::wire::postgres::EndpointState;

/// How often expired branches, idle computes and dead ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Sweeps between two looks at what the next branches start from.
const CLOSE: u32 = 5;
/// Sweeps between two rounds of maintenance.
const ROUNDS: u32 = 30;

impl Workspace {
    /// Does what is left of an accepted change. Failures are recorded where clients see them, also that it
    /// broke off.
    pub(crate) async fn carry_out(self: Arc<Self>, work: Work) {
        let (doer, begun) = (Arc::clone(&self), work.clone());
        if let Err(broken) = tokio::spawn(doer.work_on(begun)).await
            && broken.is_panic()
        {
            tracing::error!("{work:?} broke off: {broken}");
            self.give_up(work).await;
        }
    }

    /// Records that a change could not be carried out, and removes what was made of it.
    async fn give_up(self: &Arc<Self>, work: Work) {
        let failure = Fault::internal("the work broke off").failure;
        match work {
            Work::CreateRoot(uid) | Work::CreateChild(uid) => {
                self.branch_made(&uid, Err(failure)).await;
            }
            Work::CreateStandby { branch, endpoint } => {
                self.endpoint_made(&branch, &endpoint, Err(failure)).await;
            }
            Work::Catalog(work) => {
                self.note(|world| world.finish_catalog(&work, Err(failure), Workspace::now()))
                    .await;
            }
            // The next server sees what is left.
            Work::Nothing
            | Work::Retire(_)
            | Work::Remove(_)
            | Work::Revive(_)
            | Work::RemoveStandby(_)
            | Work::Adjust(_) => {}
        }
    }

    async fn work_on(self: Arc<Self>, work: Work) {
        match work {
            Work::Nothing => {}
            Work::CreateRoot(uid) | Work::CreateChild(uid) => self.make_branch(&uid).await,
            Work::Retire(uids) => self.retire(&uids).await,
            Work::Remove(uids) => self.remove(&uids).await,
            Work::Revive(uids) => {
                for uid in &uids {
                    log(self.open_endpoints(uid).await);
                }
            }
            Work::CreateStandby { branch, endpoint } => {
                self.make_endpoint(&branch, &endpoint).await
            }
            Work::RemoveStandby(endpoint) => {
                self.listeners.close(&endpoint);
                log(self.postgres.remove(&endpoint).await);
            }
            Work::Adjust(uid) => self.adjust(&uid).await,
            Work::Catalog(work) => self.change_catalog(&work).await,
        }
    }

    /// Suspends or kills a compute at once; the next connection wakes it.
    pub(crate) async fn strike(&self, blow: Blow) -> Answer<()> {
        let (Blow::Suspend(target) | Blow::Kill(target)) = &blow;
        let (uid, compute) = self.read(|world| match target {
            Target::Endpoint(name) => world.endpoint(name).map(|(branch, endpoint)| {
                (branch.uid.clone(), endpoint.compute(branch).to_owned())
            }),
            Target::Branch(name) => world
                .branch(&name.project, &name.branch)
                .map(|branch| (branch.uid.clone(), branch.uid.clone())),
        })?;
        match blow {
            Blow::Suspend(_) => self.suspend(&compute).await?,
            Blow::Kill(_) => {
                self.note_before_sleep(&compute).await;
                self.postgres.kill(&compute).await?;
            }
        }
        self.note_states(&uid).await;
        Ok(())
    }

    /// Lets the computes of a branch be as large as their endpoints say, and suspends those that are disabled.
    async fn adjust(&self, uid: &str) {
        let Some(branch) = self.read(|world| world.branch_by_uid(uid).cloned()) else { return };
        for endpoint in branch.endpoints.iter().filter(|endpoint| endpoint.operation.is_none()) {
            let compute = endpoint.compute(&branch);
            log(self.postgres.resize(compute, endpoint.size()).await);
            self.refit(&endpoint.uid, compute).await;
            if endpoint.disabled {
                log(self.suspend(compute).await);
            }
        }
        self.note_states(uid).await;
    }

    /// Lets a compute take on its new size if no session is open on its endpoint.
    async fn refit(&self, endpoint: &str, compute: &str) {
        if self.listeners.connections(endpoint) == 0 && self.postgres.is_outgrown(compute) {
            self.note_before_sleep(compute).await;
            log(self.postgres.refit(compute).await);
        }
    }

    async fn make_endpoint(self: &Arc<Self>, uid: &str, endpoint: &str) {
        let result = self.make_standby(uid, endpoint).await;
        if self.stopping() && result.is_err() {
            // The next server makes it again.
            return;
        }
        self.endpoint_made(uid, endpoint, result.map_err(|error| Fault::from(error).failure)).await;
    }

    /// Reports that a read-only endpoint was made, or removes what there is of it and says why not.
    async fn endpoint_made(&self, uid: &str, endpoint: &str, result: Result<(), Failure>) {
        if result.is_err() {
            self.listeners.close(endpoint);
            log(self.postgres.remove(endpoint).await);
        }
        self.note(|world| world.finish_endpoint(uid, endpoint, result, Workspace::now())).await;
        self.note_states(uid).await;
    }

    /// Makes the cluster of a read-only endpoint and opens it.
    async fn make_standby(self: &Arc<Self>, uid: &str, endpoint: &str) -> Result<()> {
        let _job = self.jobs.acquire().await.map_err(|_| stopped())?;
        let branch = self.read(|world| world.branch_by_uid(uid).cloned());
        let found = branch.as_ref().and_then(|branch| branch.endpoint_by_uid(endpoint));
        let (Some(branch), Some(record)) = (&branch, found) else {
            return Err(Error::new(Kind::NotFound, "the endpoint is gone"));
        };
        self.postgres.resize(endpoint, record.size()).await?;
        self.postgres.wake_standby(uid, endpoint).await?;
        if record.disabled {
            self.postgres.suspend(endpoint).await?;
        }
        self.open_endpoint(branch, record).await
    }

    async fn change_catalog(&self, work: &CatalogWork) {
        let _turn = self.catalog_turn(&work.uid).await;
        let changed = match self.postgres.change_catalog(&work.uid, &work.change).await {
            Ok(()) => self.postgres.catalog(&work.uid).await,
            Err(error) => Err(error),
        };
        let result = changed.map_err(|error| Fault::from(error).failure);
        self.note(|world| world.finish_catalog(work, result, Workspace::now())).await;
    }

    /// Takes over the roles and databases of a branch as its cluster has them, starting it for that.
    pub(crate) async fn refresh_catalog(&self, name: &BranchName) -> Answer<()> {
        let (uid, made) = self.read(|world| {
            let branch = world.branch(&name.project, &name.branch)?;
            Ok::<_, Fault>((branch.uid.clone(), branch.operation.is_none()))
        })?;
        if !made {
            // There is no cluster yet: the branch has what its source has.
            return Ok(());
        }
        let _turn = self.catalog_turn(&uid).await;
        let catalog = self.postgres.catalog(&uid).await?;
        self.change(|world| {
            world.note_catalog(&uid, &catalog, Workspace::now());
            Ok(())
        })
        .await
    }

    async fn make_branch(self: &Arc<Self>, uid: &str) {
        let result = self.make_cluster(uid).await;
        if self.stopping() && result.is_err() {
            // The next server makes it again.
            return;
        }
        self.branch_made(uid, result.map_err(|error| Fault::from(error).failure)).await;
    }

    /// Reports that the cluster of a branch was made, or removes what there is of it and says why not.
    async fn branch_made(&self, uid: &str, result: Result<Option<(String, Timestamp)>, Failure>) {
        if result.is_err() {
            log(self.postgres.remove(uid).await);
            self.listeners.close_branch(uid);
        }
        self.note(|world| world.finish_branch(uid, result, Workspace::now())).await;
    }

    /// Makes the cluster of a branch and opens its endpoints; returns where it starts on its source.
    async fn make_cluster(self: &Arc<Self>, uid: &str) -> Result<Option<(String, Timestamp)>> {
        let _job = self.jobs.acquire().await.map_err(|_| stopped())?;
        let Some(branch) = self.read(|world| world.branch_by_uid(uid).cloned()) else {
            return Err(Error::new(Kind::NotFound, "the branch is gone"));
        };
        if let Some(endpoint) = branch.endpoints.first() {
            self.postgres.resize(uid, endpoint.size()).await?;
        }
        let start = match &branch.source {
            Some(source) => {
                let moment = match (&source.wanted_lsn, source.wanted_time) {
                    (Some(lsn), _) => Moment::Lsn(lsn.clone()),
                    (None, Some(time)) => Moment::Time(time),
                    (None, None) => Moment::Now,
                };
                let origin = self.postgres.create_child(&source.uid, uid, moment).await?;
                Some((origin.lsn, super::world::whole_millis(origin.time)))
            }
            None => {
                let owner = branch.roles.first();
                self.postgres.create_root(uid, owner.map_or("", |role| &role.role)).await?;
                if let Some(owner) = owner {
                    self.postgres.mark_identity(uid, &owner.role, owner.identity).await?;
                }
                None
            }
        };
        self.keep_history(uid);
        self.open_endpoints(uid).await?;
        Ok(start)
    }

    /// Tells the engine how much of a branch's past the project keeps.
    fn keep_history(&self, uid: &str) {
        let retention = self.read(|world| {
            let branch = world.branch_by_uid(uid)?;
            Some(world.project(&branch.project).ok()?.history_retention_duration.0)
        });
        if let Some(retention) = retention {
            log(self.postgres.set_retention(uid, retention));
        }
    }

    async fn retire(&self, uids: &[String]) {
        for uid in uids {
            self.listeners.close_branch(uid);
            for compute in self.computes(uid) {
                log(self.suspend(&compute).await);
            }
            self.note_states(uid).await;
        }
    }

    async fn remove(&self, uids: &[String]) {
        for uid in uids {
            self.listeners.close_branch(uid);
            if let Ok(_job) = self.jobs.acquire().await {
                log(self.postgres.remove(uid).await);
            }
        }
    }

    /// Returns the clusters behind the endpoints of a branch, its own last.
    fn computes(&self, uid: &str) -> Vec<String> {
        self.read(|world| {
            let branch = world.branch_by_uid(uid);
            let endpoints = branch.map_or(&[][..], |branch| &branch.endpoints).iter().rev();
            let compute = |endpoint: &EndpointRecord| Some(endpoint.compute(branch?).to_owned());
            endpoints.filter_map(compute).collect()
        })
    }

    /// Writes down which computes of a branch run, when that is news.
    pub(crate) async fn note_states(&self, uid: &str) {
        let known: Vec<(String, String, EndpointState)> = self.read(|world| {
            let branch = world.branch_by_uid(uid).filter(|branch| branch.operation.is_none());
            let Some(branch) = branch else { return Vec::new() };
            let made = branch.endpoints.iter().filter(|endpoint| endpoint.operation.is_none());
            let facts = |endpoint: &EndpointRecord| {
                (endpoint.uid.clone(), endpoint.compute(branch).to_owned(), endpoint.state)
            };
            made.map(facts).collect()
        });
        for (endpoint_uid, compute, before) in known {
            let running = self.postgres.is_running(&compute);
            let state = if running { EndpointState::Active } else { EndpointState::Idle };
            if state == before {
                continue;
            }
            let last = self.listeners.last_use(&endpoint_uid);
            self.note(|world| {
                world.with_branch(uid, |branch| {
                    let mut all = branch.endpoints.iter_mut();
                    if let Some(endpoint) = all.find(|endpoint| endpoint.uid == endpoint_uid) {
                        endpoint.state = state;
                        endpoint.last_active_time = last.or(endpoint.last_active_time);
                    }
                });
            })
            .await;
        }
    }

    /// Looks after time until the server stops.
    pub(crate) async fn look_after(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut round = 0;
        let written = self.read(World::latest_time);
        let mut clock = Clock::new(Workspace::now(), Instant::now(), written);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let believed = clock.is_believed(Workspace::now(), Instant::now());
            if believed {
                self.expire().await;
            }
            self.sweep().await;
            round += 1;
            if round % CLOSE == 0 {
                self.postgres.keep_ready();
            }
            if round % ROUNDS == 0 && believed {
                self.maintain().await;
            }
        }
    }

    /// Deletes what has expired, and for good what was deleted long ago.
    async fn expire(self: &Arc<Self>) {
        let now = Workspace::now();
        // Nothing is removed that is not written down as gone.
        let due = self.change(|world| Ok(world.sweep(now))).await;
        let (expired, purged) = due.unwrap_or_default();
        if !expired.is_empty() {
            tokio::spawn(Arc::clone(self).carry_out(Work::Retire(expired)));
        }
        if !purged.is_empty() {
            tokio::spawn(Arc::clone(self).carry_out(Work::Remove(purged)));
        }
    }

    async fn sweep(self: &Arc<Self>) {
        self.state.catch_up().await;
        self.postgres.tend_standbys();
        let awake = |branch: &&BranchRecord| {
            branch.endpoints.iter().any(|endpoint| {
                endpoint.state == EndpointState::Active
                    || self.postgres.is_running(endpoint.compute(branch))
            })
        };
        let branches: Vec<BranchRecord> =
            self.read(|world| world.open_branches().filter(awake).cloned().collect());
        for branch in branches {
            for endpoint in &branch.endpoints {
                let compute = endpoint.compute(&branch);
                self.refit(&endpoint.uid, compute).await;
                if self.postgres.is_running(compute) && self.is_idle(endpoint) {
                    log(self.suspend(compute).await);
                }
            }
            self.note_states(&branch.uid).await;
        }
    }

    fn is_idle(&self, endpoint: &EndpointRecord) -> bool {
        let idle = self.listeners.idle_time(&endpoint.uid);
        endpoint.suspend_after().zip(idle).is_some_and(|(limit, idle)| idle >= limit)
    }

    async fn maintain(&self) {
        let uids: Vec<String> =
            self.read(|world| world.open_branches().map(|branch| branch.uid.clone()).collect());
        for uid in &uids {
            // It may have been changed since; the engine writes only what is new.
            self.keep_history(uid);
            // One that dies later could not be asked any more.
            log(self.look_at_catalog(uid).await);
        }
        log(self.postgres.maintain().await);
        self.note(|world| world.forget_operations(Workspace::now())).await;
        for uid in uids.iter().filter(|uid| self.listeners.branch_connections(uid) > 0) {
            if let Ok(size) = self.postgres.logical_size(uid).await {
                self.note(|world| {
                    world.with_branch(uid, |branch| branch.logical_size_bytes = Some(size));
                })
                .await;
            }
        }
    }
}

fn log<T>(result: Result<T>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the embedded workspace is stopping")
}
