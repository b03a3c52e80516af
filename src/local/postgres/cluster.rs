//! One branch's cluster: its folder, what is remembered about it, and its compute.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compute::{Compute, Host, Port, Stop};
use super::copy::write_whole;
use super::session::Address;
use super::size::{Size, USUAL_CONNECTIONS};
use super::wal::Lsn;
use super::{locked, server_roles};
use crate::error::{Doing, Error, Kind, Result};

/// File whose presence says that the cluster's folder is complete.
const RECORD: &str = "cluster.json";
/// How long a compute may take to start; it may have much log to replay after a kill.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long after a copy another one is likely.
const HOT: Duration = Duration::from_secs(3600);
/// How long the past of a cluster is kept unless another retention is set.
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is remembered about a cluster while nothing runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Major version of the Postgres it belongs to.
    pub(super) major: u32,
    /// Moment from which on its past can be asked for.
    pub(super) birth: Timestamp,
    /// Log position at its birth.
    pub(super) birth_lsn: Lsn,
    /// Last commit of the source it was made with; the birth for a cluster without a source.
    pub(super) origin_time: Timestamp,
    /// Bases recovery can start from, the oldest first.
    pub(super) bases: Vec<String>,
    /// How long its past is kept.
    pub(super) retention: Duration,
    /// The cluster it follows, when it is a standby; it has no past of its own then.
    #[serde(default)]
    pub(super) primary: Option<String>,
    /// Most connections that it ever allowed: a standby that replays its log must allow as many.
    #[serde(default = "usual_connections")]
    pub(super) most_connections: u32,
    /// Whether the roles that reach the operating system are known to be out of reach.
    #[serde(default)]
    pub(super) restricted: bool,
}

const fn usual_connections() -> u32 {
    USUAL_CONNECTIONS
}

impl Record {
    /// Describes a cluster that can be recovered from `base`.
    pub(super) fn new(major: u32, birth: Timestamp, birth_lsn: Lsn, base: String) -> Self {
        Record {
            major,
            birth,
            birth_lsn,
            origin_time: birth,
            bases: vec![base],
            retention: DEFAULT_RETENTION,
            primary: None,
            most_connections: USUAL_CONNECTIONS,
            restricted: false,
        }
    }
}

/// A complete cluster, running or not.
pub(super) struct Cluster {
    /// Unique name; also that of its folder.
    pub(super) name: String,
    folder: PathBuf,
    record: Mutex<Record>,
    compute: Mutex<Option<Compute>>,
    /// Size that its compute was started with.
    size: Mutex<Option<Size>>,
    /// Number its compute listens under, the same each time: a standby that looks for it there must
    /// never find another cluster.
    port: Mutex<Option<Port>>,
    /// Held while the compute is started or stopped.
    turn: tokio::sync::Mutex<()>,
    /// Held while a base is taken.
    pub(super) basing: tokio::sync::Mutex<()>,
    /// Shared by those who read its files or need its compute to stay; owned by those who take either away.
    pub(super) pins: tokio::sync::RwLock<()>,
    /// Whether the compute is meant to run, rather than just serving the engine for a moment.
    wanted: AtomicBool,
    /// Names of the standbys that it is to run for.
    readers: Mutex<BTreeSet<String>>,
    /// When it was last copied.
    copied: Mutex<Option<Instant>>,
    /// How long the last copy took that shares its blocks.
    sharing_time: Mutex<Duration>,
}

impl Cluster {
    /// Describes the cluster in `folder`, with its compute if that runs already.
    pub(super) fn new(
        name: &str,
        folder: PathBuf,
        record: Record,
        compute: Option<Compute>,
    ) -> Self {
        Cluster {
            name: name.to_owned(),
            folder,
            record: Mutex::new(record),
            wanted: AtomicBool::new(compute.is_some()),
            size: Mutex::default(),
            port: Mutex::new(compute.as_ref().map(Compute::port)),
            compute: Mutex::new(compute),
            turn: tokio::sync::Mutex::default(),
            basing: tokio::sync::Mutex::default(),
            pins: tokio::sync::RwLock::default(),
            readers: Mutex::default(),
            copied: Mutex::default(),
            sharing_time: Mutex::default(),
        }
    }

    /// Reads the cluster in `folder`; none when it was never completed.
    pub(super) fn load(name: &str, folder: PathBuf) -> Result<Option<Self>> {
        let path = folder.join(RECORD);
        let unreadable = || format!("could not read `{}`", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(unreadable),
            Ok(text) => {
                let record = serde_json::from_slice(&text).map_err(|error| {
                    Error::new(Kind::Failed, unreadable()).why(error.to_string())
                })?;
                Ok(Some(Cluster::new(name, folder, record, None)))
            }
        }
    }

    /// Returns the data directory.
    pub(super) fn data(&self) -> PathBuf {
        data_of(&self.folder)
    }

    /// Returns the folder of the write-ahead log.
    pub(super) fn wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// Returns the folder of the whole cluster.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what is remembered.
    pub(super) fn record(&self) -> Record {
        locked(&self.record).clone()
    }

    /// Changes what is remembered, on disk first.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = locked(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        save(&self.folder, &changed)?;
        *record = changed;
        Ok(())
    }

    /// Returns where the compute listens, if it can be reached at this moment.
    pub(super) fn address(&self) -> Option<Address> {
        let mut slot = locked(&self.compute);
        let compute = slot.as_mut()?;
        compute.reachable().then(|| compute.address().clone())
    }

    /// Notes whether the compute is meant to run.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Says whether the compute is meant to run.
    pub(super) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Returns the size that the compute was started with.
    pub(super) fn size(&self) -> Option<Size> {
        *locked(&self.size)
    }

    /// Notes the size that the compute was started with.
    pub(super) fn note_size(&self, size: Option<Size>) {
        *locked(&self.size) = size;
    }

    /// Notes whether the compute is to run for the standby `name`.
    pub(super) fn feed(&self, name: &str, feed: bool) {
        let mut readers = locked(&self.readers);
        match feed {
            true => readers.insert(name.to_owned()),
            false => readers.remove(name),
        };
    }

    /// Says whether the compute is to run for standbys.
    pub(super) fn feeds(&self) -> bool {
        !locked(&self.readers).is_empty()
    }

    fn needed(&self) -> bool {
        self.wanted() || self.feeds()
    }

    /// Notes that it is being copied.
    pub(super) fn note_copied(&self) {
        *locked(&self.copied) = Some(Instant::now());
    }

    /// Says whether it was copied lately, and so is likely to be copied again soon.
    pub(super) fn is_hot(&self) -> bool {
        locked(&self.copied).is_some_and(|last| last.elapsed() < HOT)
    }

    /// Returns how long the last copy took that shares its blocks; nothing when none was made yet.
    pub(super) fn sharing_time(&self) -> Duration {
        *locked(&self.sharing_time)
    }

    /// Notes how long a copy took that shares its blocks.
    pub(super) fn note_sharing_time(&self, taken: Duration) {
        *locked(&self.sharing_time) = taken;
    }

    /// Starts the compute unless it runs; callers at the same time share one start.
    pub(super) async fn start(&self, host: &Host) -> Result<Address> {
        self.start_with(host, &[]).await
    }

    /// Does the same with `settings` besides the usual ones.
    pub(super) async fn start_with(
        &self,
        host: &Host,
        settings: &[(&'static str, String)],
    ) -> Result<Address> {
        if let Some(address) = self.address() {
            return Ok(address);
        }
        let _turn = self.turn.lock().await;
        if let Some(address) = self.address() {
            return Ok(address);
        }
        let major = self.record().major;
        if major != host.install.major {
            let version = &host.install.version;
            return Err(Error::new(
                Kind::Usage,
                format!("`{}` needs PostgreSQL {major}", self.name),
            )
            .why(format!("its data was written by that version; PostgreSQL {version} is used")));
        }
        let unreachable = locked(&self.compute).take();
        if let Some(compute) = unreachable {
            compute.stop(Stop::Clean).await;
        }
        let (port, log) = (locked(&self.port).clone(), log_of(&self.folder));
        let size = host.size_of(&self.name);
        let mut all = size.map_or_else(Vec::new, Size::settings);
        all.extend_from_slice(settings);
        let compute = host
            .start_at(port, &self.data(), &log, &all, START_LIMIT)
            .await
            .doing(|| format!("could not start the compute of `{}`", self.name))?;
        if let Err(error) = self.restrict(compute.address()).await {
            compute.stop(Stop::Clean).await;
            return Err(error);
        }
        self.note_size(size);
        *locked(&self.port) = Some(compute.port());
        let address = compute.address().clone();
        *locked(&self.compute) = Some(compute);
        Ok(address)
    }

    /// Restricts a cluster that an earlier version made, before anybody else gets in. A standby has of its
    /// primary what that was given.
    async fn restrict(&self, address: &Address) -> Result<()> {
        let record = self.record();
        if record.restricted || record.primary.is_some() {
            return Ok(());
        }
        server_roles::restrict(address, record.major).await?;
        self.change(|record| record.restricted = true)
    }

    /// Stops the compute, if it runs, for good.
    pub(super) async fn stop(&self, how: Stop) {
        self.want(false);
        let _turn = self.turn.lock().await;
        let compute = locked(&self.compute).take();
        if let Some(compute) = compute {
            compute.stop(how).await;
        }
    }

    /// Stops the compute unless it is needed, once nobody uses the cluster.
    pub(super) async fn rest(&self) {
        // Asked before the locks are taken, so that a compute that stays keeps nobody from its files.
        if self.needed() {
            return;
        }
        let _alone = self.pins.write().await;
        let _turn = self.turn.lock().await;
        if self.needed() {
            return;
        }
        let compute = locked(&self.compute).take();
        if let Some(compute) = compute {
            compute.stop(Stop::Clean).await;
        }
    }
}

/// Returns the data directory of the cluster in `folder`.
pub(super) fn data_of(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Returns the log file of the cluster in `folder`.
pub(super) fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Writes the record into `folder`, which thereby is complete.
pub(super) fn save(folder: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record).expect("a record is plain data");
    write_whole(&folder.join(RECORD), &text)
        .doing(|| format!("could not write into `{}`", folder.display()))
}
