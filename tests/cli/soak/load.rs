//! Writers on a branch: pgbench, and a client that remembers what was confirmed to it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use crate::forge::Forge;
use crate::own::within;

/// A transaction that was confirmed: one row.
#[derive(Clone, Copy)]
pub(crate) struct Commit {
    /// Key of the row.
    pub(crate) id: u64,
    /// Moment before it was sent.
    pub(crate) sent: Timestamp,
    /// Moment after it was confirmed.
    pub(crate) confirmed: Timestamp,
}

/// The writers of one round.
pub(crate) struct Load {
    pgbench: Child,
    psql: Child,
    stop: Arc<AtomicBool>,
    commits: Arc<Mutex<Vec<Commit>>>,
    writer: JoinHandle<u64>,
}

/// Prepares `branch` for the writers.
pub(crate) fn prepare(forge: &Forge, branch: &str) {
    forge.succeed(&format!("-q creds exec {branch} -- pgbench -i -q -s 1"));
    forge.sql(branch, "create table commit (id bigint primary key)");
}

impl Load {
    /// Starts the writers; rows begin at `first`.
    pub(crate) fn start(forge: &Forge, branch: &str, first: u64) -> Self {
        let pgbench = forge
            .command(&format!("-q creds exec {branch} -- pgbench -n -c 2 -T 3600"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut psql = forge
            .command(&format!("-q creds exec {branch} -- psql -XAtq -v ON_ERROR_STOP=1"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let input = psql.stdin.take().unwrap();
        let output = BufReader::new(psql.stdout.take().unwrap());
        let writer = {
            let (stop, commits) = (Arc::clone(&stop), Arc::clone(&commits));
            std::thread::spawn(move || write(input, output, first, &stop, &commits))
        };
        Load { pgbench, psql, stop, commits, writer }
    }

    /// Waits until the writers got going.
    pub(crate) fn wait_for(&self, commits: usize) {
        let going = within(Duration::from_secs(120), || {
            self.writer.is_finished() || self.commits.lock().unwrap().len() >= commits
        });
        assert!(going && !self.writer.is_finished(), "the writers did not get going");
    }

    /// Ends the writers; returns what was confirmed and the first key that was never sent.
    pub(crate) fn end(mut self) -> (Vec<Commit>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        for child in [&mut self.pgbench, &mut self.psql] {
            // It may have ended with its connection.
            let _ = child.kill();
            child.wait().unwrap();
        }
        let next = self.writer.join().unwrap();
        let commits = std::mem::take(&mut *self.commits.lock().unwrap());
        (commits, next)
    }
}

/// Inserts one row after the other, the next when the last is confirmed, until the connection ends.
fn write(
    mut input: ChildStdin,
    output: BufReader<ChildStdout>,
    first: u64,
    stop: &AtomicBool,
    commits: &Mutex<Vec<Commit>>,
) -> u64 {
    let mut id = first;
    let mut lines = output.lines();
    while !stop.load(Ordering::SeqCst) {
        let sent = Timestamp::now();
        let asked = writeln!(input, "insert into commit values ({id}) returning id;");
        id += 1;
        let answer = asked.ok().and_then(|()| lines.next()).and_then(Result::ok);
        let Some(answer) = answer else { break };
        assert_eq!(answer.parse(), Ok(id - 1));
        let confirmed = Timestamp::now();
        commits.lock().unwrap().push(Commit { id: id - 1, sent, confirmed });
    }
    id
}
