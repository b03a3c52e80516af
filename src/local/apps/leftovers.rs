//! Processes of apps that outlived a killed server.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

use crate::local::store::write_private;

const FILE: &str = "process";
const GRACE: Duration = Duration::from_secs(3);

/// Writes down which process group an app runs in, so that the next server can end it.
pub(crate) fn remember(folder: &Path, group: Pid) {
    let id = group.as_raw_nonzero().get();
    let Some(began) = began(id) else { return };
    if let Err(error) = write_private(&folder.join(FILE), format!("{id}\n{began}\n").as_bytes()) {
        tracing::warn!("{error}");
    }
}

/// Forgets the process group of an app that was ended.
pub(crate) fn forget(folder: &Path) {
    // Not there is what is wanted.
    let _ = fs::remove_file(folder.join(FILE));
}

/// Ends the processes of all apps under `apps` that are still the ones written down.
pub(crate) fn end_all(apps: &Path) {
    let Ok(entries) = fs::read_dir(apps) else { return };
    for entry in entries.flatten() {
        let folder = entry.path();
        if let Some(group) = left_over(&folder) {
            end(group);
        }
        forget(&folder);
    }
}

fn left_over(folder: &Path) -> Option<Pid> {
    let text = fs::read_to_string(folder.join(FILE)).ok()?;
    let (id, known) = text.split_once('\n')?;
    let id: i32 = id.parse().ok()?;
    // The number may belong to somebody else by now.
    (began(id)? == known.trim()).then(|| Pid::from_raw(id)).flatten()
}

fn end(group: Pid) {
    let _ = kill_process_group(group, Signal::TERM);
    let limit = Instant::now() + GRACE;
    while test_kill_process(group).is_ok() && Instant::now() < limit {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
}

/// Returns when a process began, in whatever words the system has for it.
#[cfg(target_os = "linux")]
fn began(id: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything; the start time is the 20th field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Returns when a process began, in whatever words the system has for it.
#[cfg(not(target_os = "linux"))]
fn began(id: i32) -> Option<String> {
    let output = std::process::Command::new("ps")
        .args(["-o", "lstart=", "-p", &id.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
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
        end_all(apps.path());
        assert!(foreign.try_wait().unwrap().is_none());

        remember(&folder, Pid::from_raw(ours.id().cast_signed()).unwrap());
        let waiter = thread::spawn(move || ours.wait().unwrap());
        end_all(apps.path());

        assert!(!waiter.join().unwrap().success());
        assert!(!folder.join(FILE).exists());
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }
}
