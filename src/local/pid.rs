//! A process by its number and its start: the system uses numbers again.

use rustix::process::{Pid, Signal};

/// One process and no other, also after it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: Pid,
    /// When it started, in whatever words the system has for it.
    start: String,
}

impl ProcessId {
    /// Returns the process that has the number `pid` now.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Some(ProcessId { pid, start: start_of(pid)? })
    }

    /// Returns this process.
    pub(crate) fn current() -> Option<Self> {
        ProcessId::of(rustix::process::getpid())
    }

    /// Reads what [`ProcessId::text`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.split_once('\n')?;
        let start = start.strip_suffix('\n').filter(|start| !start.is_empty())?;
        let pid = Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)?;
        Some(ProcessId { pid, start: start.to_owned() })
    }

    /// Returns it as it is kept in a file.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}\n", self.pid.as_raw_nonzero(), self.start)
    }

    /// Returns whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_of(self.pid).as_ref() == Some(&self.start)
    }

    /// Sends it `signal`, unless it has ended. Another process of the same number never gets one.
    #[cfg(target_os = "linux")]
    pub(crate) fn signal(&self, signal: Signal) {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        // What is looked at after the descriptor was opened is what the descriptor stands for.
        if let Ok(process) = pidfd_open(self.pid, PidfdFlags::empty())
            && self.is_alive()
        {
            // Gone meanwhile is what is wanted.
            let _ = pidfd_send_signal(&process, signal);
        }
    }

    /// Sends it `signal`, unless it has ended.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // Gone meanwhile is what is wanted.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn start_of(pid: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in brackets may hold anything; the state follows it, and as the 20th field the start time.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(19).filter(|_| !has_ended(fields[0])).map(|start| (*start).to_owned())
}

#[cfg(not(target_os = "linux"))]
fn start_of(pid: Pid) -> Option<String> {
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.as_raw_nonzero().to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (state, start) = text.trim().split_once(' ')?;
    (!has_ended(state)).then(|| start.trim().to_owned())
}

/// Returns whether a process in this state has ended and merely waits to be asked how.
fn has_ended(state: &str) -> bool {
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_the_process_that_started_then_gets_a_signal() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let found = ProcessId::of(Pid::from_child(&child)).unwrap();
        let other = ProcessId { start: format!("{}0", found.start), ..found.clone() };

        assert!(found.is_alive() && !other.is_alive());
        other.signal(Signal::KILL);
        found.signal(Signal::TERM);

        // The first signal to arrive is the one it ends of.
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
        assert!(!found.is_alive());
        found.signal(Signal::KILL);
    }

    #[test]
    fn what_is_written_is_read_back_and_anything_else_is_no_process() {
        let current = ProcessId::current().unwrap();

        assert_eq!(ProcessId::parse(&current.text()), Some(current));
        for text in ["", "12", "12\n", "12\n\n", "0\nnow\n", "-1\nnow\n", "x\nnow\n", "12\nnow"] {
            assert_eq!(ProcessId::parse(text), None, "{text:?}");
        }
    }
}
