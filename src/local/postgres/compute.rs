//! Running postmasters: started directly, reached over a private socket, stopped by signals.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::account::Account;
use super::install::Install;
use super::session::Address;
use super::size::{Size, USUAL_CONNECTIONS};
use super::sockets::Sockets;
use super::{leftover, locked};
use crate::error::{Error, Kind, Result};
use crate::local::tether::{self, Tethered};

/// How long a clean stop may take before the compute is told to drop everything.
const CLEAN_STOP: Duration = Duration::from_secs(20);
/// How long the processes of a killed compute may hold on to its memory; on a busy machine they are slow
/// to notice.
const LINGER: Duration = Duration::from_secs(60);
/// Standbys that a compute can feed; the same for all, because a standby must not allow fewer.
const WAL_SENDERS: &str = "20";
/// Size from which a compute's log is put aside when it starts.
const LOG_BYTES: u64 = 4 << 20;

/// What all computes of an engine share.
pub(super) struct Host {
    /// The programs.
    pub(super) install: Install,
    /// Who runs them.
    pub(super) account: Account,
    /// Folder of their sockets.
    pub(super) sockets: Sockets,
    /// Numbers in use in that folder.
    pub(super) ports: Arc<Mutex<BTreeSet<u16>>>,
    /// Sizes of the computes, by the names of their clusters.
    pub(super) sizes: Mutex<HashMap<String, Size>>,
}

/// A number that tells one socket from the others; free again when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Port(Arc<Number>);

struct Number(u16, Arc<Mutex<BTreeSet<u16>>>);

impl Drop for Number {
    fn drop(&mut self) {
        locked(&self.1).remove(&self.0);
    }
}

/// How a compute is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Sessions are ended, everything is written out.
    Clean,
    /// At once; the data is not needed any more.
    Discard,
}

/// A running postmaster; killed when dropped.
pub(super) struct Compute {
    child: Child,
    address: Address,
    port: Port,
    _tethered: Option<Tethered>,
}

impl Host {
    /// Returns the size of the compute of `cluster`, if one was set.
    pub(super) fn size_of(&self, cluster: &str) -> Option<Size> {
        locked(&self.sizes).get(cluster).copied()
    }

    /// Starts a postmaster on `data` with `settings` besides the usual ones, and waits until it takes sessions.
    ///
    /// Fails with the last lines of its log when it ends instead, and with `TimedOut` after `limit`.
    pub(super) async fn start(
        &self,
        data: &Path,
        log: &Path,
        settings: &[(&str, String)],
        limit: Duration,
    ) -> Result<Compute> {
        self.start_at(None, data, log, settings, limit).await
    }

    /// Does the same under a number that is held already, so that others find it where it was.
    pub(super) async fn start_at(
        &self,
        port: Option<Port>,
        data: &Path,
        log: &Path,
        settings: &[(&str, String)],
        limit: Duration,
    ) -> Result<Compute> {
        let port = port.map_or_else(|| self.free_port(), Ok)?;
        let deadline = Instant::now() + limit;
        let interlock_deadline = Instant::now() + LINGER;
        loop {
            let (mut compute, said_before) = self.spawn(port.clone(), data, log, settings)?;
            let id = compute.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            let Err(error) = compute.ready(data, log, said_before, deadline).await else {
                return Ok(compute);
            };
            // A compute that fails on its own removes its pid file; one that finds processes of a
            // killed predecessor leaves that one's file alone. One that was killed itself leaves its
            // own: it is not tried again, since how far its recovery came would be forgotten.
            let foreign = data.join("postmaster.pid").exists() && leftover::recorded(data) != id;
            let blocked = !compute.alive() && foreign;
            if !blocked || Instant::now() > interlock_deadline {
                return Err(error);
            }
            leftover::stop(data).await;
            leftover::clear_pid_file(data);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the process; also returns how long its log was before.
    fn spawn(
        &self,
        port: Port,
        data: &Path,
        log: &Path,
        settings: &[(&str, String)],
    ) -> Result<(Compute, u64)> {
        self.sockets.claim(&self.account)?;
        let folder = self.sockets.folder();
        let address = Address { folder: folder.to_owned(), port: port.0.0 };
        for stale in [address.socket(), folder.join(format!(".s.PGSQL.{}.lock", port.0.0))] {
            // Nothing runs under this number: whatever is there was left by a killed compute.
            let _ = std::fs::remove_file(stale);
        }
        let log_file = open_log(log)?;
        let said_before = log_file.metadata()?.len();
        let mut command = self.account.command(&self.install.program("postgres"));
        command.arg("-D").arg(data);
        for (name, value) in usual_settings(&address).iter().chain(settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Error::new(Kind::Failed, "could not start Postgres").why(error.to_string())
            })?;
        let tethered = tethered(&child);
        Ok((Compute { child, address, port, _tethered: tethered }, said_before))
    }

    fn free_port(&self) -> Result<Port> {
        let mut taken = locked(&self.ports);
        let free = (1..=u16::MAX).find(|port| !taken.contains(port)).ok_or_else(|| {
            Error::new(Kind::Failed, "no more computes can run at once in this workspace")
        })?;
        taken.insert(free);
        Ok(Port(Arc::new(Number(free, self.ports.clone()))))
    }
}

/// Makes a Postgres end with this process.
pub(super) fn tethered(child: &Child) -> Option<Tethered> {
    child.id().and_then(|id| Pid::from_raw(id.cast_signed())).map(tether::process)
}

impl Compute {
    /// Says whether the postmaster still runs.
    pub(super) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Says whether it runs and its socket is there; cleaners of temporary folders take sockets away.
    pub(super) fn reachable(&mut self) -> bool {
        self.alive() && self.address.socket().exists()
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the number it listens under.
    pub(super) fn port(&self) -> Port {
        self.port.clone()
    }

    /// Waits until the postmaster says in its pid file that it takes sessions.
    async fn ready(
        &mut self,
        data: &Path,
        log: &Path,
        said_before: u64,
        deadline: Instant,
    ) -> Result<()> {
        let pid_file = data.join("postmaster.pid");
        let mut pause = Duration::from_millis(2);
        loop {
            if says_ready(&pid_file, self.child.id()) {
                return Ok(());
            }
            if !self.alive() {
                return Err(last_words(log, said_before));
            }
            if Instant::now() > deadline {
                return Err(Error::new(Kind::TimedOut, "the compute did not start in time"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(Duration::from_millis(5));
        }
    }

    /// Ends the postmaster and waits until it is gone.
    pub(super) async fn stop(mut self, how: Stop) {
        let steps = match how {
            Stop::Clean => [(Signal::INT, CLEAN_STOP), (Signal::QUIT, LINGER)].as_slice(),
            Stop::Discard => [(Signal::QUIT, LINGER)].as_slice(),
        };
        for (signal, patience) in steps {
            if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                // It may be gone by itself already, which is what we want.
                let _ = kill_process(pid, *signal);
            }
            if tokio::time::timeout(*patience, self.child.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.child.kill().await;
    }
}

/// Returns the settings every compute gets. They are arguments so that nothing inside the cluster can
/// change them: the log kept in `pg_wal` is the only archive, and `wal_recycle` would overwrite
/// segments that branches share.
pub(super) fn usual_settings(address: &Address) -> Vec<(&'static str, String)> {
    let fixed = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("shared_buffers", "16MB"),
        ("wal_level", "replica"),
        ("wal_recycle", "off"),
        ("wal_init_zero", "off"),
        ("wal_keep_size", "100TB"),
        ("archive_mode", "off"),
        ("max_wal_senders", WAL_SENDERS),
        ("max_replication_slots", "0"),
        ("full_page_writes", "on"),
        ("hot_standby", "off"),
        ("jit", "off"),
        // In files of the cluster, which go with it also when it was killed.
        ("dynamic_shared_memory_type", "mmap"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("lc_messages", "C"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] "),
        // A failed statement may hold a password.
        ("log_min_error_statement", "panic"),
        #[cfg(target_os = "linux")]
        ("recovery_init_sync_method", "syncfs"),
    ];
    let mut settings: Vec<_> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    settings.push(("max_connections", USUAL_CONNECTIONS.to_string()));
    settings.push(("unix_socket_directories", address.folder.display().to_string()));
    settings.push(("port", address.port.to_string()));
    settings
}

/// Says whether the pid file names process `id` and its eighth line says `ready`.
///
/// Source: PostgreSQL 15 `src/include/utils/pidfile.h`.
fn says_ready(pid_file: &Path, id: Option<u32>) -> bool {
    let Ok(text) = std::fs::read_to_string(pid_file) else { return false };
    let mut lines = text.lines();
    let ours = lines.next().and_then(|pid| pid.trim().parse().ok()) == id;
    ours && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

/// Opens the log for appending; a long one is put aside first.
pub(super) fn open_log(log: &Path) -> Result<File> {
    if std::fs::metadata(log).is_ok_and(|facts| facts.len() > LOG_BYTES) {
        std::fs::rename(log, log.with_extension("old"))?;
    }
    Ok(OpenOptions::new().create(true).append(true).open(log)?)
}

/// Makes an error of what a compute wrote to its log since it was `from` bytes long.
pub(super) fn last_words(log: &Path, from: u64) -> Error {
    let mut text = String::new();
    if let Ok(mut file) = File::open(log) {
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_string(&mut text));
        if read.is_err() {
            text.clear();
        }
    }
    let mut error = Error::new(Kind::Failed, "the compute ended while starting");
    let telling = |line: &&str| line.contains("FATAL:") || line.contains("PANIC:");
    for line in text.lines().filter(telling).take(3) {
        error = error.why(line.split_once("] ").map_or(line, |(_, said)| said));
    }
    error.hint(format!("see {}", log.display()))
}
