//! Ready-made copies of the template, so that the slow part of a new cluster, the creation of its
//! thousand files, is usually done before it is asked for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::account::Account;
use super::copy::{copy_data, remove_folder};
use super::durable::sync_each;
use super::locked;
use crate::error::Result;

/// Copies kept ready; each takes about 40 MB.
const READY: usize = 4;

/// The copies that are ready, and the thread that makes more. Clones share them.
#[derive(Clone)]
pub(super) struct Spares(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    template: PathBuf,
    account: Account,
    ready: Mutex<Vec<PathBuf>>,
    /// Held by the one thread that makes copies.
    making: Mutex<()>,
    closed: AtomicBool,
}

impl Spares {
    /// Keeps copies of the data directory `template` in `folder`, using those that are there.
    pub(super) fn open(folder: PathBuf, template: PathBuf, account: Account) -> Result<Self> {
        account.create_folder(&folder)?;
        let mut ready = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let spare = entry?;
            if spare.file_name().to_string_lossy().starts_with('.') {
                remove_folder(&spare.path())?;
            } else {
                ready.push(spare.path());
            }
        }
        let spares = Spares(Arc::new(Shared {
            folder,
            template,
            account,
            ready: Mutex::new(ready),
            making: Mutex::default(),
            closed: AtomicBool::new(false),
        }));
        spares.refill();
        Ok(spares)
    }

    /// Moves a ready copy of the template, without its log, to `target`; false when there is none.
    pub(super) fn take(&self, target: &Path) -> bool {
        let Some(spare) = locked(&self.0.ready).pop() else { return false };
        std::fs::rename(spare, target).is_ok()
    }

    /// Starts making copies until enough are ready again, in the background.
    pub(super) fn refill(&self) {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let Ok(_alone) = shared.making.try_lock() else { return };
            while locked(&shared.ready).len() < READY && !shared.closed.load(Ordering::SeqCst) {
                // A spare is a convenience: without it the template is copied when needed.
                let Ok(spare) = shared.make() else { return };
                locked(&shared.ready).push(spare);
            }
        });
    }

    /// Stops making copies and waits for the one being made.
    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        drop(locked(&self.0.making));
    }
}

impl Shared {
    fn make(&self) -> std::io::Result<PathBuf> {
        let unfinished = self.folder.join(".new-spare");
        remove_folder(&unfinished)?;
        copy_data(&self.template, &unfinished, &self.account)?;
        sync_each(&unfinished)?;
        let free = |number: &u64| !self.folder.join(format!("spare-{number}")).exists();
        let number = (0..).find(free).unwrap_or_default();
        let spare = self.folder.join(format!("spare-{number}"));
        std::fs::rename(&unfinished, &spare)?;
        Ok(spare)
    }
}
