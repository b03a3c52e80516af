//! The system accounts that Postgres and apps run as: our own, or lesser ones when we are root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};

/// Accounts Postgres may run as when we are root, the best first.
const LESSER: [&str; 2] = ["postgres", "nobody"];

/// Accounts apps may run as when we are root: not the one that owns the data of Postgres, if there is another.
const APPS: [&str; 2] = ["nobody", "postgres"];

/// The account of a program; Postgres itself refuses to run as root.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// User and group to change to, with the user's name; none when we are not root.
    change: Option<(u32, u32, &'static str)>,
}

impl Account {
    /// Returns our own account, or `postgres` or `nobody` when we are root.
    ///
    /// Fails with `Usage` when we are root and neither account exists.
    pub(super) fn detect() -> Result<Self> {
        Account::first_of(&LESSER).ok_or_else(|| {
            Error::new(Kind::Usage, "Postgres cannot be run as root")
                .why("there is neither a system user `postgres` nor `nobody` to run it as")
                .hint("run this as an ordinary user")
        })
    }

    /// Returns our own account, also when we are root.
    #[cfg(test)]
    pub(crate) fn our_own() -> Self {
        Account { change: None }
    }

    /// Returns the account of apps: our own, or `nobody` or `postgres` when we are root.
    ///
    /// Fails with `Usage` when we are root and neither account exists.
    pub(crate) fn of_apps() -> Result<Self> {
        Account::first_of(&APPS).ok_or_else(|| {
            Error::new(Kind::Usage, "apps are not run as root")
                .why("there is neither a system user `nobody` nor `postgres` to run them as")
                .hint("run this as an ordinary user")
        })
    }

    /// Returns our own account, or the first of `names` there is when we are root.
    fn first_of(names: &[&'static str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return Some(Account { change: None });
        }
        let mut found = names
            .iter()
            .filter_map(|name| Some((number_of("-u", name)?, number_of("-g", name)?, *name)));
        found.next().map(|change| Account { change: Some(change) })
    }

    /// Makes a command run as this account.
    pub(crate) fn take_over(&self, command: &mut tokio::process::Command) {
        if let Some((user, group, _)) = self.change {
            // With it go all other groups.
            command.uid(user).gid(group);
        }
    }

    /// Gives a folder that nobody else has written in yet to this account, with everything in it, and to nobody else.
    /// Does nothing with one that it has already.
    pub(crate) fn own_tree(&self, folder: &Path) -> std::io::Result<()> {
        if self.change.is_none() || std::fs::metadata(folder)?.uid() == self.user() {
            return Ok(());
        }
        for entry in std::fs::read_dir(folder)? {
            let (path, facts) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if facts.is_dir() {
                self.own_tree(&path)?;
            } else if facts.is_file() && facts.nlink() == 1 {
                self.own(&path)?;
            }
        }
        // Last: until then the account cannot change what is in it.
        self.create_folder(folder)
    }

    /// Makes a program start as this account, with nothing of our environment that could change its ways.
    pub(super) fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
        self.take_over(&mut command);
        command
    }

    /// Gives a file or folder to this account.
    pub(crate) fn own(&self, path: &Path) -> std::io::Result<()> {
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
    pub(crate) fn create_folder(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        self.own(folder)
    }

    /// Says whether this is a lesser account than our own.
    pub(crate) fn is_lesser(&self) -> bool {
        self.change.is_some()
    }

    /// Checks that this account can reach `folder`.
    ///
    /// Fails with `Usage` naming the folder above it that keeps the account out.
    pub(crate) fn check_reaches(&self, folder: &Path) -> Result<()> {
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
        .why(format!("as root, this is run as the user `{name}`"))
        .hint(format!("chmod o+x {}", closed.display())))
    }
}

/// Asks the system for a user's number (`-u`) or that of its group (`-g`).
fn number_of(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
