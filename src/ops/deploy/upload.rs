//! Source code on its way into the workspace's files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::api::Client;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::parallel;

/// Folders that are never part of an app's source.
const SKIPPED: [&str; 7] =
    [".git", ".databricks", ".venv", "venv", "node_modules", "__pycache__", "target"];

/// Folders of a source that no link leads into: they can hold logins.
const PRIVATE: [&str; 2] = [".git", ".databricks"];

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
    let mut folders: Vec<String> =
        files.iter().map(|file| remote_folder(target, &file.path)).collect();
    folders.sort();
    folders.dedup();
    for made in parallel::each(folders, |folder| make_folder(api, folder)).await {
        made.doing(doing)?;
    }
    let copy = |file: &'_ File| copy(api, file.real.clone(), remote_path(target, &file.path));
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

/// A file to copy.
#[derive(Debug, PartialEq, Eq)]
struct File {
    /// Where it is in the source.
    path: PathBuf,
    /// Where its content is: elsewhere in the source when it is a link.
    real: PathBuf,
}

/// Lists the files to copy.
///
/// Fails with `Refused` for a link that leads out of the source.
async fn files(source: &Path) -> Result<Vec<File>> {
    if !source.is_dir() {
        return Err(Error::new(Kind::Usage, "there is no such folder"));
    }
    let mut paths = match tracked(source).await {
        Some(paths) => paths,
        None => walk(source)?,
    };
    paths.sort();
    let whole = source.canonicalize()?;
    let files = paths.into_iter().filter_map(|path| file(&whole, path).transpose());
    let files: Vec<File> = files.collect::<Result<_>>()?;
    Ok(files)
}

/// Finds out where the content of `path` is; there is none for a folder and for what is not there.
fn file(source: &Path, path: PathBuf) -> Result<Option<File>> {
    let Ok(real) = source.join(&path).canonicalize() else { return Ok(None) };
    // A link to an environment elsewhere is no part of the source, as the environment is none.
    if path.file_name().is_some_and(is_skipped) && real.is_dir() {
        return Ok(None);
    }
    let inside = real.strip_prefix(source).ok();
    let is_open = |part: &OsStr| !PRIVATE.iter().any(|private| *private == part);
    let belongs = inside.is_some_and(|inside| inside == path || inside.iter().all(is_open));
    if !belongs {
        return Err(Error::new(
            Kind::Refused,
            format!("`{}` leads out of the source", path.display()),
        )
        .code("LINK_LEAVES_SOURCE")
        .why(format!("it is a link to `{}`", real.display()))
        .hint("put the file itself there, or leave the link out of git"));
    }
    Ok(real.is_file().then_some(File { path, real }))
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
    let there = |file: &PathBuf| source.join(file).symlink_metadata().is_ok();
    let files: Vec<PathBuf> = files.filter(there).collect();
    (!files.is_empty()).then_some(files)
}

fn is_skipped(name: &OsStr) -> bool {
    SKIPPED.iter().any(|skipped| *skipped == name)
}

fn walk(source: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(source.join(&folder))? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if kind.is_dir() {
                if !is_skipped(&name) {
                    folders.push(folder.join(&name));
                }
            } else {
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

        let files: Vec<PathBuf> = names(folder.path()).await.unwrap();

        assert_eq!(files, [PathBuf::from("app.py"), PathBuf::from("sub/a b.sql")]);
        assert_eq!(remote_folder("/Workspace/x", &files[1]), "/Workspace/x/sub");
        assert_eq!(remote_folder("/Workspace/x", &files[0]), "/Workspace/x");
    }
    async fn names(source: &Path) -> Result<Vec<PathBuf>> {
        Ok(files(source).await?.into_iter().map(|file| file.path).collect())
    }

    #[tokio::test]
    async fn links_stay_inside_the_source() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::create_dir_all(source.join(".git")).unwrap();
        std::fs::write(folder.path().join("databrickscfg"), "secret").unwrap();
        std::fs::write(source.join(".git/config"), "secret").unwrap();
        std::fs::write(source.join("sub/app.py"), "x").unwrap();
        symlink("sub/app.py", source.join("inside.py")).unwrap();
        symlink("sub", source.join("folder")).unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        symlink("/tmp", source.join(".venv")).unwrap();

        let found = files(&source).await.unwrap();
        let names: Vec<_> = found.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(names, ["inside.py", "sub/app.py"]);
        assert_eq!(found[0].real, source.canonicalize().unwrap().join("sub/app.py"));

        for target in
            ["../databrickscfg", "/etc/passwd", "..", ".git/config", "sub/../../databrickscfg"]
        {
            symlink(target, source.join("link")).unwrap();
            let error = files(&source).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{target}");
            assert!(error.message().starts_with("`link` leads out"), "{target}: {error}");
            std::fs::remove_file(source.join("link")).unwrap();
        }
    }
}
