//! Writers on a branch: pgbench, and clients that remember what was confirmed to them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::family::Branch;
use crate::forge::Forge;
use crate::own::within;

/// A transaction that was confirmed: one row.
#[derive(Clone, Copy)]
pub(crate) struct Commit {
    /// Key of the row among those of its writer.
    pub(crate) id: u64,
    /// Moment before it was sent.
    pub(crate) sent: Timestamp,
    /// Moment after it was confirmed.
    pub(crate) confirmed: Timestamp,
}

/// Prepares `branch` for the writers.
pub(crate) fn prepare(forge: &Forge, branch: &str) {
    forge.succeed(&format!("-q creds exec {branch} -- pgbench -i -q -s 1"));
    forge.sql(branch, "create table commit (writer text, id bigint, primary key (writer, id))");
}

/// pgbench on a branch.
pub(crate) struct Bench(Child);

impl Bench {
    /// Starts it.
    pub(crate) fn start(forge: &Forge, branch: &str) -> Self {
        let mut command =
            forge.command(&format!("-q creds exec {branch} -- pgbench -n -c 2 -T 3600"));
        Bench(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends it.
    pub(crate) fn end(self) {
        end(self.0);
    }
}

/// A client that writes to one branch, in its name.
pub(crate) struct Writer {
    branch: String,
    psql: Child,
    stop: Arc<AtomicBool>,
    commits: Arc<Mutex<Vec<Commit>>>,
    thread: JoinHandle<u64>,
}

impl Writer {
    /// Starts it on `branch`.
    pub(crate) fn start(forge: &Forge, branch: &Branch) -> Self {
        let Branch { name, next, .. } = branch;
        let mut psql = forge
            .command(&format!("-q creds exec {name} -- psql -XAtq -v ON_ERROR_STOP=1"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let input = psql.stdin.take().unwrap();
        let output = BufReader::new(psql.stdout.take().unwrap());
        let thread = {
            let (stop, commits) = (Arc::clone(&stop), Arc::clone(&commits));
            let (name, next) = (name.clone(), *next);
            std::thread::spawn(move || write((input, output), &name, next, &stop, &commits))
        };
        Writer { branch: name.clone(), psql, stop, commits, thread }
    }

    /// Returns where it writes.
    pub(crate) fn branch(&self) -> &str {
        &self.branch
    }

    /// Waits until so many rows were confirmed.
    pub(crate) fn wait_for(&self, commits: usize) {
        let going = within(Duration::from_secs(120), || {
            self.thread.is_finished() || self.commits.lock().unwrap().len() >= commits
        });
        let going = going && !self.thread.is_finished();
        assert!(going, "the writer on {} did not get going", self.branch);
    }

    /// Returns what was confirmed up to now.
    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.commits.lock().unwrap().clone()
    }

    /// Ends it; returns what was confirmed and the first key that was never sent.
    pub(crate) fn end(self) -> (Vec<Commit>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        end(self.psql);
        let next = self.thread.join().unwrap();
        let commits = std::mem::take(&mut *self.commits.lock().unwrap());
        (commits, next)
    }
}

/// Ends a client, which may have ended with its connection.
fn end(mut client: Child) {
    let _ = client.kill();
    client.wait().unwrap();
}

/// Inserts one row after the other, the next when the last is confirmed, until the connection ends.
fn write(
    (mut input, output): (ChildStdin, BufReader<ChildStdout>),
    writer: &str,
    first: u64,
    stop: &AtomicBool,
    commits: &Mutex<Vec<Commit>>,
) -> u64 {
    let mut id = first;
    let mut lines = output.lines();
    while !stop.load(Ordering::SeqCst) {
        let sent = Timestamp::now();
        let asked = writeln!(input, "insert into commit values ('{writer}', {id}) returning id;");
        id += 1;
        let answer = asked.ok().and_then(|()| lines.next()).and_then(Result::ok);
        let Some(answer) = answer else { break };
        assert_eq!(answer.parse(), Ok(id - 1));
        let confirmed = Timestamp::now();
        commits.lock().unwrap().push(Commit { id: id - 1, sent, confirmed });
    }
    id
}
