//! Recovery of a freshly laid out data directory, by a Postgres without sessions that ends when it is done.
//!
//! It syncs nothing, since nothing it writes has been promised to anybody yet; what it changed is synced
//! as a whole before the cluster counts as made, and the compute that runs on it afterwards syncs as usual.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncWriteExt;

use super::base::{Base, Reach};
use super::compute::{Host, last_words, open_log, tethered, usual_settings};
use super::session::{Address, OWN_DATABASE};
use super::wal::Lsn;
use crate::error::{Error, Kind, Result};

/// How long recovery may take; it reads about half a gigabyte of log a second.
const LIMIT: Duration = Duration::from_secs(1800);
/// What is asked when the end is reached; a stand-alone Postgres takes one line as one statement.
const QUESTION: &str = "SELECT concat_ws(' ', pg_last_wal_replay_lsn(), \
     (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint) AS reached\n";

/// How far a recovery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// Position after the last record replayed.
    pub(super) position: Lsn,
    /// Time of the last transaction replayed.
    pub(super) time: Timestamp,
}

impl Host {
    /// Recovers the cluster in `data`, a copy of `base` with its log, up to `reach`, and stops it cleanly.
    ///
    /// Fails with the last lines of its log.
    pub(super) async fn recover(
        &self,
        data: &Path,
        log: &Path,
        base: &Base,
        reach: Reach,
    ) -> Result<Reached> {
        let signal = data.join("recovery.signal");
        std::fs::write(&signal, "")?;
        self.account.own(&signal)?;
        let log_file = open_log(log)?;
        let said_before = log_file.metadata()?.len();
        let mut command = self.account.command(&self.install.program("postgres"));
        command.arg("--single").arg("-D").arg(data);
        // It listens nowhere, whatever the address.
        let nowhere = Address { folder: self.sockets.folder().to_owned(), port: 1 };
        for (name, value) in usual_settings(&nowhere).into_iter().chain(settings(reach)) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut child = command
            .arg(OWN_DATABASE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Error::new(Kind::Failed, "could not start Postgres").why(error.to_string())
            })?;
        let _tethered = tethered(&child);
        let mut questions = child.stdin.take().expect("its input is a pipe");
        // One that ended already says why in its log.
        let _ = questions.write_all(QUESTION.as_bytes()).await;
        drop(questions);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .map_err(|_| Error::new(Kind::TimedOut, "the recovery did not end in time"))??;
        if !output.status.success() {
            return Err(last_words(log, said_before));
        }
        let (position, time) = answer(&String::from_utf8_lossy(&output.stdout));
        Ok(Reached { position: position.unwrap_or(base.stop), time: time.unwrap_or(base.end_time) })
    }
}

/// Returns the settings of the recovery. Postgres wants a restore command even though all of the log
/// is in place already; it takes the failing one as "not in the archive".
fn settings(reach: Reach) -> Vec<(&'static str, String)> {
    let fixed = [("restore_command", "exit 1"), ("fsync", "off"), ("hot_standby", "off")];
    let mut settings: Vec<_> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let target = match reach {
        Reach::Now => None,
        Reach::Time(time) => {
            // Cut to the microseconds Postgres counts in: rounding up would let in what came later. The
            // zone is a number, since names of zones are not known yet when arguments are read.
            Some(("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()))
        }
        Reach::Lsn(position) => {
            settings.push(("recovery_target_inclusive", "off".to_owned()));
            Some(("recovery_target_lsn", position.to_string()))
        }
    };
    if let Some(target) = target {
        settings.push(target);
        settings.push(("recovery_target_action", "promote".to_owned()));
    }
    settings
}

/// Reads the answer to [`QUESTION`] out of what a stand-alone Postgres prints: `1: reached = "0/1 2"`.
fn answer(printed: &str) -> (Option<Lsn>, Option<Timestamp>) {
    let row = printed.split_once("reached = \"").and_then(|(_, rest)| rest.split_once('"'));
    let mut words = row.map_or("", |(row, _)| row).split(' ');
    let position = words.next().and_then(|word| word.parse().ok());
    let micros = words.next().and_then(|word| word.parse().ok());
    (position, micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stand_alone_server_prints_is_read() {
        let row = |value: &str| {
            format!(
                "\nPostgreSQL stand-alone backend 15.14\nbackend> \t 1: reached\t(typeid = 25, len = -1)\n\
                 \t----\n\t 1: reached = \"{value}\"\t(typeid = 25, len = -1)\n\t----\nbackend> "
            )
        };

        let both = answer(&row("0/65A53A8 1795259086627952"));

        let time: Timestamp = "2026-11-21T11:04:46.627952Z".parse().unwrap();
        assert_eq!(both, ("0/65A53A8".parse().ok(), Some(time)));
        assert_eq!(answer(&row("0/65A53A8")), ("0/65A53A8".parse().ok(), None));
        assert_eq!(answer(&row("")), (None, None));
        assert_eq!(answer("backend> "), (None, None));
    }
}
