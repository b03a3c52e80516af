//! Ready-made copies of bases, so that the slow part of a new cluster, the creation of its thousand
//! files, is usually done before it is asked for: some of the template, one of each base that is likely
//! to be copied next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::account::Account;
use super::copy::{Blocks, copy_data, remove_folder};
use super::durable::sync_each;
use super::locked;
use super::upkeep::size_of;
use crate::error::Result;

/// Copies of the template kept ready; each takes about 40 MB.
const OF_TEMPLATE: usize = 4;
/// Part of the free disk space that all copies may take together: one in so many.
const PART_OF_FREE: u64 = 10;

/// The copies that are ready, and the thread that makes more. Clones share them.
#[derive(Clone)]
pub(super) struct Spares(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    template: String,
    account: Account,
    kinds: Mutex<BTreeMap<String, Kind>>,
    /// Number of the next copy.
    next: AtomicU64,
    /// Held by the one thread that makes copies.
    making: Mutex<()>,
    closed: AtomicBool,
}

/// A base that copies are kept ready of.
struct Kind {
    /// Its data directory.
    data: PathBuf,
    /// Where the blocks of its copies are.
    blocks: Blocks,
    wanted: usize,
    ready: Vec<PathBuf>,
    /// Bytes of one copy, once they were counted.
    size: Option<u64>,
}

impl Spares {
    /// Keeps copies of the data directory `data` of the base `template` in `folder`, using those that
    /// are there; copies of other bases that an earlier server left are removed.
    pub(super) fn open(
        folder: PathBuf,
        template: String,
        data: PathBuf,
        account: Account,
    ) -> Result<Self> {
        account.create_folder(&folder)?;
        let mut ready = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let spare = entry?;
            match number_of(&spare.file_name().to_string_lossy(), TEMPLATE_PREFIX) {
                Some(number) => ready.push((number, spare.path())),
                None => remove_folder(&spare.path())?,
            }
        }
        let next = ready.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
        let ready = ready.into_iter().map(|(_, path)| path).collect();
        let kind = Kind { data, blocks: Blocks::Shared, wanted: OF_TEMPLATE, ready, size: None };
        let spares = Spares(Arc::new(Shared {
            folder,
            kinds: Mutex::new(BTreeMap::from([(template.clone(), kind)])),
            template,
            account,
            next: AtomicU64::new(next),
            making: Mutex::default(),
            closed: AtomicBool::new(false),
        }));
        spares.refill();
        Ok(spares)
    }

    /// Moves a ready copy of the base `id`, without its log and safe on disk, to `target`; false when
    /// there is none.
    pub(super) fn take(&self, id: &str, target: &Path) -> bool {
        let spare = locked(&self.0.kinds).get_mut(id).and_then(|kind| kind.ready.pop());
        spare.is_some_and(|spare| std::fs::rename(spare, target).is_ok())
    }

    /// Keeps one copy ready of each of `bases` (with data directories and where blocks are to be), as far as there is room,
    /// and none of others but the template.
    pub(super) fn keep(&self, bases: Vec<(String, PathBuf, Blocks)>) {
        let mut kinds = locked(&self.0.kinds);
        let dropped: Vec<String> = kinds
            .keys()
            .filter(|id| **id != self.0.template && !bases.iter().any(|(kept, ..)| kept == *id))
            .cloned()
            .collect();
        for (id, data, blocks) in bases {
            let fresh = || Kind { data, blocks, wanted: 1, ready: Vec::new(), size: None };
            kinds.entry(id).or_insert_with(fresh);
        }
        drop(kinds);
        self.forget(&dropped);
        self.refill();
    }

    /// Removes the copies of `bases`, in the background; what is being made of them is not kept.
    pub(super) fn forget(&self, bases: &[String]) {
        let mut kinds = locked(&self.0.kinds);
        let copies: Vec<PathBuf> =
            bases.iter().filter_map(|id| kinds.remove(id)).flat_map(|kind| kind.ready).collect();
        drop(kinds);
        if !copies.is_empty() {
            tokio::task::spawn_blocking(move || {
                for copy in copies {
                    // What cannot be removed now is removed by the next server.
                    let _ = remove_folder(&copy);
                }
            });
        }
    }

    /// Starts making copies until enough are ready again, in the background.
    pub(super) fn refill(&self) {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let Ok(_alone) = shared.making.try_lock() else { return };
            while !shared.closed.load(Ordering::SeqCst)
                && let Some((id, data, blocks)) = shared.missing()
            {
                // A spare is a convenience: without it the base is copied when needed.
                if shared.make(&id, &data, blocks).is_err() {
                    return;
                }
            }
        });
    }

    /// Stops making copies and waits for the one being made.
    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        drop(locked(&self.0.making));
    }

    /// Says of which bases a copy is ready.
    #[cfg(test)]
    pub(super) fn ready(&self) -> Vec<String> {
        let kinds = locked(&self.0.kinds);
        kinds.iter().filter(|(_, kind)| !kind.ready.is_empty()).map(|(id, _)| id.clone()).collect()
    }
}

/// What the names of the copies of the template begin with.
const TEMPLATE_PREFIX: &str = "spare-";
/// What the names of the copies of other bases begin with.
const BASE_PREFIX: &str = "base-";

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.parse().ok()
}

impl Shared {
    /// Returns a base that lacks a copy for which there is room, its data directory, and where blocks are to be.
    fn missing(&self) -> Option<(String, PathBuf, Blocks)> {
        let uncounted: Vec<(String, PathBuf)> = {
            let kinds = locked(&self.kinds);
            let uncounted = kinds.iter().filter(|(_, kind)| kind.size.is_none());
            uncounted.map(|(id, kind)| (id.clone(), kind.data.clone())).collect()
        };
        for (id, data) in uncounted {
            let size = size_of(&data).ok();
            if let Some(kind) = locked(&self.kinds).get_mut(&id) {
                kind.size = size;
            }
        }
        let kinds = locked(&self.kinds);
        let used: u64 =
            kinds.values().map(|kind| kind.size.unwrap_or(0) * kind.ready.len() as u64).sum();
        let free =
            rustix::fs::statvfs(&self.folder).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        let fits = |kind: &Kind| kind.size.is_some_and(|size| used + size <= free / PART_OF_FREE);
        let (id, kind) =
            kinds.iter().find(|(_, kind)| kind.ready.len() < kind.wanted && fits(kind))?;
        Some((id.clone(), kind.data.clone(), kind.blocks))
    }

    fn make(&self, id: &str, data: &Path, blocks: Blocks) -> std::io::Result<()> {
        let unfinished = self.folder.join(".new-spare");
        remove_folder(&unfinished)?;
        copy_data(data, &unfinished, &self.account, blocks)?;
        sync_each(&unfinished)?;
        let prefix = if id == self.template { TEMPLATE_PREFIX } else { BASE_PREFIX };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let spare = self.folder.join(format!("{prefix}{number}"));
        std::fs::rename(&unfinished, &spare)?;
        // The base may have gone meanwhile, and the copy be that of half of it.
        match locked(&self.kinds).get_mut(id) {
            Some(kind) => {
                kind.ready.push(spare);
                Ok(())
            }
            None => remove_folder(&spare),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a data directory under `folder` that holds one file with `text`.
    fn data(folder: &Path, text: &str) -> PathBuf {
        let data = folder.join(text);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("PG_VERSION"), text).unwrap();
        data
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    fn open(folder: &Path, template: &Path) -> Spares {
        let account = Account::detect().unwrap();
        Spares::open(folder.join("spares"), "t".to_owned(), template.to_owned(), account).unwrap()
    }

    #[tokio::test]
    async fn copies_are_of_the_bases_asked_for_and_go_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (template, one, two) =
            (data(folder.path(), "t"), data(folder.path(), "one"), data(folder.path(), "two"));
        let spares = open(folder.path(), &template);

        spares.keep(vec![("one".to_owned(), one.clone(), Blocks::Shared)]);
        until(|| spares.ready() == ["one", "t"]).await;
        let target = folder.path().join("target");
        assert!(spares.take("one", &target));
        assert_eq!(std::fs::read_to_string(target.join("PG_VERSION")).unwrap(), "one");
        assert!(!spares.take("two", &target), "there is none of it");
        spares.keep(vec![("two".to_owned(), two.clone(), Blocks::Own)]);

        until(|| spares.ready() == ["t", "two"]).await;
        assert!(!spares.take("one", &folder.path().join("other")));
        spares.forget(&["two".to_owned()]);
        assert_eq!(spares.ready(), ["t"]);
        let names = || {
            let entries = std::fs::read_dir(folder.path().join("spares")).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        until(|| names().filter(|name| !name.starts_with(TEMPLATE_PREFIX)).count() == 0).await;
        spares.close();
    }

    #[tokio::test]
    async fn the_next_server_keeps_copies_of_the_template_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (template, one) = (data(folder.path(), "t"), data(folder.path(), "one"));
        let first = open(folder.path(), &template);
        first.keep(vec![("one".to_owned(), one, Blocks::Shared)]);
        until(|| first.ready() == ["one", "t"]).await;
        first.close();
        std::fs::create_dir(folder.path().join("spares/.new-spare")).unwrap();

        let second = open(folder.path(), &template);

        second.close();
        assert_eq!(second.ready(), ["t"]);
        let entries = std::fs::read_dir(folder.path().join("spares")).unwrap();
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.starts_with(TEMPLATE_PREFIX), "{name}");
        }
    }
}
