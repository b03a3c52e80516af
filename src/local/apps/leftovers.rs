//! Processes of apps that outlived a killed server.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

use crate::local::disk::write_private;
use crate::local::folder::OwnedFolder;
use crate::local::pid::ProcessId;

const FILE: &str = "process";
const GRACE: Duration = Duration::from_secs(3);

/// Writes down which process group an app runs in, so that the next server can end it.
pub(crate) fn remember(folder: &Path, group: Pid) {
    let Some(leader) = ProcessId::of(group) else { return };
    if let Err(error) = write_private(&folder.join(FILE), leader.text().as_bytes()) {
        tracing::warn!("{error}");
    }
}

/// Forgets the process group of an app that was ended.
pub(crate) fn forget(folder: &Path) {
    // Not there is what is wanted.
    let _ = fs::remove_file(folder.join(FILE));
}

/// Ends the processes of all apps under `apps` that are still the ones written down.
pub(crate) fn end_all(apps: &OwnedFolder) {
    let Ok(entries) = fs::read_dir(&**apps) else { return };
    for entry in entries.flatten() {
        let folder = entry.path();
        let leader = fs::read_to_string(folder.join(FILE)).ok();
        let leader = leader.and_then(|text| ProcessId::parse(&text));
        // The number may belong to somebody else by now.
        if let Some(leader) = leader.filter(ProcessId::is_alive) {
            end(leader.pid);
        }
        forget(&folder);
    }
}

fn end(group: Pid) {
    let _ = kill_process_group(group, Signal::TERM);
    let limit = Instant::now() + GRACE;
    while test_kill_process(group).is_ok() && Instant::now() < limit {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn only_the_very_process_that_was_written_down_is_ended() {
        let apps = tempfile::tempdir().unwrap();
        let folder = apps.path().join("portal");
        fs::create_dir(&folder).unwrap();
        let spawn = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").process_group(0).spawn().unwrap()
        };
        let (mut ours, mut foreign) = (spawn(), spawn());
        let foreign_id = foreign.id().cast_signed();
        fs::write(folder.join(FILE), format!("{foreign_id}\nanother time\n")).unwrap();
        end_all(&OwnedFolder::of_test(apps.path()));
        assert!(foreign.try_wait().unwrap().is_none());

        remember(&folder, Pid::from_raw(ours.id().cast_signed()).unwrap());
        let waiter = thread::spawn(move || ours.wait().unwrap());
        end_all(&OwnedFolder::of_test(apps.path()));

        assert!(!waiter.join().unwrap().success());
        assert!(!folder.join(FILE).exists());
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }
}
