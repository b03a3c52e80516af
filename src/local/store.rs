//! What must survive: a journal of changes, and one JSON file an object.
//!
//! A change is there as soon as its line is in the journal and synced, whole, or not at all. After that the files of its
//! objects follow, each written to a temporary name, synced and renamed, and when all have, the journal is
//! emptied. What a killed server had in its journal counts when the next one reads the objects.

mod journal;
#[cfg(test)]
pub(crate) mod trouble;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use self::journal::Journal;
use super::disk::{private_folder, write_private};
use super::folder::OwnedFolder;
use crate::error::{Doing, Error, Kind, Result};

/// Time between two tries to write the file of an object.
const AGAIN: Duration = Duration::from_secs(1);

/// A kind of object: the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shelf {
    /// Facts of the workspace itself.
    Settings,
    /// Users and service principals.
    Identities,
    /// Postgres projects.
    Projects,
    /// Branches with their endpoints.
    Branches,
    /// Long-running operations.
    Operations,
    /// Apps.
    Apps,
    /// Deployments of apps.
    Deployments,
    /// Access control lists.
    Permissions,
}

impl Shelf {
    const ALL: [Shelf; 8] = [
        Shelf::Settings,
        Shelf::Identities,
        Shelf::Projects,
        Shelf::Branches,
        Shelf::Operations,
        Shelf::Apps,
        Shelf::Deployments,
        Shelf::Permissions,
    ];

    const fn folder(self) -> &'static str {
        match self {
            Shelf::Settings => "settings",
            Shelf::Identities => "identities",
            Shelf::Projects => "projects",
            Shelf::Branches => "branches",
            Shelf::Operations => "operations",
            Shelf::Apps => "apps",
            Shelf::Deployments => "deployments",
            Shelf::Permissions => "permissions",
        }
    }
}

/// One object as it is to be on disk from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Kind of the object.
    pub(crate) shelf: Shelf,
    /// Name of its file, without extension.
    pub(crate) uid: String,
    /// Its JSON; nothing when it is gone.
    pub(crate) content: Option<Box<RawValue>>,
}

impl Change {
    /// Returns whether both are about the same object.
    pub(crate) fn is_of(&self, shelf: Shelf, uid: &str) -> bool {
        self.shelf == shelf && self.uid == uid
    }
}

/// What the writer is asked for.
enum Order {
    Commit(Vec<Change>, oneshot::Sender<Result<()>>),
    Settle(oneshot::Sender<Result<()>>),
}

/// Objects that are in the journal and not in their files yet.
type Unfiled = HashMap<(Shelf, String), Option<Box<RawValue>>>;

/// The objects on disk.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    unfiled: Arc<Mutex<Unfiled>>,
    /// Both are there until the end.
    queue: Option<mpsc::Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `folder`, making it when it is missing, and starts its writer.
    pub(crate) fn open(folder: &OwnedFolder) -> Result<Self> {
        for shelf in Shelf::ALL {
            private_folder(&folder.join(shelf.folder()))?;
        }
        let (journal, changes) = Journal::open(folder.join("journal"))?;
        let unfiled =
            changes.into_iter().map(|change| ((change.shelf, change.uid), change.content));
        let unfiled = Arc::new(Mutex::new(unfiled.collect()));
        let (queue, waiting) = mpsc::channel();
        let writer =
            Writer { folder: folder.to_path_buf(), journal, unfiled: Arc::clone(&unfiled) };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&waiting))
            .doing(|| "could not start the thread that writes the workspace's state".to_owned())?;
        let (queue, writer) = (Some(queue), Some(writer));
        Ok(Store { folder: folder.to_path_buf(), unfiled, queue, writer })
    }

    /// Reads every object of `shelf`.
    ///
    /// Fails naming the file that cannot be read. What a killed server was still writing is removed.
    pub(crate) fn load<T: DeserializeOwned>(&self, shelf: Shelf) -> Result<Vec<T>> {
        let folder = self.folder.join(shelf.folder());
        let mut contents = HashMap::new();
        for entry in fs::read_dir(&folder).doing(|| cannot_read(&folder))? {
            let path = entry.doing(|| cannot_read(&folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                fs::remove_file(&path).doing(|| cannot_read(&path))?;
                continue;
            }
            let content = fs::read_to_string(&path).doing(|| cannot_read(&path))?;
            contents.insert(path, content);
        }
        for ((of, uid), content) in locked(&self.unfiled).iter().filter(|((of, _), _)| *of == shelf)
        {
            let path = path_of(&self.folder, *of, uid);
            match content {
                Some(content) => contents.insert(path, content.get().to_owned()),
                None => contents.remove(&path),
            };
        }
        let parse = |(path, content): (PathBuf, String)| {
            serde_json::from_str(&content).map_err(|error| {
                Error::new(Kind::Failed, cannot_read(&path)).why(error.to_string()).hint(
                    "move this file away to go on without that object, or `lakeforge local reset`",
                )
            })
        };
        contents.into_iter().map(parse).collect()
    }

    /// Returns an object as it was committed last.
    pub(crate) fn committed(&self, shelf: Shelf, uid: &str) -> Result<Option<Box<RawValue>>> {
        if let Some(content) = locked(&self.unfiled).get(&(shelf, uid.to_owned())) {
            return Ok(content.clone());
        }
        let path = path_of(&self.folder, shelf, uid);
        match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content).map(Some).map_err(|error| {
                Error::new(Kind::Failed, cannot_read(&path)).why(error.to_string())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| cannot_read(&path)),
        }
    }

    /// Makes `changes` durable, all of them or none.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.ask(|done| Order::Commit(changes, done)).await
    }

    /// Waits until every object that was committed is in its file.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.ask(Order::Settle).await
    }

    async fn ask(&self, order: impl FnOnce(oneshot::Sender<Result<()>>) -> Order) -> Result<()> {
        let (done, answer) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // When the writer is gone the sender is dropped with the order, and the receiver says so.
            let _ = queue.send(order(done));
        }
        let gone = || Error::new(Kind::Failed, "the state can no longer be written");
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Store {
    /// Waits for what is just being written: whoever opens the folder next has it alone.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was told by its own thread.
            let _ = writer.join();
        }
    }
}

fn cannot_read(path: &Path) -> String {
    format!("could not read `{}`", path.display())
}

fn path_of(folder: &Path, shelf: Shelf, uid: &str) -> PathBuf {
    folder.join(shelf.folder()).join(format!("{uid}.json"))
}

fn locked(unfiled: &Mutex<Unfiled>) -> MutexGuard<'_, Unfiled> {
    unfiled.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The only one who writes.
struct Writer {
    folder: PathBuf,
    journal: Journal,
    unfiled: Arc<Mutex<Unfiled>>,
}

impl Writer {
    /// Commits what is asked for, and files objects while nobody asks, until the store is dropped.
    fn run(mut self, waiting: &mpsc::Receiver<Order>) {
        let mut filed = Ok(());
        let mut begun = false;
        loop {
            // Until the first order the objects may be being read.
            let order = if self.journal.is_empty() || !begun {
                waiting.recv().map_err(|_| TryRecvError::Disconnected)
            } else if filed.is_ok() {
                waiting.try_recv()
            } else {
                waiting.recv_timeout(AGAIN).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            };
            begun = true;
            match order {
                // Whoever asked may have gone away.
                Ok(Order::Commit(changes, done)) => drop(done.send(self.commit(changes))),
                Ok(Order::Settle(done)) => drop(done.send(self.file_all())),
                Err(TryRecvError::Empty) => {
                    let before = filed.is_ok();
                    filed = self.file_next();
                    if let (Err(error), true) = (&filed, before) {
                        tracing::error!("{error}; it stays in the journal, and is tried again");
                    }
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn commit(&mut self, changes: Vec<Change>) -> Result<()> {
        self.journal.append(&changes)?;
        let changes =
            changes.into_iter().map(|change| ((change.shelf, change.uid), change.content));
        locked(&self.unfiled).extend(changes);
        Ok(())
    }

    fn file_all(&mut self) -> Result<()> {
        while !self.journal.is_empty() {
            self.file_next()?;
        }
        Ok(())
    }

    /// Writes the file of one object; with the last one the journal becomes empty.
    fn file_next(&mut self) -> Result<()> {
        let next = locked(&self.unfiled)
            .iter()
            .next()
            .map(|(key, content)| (key.clone(), content.clone()));
        let Some(((shelf, uid), content)) = next else { return self.journal.clear() };
        let path = path_of(&self.folder, shelf, &uid);
        let what = || format!("could not write `{}`", path.display());
        #[cfg(test)]
        trouble::meet_filing(&self.folder).doing(what)?;
        match content {
            Some(content) => write_private(&path, content.get().as_bytes())?,
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).doing(what);
                }
                _ => {}
            },
        }
        let folder = self.folder.join(shelf.folder());
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .doing(|| format!("could not sync `{}`", folder.display()))?;
        // Nobody else commits, so it is still what was written.
        locked(&self.unfiled).remove(&(shelf, uid));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use super::*;

    fn change(uid: &str, value: Option<Value>) -> Change {
        let content = value.map(|value| serde_json::value::to_raw_value(&value).unwrap());
        Change { shelf: Shelf::Apps, uid: uid.to_owned(), content }
    }

    fn open(folder: &Path) -> Store {
        Store::open(&OwnedFolder::of_test(folder)).unwrap()
    }

    fn apps(store: &Store) -> Vec<i64> {
        let mut apps = store.load(Shelf::Apps).unwrap();
        apps.sort_unstable();
        apps
    }

    #[tokio::test]
    async fn what_was_written_last_is_read_back_by_the_next_server() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let unfiled = trouble::keep_from_filing(folder.path());
        for n in 0..3 {
            let changes = vec![change("a", Some(json!(n))), change("b", Some(json!(7)))];
            store.commit(changes).await.unwrap();
        }
        store.commit(vec![change("b", None)]).await.unwrap();

        let last = || {
            let a = store.committed(Shelf::Apps, "a").unwrap().unwrap();
            assert!(store.committed(Shelf::Apps, "b").unwrap().is_none());
            (a.get().to_owned(), apps(&open(folder.path())))
        };
        assert_eq!(last(), ("2".to_owned(), vec![2]));
        drop(unfiled);
        store.settle().await.unwrap();
        assert_eq!(last(), ("2".to_owned(), vec![2]));
        for (name, length) in [("apps/a.json", 1), ("journal", 0)] {
            let facts = fs::metadata(folder.path().join(name)).unwrap();
            assert_eq!((facts.permissions().mode() & 0o777, facts.len()), (0o600, length));
        }
    }

    #[tokio::test]
    async fn a_broken_file_is_named_and_half_written_ones_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        fs::write(folder.path().join("apps/.new-x1"), "{").unwrap();
        assert_eq!(store.load::<Value>(Shelf::Apps).unwrap(), Vec::<Value>::new());

        fs::write(folder.path().join("apps/a.json"), "{").unwrap();
        let error = store.load::<Value>(Shelf::Apps).unwrap_err();

        assert!(error.message().contains("apps/a.json"), "{error}");
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_leaves_nothing_and_the_next_one_works() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.commit(vec![change("a", Some(json!(1)))]).await.unwrap();
        store.settle().await.unwrap();
        let full = trouble::fill_after(folder.path(), 0);
        let both = || vec![change("a", Some(json!(2))), change("b", Some(json!(3)))];

        store.commit(both()).await.unwrap_err();

        assert_eq!(apps(&store), [1]);
        assert_eq!(apps(&open(folder.path())), [1]);
        drop(full);
        store.commit(both()).await.unwrap();
        assert_eq!(apps(&open(folder.path())), [2, 3]);
    }

    #[tokio::test]
    async fn what_was_committed_is_filed_as_soon_as_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let full = trouble::fill_after(folder.path(), 1);
        let changes = vec![change("a", Some(json!(1))), change("b", Some(json!(2)))];
        store.commit(changes).await.unwrap();
        store.settle().await.unwrap_err();
        assert_eq!((apps(&store), apps(&open(folder.path()))), (vec![1, 2], vec![1, 2]));

        drop(full);

        store.settle().await.unwrap();
        assert!(folder.path().join("apps/b.json").exists());
    }

    #[tokio::test]
    async fn a_journal_that_was_cut_off_anywhere_holds_what_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let store = open(folder.path());
        let full = trouble::keep_from_filing(folder.path());
        store.commit(vec![change("a", Some(json!(1)))]).await.unwrap();
        let first = fs::read(&path).unwrap().len();
        store.commit(vec![change("a", Some(json!(2))), change("b", Some(json!(2)))]).await.unwrap();
        let whole = fs::read(&path).unwrap();
        drop(store);

        for end in 0..=whole.len() {
            let copy = tempfile::tempdir().unwrap();
            let path = copy.path().join("journal");
            fs::write(&path, &whole[..end]).unwrap();
            let store = open(copy.path());
            let expected: &[i64] = match end {
                end if end < first => &[],
                end if end < whole.len() => &[1],
                _ => &[2, 2],
            };
            assert_eq!(apps(&store), expected, "{end} of {} bytes", whole.len());
            store.commit(vec![change("c", Some(json!(3)))]).await.unwrap();
            store.settle().await.unwrap();
            assert_eq!(apps(&open(copy.path())), [expected, &[3]].concat());
        }
        drop(full);
    }
}
