//! Making sure that what was written is on disk before anybody relies on it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::blocking;
use super::copy::unless_gone;
use crate::error::Result;

/// Changed files from which on the whole file system is synced, where one call does that.
const MANY: usize = 256;
/// How far the clock that files are stamped with may be behind.
const TICK: Duration = Duration::from_millis(10);

/// A data directory as it was laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Laid {
    /// Nothing of it is known to be on disk.
    Fresh,
    /// All of it is on disk, but what was changed from then on.
    Durable {
        /// When the changes began.
        but: SystemTime,
    },
}

impl Laid {
    /// Syncs what was laid out in `folder` where that takes time, and returns from when on changes are
    /// left to sync.
    pub(super) async fn sync(self, folder: &Path) -> Result<SystemTime> {
        match self {
            Laid::Durable { but } => Ok(but),
            Laid::Fresh => {
                let (folder, laid) = (folder.to_owned(), SystemTime::now());
                blocking(move || Ok(sync_all(&folder)?)).await?;
                Ok(laid)
            }
        }
    }
}

/// Syncs everything under `folder` and its name, one file after the other: slow, and gentle to others.
pub(super) fn sync_each(folder: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    collect(folder, &|_| true, &mut found)?;
    sync(&found)?;
    sync_name(folder)
}

/// Syncs everything under `folder` and its name as quickly as the system can.
pub(super) fn sync_all(folder: &Path) -> io::Result<()> {
    if sync_file_system(folder)? {
        return Ok(());
    }
    sync_each(folder)
}

/// Syncs what was changed under `folder` from `since` on, and its name.
pub(super) fn sync_changed(folder: &Path, since: SystemTime) -> io::Result<()> {
    let since = since - TICK;
    let mut found = Vec::new();
    let changed = |facts: &Metadata| facts.modified().map_or(true, |time| time >= since);
    collect(folder, &changed, &mut found)?;
    if found.len() > MANY && sync_file_system(folder)? {
        return Ok(());
    }
    sync(&found)?;
    sync_name(folder)
}

/// Lists `folder` and what is under it, as far as `wanted`.
fn collect(
    folder: &Path,
    wanted: &impl Fn(&Metadata) -> bool,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let Some(facts) = unless_gone(fs::metadata(folder))? else { return Ok(()) };
    let Some(entries) = unless_gone(fs::read_dir(folder))? else { return Ok(()) };
    if wanted(&facts) {
        found.push(folder.to_owned());
    }
    for entry in entries {
        let entry = entry?;
        let Some(facts) = unless_gone(entry.metadata())? else { continue };
        if facts.is_dir() {
            collect(&entry.path(), wanted, found)?;
        } else if facts.is_file() && wanted(&facts) {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Syncs files and folders; those that vanished meanwhile need it no more.
fn sync(paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let Some(file) = unless_gone(File::open(path))? else { continue };
        // Postgres does the same: on macOS std asks the disk itself, which takes far longer.
        rustix::fs::fsync(&file)?;
    }
    Ok(())
}

/// Syncs the folder that `path` is in, and with it that there is something of this name.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => sync(&[parent.to_owned()]),
        None => Ok(()),
    }
}

/// Syncs the file system of `folder`; false where there is no such call.
#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<bool> {
    rustix::fs::syncfs(File::open(folder)?)?;
    Ok(true)
}

/// Syncs the file system of `folder`; false where there is no such call.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_since_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let begun = SystemTime::now();
        fs::create_dir(folder.path().join("base")).unwrap();
        fs::write(folder.path().join("base/1"), "new").unwrap();
        let old = File::create(folder.path().join("old")).unwrap();
        old.set_modified(begun - Duration::from_secs(60)).unwrap();
        let mut found = Vec::new();

        let changed = |facts: &Metadata| facts.modified().unwrap() >= begun - TICK;
        collect(folder.path(), &changed, &mut found).unwrap();

        assert!(found.contains(&folder.path().join("base/1")), "{found:?}");
        assert!(found.contains(&folder.path().join("base")), "{found:?}");
        assert!(!found.contains(&folder.path().join("old")), "{found:?}");
        sync_changed(folder.path(), begun).unwrap();
        sync_each(folder.path()).unwrap();
    }
}
