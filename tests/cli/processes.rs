//! The processes of a workspace, as the system sees them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::own;

/// A process below a server.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// Words of its command line; one for a process that gave itself a title.
    words: Vec<String>,
}

impl Process {
    fn read(pid: Pid) -> Option<Self> {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into());
        Some(Process { pid, words: words.collect() })
    }

    /// Returns the data directory when it is a postmaster.
    pub(crate) fn data(&self) -> Option<&Path> {
        let postgres = self.words.first()?.ends_with("/postgres");
        let at = self.words.iter().position(|word| word == "-D").filter(|_| postgres)?;
        self.words.get(at + 1).map(Path::new)
    }

    /// Returns the folder of its socket when it is a postmaster.
    pub(crate) fn sockets(&self) -> Option<PathBuf> {
        let name = "unix_socket_directories=";
        self.words.iter().find_map(|word| word.strip_prefix(name)).map(PathBuf::from)
    }
}

/// Returns all processes below `server`.
pub(crate) fn below(server: Pid) -> Vec<Process> {
    own::descendants(server).into_iter().filter_map(Process::read).collect()
}

/// Returns the postmasters among `processes`.
pub(crate) fn postmasters(processes: &[Process]) -> Vec<&Process> {
    processes.iter().filter(|process| process.data().is_some()).collect()
}

/// Returns every process that works in `folder` or below it: computes and apps do.
pub(crate) fn working_in(folder: &Path) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let number: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let place = fs::read_link(format!("/proc/{number}/cwd")).ok()?;
        place.starts_with(folder).then_some(number)
    });
    numbers.filter_map(|number| Process::read(Pid::from_raw(number)?)).collect()
}
