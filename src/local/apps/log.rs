//! The output of an app: bounded on disk, and passed on to whoever follows it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::secret::Mask;

/// Size at which a log is set aside and a new one begun; one older log is kept.
const LARGEST: u64 = 2 * 1024 * 1024;
/// Lines a slow follower may lag behind before it misses some.
const BUFFER: usize = 1024;

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Origin {
    /// The app's process.
    App,
    /// The workspace.
    System,
}

/// One line, as it goes to followers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Who wrote it.
    pub(crate) source: Origin,
    /// When, in seconds since 1970.
    pub(crate) timestamp: f64,
    /// The line without its end.
    pub(crate) message: String,
}

/// The log of one app.
pub(crate) struct Log {
    path: PathBuf,
    open: Mutex<Option<(File, u64)>>,
    mask: Mask,
    followers: broadcast::Sender<Line>,
}

impl Log {
    /// Creates the log at `path`; the file is made with the first line.
    pub(crate) fn new(path: PathBuf) -> Self {
        let followers = broadcast::Sender::new(BUFFER);
        Log { path, open: Mutex::new(None), mask: Mask::default(), followers }
    }

    /// Returns what hides the app's secrets in what it says.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Adds a line. A full disk loses it: an app is not stopped for its log.
    pub(crate) fn write(&self, source: Origin, message: &str) {
        let now = Timestamp::now();
        let tag = if source == Origin::App { "APP" } else { "SYSTEM" };
        let text = format!("{now:.3} [{tag}] {message}\n");
        if let Err(error) = self.append(&text) {
            tracing::warn!("{}: {error}", self.path.display());
        }
        let timestamp = now.as_millisecond() as f64 / 1000.0;
        // Nobody following is not an error.
        let _ = self.followers.send(Line { source, timestamp, message: message.to_owned() });
    }

    fn append(&self, text: &str) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|(_, size)| *size >= LARGEST) {
            *open = None;
            fs::rename(&self.path, self.older())?;
        }
        if open.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            let size = file.metadata()?.len();
            *open = Some((file, size));
        }
        if let Some((file, size)) = open.as_mut() {
            file.write_all(text.as_bytes())?;
            *size += text.len() as u64;
        }
        Ok(())
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("1")
    }

    /// Returns the last `count` lines.
    pub(crate) fn tail(&self, count: usize) -> Vec<Line> {
        let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
        let mut text = read(&self.path);
        if text.iter().filter(|byte| **byte == b'\n').count() < count {
            let mut older = read(&self.older());
            older.append(&mut text);
            text = older;
        }
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<Line> = text.lines().rev().take(count).filter_map(parse).collect();
        lines.reverse();
        lines
    }

    /// Returns a receiver of the lines from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Line> {
        self.followers.subscribe()
    }
}

fn parse(line: &str) -> Option<Line> {
    let (time, rest) = line.split_once(" [")?;
    let (tag, message) = rest.split_once("] ")?;
    let time: Timestamp = time.parse().ok()?;
    let source = if tag == "APP" { Origin::App } else { Origin::System };
    let timestamp = time.as_millisecond() as f64 / 1000.0;
    Some(Line { source, timestamp, message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("log"));
        let mut follower = log.follow();
        log.write(Origin::System, "Starting [app] x");
        for n in 0..5 {
            log.write(Origin::App, &n.to_string());
        }

        let tail = log.tail(2);
        assert_eq!(tail.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(log.tail(100)[0].message, "Starting [app] x");
        assert_eq!(log.tail(100)[0].source, Origin::System);
        assert_eq!(follower.try_recv().unwrap(), log.tail(100)[0]);
    }

    #[test]
    fn a_log_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("log"));
        let line = "x".repeat(64 * 1024);
        for _ in 0..100 {
            log.write(Origin::App, &line);
        }

        let sizes: u64 = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(sizes < 2 * (LARGEST + 128 * 1024), "{sizes}");
        assert_eq!(log.tail(20).len(), 20);
    }
}
