//! What must survive: one JSON file an object, written to a temporary name, synced and renamed.
//!
//! Changes are queued in the order they were made and written by one thread, which takes all that wait
//! at once; a caller is answered when its own changes are on disk. Nothing ever rewrites more than what changed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::disk::{private_folder, write_private};
use super::folder::OwnedFolder;
use crate::error::{Doing, Error, Kind, Result};

/// A kind of object: the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug)]
pub(crate) struct Change {
    /// Kind of the object.
    pub(crate) shelf: Shelf,
    /// Name of its file, without extension.
    pub(crate) uid: String,
    /// Its JSON; nothing when it is gone.
    pub(crate) content: Option<Vec<u8>>,
}

type Batch = (Vec<Change>, oneshot::Sender<Result<()>>);

/// The objects' files.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    queue: mpsc::Sender<Batch>,
}

impl Store {
    /// Opens the store in `folder`, making it when it is missing, and starts its writer.
    pub(crate) fn open(folder: &OwnedFolder) -> Result<Self> {
        for shelf in Shelf::ALL {
            private_folder(&folder.join(shelf.folder()))?;
        }
        let (queue, waiting) = mpsc::channel();
        let place = folder.to_path_buf();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(&place, &waiting))
            .doing(|| "could not start the thread that writes the workspace's state".to_owned())?;
        Ok(Store { folder: folder.to_path_buf(), queue })
    }

    /// Reads every object of `shelf`.
    ///
    /// Fails naming the file that cannot be read. What a killed server was still writing is removed.
    pub(crate) fn load<T: DeserializeOwned>(&self, shelf: Shelf) -> Result<Vec<T>> {
        let folder = self.folder.join(shelf.folder());
        let mut objects = Vec::new();
        for entry in fs::read_dir(&folder).doing(|| cannot_read(&folder))? {
            let path = entry.doing(|| cannot_read(&folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                fs::remove_file(&path).doing(|| cannot_read(&path))?;
                continue;
            }
            let content = fs::read(&path).doing(|| cannot_read(&path))?;
            objects.push(serde_json::from_slice(&content).map_err(|error| {
                Error::new(Kind::Failed, cannot_read(&path)).why(error.to_string()).hint(
                    "move this file away to go on without that object, or `lakeforge local reset`",
                )
            })?);
        }
        Ok(objects)
    }

    /// Queues `changes`; the receiver answers when they are on disk.
    ///
    /// Called while the state they come from is locked, so that the order of writing is the order of change.
    pub(crate) fn queue(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<()>> {
        let (done, written) = oneshot::channel();
        // When the writer is gone the sender is dropped with the batch, and the receiver says so.
        let _ = self.queue.send((changes, done));
        written
    }
}

fn cannot_read(path: &Path) -> String {
    format!("could not read `{}`", path.display())
}

/// Writes what is queued until the store is dropped.
///
/// Every change is written in its turn, so that a crash never shows a later one without an earlier one.
/// What could not be written (a full disk) stays in `behind` and is tried again with the next batch.
fn write_all(folder: &Path, waiting: &mpsc::Receiver<Batch>) {
    let mut behind: VecDeque<Change> = VecDeque::new();
    while let Ok(first) = waiting.recv() {
        let mut answers = Vec::new();
        for (changes, done) in std::iter::once(first).chain(waiting.try_iter()) {
            behind.extend(changes);
            answers.push(done);
        }
        let result = flush(folder, &mut behind);
        for answer in answers {
            // The caller may have gone away; its changes are written all the same.
            let _ = answer.send(result.clone());
        }
    }
}

fn flush(folder: &Path, behind: &mut VecDeque<Change>) -> Result<()> {
    let mut touched: Vec<Shelf> = Vec::new();
    while let Some(change) = behind.front() {
        let path = folder.join(change.shelf.folder()).join(format!("{}.json", change.uid));
        match &change.content {
            Some(content) => write_private(&path, content)?,
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).doing(|| format!("could not remove `{}`", path.display()));
                }
                _ => {}
            },
        }
        if !touched.contains(&change.shelf) {
            touched.push(change.shelf);
        }
        behind.pop_front();
    }
    for shelf in touched {
        let place = folder.join(shelf.folder());
        File::open(&place)
            .and_then(|folder| folder.sync_all())
            .doing(|| format!("could not sync `{}`", place.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use super::*;

    fn change(uid: &str, value: Option<Value>) -> Change {
        let content = value.map(|value| value.to_string().into_bytes());
        Change { shelf: Shelf::Apps, uid: uid.to_owned(), content }
    }

    #[tokio::test]
    async fn what_was_written_last_is_read_back_by_the_next_server() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();
        for n in 0..3 {
            store.queue(vec![change("a", Some(json!(n))), change("b", Some(json!("b")))]);
        }
        store.queue(vec![change("b", None)]).await.unwrap().unwrap();

        let again = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();

        assert_eq!(again.load::<Value>(Shelf::Apps).unwrap(), [json!(2)]);
        let mode = fs::metadata(folder.path().join("apps/a.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_broken_file_is_named_and_half_written_ones_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();
        fs::write(folder.path().join("apps/.new-x1"), "{").unwrap();
        assert_eq!(store.load::<Value>(Shelf::Apps).unwrap(), Vec::<Value>::new());

        fs::write(folder.path().join("apps/a.json"), "{").unwrap();
        let error = store.load::<Value>(Shelf::Apps).unwrap_err();

        assert!(error.message().contains("apps/a.json"), "{error}");
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_with_the_next_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&OwnedFolder::of_test(folder.path())).unwrap();
        fs::remove_dir(folder.path().join("apps")).unwrap();
        store.queue(vec![change("a", Some(json!(1)))]).await.unwrap().unwrap_err();

        fs::create_dir(folder.path().join("apps")).unwrap();
        store.queue(vec![change("b", Some(json!(2)))]).await.unwrap().unwrap();

        assert_eq!(store.load::<Value>(Shelf::Apps).unwrap().len(), 2);
    }
}
