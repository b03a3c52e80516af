//! The system account Postgres runs as: our own, or a lesser one when we are root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};

/// Accounts Postgres may run as when we are root, the best first.
const LESSER: [&str; 2] = ["postgres", "nobody"];

/// The account of every Postgres program; Postgres itself refuses to run as root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// User and group to change to, with the user's name; none when we are not root.
    change: Option<(u32, u32, &'static str)>,
}

impl Account {
    /// Returns our own account, or `postgres` or `nobody` when we are root.
    ///
    /// Fails with `Usage` when we are root and neither account exists.
    pub(super) fn detect() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account { change: None });
        }
        let change = LESSER
            .iter()
            .find_map(|name| Some((number_of("-u", name)?, number_of("-g", name)?, *name)));
        match change {
            Some(change) => Ok(Account { change: Some(change) }),
            None => Err(Error::new(Kind::Usage, "Postgres cannot be run as root")
                .why("there is neither a system user `postgres` nor `nobody` to run it as")
                .hint("run this as an ordinary user")),
        }
    }

    /// Makes a program start as this account, with nothing of our environment that could change its ways.
    pub(super) fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
        if let Some((user, group, _)) = self.change {
            command.uid(user).gid(group);
        }
        command
    }

    /// Gives a file or folder to this account.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        match self.change {
            Some((user, group, _)) => chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Returns the number of the user that owns what Postgres writes.
    pub(super) fn user(&self) -> u32 {
        self.change.map_or_else(|| rustix::process::geteuid().as_raw(), |(user, ..)| user)
    }

    /// Creates `folder`, and those above it, as a private folder of this account.
    pub(super) fn create_folder(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        self.own(folder)
    }

    /// Says whether this is a lesser account than our own.
    pub(super) fn is_lesser(&self) -> bool {
        self.change.is_some()
    }

    /// Checks that this account can reach `folder`.
    ///
    /// Fails with `Usage` naming the folder above it that keeps the account out.
    pub(super) fn check_reaches(&self, folder: &Path) -> Result<()> {
        let Some((user, group, name)) = self.change else { return Ok(()) };
        let keeps_out = |path: &&Path| {
            std::fs::metadata(path).is_ok_and(|facts| {
                let enter = if facts.uid() == user {
                    0o100
                } else if facts.gid() == group {
                    0o010
                } else {
                    0o001
                };
                facts.mode() & enter == 0
            })
        };
        let Some(closed) = folder.ancestors().filter(keeps_out).last() else { return Ok(()) };
        Err(Error::new(
            Kind::Usage,
            format!("the user `{name}` cannot enter `{}`", closed.display()),
        )
        .why(format!("as root, Postgres is run as the user `{name}`"))
        .hint(format!("chmod o+x {}", closed.display())))
    }
}

/// Asks the system for a user's number (`-u`) or that of its group (`-g`).
fn number_of(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
