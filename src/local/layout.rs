//! What lies where in the data folder, and whether a server holds it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Kind, Result};

/// The data folder of one embedded workspace.
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

/// Proof that no other server uses the data folder; ends with its owner.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Layout {
    /// Names the data folder `folder`; nothing is touched.
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

    fn serving_file(&self) -> PathBuf {
        self.0.join("server.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Makes the data folder: others may pass through it (the user Postgres runs as must), but not list it.
    pub(crate) fn make(&self) -> Result<()> {
        let what = || format!("could not make the data folder `{}`", self.0.display());
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.0).doing(what)
    }

    /// Takes the data folder for this process.
    ///
    /// Fails with `Conflict`, naming the process, when another server has it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.lock_file();
        let what = || format!("could not lock `{}`", path.display());
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .doing(what)?;
        // Whoever only looks holds the lock for a moment.
        for _ in 0..50 {
            match file.try_lock() {
                Ok(()) => {
                    let note = |file: &mut File| -> std::io::Result<()> {
                        file.set_len(0)?;
                        file.rewind()?;
                        write!(file, "{}", std::process::id())
                    };
                    note(&mut file).doing(what)?;
                    return Ok(Lock(file));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::Error(error)) => return Err(error).doing(what),
            }
        }
        let mut pid = String::new();
        let holder = match file.read_to_string(&mut pid) {
            Ok(_) if !pid.is_empty() => format!(" (process {pid})"),
            _ => String::new(),
        };
        let folder = self.0.display();
        Err(Error::new(Kind::Conflict, format!("another server{holder} uses `{folder}`"))
            .hint("lakeforge local stop, or choose another folder with --data-dir"))
    }

    /// Returns the process id of the server that holds the data folder, if one does; 0 when it is still starting.
    pub(crate) fn holder(&self) -> Result<Option<u32>> {
        let path = self.lock_file();
        let what = || format!("could not look at `{}`", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing(what),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let text = fs::read_to_string(&path).doing(what)?;
                Ok(Some(text.trim().parse().unwrap_or(0)))
            }
            Err(TryLockError::Error(error)) => Err(error).doing(what),
        }
    }

    /// Writes down that this process serves.
    pub(crate) fn announce(&self, serving: &Serving) -> Result<()> {
        let text = serde_json::to_vec(serving)
            .map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
        super::store::write_private(&self.serving_file(), &text)
    }

    /// Removes what [`Layout::announce`] wrote.
    pub(crate) fn retract(&self) {
        // Not there is what is wanted.
        let _ = fs::remove_file(self.serving_file());
    }

    /// Returns what the last server wrote down.
    pub(crate) fn announced(&self) -> Option<Serving> {
        serde_json::from_slice(&fs::read(self.serving_file()).ok()?).ok()
    }

    /// Removes everything a workspace made, and the folder when nothing else is in it.
    pub(crate) fn clear(&self) -> Result<()> {
        let folders = [
            self.objects(),
            self.keys(),
            self.authority(),
            self.postgres(),
            self.files(),
            self.apps(),
        ];
        for folder in folders {
            gone(fs::remove_dir_all(&folder))
                .doing(|| format!("could not remove `{}`", folder.display()))?;
        }
        let log = self.server_log();
        for file in [self.profiles(), log, self.serving_file(), self.lock_file()] {
            gone(fs::remove_file(&file))
                .doing(|| format!("could not remove `{}`", file.display()))?;
        }
        // Something of somebody else's may be in it.
        let _ = fs::remove_dir(&self.0);
        Ok(())
    }

    /// Returns the bytes that everything in the data folder takes on disk, shared blocks of hard links once.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        size_of(&self.0, &mut seen)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The process id of a server that is gone helps nobody.
        let _ = self.0.set_len(0);
    }
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(layout.holder().unwrap(), None);
        let lock = layout.lock().unwrap();

        let error = layout.lock().unwrap_err();

        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(layout.holder().unwrap(), Some(std::process::id()));
        drop(lock);
        assert_eq!(layout.holder().unwrap(), None);
    }

    #[test]
    fn clearing_leaves_what_is_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.objects().join("apps")).unwrap();
        fs::write(folder.path().join("thesis.txt"), "").unwrap();

        layout.clear().unwrap();
        layout.clear().unwrap();

        assert!(folder.path().join("thesis.txt").exists());
        assert!(!layout.objects().exists());
    }
}
