//! Writes that fail when a test wants them to, as on a disk without room.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The full disks, by the folder of their store.
static DISKS: Mutex<BTreeMap<PathBuf, Disk>> = Mutex::new(BTreeMap::new());

struct Disk {
    /// Commits that still succeed.
    left: usize,
    /// Whether objects can be filed while they do.
    files: bool,
    /// Whether a commit has failed.
    met: bool,
}

/// A disk without room, until this is dropped.
pub(crate) struct Full(PathBuf);

/// Lets every write of the store in `folder` fail once `commits` have succeeded.
pub(crate) fn fill_after(folder: &Path, commits: usize) -> Full {
    fill(folder, Disk { left: commits, files: true, met: false })
}

/// Lets the store in `folder` commit to its journal and file nothing.
pub(crate) fn keep_from_filing(folder: &Path) -> Full {
    fill(folder, Disk { left: usize::MAX, files: false, met: false })
}

fn fill(folder: &Path, disk: Disk) -> Full {
    disks().insert(folder.to_owned(), disk);
    Full(folder.to_owned())
}

impl Full {
    /// Returns whether a commit has failed.
    pub(crate) fn was_met(&self) -> bool {
        disks()[&self.0].met
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        disks().remove(&self.0);
    }
}

/// Fails when the next commit to the store in `folder` is to fail.
pub(super) fn meet_commit(folder: &Path) -> io::Result<()> {
    let mut disks = disks();
    let Some(disk) = disks.get_mut(folder) else { return Ok(()) };
    disk.met |= disk.left == 0;
    if disk.met {
        return Err(io::ErrorKind::StorageFull.into());
    }
    disk.left -= 1;
    Ok(())
}

/// Fails when no object of the store in `folder` can be filed.
pub(super) fn meet_filing(folder: &Path) -> io::Result<()> {
    match disks().get(folder) {
        Some(disk) if disk.left == 0 || !disk.files => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Disk>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}
