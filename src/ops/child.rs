//! A child in a process group of its own: a signal to us is passed on to the whole group, and waited for.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::error::{Error, Kind};
use crate::ui::{Hold, Interrupt, Steps};

/// How long what a leader leaves behind may take to follow it.
const REST: Duration = Duration::from_secs(2);
/// How often a group that was told to end is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a group that was told to end is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// This long; then it is killed, and also when nobody waits any more.
    Until(Duration),
    /// However long it takes: killed, it would leave a lock behind.
    Endless,
}

/// The process group of a child.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    patience: Patience,
    ended: bool,
    steps: Steps,
    /// An interrupted command does not end before its children.
    _hold: Hold,
}

/// A signal that came before a child ended, and what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    /// The signal.
    pub(super) signal: Interrupt,
    /// Whether the child had to be killed.
    pub(super) killed: bool,
}

/// Starts `command`, without standard input, as the leader of a group.
pub(super) fn spawn(
    steps: &Steps,
    command: &mut Command,
    patience: Patience,
) -> io::Result<(Child, Group)> {
    let hold = steps.hold();
    let child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let leader = leader.ok_or_else(|| io::Error::other("it ended at once"))?;
    Ok((child, Group { leader, patience, ended: false, steps: steps.clone(), _hold: hold }))
}

impl Group {
    /// Waits for `end`, the end of the child; passes a signal that comes first on to its group.
    pub(super) async fn wait<T>(mut self, end: impl Future<Output = T>) -> (T, Option<Stopped>) {
        tokio::pin!(end);
        let signal = tokio::select! {
            biased;
            done = &mut end => {
                // What it left running in the background is left alone.
                self.ended = true;
                return (done, None);
            }
            signal = self.steps.signalled() => signal,
        };
        let (limit, passed) = match (self.patience, signal) {
            (Patience::Until(limit), _) => (limit, Signal::TERM),
            (Patience::Endless, Interrupt::Interrupted) => (Duration::MAX, Signal::INT),
            (Patience::Endless, Interrupt::Terminated) => (Duration::MAX, Signal::TERM),
        };
        self.steps.would_leave(Error::new(Kind::Interrupted, "interrupted").why(self.left()));
        self.send(passed);
        let (done, killed) = match tokio::time::timeout(limit, &mut end).await {
            Ok(done) => (done, false),
            Err(_) => {
                self.send(Signal::KILL);
                (end.await, true)
            }
        };
        self.end_the_rest().await;
        (done, Some(Stopped { signal, killed }))
    }

    /// Waits a moment for what the leader leaves behind after a signal, and kills what stays.
    ///
    /// Where nobody reaps orphans, as in a container without init, the dead stay to the end.
    async fn end_the_rest(&mut self) {
        if self.patience != Patience::Endless {
            let end = Instant::now() + REST;
            while test_kill_process_group(self.leader).is_ok() && Instant::now() < end {
                tokio::time::sleep(LOOK).await;
            }
            self.send(Signal::KILL);
        }
        self.ended = true;
    }

    /// Says what becomes of the group when nobody waits for it any more.
    fn left(&self) -> &'static str {
        match self.patience {
            Patience::Until(_) => "what still ran is killed; what it had committed stays",
            Patience::Endless => "the Databricks CLI still runs, with the lock of the deployment",
        }
    }

    fn send(&self, signal: Signal) {
        // A group that is gone needs none.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended && self.patience != Patience::Endless {
            self.send(Signal::KILL);
        }
    }
}
