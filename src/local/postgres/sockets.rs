//! The private folder of a data folder's sockets.
//!
//! Socket paths are limited to about 100 bytes, so it is outside the data folder. A link in it says whose it
//! is: one whose data folder is gone serves nobody, and goes when any server of this user starts.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::account::Account;
use crate::error::{Error, Kind, Result};

/// Link to the data folder.
const DATA: &str = "data";

/// The folder of the sockets of one data folder.
pub(super) struct Sockets {
    folder: PathBuf,
    data: PathBuf,
    closed: AtomicBool,
}

impl Sockets {
    /// Names the folder of the data folder `data`, which is the same each time; nothing is touched.
    pub(super) fn of(account: &Account, data: &Path) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut parent = std::env::temp_dir();
        if account.is_lesser() || parent.as_os_str().len() > 60 {
            parent = PathBuf::from("/tmp");
        }
        let folder = parent.join(format!("{}{name}", prefix(account)));
        Sockets { folder, data: data.to_owned(), closed: AtomicBool::new(false) }
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the folder, or checks that the one there is ours alone; cleaners of temporary folders may
    /// have taken it away.
    ///
    /// Fails with `Unavailable` once it is closed.
    pub(super) fn claim(&self, account: &Account) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Unavailable, "the workspace is being stopped"));
        }
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.check_owner(account)?,
            Err(error) => {
                return Err(Error::new(
                    Kind::Failed,
                    format!("could not create `{}`", self.folder.display()),
                )
                .why(error.to_string()));
            }
            Ok(()) => {}
        }
        account.create_folder(&self.folder)?;
        match symlink(&self.data, self.folder.join(DATA)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn check_owner(&self, account: &Account) -> Result<()> {
        let facts = std::fs::symlink_metadata(&self.folder)?;
        let ours =
            facts.uid() == account.user() || facts.uid() == rustix::process::geteuid().as_raw();
        if facts.is_dir() && ours {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(Error::new(Kind::Refused, format!("`{folder}` belongs to another user"))
            .why("the sockets of the computes would not be private there")
            .hint(format!("remove {folder}")))
    }

    /// Lets no more computes in.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Removes the folder, with what killed computes left in it; none may run any more.
    pub(super) fn remove(&self) {
        // Whatever stays is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    /// Removes the folders beside this one whose data folder is gone, unless a compute listens in them.
    pub(super) fn sweep(&self, account: &Account) {
        let prefix = prefix(account);
        let beside = self.folder.parent().and_then(|parent| std::fs::read_dir(parent).ok());
        for entry in beside.into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix)
                && is_orphan(&entry.path(), account.user())
            {
                // Another server may be quicker.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn prefix(account: &Account) -> String {
    format!("lakeforge-{}-", account.user())
}

/// Says whether `folder` belongs to `user` and to a data folder that is gone, and nothing listens in it.
fn is_orphan(folder: &Path, user: u32) -> bool {
    let owned =
        std::fs::symlink_metadata(folder).is_ok_and(|facts| facts.is_dir() && facts.uid() == user);
    let gone = || {
        let data = std::fs::read_link(folder.join(DATA));
        data.is_ok_and(|data| matches!(data.try_exists(), Ok(false)))
    };
    owned && gone() && !is_in_use(folder)
}

fn is_in_use(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return true };
    entries.flatten().any(|entry| UnixStream::connect(entry.path()).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn account() -> Account {
        Account::detect().unwrap()
    }

    /// The folder of a data folder of this name, which is there until the first is dropped.
    fn claimed(name: &str) -> (tempfile::TempDir, Sockets) {
        let place = tempfile::Builder::new().prefix("lakeforge-test-").tempdir().unwrap();
        let data = place.path().join(name);
        std::fs::create_dir(&data).unwrap();
        let sockets = Sockets::of(&account(), &data);
        sockets.claim(&account()).unwrap();
        (place, sockets)
    }

    /// Waits until the folder is gone: the server of another test may be about to sweep it too.
    fn goes(sockets: &Sockets) -> bool {
        (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !sockets.folder().exists()
        })
    }

    #[test]
    fn only_a_folder_whose_data_is_gone_and_where_nothing_listens_is_swept() {
        let (_place, kept) = claimed("kept");
        let (gone, orphan) = claimed("gone");
        let (cut_off, busy) = claimed("busy");
        let (unknown, unnamed) = claimed("unnamed");
        std::fs::write(orphan.folder().join(".s.PGSQL.2"), "").unwrap();
        std::fs::remove_file(unnamed.folder().join(DATA)).unwrap();
        let listener = UnixListener::bind(busy.folder().join(".s.PGSQL.1")).unwrap();
        drop((gone, cut_off, unknown));

        kept.sweep(&account());

        assert!(goes(&orphan));
        let there = [&kept, &busy, &unnamed].map(|sockets| sockets.folder().exists());
        assert_eq!(there, [true; 3]);
        drop(listener);
        kept.sweep(&account());
        assert!(goes(&busy));
        kept.remove();
        unnamed.remove();
        assert!(!kept.folder().exists() && !unnamed.folder().exists());
    }

    #[test]
    fn a_folder_that_was_cleaned_away_is_claimed_again_until_it_is_closed() {
        let (place, sockets) = claimed("data");
        sockets.remove();

        for _ in 0..2 {
            sockets.claim(&account()).unwrap();
        }

        let data = std::fs::read_link(sockets.folder().join(DATA)).unwrap();
        assert_eq!(data, place.path().join("data"));
        sockets.close();
        sockets.remove();
        assert_eq!(sockets.claim(&account()).unwrap_err().kind(), Kind::Unavailable);
        assert!(!sockets.folder().exists());
    }
}
