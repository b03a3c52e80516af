//! What killed servers and computes left behind: postmasters, pid files, shared memory.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::cluster::data_of;
use super::copy::remove_folder;

/// How long each signal is given to end a left-over postmaster.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops the postmaster that still runs on the data directory `data`, if there is one.
pub(super) async fn stop(data: &Path) {
    for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
        let deadline = Instant::now() + PATIENCE;
        let Some(pid) = postmaster_of(data) else { return };
        if kill_process(pid, signal).is_err() {
            return;
        }
        while postmaster_of(data) == Some(pid) {
            if Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Deletes the pid file of `data` when Postgres would not start beside it for no reason: the process it
/// names is alive and something else, since numbers are used again, or it was cut off while it was written.
pub(super) fn clear_pid_file(data: &Path) {
    let alive = recorded(data).is_none_or(|pid| test_kill_process(pid).is_ok());
    if alive && postmaster_of(data).is_none() {
        // A failure shows itself when the compute is started.
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
    }
}

/// Deletes the folder of a cluster that nobody will start again, with what a killed compute of it left.
pub(super) fn discard(folder: &Path) -> io::Result<()> {
    if let Some(memory) = left_memory(&data_of(folder)) {
        memory.release();
    }
    remove_folder(folder)
}

/// Gives the shared memory back that a killed compute of `data` had, unless processes of it are still at
/// work; else the system keeps it until the next start of that compute, which may never come.
pub(super) fn release_memory(data: &Path) {
    if let Some(memory) = left_memory(data).filter(|memory| !memory.used) {
        memory.release();
    }
}

/// The shared memory by which Postgres knows whether anybody is at work on a data directory.
struct Memory {
    number: String,
    used: bool,
}

impl Memory {
    fn release(&self) {
        // Fifty bytes: only thousands of them would hurt.
        let _ = std::process::Command::new("ipcrm").args(["-m", &self.number]).status();
    }
}

/// Returns the shared memory that the pid file of `data` names, if there still is one of that key and number.
fn left_memory(data: &Path) -> Option<Memory> {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let named: Vec<&str> = file.lines().nth(6)?.split_whitespace().collect();
    let all = std::fs::read_to_string("/proc/sysvipc/shm").ok()?;
    all.lines().find_map(|line| {
        // Key, number, rights, size, two processes, users.
        let fields: Vec<&str> = line.split_whitespace().take(7).collect();
        let same = fields.len() == 7 && fields[..2] == named[..];
        same.then(|| Memory { number: fields[1].to_owned(), used: fields[6] != "0" })
    })
}

/// Returns the live postmaster of `data`: the process its pid file names, if it really is one.
fn postmaster_of(data: &Path) -> Option<Pid> {
    let pid = recorded(data)?;
    let words = command_line(pid)?;
    let ours = words.first().is_some_and(|program| program.ends_with("postgres"))
        && words.iter().any(|word| Path::new(word) == data);
    ours.then_some(pid)
}

/// Returns the process that the pid file of `data` names.
pub(super) fn recorded(data: &Path) -> Option<Pid> {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    // A Postgres without sessions, which recovers a copy, writes its number with a minus sign.
    Pid::from_raw(file.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?)
}

#[cfg(target_os = "linux")]
fn command_line(pid: Pid) -> Option<Vec<String>> {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    Some(line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect())
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: Pid) -> Option<Vec<String>> {
    let pid = pid.as_raw_nonzero().to_string();
    let output =
        std::process::Command::new("ps").args(["-o", "args=", "-p", &pid]).output().ok()?;
    // Data directories may hold spaces: what follows ` -D ` up to the next option is one word.
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (program, rest) = line.split_once(" -D ")?;
    let data = rest.split(" -c ").next().unwrap_or(rest);
    Some(vec![program.to_owned(), data.to_owned()])
}
