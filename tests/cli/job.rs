//! A run of the program beside others: what it says is followed, and it is signalled.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::forge::Forge;

/// A program that runs.
pub(crate) struct Job<'a> {
    forge: &'a Forge,
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: Vec<u8>,
}

impl<'a> Job<'a> {
    /// Starts `lakeforge` with `arguments`.
    pub(crate) fn start(forge: &'a Forge, arguments: &str) -> Self {
        let mut child =
            forge.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Job { forge, child, stderr, said: Vec::new() }
    }

    /// Waits until a line of its stderr holds `text`.
    pub(crate) fn wait_until_it_says(&mut self, text: &str) {
        loop {
            let start = self.said.len();
            let length = self.stderr.read_until(b'\n', &mut self.said).unwrap();
            let said = String::from_utf8_lossy(&self.said);
            assert!(length > 0, "it never said {text:?}: {said}");
            if String::from_utf8_lossy(&self.said[start..]).contains(text) {
                return;
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and returns stdout, stderr and exit code in one text.
    pub(crate) fn end(mut self) -> String {
        std::io::copy(&mut self.stderr, &mut self.said).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        output.stderr = self.said;
        self.forge.shown(&output)
    }
}
