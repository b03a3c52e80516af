//! Apps and services that a repository has already.

use std::path::Path;

use super::{folder_name, id_from};
use crate::error::{Error, Kind, Result};

/// How deep below the root a service is looked for.
const DEEPEST: usize = 4;
/// Folders that hold no services.
const SKIPPED: [&str; 11] = [
    "node_modules",
    "venv",
    "env",
    "__pycache__",
    "site-packages",
    "target",
    "dist",
    "build",
    "tests",
    "resources",
    "migrations",
];
/// Applies every migration in plain SQL.
const SQL: &str = "for file in migrations/*.sql; do psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction --file \"$file\" || exit; done";

/// An app that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Folder, relative to the root; `.` is the root itself.
    pub(crate) folder: String,
    /// Name of the app.
    pub(crate) name: String,
    /// Command that migrates its database.
    pub(crate) migrate: Option<&'static str>,
}

/// What a search brought to light.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Apps.
    pub(crate) apps: Vec<Found>,
    /// Folders with Python requirements that nothing says how to start.
    pub(crate) doubtful: Vec<String>,
}

/// Looks for apps below `root`: a folder with `app.yaml`, or with `app.py` and Python requirements.
/// An app has no apps inside. With `chosen` folders those are taken and nothing is looked for.
///
/// Fails as `Usage` for a chosen folder that is not there, and for one whose name cannot name an app.
pub(crate) fn search(root: &Path, chosen: &[String]) -> Result<Search> {
    let mut search = Search::default();
    if chosen.is_empty() {
        visit(root, ".", &mut search);
    }
    for folder in chosen {
        let folder = tidy(folder)?;
        if !root.join(&folder).is_dir() {
            return Err(Error::new(
                Kind::Usage,
                format!("`--app {folder}`: there is no such folder"),
            ));
        }
        let Some(app) = found(root, &folder) else {
            return Err(Error::new(Kind::Usage, format!("`--app {folder}` cannot name an app"))
                .why("a name has letters, digits and hyphens, two at least"));
        };
        search.apps.push(app);
    }
    distinguish(&mut search.apps)?;
    Ok(search)
}

/// Returns a path below the root without a dot or slash too many.
fn tidy(folder: &str) -> Result<String> {
    let parts: Vec<&str> =
        folder.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if folder.starts_with('/') || parts.contains(&"..") || folder.contains(char::is_control) {
        let what = format!("`--app {}` is outside of the bundle", folder.escape_debug());
        return Err(Error::new(Kind::Usage, what).why("it is a folder relative to the bundle's"));
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn visit(root: &Path, folder: &str, search: &mut Search) {
    let path = root.join(folder);
    let has = |name: &str| path.join(name).is_file();
    let requires = has("requirements.txt") || has("pyproject.toml");
    let is_app = has("app.yaml") || has("app.yml") || (requires && has("app.py"));
    match is_app.then(|| found(root, folder)).flatten() {
        Some(app) => return search.apps.push(app),
        None if (is_app || requires) && folder != "." => search.doubtful.push(folder.to_owned()),
        None => {}
    }
    if folder != "." && folder.split('/').count() >= DEEPEST {
        return;
    }
    for name in folders(&path) {
        let below = if folder == "." { name } else { format!("{folder}/{name}") };
        visit(root, &below, search);
    }
}

/// Returns the folders in `path` by name; links are not followed.
fn folders(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !SKIPPED.contains(&name.as_str()))
        .filter(|name| !name.contains(char::is_control))
        .collect();
    names.sort();
    names
}

fn found(root: &Path, folder: &str) -> Option<Found> {
    let path = root.join(folder);
    let own = match folder {
        "." => folder_name(root),
        below => below.rsplit('/').next().unwrap_or(below).to_owned(),
    };
    Some(Found { folder: folder.to_owned(), name: id_from(&own)?, migrate: migrate(&path) })
}

fn migrate(path: &Path) -> Option<&'static str> {
    let files = || std::fs::read_dir(path.join("migrations")).into_iter().flatten().flatten();
    if path.join("alembic.ini").is_file() {
        return Some("alembic upgrade head");
    }
    let is_sql =
        |name: std::ffi::OsString| Path::new(&name).extension().is_some_and(|end| end == "sql");
    files().any(|entry| is_sql(entry.file_name())).then_some(SQL)
}

/// Names apps of one name after the folder above too.
///
/// Fails as `Usage` when that does not tell them apart.
fn distinguish(apps: &mut [Found]) -> Result<()> {
    let names: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
    for app in apps.iter_mut() {
        if names.iter().filter(|name| **name == app.name).count() > 1 {
            let parts: Vec<&str> = app.folder.rsplit('/').take(2).collect();
            let longer = parts.iter().rev().copied().collect::<Vec<_>>().join("-");
            app.name = id_from(&longer).unwrap_or_else(|| app.name.clone());
        }
    }
    for (index, app) in apps.iter().enumerate() {
        if let Some(first) = apps[..index].iter().find(|first| first.name == app.name) {
            let what =
                format!("`{}` and `{}` are both called `{}`", first.folder, app.folder, app.name);
            return Err(Error::new(Kind::Usage, what)
                .why("each app of a bundle has a name of its own")
                .hint("name the apps with `--app DIR`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn names(files: &[&str]) -> Vec<String> {
        let search = search(repository(files).path(), &[]).unwrap();
        search.apps.iter().map(|app| format!("{} {}", app.folder, app.name)).collect()
    }

    #[test]
    fn apps_are_found_and_what_is_not_one_is_left() {
        let files = [
            "pyproject.toml",
            "services/Patient_API/app.yaml",
            "services/Patient_API/inner/app.yaml",
            "services/lab/app.py",
            "services/lab/requirements.txt",
            "services/tool/requirements.txt",
            "node_modules/x/app.yaml",
            ".hidden/app.yaml",
            "a/b/c/d/e/app.yaml",
        ];
        assert_eq!(names(&files), ["services/Patient_API patient-api", "services/lab lab"]);
        let search = search(repository(&files).path(), &[]).unwrap();
        assert_eq!(search.doubtful, ["services/tool"]);
    }

    #[test]
    fn apps_of_one_name_are_told_apart_or_refused() {
        assert_eq!(
            names(&["shop/web/app.yaml", "lab/web/app.yaml"]),
            ["lab/web lab-web", "shop/web shop-web"]
        );
        let twice = repository(&["a/x/web/app.yaml", "b/x/web/app.yaml"]);
        let error = search(twice.path(), &[]).unwrap_err();
        assert!(error.to_string().starts_with("`a/x/web` and `b/x/web` are both called `x-web`"));
    }

    #[test]
    fn chosen_folders_are_taken_as_they_are() {
        let root = repository(&["a/shop/main.py", "b/app.yaml", "a/shop/migrations/1.sql"]);
        let search = |folder: &str| search(root.path(), &[folder.to_owned()]);

        let apps = search("./a//shop/").unwrap().apps;
        assert_eq!((apps[0].folder.as_str(), apps[0].name.as_str()), ("a/shop", "shop"));
        assert_eq!(apps[0].migrate, Some(SQL));
        for (folder, expected) in [
            ("x", "there is no such folder"),
            ("../x", "outside"),
            ("/etc", "outside"),
            ("b", "cannot"),
        ] {
            assert!(search(folder).unwrap_err().to_string().contains(expected), "{folder}");
        }
    }
}
