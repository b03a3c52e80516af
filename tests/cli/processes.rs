//! The processes and sockets of a workspace, as the system sees them.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
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

    /// Says whether `word` is one of its command line.
    pub(crate) fn runs(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// Returns the data directory when it is a postmaster.
    pub(crate) fn data(&self) -> Option<&Path> {
        let postgres = self.words.first()?.ends_with("/postgres");
        let at = self.words.iter().position(|word| word == "-D").filter(|_| postgres)?;
        self.words.get(at + 1).map(Path::new)
    }

    /// Returns the shared memory it uses: files of the system, and segments by key and number.
    pub(crate) fn memory(&self) -> Vec<Memory> {
        // It may be gone by now.
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid.as_raw_nonzero()));
        maps.unwrap_or_default().lines().filter_map(Memory::read).collect()
    }

    /// Returns the folder of its socket when it is a postmaster.
    pub(crate) fn sockets(&self) -> Option<PathBuf> {
        let name = "unix_socket_directories=";
        self.words.iter().find_map(|word| word.strip_prefix(name)).map(PathBuf::from)
    }
}

/// A piece of shared memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Memory {
    File(PathBuf),
    Segment { key: u32, number: u32 },
}

impl Memory {
    /// Reads a line of a process's map.
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (number, name) = (fields.get(4)?, fields.get(5)?);
        if let Some(key) = name.strip_prefix("/SYSV") {
            let key = u32::from_str_radix(key, 16).ok()?;
            return Some(Memory::Segment { key, number: number.parse().ok()? });
        }
        let file = name.starts_with("/dev/shm/PostgreSQL.");
        file.then(|| Memory::File(PathBuf::from(name)))
    }

    /// Says whether the system still keeps it.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Memory::File(path) => path.exists(),
            Memory::Segment { key, number } => {
                let all = fs::read_to_string("/proc/sysvipc/shm").unwrap();
                let [key, number] = [key, number].map(u32::to_string);
                all.lines()
                    .any(|line| line.split_whitespace().take(2).eq([key.as_str(), number.as_str()]))
            }
        }
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

/// Returns how many files `process` has open.
pub(crate) fn open_files(process: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).unwrap().count()
}

/// Returns the addresses on which `processes` wait for connections.
pub(crate) fn listening(processes: &[Pid]) -> BTreeSet<(IpAddr, u16)> {
    let owned: BTreeSet<String> =
        processes.iter().flat_map(|process| sockets_of(*process)).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let tables: Vec<String> = tables.into_iter().filter_map(Result::ok).collect();
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| listener(line, &owned)).collect()
}

/// Returns the inode numbers of a process's sockets.
fn sockets_of(process: Pid) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())) else {
        return Vec::new();
    };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// Reads a line of the system's table of sockets; none unless it listens and is `owned`.
fn listener(line: &str, owned: &BTreeSet<String>) -> Option<(IpAddr, u16)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.get(3) != Some(&LISTEN) || !owned.contains(*fields.get(9)?) {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Words of four bytes, each in the byte order of the machine.
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        _ => {
            let words: Option<Vec<u8>> = (0..4)
                .map(|index| Some(word(index * 8)?.to_ne_bytes()))
                .collect::<Option<Vec<_>>>()
                .map(|words| words.concat());
            IpAddr::from(<[u8; 16]>::try_from(words?).ok()?)
        }
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}
