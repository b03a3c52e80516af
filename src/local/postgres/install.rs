//! Finding the PostgreSQL programs of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Kind, Result};

/// Oldest major version the engine works with.
const OLDEST_MAJOR: u32 = 15;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    /// Folder with `postgres` and `initdb`.
    pub(crate) bin: PathBuf,
    /// Major version, such as 17.
    pub(crate) major: u32,
    /// Full version, such as `17.2`.
    pub(crate) version: String,
}

impl Install {
    /// Finds PostgreSQL: the folder asked for, else what `pg_config` and the search path name,
    /// else the newest under the folders where packages put it.
    ///
    /// Fails with `Usage` (`POSTGRES_NOT_FOUND`) when there is none, or none new enough.
    pub(crate) fn find(explicit: Option<&Path>) -> Result<Install> {
        if let Some(folder) = explicit {
            return find_asked(folder);
        }
        let mut too_old = None;
        for bin in on_path().into_iter().chain(in_packages()) {
            match probe(&bin) {
                Some(install) if install.major >= OLDEST_MAJOR => return Ok(install),
                Some(install) => too_old = Some(install),
                None => {}
            }
        }
        Err(match too_old {
            Some(install) => refuse_old(&install),
            None => not_found("no PostgreSQL server was found on this machine"),
        })
    }

    /// Returns the path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

fn find_asked(folder: &Path) -> Result<Install> {
    // The programs are run from another folder than ours.
    let place = std::path::absolute(folder)?;
    let install = [place.clone(), place.join("bin")].iter().find_map(|bin| probe(bin));
    match install {
        Some(install) if install.major >= OLDEST_MAJOR => Ok(install),
        Some(install) => Err(refuse_old(&install)),
        None => Err(not_found(&format!("no PostgreSQL server in `{}`", folder.display()))),
    }
}

fn not_found(message: &str) -> Error {
    Error::new(Kind::Usage, message).code("POSTGRES_NOT_FOUND").hint(
        "install one: `apt install postgresql` or `brew install postgresql@17`; \
         or name the folder that holds `postgres` and `initdb`",
    )
}

fn refuse_old(install: &Install) -> Error {
    let found = format!("PostgreSQL {} in `{}` is too old", install.version, install.bin.display());
    not_found(&found).why(format!("PostgreSQL {OLDEST_MAJOR} or later is needed"))
}

/// Returns the folders that `pg_config` and the search path lead to.
fn on_path() -> Vec<PathBuf> {
    let told = answer(Command::new("pg_config").arg("--bindir")).map(PathBuf::from);
    let beside = answer(Command::new("sh").args(["-c", "command -v postgres"]))
        .and_then(|program| Path::new(&program).parent().map(Path::to_owned));
    told.into_iter().chain(beside).collect()
}

/// Returns the folders of Debian's, Red Hat's and Homebrew's packages, newest version first.
fn in_packages() -> Vec<PathBuf> {
    let roots = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
    ];
    let mut found: Vec<(u32, PathBuf)> = roots
        .iter()
        .flat_map(|(root, prefix)| {
            let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((major, entry.path().join("bin")))
            })
        })
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, bin)| bin).collect()
}

/// Returns the installation in `bin` when its server answers and can make new clusters.
fn probe(bin: &Path) -> Option<Install> {
    if !bin.join("initdb").is_file() {
        return None;
    }
    let (major, version) = read_version(&answer(Command::new(bin.join("postgres")).arg("-V"))?)?;
    Some(Install { bin: bin.to_owned(), major, version })
}

/// Reads `postgres (PostgreSQL) 15.14 (Debian …)` and `postgres (PostgreSQL) 18rc1`.
fn read_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version[..digits].parse().ok()?, version.to_owned()))
}

/// Runs `command` and returns the line it prints, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_server_prints() {
        let read = |text| read_version(text).map(|(major, version)| format!("{major} {version}"));

        assert_eq!(read("postgres (PostgreSQL) 15.14 (Debian 1)").as_deref(), Some("15 15.14"));
        assert_eq!(read("postgres (PostgreSQL) 18rc1").as_deref(), Some("18 18rc1"));
        assert_eq!(read("postgres (EnterpriseDB) x"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_refused_with_the_way_to_get_one() {
        let error = Install::find(Some(Path::new("/nowhere"))).unwrap_err();

        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(error.to_json()["error"]["code"], "POSTGRES_NOT_FOUND");
        assert!(error.hint_text().unwrap().contains("apt install postgresql"));
    }
}
