//! A person at a terminal: runs the program under a pseudo-terminal, types, and reads the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Makes the terminal of its first argument the controlling one, as a shell's is, and becomes the rest.
const SESSION: &str = "import os, sys; os.setsid(); os.open(sys.argv[1], os.O_RDWR); \
                       os.execv(sys.argv[2], sys.argv[2:])";

/// Longest wait for something to appear, and for the program to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with stdin and stderr on a pseudo-terminal; ends with the test.
pub(crate) struct Terminal {
    child: Child,
    person: File,
    screen: Vec<u8>,
}

impl Terminal {
    /// Runs `command` where `typed_ahead` has been typed before it began.
    pub(crate) fn run(command: &Command, typed_ahead: &str) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        // A program that holds this end would not see it go away.
        fcntl_setfd(&person, FdFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let path = ptsname(&person, Vec::new()).unwrap();
        let path = path.to_str().unwrap();
        let open = || -> OwnedFd {
            rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
                .unwrap()
        };
        let (stdin, stderr) = (open(), open());
        let mut person = File::from(person);
        person.write_all(typed_ahead.as_bytes()).unwrap();
        let mut session = Command::new("python3");
        session.args(["-c", SESSION, path]).arg(command.get_program()).args(command.get_args());
        session.current_dir(command.get_current_dir().unwrap()).env_clear();
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.env("TERM", "xterm").env("NO_COLOR", "1");
        let child = session.stdin(stdin).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Terminal { child, person, screen: Vec::new() }
    }

    /// Types `keys`.
    pub(crate) fn press(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `text` is on the screen.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(self.read(end), "`{text}` did not appear in {:?}", self.screen());
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Returns whether what is typed is shown and given on line by line, as a shell leaves it.
    pub(crate) fn is_cooked(&self) -> bool {
        use rustix::termios::{LocalModes, tcgetattr};
        let modes = tcgetattr(&self.person).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end; returns the exit code and what was on the screen.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            self.read((Instant::now() + Duration::from_millis(50)).min(end));
            assert!(Instant::now() < end, "still running: {:?}", self.screen());
        };
        while self.read(Instant::now()) {}
        (status.code(), self.screen())
    }

    /// Goes away without an answer; returns the exit code.
    pub(crate) fn hang_up(mut self) -> Option<i32> {
        self.person = File::open("/dev/null").unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "still running");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen).into_owned()
    }

    /// Reads what comes until `end`; returns whether something came.
    fn read(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        let mut descriptors = [PollFd::new(&self.person, PollFlags::IN)];
        if poll(&mut descriptors, Some(&left.try_into().unwrap())).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 4096];
        // The other end closes with the program.
        let count = self.person.read(&mut bytes).unwrap_or(0);
        self.screen.extend(&bytes[..count]);
        count > 0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
