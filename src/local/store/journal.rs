//! The journal: one line a change, appended and synced.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Change;
use crate::error::{Doing, Error, Kind, Result};

/// An open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length of its whole lines.
    length: u64,
    /// Whether something may follow them that has no end.
    torn: bool,
}

impl Journal {
    /// Opens the journal at `path`, making it when it is missing; returns the changes in it, the oldest first.
    ///
    /// What a killed server did not get to the end of is left out. Fails naming a line that is no change.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Change>)> {
        let what = || format!("could not open `{}`", path.display());
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            text => text.doing(what)?,
        };
        let file = File::options().create(true).append(true).mode(0o600).open(&path).doing(what)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).doing(what)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let changes = read(&text[..whole]).map_err(|(line, error)| {
            Error::new(Kind::Failed, format!("could not read line {line} of `{}`", path.display()))
                .why(error.to_string())
                .hint("move this file away to go on without its changes")
        })?;
        let (length, torn) = (whole as u64, whole < text.len());
        Ok((Journal { path, file, length, torn }, changes))
    }

    /// Returns whether it holds no change.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds `changes`, all of them or none.
    pub(super) fn append(&mut self, changes: &[Change]) -> Result<()> {
        let mut line = serde_json::to_vec(changes).expect("changes hold nothing that JSON cannot");
        line.push(b'\n');
        let added = self.add(&line);
        if added.is_err() {
            self.torn = true;
            // Else the next append does it.
            let _ = self.mend();
        }
        added.doing(|| format!("could not write `{}`", self.path.display()))
    }

    fn add(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.mend()?;
        #[cfg(test)]
        super::trouble::meet_commit(self.path.parent().unwrap_or(&self.path))?;
        self.file.write_all(line)?;
        self.file.sync_data()?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Empties it.
    pub(super) fn clear(&mut self) -> Result<()> {
        let what = || format!("could not empty `{}`", self.path.display());
        self.file.set_len(0).doing(what)?;
        (self.length, self.torn) = (0, false);
        Ok(())
    }

    /// Cuts off what follows the whole lines.
    fn mend(&mut self) -> std::io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.file.sync_data()?;
            self.torn = false;
        }
        Ok(())
    }
}

/// Reads whole lines; fails with the number of the one that is no change.
fn read(text: &[u8]) -> std::result::Result<Vec<Change>, (usize, serde_json::Error)> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let changes = lines.enumerate().map(|(index, line)| {
        serde_json::from_slice::<Vec<Change>>(line).map_err(|error| (index + 1, error))
    });
    Ok(changes.collect::<std::result::Result<Vec<_>, _>>()?.concat())
}
