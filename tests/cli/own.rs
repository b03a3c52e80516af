//! A workspace of a test's own, for tests that stop, kill or empty it.

use std::collections::HashMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::forge::Forge;

/// A test's own workspace; it ends with the test, also with one that fails.
pub(crate) struct Own(pub(crate) Forge);

impl Own {
    /// Starts one in an empty folder.
    pub(crate) fn start() -> Self {
        let own = Own::offline();
        own.succeed("local start --port 0");
        own
    }

    /// Prepares one that the test starts itself.
    pub(crate) fn offline() -> Self {
        Own(Forge::offline())
    }
}

impl Deref for Own {
    type Target = Forge;

    fn deref(&self) -> &Forge {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.output("-q local stop");
    }
}

/// Returns what `local status` says.
pub(crate) fn status(forge: &Forge) -> Value {
    serde_json::from_str(&forge.succeed("-q local status -o json")).unwrap()
}

/// Returns the process id of the server.
pub(crate) fn server(forge: &Forge) -> Pid {
    pid(status(forge)["pid"].as_i64().unwrap())
}

/// Kills a process without a chance to tidy up.
pub(crate) fn kill(process: Pid) {
    kill_process(process, Signal::KILL).unwrap();
}

/// Kills a process that may have ended meanwhile.
#[cfg(target_os = "linux")]
pub(crate) fn kill_if_there(process: Pid) {
    // Gone is what is wanted.
    let _ = kill_process(process, Signal::KILL);
}

/// Returns every process below `process`.
pub(crate) fn descendants(process: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![process];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Returns the parent of `process`.
pub(crate) fn parent(process: Pid) -> Pid {
    parents()[&process]
}

/// Waits until none of `processes` is there; `false` after ten seconds.
pub(crate) fn gone(processes: &[Pid]) -> bool {
    within(Duration::from_secs(10), || {
        let alive = parents();
        !processes.iter().any(|process| alive.contains_key(process))
    })
}

/// Asks until the answer is yes, or `limit` has passed.
pub(crate) fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Makes a process id of a number.
pub(crate) fn pid(number: i64) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Returns the parent of every running process.
#[cfg(target_os = "linux")]
fn parents() -> HashMap<Pid, Pid> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let stats = entries.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        // The name in brackets may hold spaces; the state and the parent follow it.
        let (head, tail) = stat.rsplit_once(") ")?;
        let mut tail = tail.split(' ');
        Some([head.split(' ').next()?, tail.next()?, tail.next()?].map(str::to_owned))
    });
    stats.filter_map(|[process, state, parent]| family(&process, &parent, &state)).collect()
}

/// Returns the parent of every running process.
#[cfg(not(target_os = "linux"))]
fn parents() -> HashMap<Pid, Pid> {
    let output =
        std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            family(fields.next()?, fields.next()?, fields.next()?)
        })
        .collect()
}

/// Returns a process and its parent, unless it has ended and merely waits to be asked.
fn family(process: &str, parent: &str, state: &str) -> Option<(Pid, Pid)> {
    let pid = |text: &str| Pid::from_raw(text.parse().ok()?);
    if state.starts_with('Z') { None } else { Some((pid(process)?, pid(parent)?)) }
}
