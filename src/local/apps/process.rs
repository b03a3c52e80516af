//! One process of an app, in a process group of its own.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::log::{Log, Origin};
use crate::local::tether::{self, Tethered};
use crate::secret::{Secret, is_secret_name};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Longest line of output that is kept in one piece.
const LONGEST_LINE: usize = 16 * 1024;

/// How long output that may be the beginning of a secret waits for the rest.
const PAUSE: Duration = Duration::from_millis(200);

/// A process that was started.
pub(crate) struct Process {
    /// Its process group.
    pub(crate) group: Pid,
    /// Port it was told to listen on.
    pub(crate) port: u16,
    stopping: AtomicBool,
    status: watch::Receiver<Option<String>>,
}

impl Process {
    /// Starts `command`; its output goes to `log`, without the secrets among its variables.
    pub(crate) fn spawn(mut command: Command, port: u16, log: &Arc<Log>) -> io::Result<Process> {
        for (name, value) in command.as_std().get_envs() {
            if let (Some(name), Some(value)) = (name.to_str(), value.and_then(OsStr::to_str))
                && is_secret_name(name)
            {
                log.mask().hide(&Secret::new(value.to_owned()));
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .ok_or_else(|| io::Error::other("it ended at once"))?;
        let pipes = [child.stdout.take().map(either), child.stderr.take().map(either)];
        for pipe in pipes.into_iter().flatten() {
            tokio::spawn(pass_on(pipe, Arc::clone(log)));
        }
        let (ended, status) = watch::channel(None);
        tokio::spawn(reap(child, group, tether::group(group), ended));
        Ok(Process { group, port, stopping: AtomicBool::new(false), status })
    }

    /// Returns how it ended, if it did.
    pub(crate) fn exit(&self) -> Option<String> {
        self.status.borrow().clone()
    }

    /// Waits until it ends and says how.
    pub(crate) async fn wait(&self) -> String {
        let mut status = self.status.clone();
        match status.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => "it was lost".to_owned(),
        }
    }

    /// Returns whether it was told to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends it: SIGTERM to the whole group, and SIGKILL to what is left after ten seconds.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.exit().is_some() {
            return;
        }
        // A group that is gone already needs no signal.
        let _ = kill_process_group(self.group, Signal::TERM);
        if tokio::time::timeout(GRACE, self.wait()).await.is_err() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.wait().await;
        }
    }
}

/// Waits for the end of a child, and ends what it leaves behind in its group.
async fn reap(
    mut child: Child,
    group: Pid,
    tethered: Tethered,
    ended: watch::Sender<Option<String>>,
) {
    let status = child.wait().await;
    let _ = kill_process_group(group, Signal::KILL);
    drop(tethered);
    ended.send_replace(Some(match status {
        Ok(status) => describe(status),
        Err(error) => error.to_string(),
    }));
}

fn describe(status: ExitStatus) -> String {
    // Both systems say "exit status: 1" and "signal: 9 (SIGKILL)".
    status.to_string()
}

fn either(pipe: impl AsyncRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(pipe)
}

/// Passes output on line by line, without the app's secrets.
async fn pass_on(mut pipe: Box<dyn AsyncRead + Send + Unpin>, log: Arc<Log>) {
    let (mut stream, mut line) = (log.mask().stream(), Line::new(Arc::clone(&log)));
    let mut chunk = vec![0; 8192];
    loop {
        let limit = if stream.is_holding() { PAUSE } else { Duration::MAX };
        match tokio::time::timeout(limit, pipe.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(count)) => line.add(&stream.push(&chunk[..count])),
            Err(_) => line.add(&stream.flush()),
        }
    }
    line.add(&stream.finish());
    line.end();
}

/// A line on its way into the log; one without end is cut, so that memory stays bounded.
struct Line {
    text: Vec<u8>,
    log: Arc<Log>,
}

impl Line {
    fn new(log: Arc<Log>) -> Self {
        Line { text: Vec::new(), log }
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.text.len() >= LONGEST_LINE {
                self.log.write(Origin::App, &String::from_utf8_lossy(&self.text));
                self.text.clear();
            }
            if *byte != b'\n' {
                self.text.push(*byte);
            }
        }
    }

    fn end(self) {
        if !self.text.is_empty() {
            self.log.write(Origin::App, &String::from_utf8_lossy(&self.text));
        }
    }
}

/// Returns a command that runs `words` in `folder` with exactly `variables`.
pub(crate) fn command(
    words: &[String],
    folder: &Path,
    variables: Vec<(String, String)>,
) -> Command {
    let path = variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let mut command = Command::new(resolve(&words[0], folder, path.map_or("", String::as_str)));
    command.args(&words[1..]).current_dir(folder).env_clear().envs(variables);
    command
}

/// Finds a program as a shell in `folder` with this `PATH` would.
fn resolve(program: &str, folder: &Path, path: &str) -> PathBuf {
    if program.contains('/') {
        return folder.join(program);
    }
    path.split(':')
        .filter(|place| !place.is_empty())
        .map(|place| Path::new(place).join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from(program))
}

/// Returns a port that nobody listens on just now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn variables() -> Vec<(String, String)> {
        vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())]
    }

    #[tokio::test]
    async fn the_end_of_a_process_and_its_output_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(folder.path().join("log")));
        let command = command(&shell("env; echo oops >&2; exit 3"), folder.path(), variables());

        let process = Process::spawn(command, 1, &log).unwrap();

        assert_eq!(process.wait().await, "exit status: 3");
        for _ in 0..100 {
            if log.tail(10).iter().any(|line| line.message == "oops") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let text: Vec<String> = log.tail(100).into_iter().map(|line| line.message).collect();
        assert!(text.contains(&"oops".to_owned()), "{text:?}");
        assert!(text.contains(&"PATH=/usr/bin:/bin".to_owned()), "{text:?}");
        assert!(!text.iter().any(|line| line.starts_with("CARGO")), "{text:?}");
    }

    #[tokio::test]
    async fn an_app_cannot_spill_its_secrets_into_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(folder.path().join("log")));
        let script = "echo \"is $DATABRICKS_CLIENT_SECRET\"; printf dose-01; sleep 0.05; echo 23456789; \
                      printf 'may go on dose-'; sleep 0.6; echo done";
        let secret = ("DATABRICKS_CLIENT_SECRET".to_owned(), "dose-0123456789".to_owned());
        let variables = [variables(), vec![secret]].concat();

        let command = command(&shell(script), folder.path(), variables);
        let process = Process::spawn(command, 1, &log).unwrap();
        process.wait().await;

        let text = || -> Vec<String> { log.tail(9).into_iter().map(|line| line.message).collect() };
        for _ in 0..500 {
            if text().len() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(text(), ["is ***", "***", "may go on dose-done"]);
    }

    #[tokio::test]
    async fn stopping_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(folder.path().join("log")));
        let words = shell("sleep 1000 & echo $! > child; wait");
        let command = command(&words, folder.path(), variables());
        let process = Process::spawn(command, 1, &log).unwrap();
        let child = folder.path().join("child");
        while std::fs::read_to_string(&child).map_or(true, |text| !text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        process.stop().await;

        let id: i32 = std::fs::read_to_string(&child).unwrap().trim().parse().unwrap();
        let gone = || rustix::process::test_kill_process(Pid::from_raw(id).unwrap()).is_err();
        for _ in 0..200 {
            if gone() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone() || is_zombie(id));
    }

    /// An orphan nobody reaps (in a container without init) is dead all the same.
    fn is_zombie(id: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
