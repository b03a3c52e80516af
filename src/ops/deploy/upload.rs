//! Source code on its way into the workspace's files.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::api::Client;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::parallel;

/// Folders that are never part of an app's source.
const SKIPPED: [&str; 7] =
    [".git", ".databricks", ".venv", "venv", "node_modules", "__pycache__", "target"];

/// Copies the folder `source` to the workspace folder `target`, which then holds nothing else.
///
/// In a git checkout exactly what git tracks or would add is copied, elsewhere everything but
/// caches and environments. Returns how many files were copied.
pub(super) async fn upload(api: &Client, source: &Path, target: &str) -> Result<usize> {
    let doing = || format!("could not upload `{}`", source.display());
    let files = files(source).await.doing(doing)?;
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, doing()).why("the folder holds no files"));
    }
    match api.delete_object(target, true).await {
        Err(error) if !error.is_not_found() => return Err(error).doing(doing),
        _ => {}
    }
    let mut folders: Vec<String> = files.iter().map(|file| remote_folder(target, file)).collect();
    folders.sort();
    folders.dedup();
    for made in parallel::each(folders, |folder| make_folder(api, folder)).await {
        made.doing(doing)?;
    }
    let copy = |file: &'_ PathBuf| copy(api, source.join(file), remote_path(target, file));
    for copied in parallel::each(&files, copy).await {
        copied.doing(doing)?;
    }
    Ok(files.len())
}

async fn make_folder(api: &Client, folder: String) -> Result<()> {
    Ok(api.make_folder(&folder).await?)
}

async fn copy(api: &Client, from: PathBuf, to: String) -> Result<()> {
    let content = tokio::fs::read(&from)
        .await
        .map_err(Error::from)
        .doing(|| format!("could not read `{}`", from.display()))?;
    Ok(api.import_file(&to, content, true).await?)
}

/// Returns the workspace path of `file` below `target`.
fn remote_path(target: &str, file: &Path) -> String {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    format!("{target}/{}", parts.join("/"))
}

fn remote_folder(target: &str, file: &Path) -> String {
    match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => remote_path(target, parent),
        None => target.to_owned(),
    }
}

/// Lists the files to copy, relative to `source`.
async fn files(source: &Path) -> Result<Vec<PathBuf>> {
    if !source.is_dir() {
        return Err(Error::new(Kind::Usage, "there is no such folder"));
    }
    let mut files = match tracked(source).await {
        Some(files) => files,
        None => walk(source)?,
    };
    files.sort();
    Ok(files)
}

/// Asks git for what it tracks or would add; `None` outside a checkout or without git.
async fn tracked(source: &Path) -> Option<Vec<PathBuf>> {
    let output = tokio::process::Command::new("git")
        .arg("-C")
        .arg(source)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "."])
        .stdin(Stdio::null())
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    let names = String::from_utf8(output.stdout).ok()?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    // What git tracks and somebody has deleted is not there to copy.
    let files: Vec<PathBuf> = files.filter(|file| source.join(file).is_file()).collect();
    (!files.is_empty()).then_some(files)
}

fn walk(source: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(source.join(&folder))? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| *skipped == name) {
                folders.push(folder.join(&name));
            } else if !kind.is_dir() && source.join(&folder).join(&name).is_file() {
                files.push(folder.join(&name));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caches_stay_behind_outside_a_checkout() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["app.py", "sub/a b.sql", "__pycache__/app.pyc", ".venv/bin/python"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }

        let files = files(folder.path()).await.unwrap();

        assert_eq!(files, [PathBuf::from("app.py"), PathBuf::from("sub/a b.sql")]);
        assert_eq!(remote_folder("/Workspace/x", &files[1]), "/Workspace/x/sub");
        assert_eq!(remote_folder("/Workspace/x", &files[0]), "/Workspace/x");
    }
}
