//! Workspace files: a tree on disk under the data folder.
//!
//! A notebook is kept as its source file and shown without its extension, as the platform does.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::disk::private_folder;
use super::fault::{Answer, Fault};
use super::folder::OwnedFolder;
use super::paths::{TreePath, no_such_path};
use crate::error::{Doing, Result};
use crate::wire::workspace::{ObjectList, ObjectStatus, ObjectType};

/// Largest file that can be written or read.
pub(crate) const LARGEST: usize = 10 * 1024 * 1024;
/// Extension, first line and language of the files that are notebooks.
const NOTEBOOKS: [(&str, &str, &str); 4] = [
    ("py", "# Databricks notebook source", "PYTHON"),
    ("sql", "-- Databricks notebook source", "SQL"),
    ("r", "# Databricks notebook source", "R"),
    ("scala", "// Databricks notebook source", "SCALA"),
];

/// The tree of workspace files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
    /// Where files are written before they are renamed, and folders moved before they are removed.
    scratch: PathBuf,
}

/// What a path names, and where it is on disk.
struct Found {
    disk: PathBuf,
    kind: ObjectType,
    language: Option<&'static str>,
    metadata: fs::Metadata,
}

impl Files {
    /// Opens the tree in `folder`, making it when it is missing.
    pub(crate) fn open(folder: &OwnedFolder) -> Result<Self> {
        let files = Files { root: folder.join("tree"), scratch: folder.join("scratch") };
        if files.scratch.exists() {
            fs::remove_dir_all(&files.scratch)
                .doing(|| format!("could not clear `{}`", files.scratch.display()))?;
        }
        private_folder(&files.root)?;
        private_folder(&files.scratch)?;
        Ok(files)
    }

    /// Returns what `path` is.
    pub(crate) fn status(&self, path: &str) -> Answer<Value> {
        let found = self.find(path)?;
        Ok(described(path, &found))
    }

    /// Returns the content of a file or notebook.
    pub(crate) fn read(&self, path: &str) -> Answer<Vec<u8>> {
        let found = self.find(path)?;
        if found.kind == ObjectType::Directory {
            return Err(Fault::bad_request(format!(
                "{path} is a directory and cannot be exported"
            )));
        }
        if found.metadata.len() > LARGEST as u64 {
            let text = format!("{path} is larger than {LARGEST} bytes");
            return Err(Fault::new(400, "MAX_NOTEBOOK_SIZE_EXCEEDED", text));
        }
        fs::read(&found.disk).map_err(Fault::internal)
    }

    /// Writes a file in one step; without `overwrite` one that is there stays as it is.
    pub(crate) fn write(&self, path: &str, overwrite: bool, content: &[u8]) -> Answer<()> {
        let disk = self.locate(path)?;
        let parent = disk.parent().filter(|parent| parent.starts_with(&self.root));
        let Some(parent) = parent.filter(|parent| parent.is_dir()) else {
            let parent = path.trim_end_matches('/').rsplit_once('/').map_or("/", |(head, _)| head);
            let text = format!("The parent folder ({parent}) does not exist.");
            return Err(Fault::new(404, "NOT_FOUND", text));
        };
        debug_assert!(parent.starts_with(&self.root));
        if disk.is_dir() {
            return Err(Fault::bad_request(format!("{path} is a directory")));
        }
        let write = || -> std::io::Result<bool> {
            let mut file = tempfile::NamedTempFile::new_in(&self.scratch)?;
            file.write_all(content)?;
            file.as_file().sync_data()?;
            if overwrite {
                file.persist(&disk)?;
                return Ok(true);
            }
            match file.persist_noclobber(&disk) {
                Ok(_) => Ok(true),
                Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(refused) => Err(refused.error),
            }
        };
        match write().map_err(Fault::internal)? {
            true => Ok(()),
            false => {
                let text = format!("File already exists at ({path}).");
                Err(Fault::new(409, "RESOURCE_ALREADY_EXISTS", text))
            }
        }
    }

    /// Makes a folder with its parents.
    pub(crate) fn make_folder(&self, path: &str) -> Answer<()> {
        let disk = self.locate(path)?;
        match fs::create_dir_all(&disk) {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) =>
            {
                let text = format!("({path}) or one of its parents is a file.");
                Err(Fault::new(400, "RESOURCE_ALREADY_EXISTS", text))
            }
            Err(error) => Err(Fault::internal(error)),
        }
    }

    /// Refuses what [`Files::remove`] would.
    pub(crate) fn check_removable(&self, path: &str, recursive: bool) -> Answer<()> {
        let found = self.find(path)?;
        if found.disk == self.root {
            return Err(Fault::bad_request("The root folder cannot be deleted."));
        }
        if found.kind != ObjectType::Directory || recursive {
            return Ok(());
        }
        match fs::read_dir(&found.disk).map_err(Fault::internal)?.next() {
            None => Ok(()),
            Some(_) => Err(not_empty(path)),
        }
    }

    /// Removes a file, or a folder: one that holds something only with `recursive`.
    pub(crate) fn remove(&self, path: &str, recursive: bool) -> Answer<()> {
        let found = self.find(path)?;
        if found.disk == self.root {
            return Err(Fault::bad_request("The root folder cannot be deleted."));
        }
        if found.kind != ObjectType::Directory {
            return fs::remove_file(&found.disk).map_err(Fault::internal);
        }
        if !recursive {
            return fs::remove_dir(&found.disk).map_err(|_| not_empty(path));
        }
        // Moved away first: a folder is there as a whole or not at all.
        let moved = tempfile::tempdir_in(&self.scratch).map_err(Fault::internal)?;
        fs::rename(&found.disk, moved.path().join("gone")).map_err(Fault::internal)
    }

    /// Returns what a folder holds, sorted by path.
    pub(crate) fn list(&self, path: &str) -> Answer<Value> {
        let found = self.find(path)?;
        if found.kind != ObjectType::Directory {
            return Ok(json!({ "objects": [described(path, &found)] }));
        }
        let base = path.trim_end_matches('/');
        let mut objects = Vec::new();
        for entry in fs::read_dir(&found.disk).map_err(Fault::internal)? {
            let disk = entry.map_err(Fault::internal)?.path();
            let Some(name) = disk.file_name().and_then(|name| name.to_str()) else { continue };
            // A file that is removed meanwhile is left out.
            let Ok(metadata) = fs::metadata(&disk) else { continue };
            let language = notebook_language(&disk, &metadata);
            let path = format!("{base}/{}", shown_name(name, language));
            let kind = kind_of(&metadata, language);
            objects.push(described(&path, &Found { disk, kind, language, metadata }));
        }
        objects.sort_by(|one, other| one["path"].as_str().cmp(&other["path"].as_str()));
        let empty = ObjectList::default();
        let mut list = serde_json::to_value(empty).map_err(Fault::internal)?;
        list["objects"] = Value::from(objects);
        Ok(list)
    }

    /// Returns the path and the kind of the object with this id, the root included.
    pub(crate) fn find_id(&self, id: u64) -> Option<(TreePath, ObjectType)> {
        let mut folders = vec![TreePath::root()];
        while let Some(folder) = folders.pop() {
            if folder.object_id() == id {
                return Some((folder, ObjectType::Directory));
            }
            // A folder that is removed meanwhile is left out.
            let Ok(entries) = fs::read_dir(self.place(&folder)) else { continue };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let disk = entry.path();
                let Some(name) = disk.file_name().and_then(|name| name.to_str()) else { continue };
                let language = notebook_language(&disk, &metadata);
                let path = folder.child(shown_name(name, language));
                match kind_of(&metadata, language) {
                    ObjectType::Directory => folders.push(path),
                    kind if path.object_id() == id => return Some((path, kind)),
                    _ => {}
                }
            }
        }
        None
    }

    /// Copies the folder at `path` to `target`, which must not be there yet.
    pub(crate) fn copy_out(&self, path: &str, target: &Path) -> Answer<()> {
        let found = self.find(path)?;
        if found.kind != ObjectType::Directory {
            return Err(Fault::bad_request(format!("{path} is not a directory")));
        }
        copy_tree(&found.disk, target).map_err(Fault::internal)
    }

    fn find(&self, path: &str) -> Answer<Found> {
        let disk = self.locate(path)?;
        if let Ok(metadata) = fs::metadata(&disk)
            && notebook_language(&disk, &metadata).is_none()
        {
            return Ok(Found { kind: kind_of(&metadata, None), disk, language: None, metadata });
        }
        for (extension, ..) in NOTEBOOKS {
            let mut name = disk.clone().into_os_string();
            name.push(format!(".{extension}"));
            let source = PathBuf::from(name);
            let Ok(metadata) = fs::metadata(&source) else { continue };
            if let Some(language) = notebook_language(&source, &metadata) {
                let kind = ObjectType::Notebook;
                return Ok(Found { disk: source, kind, language: Some(language), metadata });
            }
        }
        Err(no_such_path(path))
    }

    /// Returns where `path` is on disk.
    fn locate(&self, path: &str) -> Answer<PathBuf> {
        Ok(self.place(&TreePath::parse(path)?))
    }

    fn place(&self, path: &TreePath) -> PathBuf {
        path.parts().iter().fold(self.root.clone(), |disk, part| disk.join(part))
    }
}

fn not_empty(path: &str) -> Fault {
    Fault::new(400, "DIRECTORY_NOT_EMPTY", format!("Folder ({path}) is not empty"))
}

/// Returns the name on disk without the extension when it is a notebook's.
fn shown_name<'a>(name: &'a str, language: Option<&str>) -> &'a str {
    match language {
        Some(_) => name.rsplit_once('.').map_or(name, |(stem, _)| stem),
        None => name,
    }
}

fn kind_of(metadata: &fs::Metadata, language: Option<&str>) -> ObjectType {
    match (metadata.is_dir(), language) {
        (true, _) => ObjectType::Directory,
        (false, Some(_)) => ObjectType::Notebook,
        (false, None) => ObjectType::File,
    }
}

fn notebook_language(disk: &Path, metadata: &fs::Metadata) -> Option<&'static str> {
    let extension = disk.extension()?.to_str()?.to_ascii_lowercase();
    let (_, marker, language) = NOTEBOOKS.iter().find(|(known, ..)| *known == extension)?;
    if !metadata.is_file() {
        return None;
    }
    let mut head = Vec::with_capacity(64);
    fs::File::open(disk).ok()?.take(marker.len() as u64).read_to_end(&mut head).ok()?;
    (head == marker.as_bytes()).then_some(*language)
}

fn described(path: &str, found: &Found) -> Value {
    let modified = found.metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let status = ObjectStatus {
        object_id: TreePath::parse(path).map_or(0, |path| path.object_id()),
        object_type: found.kind,
        path: path.to_owned(),
        size: (found.kind == ObjectType::File).then_some(found.metadata.len()),
        modified_at: since.and_then(|since| i64::try_from(since.as_millis()).ok()),
    };
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(language) = found.language {
        value["language"] = Value::from(language);
        value["repos_export_format"] = Value::from("SOURCE");
    }
    value
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(&OwnedFolder::of_test(folder.path())).unwrap();
        (folder, files)
    }

    fn refusal<T: std::fmt::Debug>(result: Answer<T>) -> (u16, String) {
        let fault = result.unwrap_err();
        (fault.status, fault.failure.message)
    }

    #[test]
    fn a_file_needs_its_folder_and_is_not_overwritten_unasked() {
        let (_folder, files) = files();
        let path = "/Workspace/Users/ada/x é.txt";
        assert_eq!(
            refusal(files.write(path, true, b"1")),
            (404, "The parent folder (/Workspace/Users/ada) does not exist.".to_owned())
        );
        files.make_folder("/Workspace/Users/ada").unwrap();
        files.make_folder("/Workspace/Users/ada").unwrap();

        files.write(path, false, b"1").unwrap();

        assert_eq!(refusal(files.write(path, false, b"2")).0, 409);
        assert_eq!(files.read("/Users/ada/x é.txt").unwrap(), b"1");
        files.write(path, true, b"2").unwrap();
        assert_eq!(files.read(path).unwrap(), b"2");
        assert_eq!(files.status(path).unwrap()["object_type"], "FILE");
        assert_eq!(
            files.status(path).unwrap()["object_id"],
            files.status("/Users/ada/x é.txt").unwrap()["object_id"]
        );
    }

    #[test]
    fn folders_that_hold_something_are_removed_only_with_recursive() {
        let (_folder, files) = files();
        files.make_folder("/a/b").unwrap();

        assert_eq!(
            files.remove("/a", false).unwrap_err().failure.error_code,
            "DIRECTORY_NOT_EMPTY"
        );
        files.remove("/a", true).unwrap();

        assert_eq!(refusal(files.status("/a")), (404, "Path (/a) doesn't exist.".to_owned()));
        assert_eq!(refusal(files.remove("/a", true)).0, 404);
        assert_eq!(refusal(files.remove("/", true)).0, 400);
    }

    #[test]
    fn an_object_is_found_by_the_id_that_its_status_tells() {
        let (_folder, files) = files();
        files.make_folder("/Users/ada/n").unwrap();
        files.write("/Users/ada/n/etl.py", true, b"# Databricks notebook source\n").unwrap();
        files.write("/Users/ada/n/app.py", true, b"print(2)\n").unwrap();
        for (path, kind) in [
            ("/", ObjectType::Directory),
            ("/Workspace/Users/ada", ObjectType::Directory),
            ("/Users/ada/n/etl", ObjectType::Notebook),
            ("/Users/ada/n/app.py", ObjectType::File),
        ] {
            let id = files.status(path).unwrap()["object_id"].as_u64().unwrap();
            let expected = (TreePath::parse(path).unwrap(), kind);
            assert_eq!(files.find_id(id), Some(expected), "{path}");
        }
        assert_eq!(files.find_id(1), None);
    }

    #[test]
    fn a_notebook_is_shown_without_its_extension_and_copied_with_it() {
        let (folder, files) = files();
        files.make_folder("/n").unwrap();
        files.write("/n/etl.py", true, b"# Databricks notebook source\nprint(1)\n").unwrap();
        files.write("/n/app.py", true, b"print(2)\n").unwrap();

        assert_eq!(files.status("/n/etl").unwrap()["language"], "PYTHON");
        assert_eq!(refusal(files.status("/n/etl.py")).0, 404);
        let list = files.list("/n").unwrap();
        assert_eq!(list["objects"][0]["path"], "/n/app.py");
        assert_eq!(list["objects"][1]["object_type"], "NOTEBOOK");
        files.copy_out("/n", &folder.path().join("copy")).unwrap();
        assert!(folder.path().join("copy/etl.py").exists());
        files.remove("/n/etl", false).unwrap();
        assert_eq!(refusal(files.status("/n/etl")).0, 404);
    }
}
