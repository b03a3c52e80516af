//! Real Postgres clusters: one per branch, copied from any moment of another, started when needed.
//!
//! On disk, under the engine's folder: `template-<major>/`, `clusters/<name>/`, `bases/<id>/` and
//! `spares-<major>/`. A folder whose name starts with `.new-` or `.gone-`, or a cluster without its record,
//! is unfinished work and goes.

mod account;
mod base;
mod branch;
mod catalog;
mod cluster;
mod compute;
mod copy;
mod durable;
mod install;
mod leftover;
mod open;
mod recovery;
mod roles;
mod server_roles;
mod session;
mod size;
mod sockets;
mod spare;
mod standby;
mod template;
mod upkeep;
mod wal;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::task::JoinSet;

pub(crate) use self::account::Account;
pub(crate) use self::catalog::{
    Catalog, CatalogChange, FoundDatabase, FoundRole, check_database_name, check_role_name,
};
pub(crate) use self::install::Install;
pub(crate) use self::open::end_leftovers;
pub(crate) use self::roles::Access;
pub(crate) use self::size::Size;
pub(crate) use self::wal::check_position;

use self::base::{Base, Bases};
use self::cluster::{Cluster, Record, data_of, log_of};
use self::compute::{Host, Stop};
use self::copy::{Blocks, copy_data};
use self::durable::Laid;
use self::session::{Address, OWN_DATABASE, flush_position};
use self::wal::Lsn;
use crate::error::{Doing, Error, Kind, Result};
use crate::local::folder::OwnedFolder;
use crate::secret::Secret;
use crate::wire::roles::IdentityType;

/// How long a fresh copy may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Which state of its source a copy is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Everything committed by now.
    Now,
    /// Everything committed at or before this time.
    Time(Timestamp),
    /// Everything that ended at or before this log position, such as `0/1A2B3C4D`.
    Lsn(String),
}

/// Where a copy really starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Log position after the last record of the source that the copy has.
    pub(crate) lsn: String,
    /// Time of the last transaction of the source that the copy has.
    pub(crate) time: Timestamp,
}

/// The engine: all clusters of one data folder. Clones share it.
#[derive(Clone)]
pub(crate) struct Postgres(Arc<Engine>);

struct Engine {
    folder: PathBuf,
    host: Host,
    bases: Bases,
    /// Whether copies share their blocks here.
    shares_blocks: bool,
    clusters: Mutex<HashMap<String, Arc<Cluster>>>,
    /// One lock per name being made or removed.
    gates: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Turns true when it is being closed and nothing more is begun in the background.
    closing: AtomicBool,
}

impl Postgres {
    /// Opens the engine in `folder`: stops what a killed server left running, removes what it left
    /// unfinished, and makes the template when it is missing.
    pub(crate) async fn open(folder: &OwnedFolder, install: Install) -> Result<Self> {
        Engine::open(folder, install)
            .await
            .map(|engine| Postgres(Arc::new(engine)))
            .doing(|| format!("could not open the Postgres clusters in `{}`", folder.display()))
    }

    /// Creates a fresh cluster whose default database belongs to `owner`, and starts it. Does nothing
    /// when it is there already.
    pub(crate) async fn create_root(&self, cluster: &str, owner: &str) -> Result<()> {
        let (engine, name, owner) = (self.0.clone(), cluster.to_owned(), owner.to_owned());
        detached(async move {
            engine
                .create_root(&name, &owner)
                .await
                .doing(|| format!("could not create the cluster `{name}`"))
        })
        .await
    }

    /// Makes the cluster `child` a copy of `source` as it was at `at`, and starts it.
    ///
    /// A child that is there already is started and its origin returned again. Fails with `NotFound`
    /// without a source, and with `Usage` (`OUTSIDE_RETENTION`) when the moment cannot be reached.
    pub(crate) async fn create_child(
        &self,
        source: &str,
        child: &str,
        at: Moment,
    ) -> Result<Origin> {
        let (engine, source, child) = (self.0.clone(), source.to_owned(), child.to_owned());
        detached(async move { branch::create_child(&engine, &source, &child, at).await }).await
    }

    /// Removes `cluster` and what only it needed; nothing happens when it is gone already.
    pub(crate) async fn remove(&self, cluster: &str) -> Result<()> {
        let (engine, name) = (self.0.clone(), cluster.to_owned());
        detached(async move {
            engine.remove(&name).await.doing(|| format!("could not remove the cluster `{name}`"))
        })
        .await
    }

    /// Starts the standby `name` of `primary`, made first when it is missing, and returns the path of its
    /// socket. What was committed on `primary` before is there to be read.
    ///
    /// The compute of `primary` runs as long as that of the standby.
    pub(crate) async fn wake_standby(&self, primary: &str, name: &str) -> Result<PathBuf> {
        let (engine, primary, name) = (self.0.clone(), primary.to_owned(), name.to_owned());
        detached(async move { Ok(standby::wake(&engine, &primary, &name).await?.socket()) }).await
    }

    /// Brings standbys and their primaries back together: lets a primary start again that died under
    /// its standbys, and one rest whose standbys did.
    pub(crate) fn tend_standbys(&self) {
        standby::tend(&self.0);
    }

    /// Starts the compute of `cluster` unless it runs, and returns the path of its socket.
    pub(crate) async fn wake(&self, cluster: &str) -> Result<PathBuf> {
        let found = self.0.cluster(cluster)?;
        found.want(true);
        if let Some(address) = found.address() {
            return Ok(address.socket());
        }
        let engine = self.0.clone();
        detached(async move { Ok(found.start(&engine.host).await?.socket()) }).await
    }

    /// Stops the compute of `cluster`, once it is not being copied. One that standbys need stays for
    /// them, without the sessions of others.
    pub(crate) async fn suspend(&self, cluster: &str) -> Result<()> {
        let (engine, found) = (self.0.clone(), self.0.cluster(cluster)?);
        if found.record().primary.is_some() {
            return detached(async move {
                standby::end(&engine, &found, Stop::Clean).await;
                Ok(())
            })
            .await;
        }
        found.want(false);
        detached(async move {
            found.rest().await;
            match found.address().filter(|_| found.feeds()) {
                Some(address) => session::end_others(&address).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Ends the compute of `cluster` as a crash would; what was committed is there when it starts again.
    pub(crate) async fn kill(&self, cluster: &str) -> Result<()> {
        let (engine, found) = (self.0.clone(), self.0.cluster(cluster)?);
        detached(async move {
            match found.record().primary {
                Some(_) => standby::end(&engine, &found, Stop::Discard).await,
                None => found.stop(Stop::Discard).await,
            }
            Ok(())
        })
        .await
    }

    /// Sets the size of the compute of `cluster`, which need not be there yet, from its next start on.
    ///
    /// Standbys allow at least what their primary does: they are suspended when that becomes more.
    pub(crate) async fn resize(&self, cluster: &str, size: Size) -> Result<()> {
        locked(&self.0.host.sizes).insert(cluster.to_owned(), size);
        let Ok(found) = self.0.cluster(cluster) else { return Ok(()) };
        if size.connections() <= found.record().most_connections {
            return Ok(());
        }
        let engine = self.0.clone();
        detached(async move {
            for standby in engine.standbys_of(&found.name) {
                standby::end(&engine, &standby, Stop::Clean).await;
            }
            found.change(|record| record.most_connections = size.connections())
        })
        .await
    }

    /// Says whether the compute of `cluster` runs with another size than it is to have.
    pub(crate) fn is_outgrown(&self, cluster: &str) -> bool {
        let size = self.0.host.size_of(cluster);
        self.0.cluster(cluster).is_ok_and(|found| {
            found.address().is_some() && size.is_some_and(|size| found.size() != Some(size))
        })
    }

    /// Suspends the compute of `cluster`, so that it starts with the size it is to have; one that standbys
    /// need is started at once.
    pub(crate) async fn refit(&self, cluster: &str) -> Result<()> {
        let (engine, found) = (self.0.clone(), self.0.cluster(cluster)?);
        detached(async move { engine.refit(&found).await }).await
    }

    /// Says whether the compute of `cluster` runs at this moment, and not just for the engine or standbys.
    pub(crate) fn is_running(&self, cluster: &str) -> bool {
        self.0.cluster(cluster).is_ok_and(|found| found.wanted() && found.address().is_some())
    }

    /// Returns how many computes run, whatever for.
    pub(crate) fn count_awake(&self) -> usize {
        locked(&self.0.clusters).values().filter(|cluster| cluster.address().is_some()).count()
    }

    /// Makes sure that `role` can log in to `cluster` and has `access`.
    pub(crate) async fn ensure_login(
        &self,
        cluster: &str,
        role: &str,
        access: Access,
    ) -> Result<()> {
        self.visit(cluster, async |address| roles::ensure_login(&address, role, &access).await)
            .await
            .doing(|| format!("could not give `{role}` access"))
    }

    /// Notes in `cluster` what `role` stands for.
    pub(crate) async fn mark_identity(
        &self,
        cluster: &str,
        role: &str,
        identity: IdentityType,
    ) -> Result<()> {
        let Some(mark) = roles::mark(role, identity) else { return Ok(()) };
        self.visit(cluster, async |address| {
            let client = address.connect(OWN_DATABASE).await?;
            client.batch_execute(&mark).await.map_err(session::told)
        })
        .await
    }

    /// Returns the roles and databases of `cluster`, without the platform's own.
    pub(crate) async fn catalog(&self, cluster: &str) -> Result<Catalog> {
        self.visit(cluster, async |address| catalog::read(&address).await).await
    }

    /// Returns the same if the compute of `cluster` runs at this moment, whatever for; starts nothing.
    pub(crate) async fn catalog_if_awake(&self, cluster: &str) -> Result<Option<Catalog>> {
        let Ok(found) = self.0.cluster(cluster) else { return Ok(None) };
        let _pin = found.pins.read().await;
        match found.address() {
            Some(address) => catalog::read(&address).await.map(Some),
            None => Ok(None),
        }
    }

    /// Changes the roles or databases of `cluster`; fails with `Usage` when Postgres refuses.
    pub(crate) async fn change_catalog(&self, cluster: &str, change: &CatalogChange) -> Result<()> {
        self.visit(cluster, async |address| catalog::apply(&address, change).await).await
    }

    /// Gives `role` a password, of which only the verifier is known here.
    pub(crate) async fn set_password(
        &self,
        cluster: &str,
        role: &str,
        verifier: &Secret<String>,
    ) -> Result<()> {
        self.visit(cluster, async |address| catalog::set_password(&address, role, verifier).await)
            .await
    }

    /// Runs `visit` on the compute of `cluster`, which is started for it and stopped again unless it ran.
    async fn visit<T>(
        &self,
        cluster: &str,
        visit: impl AsyncFnOnce(Address) -> Result<T>,
    ) -> Result<T> {
        let found = self.0.cluster(cluster)?;
        let done = {
            let _pin = found.pins.read().await;
            let address = found.start(&self.0.host).await?;
            visit(address).await
        };
        self.0.let_rest(&found);
        done
    }

    /// Returns how large the databases of `cluster` are on disk, in bytes, without starting it.
    pub(crate) async fn logical_size(&self, cluster: &str) -> Result<u64> {
        let base = self.0.cluster(cluster)?.data().join("base");
        blocking(move || Ok(upkeep::size_of(&base)?)).await
    }

    /// Returns the earliest moment of `cluster` that a copy can be made of.
    pub(crate) async fn oldest_moment(&self, cluster: &str) -> Result<Timestamp> {
        let record = self.0.cluster(cluster)?.record();
        Ok(self.0.oldest_moment(&record))
    }

    /// Sets how long the past of `cluster` is kept at least.
    pub(crate) fn set_retention(&self, cluster: &str, retention: Duration) -> Result<()> {
        let found = self.0.cluster(cluster)?;
        if found.record().retention == retention {
            return Ok(());
        }
        found.change(|record| record.retention = retention)
    }

    /// Keeps what copies start from close behind the clusters that were copied lately, in the background.
    pub(crate) fn keep_ready(&self) {
        upkeep::keep_ready(&self.0);
    }

    /// Takes new bases where much was written, and forgets what is older than the retention.
    pub(crate) async fn maintain(&self) -> Result<()> {
        upkeep::maintain(&self.0).await
    }

    /// Stops every compute cleanly, all at once.
    pub(crate) async fn close(&self) {
        let clusters: Vec<_> = locked(&self.0.clusters).values().cloned().collect();
        let mut stops = JoinSet::new();
        self.0.closing.store(true, Ordering::SeqCst);
        self.0.host.sockets.close();
        let spares = self.0.bases.spares.clone();
        stops.spawn_blocking(move || spares.close());
        for cluster in clusters {
            stops.spawn(async move {
                let _no_base_is_taken = cluster.basing.lock().await;
                cluster.stop(Stop::Clean).await;
                leftover::release_memory(&cluster.data());
            });
        }
        stops.join_all().await;
        self.0.host.sockets.remove();
    }
}

impl Engine {
    /// Returns the complete cluster `name`.
    fn cluster(&self, name: &str) -> Result<Arc<Cluster>> {
        locked(&self.clusters)
            .get(name)
            .cloned()
            .ok_or_else(|| Error::new(Kind::NotFound, format!("there is no cluster `{name}`")))
    }

    /// Returns the standbys of the cluster `name`.
    fn standbys_of(&self, name: &str) -> Vec<Arc<Cluster>> {
        let follows = |cluster: &&Arc<Cluster>| cluster.record().primary.as_deref() == Some(name);
        locked(&self.clusters).values().filter(follows).cloned().collect()
    }

    /// Waits for the turn to make or remove the cluster `name`.
    async fn gate(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate_of(name).lock_owned().await
    }

    fn gate_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = locked(&self.gates);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = gates.get(name).and_then(Weak::upgrade).unwrap_or_default();
        gates.insert(name.to_owned(), Arc::downgrade(&gate));
        gate
    }

    fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.join("clusters").join(name)
    }

    /// Makes an empty folder for the cluster `name`, after removing what an earlier try left there.
    async fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let folder = self.folder_of(name);
        leftover::stop(&data_of(&folder)).await;
        let (fresh, account) = (folder.clone(), self.host.account.clone());
        blocking(move || {
            leftover::discard(&fresh)?;
            Ok(account.create_folder(&fresh)?)
        })
        .await?;
        Ok(folder)
    }

    /// Completes the cluster in `folder` by writing its record, and adds it.
    fn complete(
        &self,
        name: &str,
        folder: PathBuf,
        mut record: Record,
        compute: compute::Compute,
    ) -> Result<()> {
        if let Some(size) = self.host.size_of(name) {
            record.most_connections = record.most_connections.max(size.connections());
        }
        cluster::save(&folder, &record)?;
        record.bases.iter().for_each(|id| self.bases.hold(id));
        let cluster = Cluster::new(name, folder, record, Some(compute));
        cluster.note_size(self.host.size_of(name));
        locked(&self.clusters).insert(name.to_owned(), Arc::new(cluster));
        Ok(())
    }

    async fn create_root(&self, name: &str, owner: &str) -> Result<()> {
        let _gate = self.gate(name).await;
        if let Ok(there) = self.cluster(name) {
            there.want(true);
            return there.start(&self.host).await.map(drop);
        }
        let folder = self.fresh_folder(name).await?;
        let template = template::name(self.host.install.major);
        let source = self.bases.data(&template).expect("the template is added when opening");
        let base = self.bases.get(&template).expect("the template is added when opening");
        let (data, log) = (data_of(&folder), log_of(&folder));
        // The checkpoint that the template ended with is the last in its log, and small.
        let end = base.stop.last_of_segment();
        let laid = self.lay_out(&template, &base, &source.join("pg_wal"), end, &data).await?;
        let settings = self.host.size_of(name).map_or_else(Vec::new, Size::settings);
        let (compute, synced) =
            tokio::join!(self.host.start(&data, &log, &settings, START_LIMIT), laid.sync(&folder));
        let compute = compute?;
        synced?;
        server_roles::restrict(compute.address(), self.host.install.major).await?;
        roles::create_owner(compute.address(), owner).await?;
        let position = flushed(compute.address()).await?;
        let mut record = Record::new(self.host.install.major, Timestamp::now(), position, template);
        record.restricted = true;
        self.complete(name, folder, record, compute)
    }

    /// Makes the data directory `target` out of a base and the part of the log in `log` from there to
    /// `end`; says what of it still has to be synced.
    async fn lay_out(
        &self,
        id: &str,
        base: &Base,
        log: &Path,
        end: Lsn,
        target: &Path,
    ) -> Result<Laid> {
        let begun = SystemTime::now();
        let (spares, base_id) = (self.bases.spares.clone(), id.to_owned());
        let source = self.bases.data(id).expect("a base in use is in the store");
        let (first, log, target) = (base.start.segment(), log.to_owned(), target.to_owned());
        let account = self.host.account.clone();
        let done = blocking(move || {
            let laid = if spares.take(&base_id, &target) {
                Laid::Durable { but: begun }
            } else {
                copy_data(&source, &target, &account, Blocks::Shared)?;
                Laid::Fresh
            };
            for copy in wal::share(&log, &target.join("pg_wal"), first, end)? {
                account.own(&copy)?;
            }
            Ok(laid)
        })
        .await;
        self.bases.spares.refill();
        done
    }

    async fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        for standby in self.standbys_of(name) {
            Box::pin(self.remove(&standby.name)).await?;
        }
        let _gate = self.gate(name).await;
        let known = locked(&self.clusters).remove(name);
        locked(&self.host.sizes).remove(name);
        if let Some(cluster) = known {
            standby::part(self, &cluster);
            let _alone = cluster.pins.write().await;
            cluster.stop(Stop::Discard).await;
            let folder = cluster.folder().to_owned();
            blocking(move || Ok(leftover::discard(&folder)?)).await?;
            return self.bases.release(&cluster.record().bases).await;
        }
        let folder = self.folder_of(name);
        leftover::stop(&data_of(&folder)).await;
        blocking(move || Ok(leftover::discard(&folder)?)).await
    }

    async fn refit(&self, cluster: &Arc<Cluster>) -> Result<()> {
        if cluster.record().primary.is_some() {
            standby::end(self, cluster, Stop::Clean).await;
            return Ok(());
        }
        cluster.want(false);
        {
            let _alone = cluster.pins.write().await;
            cluster.stop(Stop::Clean).await;
        }
        match cluster.feeds() {
            true => cluster.start(&self.host).await.map(drop),
            false => Ok(()),
        }
    }

    /// Lets a compute that was only needed for a moment stop again, in the background.
    fn let_rest(&self, cluster: &Arc<Cluster>) {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.rest().await });
    }

    fn oldest_moment(&self, record: &Record) -> Timestamp {
        let first = record.bases.iter().find_map(|id| self.bases.get(id));
        first.map_or(record.birth, |base| base.end_time.max(record.birth))
    }
}

/// Checks that `name` is one plain folder name.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= 200 && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("`{name}` cannot be the name of a cluster")))
}

/// Returns the position up to which everything is safe on disk.
async fn flushed(address: &Address) -> Result<Lsn> {
    flush_position(&address.connect(OWN_DATABASE).await?).await
}

/// Locks `mutex`; what it guards is whole even after a panic elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file work on a thread made for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(broken(&panic)))
}

/// Runs `work` to its end even when the caller stops waiting.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|panic| Err(broken(&panic)))
}

fn broken(panic: &tokio::task::JoinError) -> Error {
    Error::new(Kind::Failed, "the Postgres engine broke off").why(panic.to_string())
}
