//! Copying a data directory, several files at a time.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::account::Account;
use super::durable::sync_name;

/// Threads that copy at once; more does not help on the disks measured.
const THREADS: usize = 4;

/// Bytes that are read at once.
const COPY_BYTES: usize = 256 << 10;

/// Folders whose contents a running server makes anew, and that of the log, which is shared instead.
///
/// Source: PostgreSQL documentation, 26.3.3 "Backing Up the Data Directory", read 2026-11-20.
const TRANSIENT_FOLDERS: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Files that belong to the running server, or that only make sense in the copy they were made for.
const TRANSIENT_FILES: [&str; 7] = [
    "postmaster.pid",
    "postmaster.opts",
    "recovery.signal",
    "standby.signal",
    "backup_label.old",
    "pg_internal.init",
    "postgresql.auto.conf.tmp",
];

/// Where the blocks of a copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blocks {
    /// Where those of the original are, as far as the file system can share them.
    Shared,
    /// In places of their own, each file in one piece.
    Own,
}

/// Copies the data directory `source` without its log to `target`, owned by `account`.
///
/// `source` may belong to a running server: files that vanish meanwhile are left out.
pub(super) fn copy_data(
    source: &Path,
    target: &Path,
    account: &Account,
    blocks: Blocks,
) -> io::Result<()> {
    let mut files = Vec::new();
    account.create_folder(target)?;
    plan(source, target, Path::new(""), account, &mut files)?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                copy_file(&source.join(file), &target.join(file), account, blocks)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| {
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a copy panicked")))
            })
            .collect::<io::Result<Vec<()>>>()
    })?;
    Ok(())
}

/// Says whether copies of files in `folder` share their blocks, by trying it. Where it cannot be tried, as on a full
/// disk, they do not.
pub(super) fn shares_blocks(folder: &Path) -> bool {
    try_sharing(folder).is_ok()
}

#[cfg(target_os = "linux")]
fn try_sharing(folder: &Path) -> io::Result<()> {
    use std::io::Write;
    let (mut file, clone) = (tempfile::tempfile_in(folder)?, tempfile::tempfile_in(folder)?);
    file.write_all(&[0; 4096])?;
    Ok(rustix::fs::ioctl_ficlone(&clone, &file)?)
}

#[cfg(target_vendor = "apple")]
fn try_sharing(folder: &Path) -> io::Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let (file, clone) = (folder.path().join("file"), folder.path().join("clone"));
    fs::write(&file, [0; 4096])?;
    let flags = rustix::fs::CloneFlags::empty();
    Ok(rustix::fs::fclonefileat(fs::File::open(&file)?, rustix::fs::CWD, &clone, flags)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn try_sharing(_: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Creates the folders of the copy and lists the files that belong into it.
fn plan(
    source: &Path,
    target: &Path,
    folder: &Path,
    account: &Account,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(source.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = folder.join(&name);
        let name = name.to_string_lossy();
        let Some(kind) = unless_gone(entry.file_type())? else { continue };
        if kind.is_dir() {
            if name.starts_with("pgsql_tmp") {
                continue;
            }
            account.create_folder(&target.join(&path))?;
            let empty = folder == Path::new("") && TRANSIENT_FOLDERS.contains(&name.as_ref());
            if !empty {
                plan(source, target, &path, account, files)?;
            }
        } else if kind.is_file()
            && !TRANSIENT_FILES.contains(&name.as_ref())
            && !name.starts_with("pgsql_tmp")
        {
            files.push(path);
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, account: &Account, blocks: Blocks) -> io::Result<()> {
    if from.file_name().is_some_and(|name| name == "pg_control") {
        return copy_control(from, to, account);
    }
    let copied = match blocks {
        Blocks::Shared => fs::copy(from, to).map(drop),
        Blocks::Own => copy_bytes(from, to),
    };
    match unless_gone(copied)? {
        Some(_) => account.own(to),
        None => unless_gone(fs::remove_file(to)).map(drop),
    }
}

/// Copies a file by reading and writing it; std would have its blocks shared.
fn copy_bytes(from: &Path, to: &Path) -> io::Result<()> {
    use std::io::{Read, Write};
    let (mut source, mut copy) = (fs::File::open(from)?, fs::File::create(to)?);
    copy.set_permissions(source.metadata()?.permissions())?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => copy.write_all(&buffer[..count])?,
        }
    }
}

/// Copies the control file, which the server overwrites in place: until two readings agree.
fn copy_control(from: &Path, to: &Path, account: &Account) -> io::Result<()> {
    let mut control = fs::read(from)?;
    loop {
        let again = fs::read(from)?;
        if again == control {
            break;
        }
        control = again;
    }
    fs::write(to, control)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    account.own(to)
}

/// Turns the error about a file that is not there into nothing.
pub(super) fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes the folder `path` if it is there: first under a name that says so, so that a half-deleted
/// folder is never taken for a whole one.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let gone = parent.join(format!(".gone-{}", name.to_string_lossy()));
    unless_gone(fs::remove_dir_all(&gone))?;
    if unless_gone(fs::rename(path, &gone))?.is_none() {
        return Ok(());
    }
    loop {
        match fs::remove_dir_all(&gone) {
            // The last processes of a killed compute may still write.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            done => return unless_gone(done).map(drop),
        }
    }
}

/// Writes `contents` to `path` so that after a crash either the old or the new is there, whole.
pub(super) fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    sync_name(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_leaves_out_what_belongs_to_the_running_server() {
        let (source, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in ["base/1", "pg_wal", "pg_notify", "global", "base/pgsql_tmp"] {
            fs::create_dir_all(source.path().join(folder)).unwrap();
        }
        for file in ["base/1/16384", "pg_wal/1", "pg_notify/0", "global/pg_control"] {
            fs::write(source.path().join(file), file).unwrap();
        }
        fs::write(source.path().join("postmaster.pid"), "1").unwrap();
        let account = Account::detect().unwrap();
        for (name, blocks) in [("shared", Blocks::Shared), ("own", Blocks::Own)] {
            let target = parent.path().join(name);
            copy_data(source.path(), &target, &account, blocks).unwrap();
            assert_copied(&target);
        }
    }

    fn assert_copied(target: &Path) {
        assert_eq!(fs::read_to_string(target.join("base/1/16384")).unwrap(), "base/1/16384");
        assert_eq!(
            fs::read_to_string(target.join("global/pg_control")).unwrap(),
            "global/pg_control"
        );
        assert!(target.join("pg_notify").is_dir() && target.join("pg_wal").is_dir());
        for missing in ["pg_notify/0", "pg_wal/1", "postmaster.pid", "base/pgsql_tmp"] {
            assert!(!target.join(missing).exists(), "{missing}");
        }
    }

    #[test]
    fn where_sharing_cannot_be_tried_nothing_is_shared() {
        let parent = tempfile::tempdir().unwrap();

        assert!(!shares_blocks(&parent.path().join("missing")));
    }
}
