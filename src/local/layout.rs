//! What lies where in a data folder, and whether a server holds it. Looks, and changes nothing.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pid::ProcessId;
use crate::error::{Doing, Result};

/// The names in the data folder of one embedded workspace.
#[derive(Debug, Clone)]
pub(crate) struct Layout(PathBuf);

/// What a server writes down as soon as it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// Process id.
    pub(crate) pid: u32,
    /// Base address of the REST API.
    pub(crate) host: String,
}

/// Who holds the data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody.
    Nobody,
    /// A server that is just starting, or somebody who clears up after one.
    Unknown,
    /// This server.
    Server(ProcessId),
}

impl Holder {
    /// Returns the server's process.
    pub(crate) fn process(&self) -> Option<&ProcessId> {
        match self {
            Holder::Server(process) => Some(process),
            Holder::Nobody | Holder::Unknown => None,
        }
    }
}

impl Layout {
    /// Everything that a server makes in its data folder.
    pub(super) const NAMES: [&str; 10] = [
        "objects",
        "keys",
        "tls",
        "postgres",
        "files",
        "apps",
        "databrickscfg",
        "server.log",
        "server.json",
        "lock",
    ];

    /// Names the data folder `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Layout(folder.to_owned())
    }

    /// Returns the folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Returns the folder of the state's objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Returns the folder of the signing keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Returns the folder of the certificate authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// Returns the folder of the Postgres engine.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// Returns the folder of workspace files.
    pub(crate) fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Returns the folder of the apps.
    pub(crate) fn apps(&self) -> PathBuf {
        self.0.join("apps")
    }

    /// Returns the log of an app.
    pub(crate) fn app_log(&self, app: &str) -> PathBuf {
        self.apps().join(app).join("log")
    }

    /// Returns the file of Databricks profiles.
    pub(crate) fn profiles(&self) -> PathBuf {
        self.0.join("databrickscfg")
    }

    /// Returns the log of a server in the background.
    pub(crate) fn server_log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    pub(super) fn serving_file(&self) -> PathBuf {
        self.0.join("server.json")
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Returns who holds the data folder.
    pub(crate) fn holder(&self) -> Result<Holder> {
        let path = self.lock_file();
        let what = || format!("could not look at `{}`", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Holder::Nobody);
            }
            Err(error) => return Err(error).doing(what),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Holder::Nobody),
            Err(TryLockError::WouldBlock) => {
                let text = fs::read_to_string(&path).unwrap_or_default();
                // What a killed server wrote stays there while others clear up after it.
                let process = ProcessId::parse(&text).filter(ProcessId::is_alive);
                Ok(process.map_or(Holder::Unknown, Holder::Server))
            }
            Err(TryLockError::Error(error)) => Err(error).doing(what),
        }
    }

    /// Returns what the server `process` wrote down, if it serves.
    pub(crate) fn serving(&self, process: &ProcessId) -> Option<Serving> {
        let serving: Serving = serde_json::from_slice(&fs::read(self.serving_file()).ok()?).ok()?;
        (i32::try_from(serving.pid).ok()? == process.pid.as_raw_nonzero().get()).then_some(serving)
    }

    /// Returns the bytes that everything in the data folder takes on disk, shared blocks of hard links once.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        size_of(&self.0, &mut seen)
    }
}

fn size_of(folder: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let mut total = 0;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            total += size_of(&entry.path(), seen);
        } else if metadata.nlink() < 2 || seen.insert(metadata.ino()) {
            total += metadata.blocks() * 512;
        }
    }
    total
}
