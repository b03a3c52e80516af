//! Which folder is a workspace's. What is not proven to be one is left as it is, whatever its files are called.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Seek, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::write_private;
use super::layout::{Layout, Serving};
use super::pid::ProcessId;
use crate::error::{Doing, Error, Kind, Result};

/// Name of the file that makes a folder a workspace's.
const MARKER: &str = "lakeforge-workspace.json";
/// Prefix of the marker's temporary name.
const NEW_MARKER: &str = ".lakeforge-workspace-";
/// Word for a data folder that another server has.
pub(crate) const FOLDER_TAKEN: &str = "DATA_FOLDER_TAKEN";
/// What a marker says of itself.
const FORMAT: &str = "lakeforge-workspace";
const VERSION: u32 = 1;
/// How the file of profiles begins that every server writes.
pub(crate) const PROFILES_HEAD: &str = "; Written by `lakeforge local`; changes are lost.\n";

/// The data folder of a workspace: one that carries the marker. Only looking at the folder makes this, and
/// whatever deletes takes it or an [`OwnedFolder`].
#[derive(Debug, Clone)]
pub(crate) struct WorkspaceFolder(Layout);

/// A folder inside a workspace's, where whatever is not known is left over and may go.
#[derive(Debug, Clone)]
pub(crate) struct OwnedFolder(PathBuf);

/// Proof that no other server uses the data folder; ends with its owner.
#[derive(Debug)]
pub(crate) struct Lock(File);

#[derive(Serialize, Deserialize)]
struct Marker {
    format: String,
    version: u32,
}

/// What a path names.
enum Found {
    Missing,
    Empty,
    Workspace,
    /// A workspace of a version that wrote no marker yet.
    Unmarked,
    /// Something else, and how that is known.
    Foreign(String),
}

impl WorkspaceFolder {
    /// Returns the workspace in `folder`, if there is one.
    ///
    /// Fails with `Refused` when the folder holds anything else. Changes nothing.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>> {
        match look(folder)? {
            Found::Missing | Found::Empty => Ok(None),
            Found::Workspace | Found::Unmarked => Ok(Some(WorkspaceFolder(Layout::new(folder)))),
            Found::Foreign(why) => Err(refusal(folder, why)),
        }
    }

    /// Returns the workspace in `folder`; one that is missing or empty becomes a workspace's.
    ///
    /// Others may pass through a new folder, as the user Postgres runs as must, but not list it.
    /// Fails with `Refused`, and changes nothing, when the folder holds anything else.
    pub(crate) fn claim(folder: &Path) -> Result<Self> {
        match look(folder)? {
            Found::Workspace => {}
            Found::Foreign(why) => return Err(refusal(folder, why)),
            Found::Missing => {
                let what = || format!("could not make the data folder `{}`", folder.display());
                fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).doing(what)?;
                mark(folder)?;
            }
            Found::Empty | Found::Unmarked => mark(folder)?,
        }
        Ok(WorkspaceFolder(Layout::new(folder)))
    }

    /// Returns one of the folders that [`Layout`] names.
    pub(crate) fn part(&self, name: impl FnOnce(&Layout) -> PathBuf) -> OwnedFolder {
        OwnedFolder(name(&self.0))
    }

    /// Takes the data folder for this process, to serve.
    ///
    /// Fails with `Conflict`, naming the process, when another server has it.
    pub(crate) async fn lock(&self) -> Result<Lock> {
        let mut lock = self.hold().await?;
        let what = || format!("could not lock `{}`", self.lock_file().display());
        let current = ProcessId::current().map(|process| process.text()).unwrap_or_default();
        let file = &mut lock.0;
        file.set_len(0).and_then(|()| file.rewind()).doing(what)?;
        file.write_all(current.as_bytes()).doing(what)?;
        Ok(lock)
    }

    /// Keeps servers away from the data folder, also where nothing can be written.
    ///
    /// Fails with `Conflict`, naming the process, when a server has it.
    pub(crate) async fn hold(&self) -> Result<Lock> {
        let path = self.lock_file();
        let what = || format!("could not lock `{}`", path.display());
        // Whoever only looks holds the lock for a moment.
        for _ in 0..50 {
            let file = open_lock_file(&path).doing(what)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return self.still_marked(Lock(file)),
                // A reset removed the file between our opening and locking it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(TryLockError::Error(error)) => return Err(error).doing(what),
            }
        }
        let holder = match self.holder()?.process() {
            Some(process) => format!(" (process {})", process.pid.as_raw_nonzero()),
            None => String::new(),
        };
        let folder = self.0.folder().display();
        Err(Error::new(Kind::Conflict, format!("another server{holder} uses `{folder}`"))
            .hint("lakeforge local stop, or choose another folder with --data-dir")
            .code(FOLDER_TAKEN))
    }

    /// Returns `lock` if the folder was not reset before it was taken.
    fn still_marked(&self, lock: Lock) -> Result<Lock> {
        let folder = self.0.folder();
        match look(folder)? {
            Found::Workspace | Found::Unmarked => Ok(lock),
            Found::Foreign(why) => Err(refusal(folder, why)),
            Found::Missing | Found::Empty => {
                let text = format!("the workspace in `{}` was just reset", folder.display());
                Err(Error::new(Kind::Conflict, text))
            }
        }
    }

    /// Writes down that this process serves.
    pub(crate) fn announce(&self, serving: &Serving) -> Result<()> {
        let text = serde_json::to_vec(serving)
            .map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
        write_private(&self.serving_file(), &text)
    }

    /// Removes what [`WorkspaceFolder::announce`] wrote.
    pub(crate) fn retract(&self) {
        // Not there is what is wanted.
        let _ = fs::remove_file(self.serving_file());
    }

    /// Removes everything a workspace made, and the folder when nothing else is in it.
    ///
    /// Cut off at any moment, what is left is still a workspace, or empty.
    pub(crate) fn clear(self, lock: Lock) -> Result<()> {
        // Else one that was made before there were markers would be nobody's half-way.
        mark(self.0.folder())?;
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
        let marker = self.0.folder().join(MARKER);
        let log = self.server_log();
        for file in [self.profiles(), log, self.serving_file(), marker, self.lock_file()] {
            gone(fs::remove_file(&file))
                .doing(|| format!("could not remove `{}`", file.display()))?;
        }
        // Something of somebody else's may be in it.
        let _ = fs::remove_dir(self.0.folder());
        drop(lock);
        Ok(())
    }
}

impl Deref for WorkspaceFolder {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.0
    }
}

impl OwnedFolder {
    /// Names a folder that a test made.
    #[cfg(test)]
    pub(crate) fn of_test(folder: impl Into<PathBuf>) -> Self {
        OwnedFolder(folder.into())
    }
}

impl Deref for OwnedFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The process id of a server that is gone helps nobody.
        let _ = self.0.set_len(0);
    }
}

/// Says what `folder` is, looking only.
fn look(folder: &Path) -> Result<Found> {
    let what = || format!("could not look into `{}`", folder.display());
    // Before the marker: what is there without one was there before it.
    let names = match names_in(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Ok(Found::Foreign("it is no folder".to_owned()));
        }
        Err(error) => return Err(error).doing(what),
    };
    let path = folder.join(MARKER);
    match fs::symlink_metadata(&path) {
        Ok(facts) if facts.is_file() => Ok(match fs::read(&path) {
            Ok(content) if is_marker(&content) => Found::Workspace,
            _ => Found::Foreign(format!("its `{MARKER}` is none that this program wrote")),
        }),
        Ok(_) => Ok(Found::Foreign(format!("its `{MARKER}` is no file"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(unmarked(folder, &names)),
        Err(error) => Err(error).doing(what),
    }
}

fn names_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<String>>>();
    names.map(|mut names| {
        names.sort();
        names
    })
}

fn is_marker(content: &[u8]) -> bool {
    serde_json::from_slice::<Marker>(content)
        .is_ok_and(|marker| marker.format == FORMAT && marker.version == VERSION)
}

/// Says what a folder without a marker is.
fn unmarked(folder: &Path, names: &[String]) -> Found {
    // A reset ends with the lock, and a claim begins with the marker under another name.
    let left_over = |name: &&String| {
        name.starts_with(NEW_MARKER) || (*name == "lock" && is_lock(&folder.join(name)))
    };
    let other: Vec<&String> = names.iter().filter(|name| !left_over(name)).collect();
    match other.first() {
        None => Found::Empty,
        Some(_) if was_served(folder, names) => Found::Unmarked,
        Some(name) => {
            let more = match other.len() - 1 {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            Found::Foreign(format!("it holds `{name}`{more}, and no `{MARKER}`"))
        }
    }
}

/// Returns whether a file is what a lock file was or is: nothing, or a number and what comes with it.
fn is_lock(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file() && facts.len() < 64)
        && fs::read_to_string(path).is_ok_and(|text| {
            text.is_empty() || text.parse::<u32>().is_ok() || ProcessId::parse(&text).is_some()
        })
}

/// Returns whether a folder without a marker is a workspace all the same, of a version that wrote none: it holds
/// only what such a server makes, and two files whose content nothing else has.
fn was_served(folder: &Path, names: &[String]) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is of interest")]
    struct Settings {
        workspace_id: u64,
        network: u16,
        port: u16,
    }
    let layout = Layout::new(folder);
    let settings = fs::read(layout.objects().join("settings").join("workspace.json"));
    names.iter().all(|name| Layout::NAMES.contains(&name.as_str()) || name.starts_with(".new-"))
        && settings.is_ok_and(|text| serde_json::from_slice::<Settings>(&text).is_ok())
        && fs::read(layout.profiles()).is_ok_and(|text| text.starts_with(PROFILES_HEAD.as_bytes()))
}

/// Writes the marker, unless it is there.
fn mark(folder: &Path) -> Result<()> {
    let path = folder.join(MARKER);
    let write = || -> std::io::Result<()> {
        let marker = Marker { format: FORMAT.to_owned(), version: VERSION };
        let mut file = tempfile::Builder::new().prefix(NEW_MARKER).tempfile_in(folder)?;
        serde_json::to_writer(&mut file, &marker)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Err(refused) if refused.error.kind() != ErrorKind::AlreadyExists => Err(refused.error),
            _ => File::open(folder)?.sync_all(),
        }
    };
    write().doing(|| format!("could not write `{}`", path.display()))
}

fn refusal(folder: &Path, why: String) -> Error {
    let text = format!("`{}` is no embedded workspace, and stays as it is", folder.display());
    Error::new(Kind::Refused, text)
        .why(why)
        .hint("choose a new or an empty folder with --data-dir")
        .code("NOT_A_WORKSPACE")
}

/// Opens the lock file, making it when it is missing: for reading alone where nothing can be written.
fn open_lock_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    match options.open(path) {
        Ok(file) => {
            // Earlier versions let everybody open it, and so hold the lock.
            if file.metadata()?.mode() & 0o077 != 0 {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
            }
            Ok(file)
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            // Where that fails too, the first error says more.
            File::open(path).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let here = |facts: fs::Metadata| (facts.dev(), facts.ino());
    let (Ok(file), Ok(path)) = (file.metadata(), fs::metadata(path)) else { return false };
    here(file) == here(path)
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::layout::Holder;

    fn claimed() -> (tempfile::TempDir, WorkspaceFolder) {
        let place = tempfile::tempdir().unwrap();
        let folder = WorkspaceFolder::claim(&place.path().join("deep/data")).unwrap();
        (place, folder)
    }

    fn refused(folder: &Path) -> String {
        let found =
            [WorkspaceFolder::find(folder).map(drop), WorkspaceFolder::claim(folder).map(drop)];
        let errors = found.map(Result::unwrap_err);
        assert_eq!(errors[0].to_string(), errors[1].to_string());
        assert_eq!(errors[0].kind(), Kind::Refused, "{}", errors[0]);
        errors[0].to_string()
    }

    #[tokio::test]
    async fn a_data_folder_has_one_server() {
        let (_place, folder) = claimed();
        assert_eq!(folder.holder().unwrap(), Holder::Nobody);
        let lock = folder.lock().await.unwrap();

        let error = folder.lock().await.unwrap_err();

        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
        let holder = folder.holder().unwrap();
        assert_eq!(holder.process(), ProcessId::current().as_ref());
        drop(lock);
        assert_eq!(folder.holder().unwrap(), Holder::Nobody);
    }

    #[tokio::test]
    async fn nobody_else_can_hold_the_lock() {
        let (_place, folder) = claimed();
        fs::write(folder.lock_file(), "").unwrap();
        fs::set_permissions(folder.lock_file(), fs::Permissions::from_mode(0o644)).unwrap();

        let _lock = folder.lock().await.unwrap();

        assert_eq!(fs::metadata(folder.lock_file()).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn clearing_leaves_what_is_somebody_elses() {
        let (_place, folder) = claimed();
        fs::create_dir_all(folder.objects().join("apps")).unwrap();
        let thesis = folder.folder().join("thesis.txt");
        fs::write(&thesis, "").unwrap();

        let lock = folder.hold().await.unwrap();
        folder.clone().clear(lock).unwrap();

        assert!(thesis.exists() && !folder.objects().exists());
        assert!(refused(folder.folder()).contains("it holds `thesis.txt`"));
    }

    #[tokio::test]
    async fn a_clearing_that_was_cut_off_anywhere_can_be_done_again() {
        for parts in 0..6 {
            let (_place, folder) = claimed();
            let made = [folder.objects(), folder.keys(), folder.authority(), folder.postgres()];
            let made = [&made[..], &[folder.files(), folder.apps()]].concat();
            made[parts..].iter().for_each(|part| fs::create_dir(part).unwrap());
            let lock = folder.hold().await.unwrap();
            assert!(WorkspaceFolder::find(folder.folder()).unwrap().is_some());

            folder.clone().clear(lock).unwrap();

            assert!(!folder.folder().exists());
        }
        let (_place, folder) = claimed();
        let lock = folder.hold().await.unwrap();
        fs::remove_file(folder.folder().join(MARKER)).unwrap();
        drop(lock);
        assert!(
            WorkspaceFolder::find(folder.folder()).unwrap().is_none(),
            "the lock alone is nothing"
        );
        WorkspaceFolder::claim(folder.folder()).unwrap().lock().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_was_reset_or_vanished_is_not_taken() {
        let (_place, folder) = claimed();
        fs::remove_file(folder.folder().join(MARKER)).unwrap();
        assert_eq!(folder.lock().await.unwrap_err().kind(), Kind::Conflict);

        fs::remove_dir_all(folder.folder()).unwrap();
        folder.lock().await.unwrap_err();
        assert!(!folder.folder().exists());
    }

    #[test]
    fn many_claims_at_once_agree() {
        for _ in 0..50 {
            let place = tempfile::tempdir().unwrap();
            let data = place.path().join("data");
            let claim = || {
                WorkspaceFolder::claim(&data).and_then(|folder| {
                    fs::write(folder.server_log(), "").doing(|| "log".to_owned())
                })
            };
            std::thread::scope(|scope| {
                let claims: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
                claims.into_iter().for_each(|claim| claim.join().unwrap().unwrap());
            });
        }
    }

    #[test]
    fn whatever_is_no_workspace_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        assert!(refused(Path::new("/")).contains("it holds `"));
        fs::write(at("file"), "").unwrap();
        assert!(refused(&at("file")).contains("it is no folder"));
        std::os::unix::fs::symlink("/", at("link")).unwrap();
        refused(&at("link"));
        let marker = r#"{"format":"lakeforge-workspace","version":1}"#;
        for (name, content) in [
            ("empty", ""),
            ("cut-off", &marker[..20]),
            ("other", r#"{"format":"cargo-workspace","version":1}"#),
            ("newer", r#"{"format":"lakeforge-workspace","version":2}"#),
        ] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join(MARKER), content).unwrap();
            assert!(refused(&at(name)).contains("is none that this program wrote"), "{name}");
        }
        fs::create_dir_all(at("folder").join(MARKER)).unwrap();
        fs::create_dir(at("linked")).unwrap();
        fs::write(at("true-marker"), marker).unwrap();
        std::os::unix::fs::symlink(at("true-marker"), at("linked").join(MARKER)).unwrap();
        assert!(refused(&at("folder")).contains("is no file"));
        assert!(refused(&at("linked")).contains("is no file"));
    }
}
