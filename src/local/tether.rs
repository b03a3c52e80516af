//! Ends what this process started when it dies, however it dies.
//!
//! A shell waits at the other end of a pipe, which the system closes with the process. It is told of every
//! child by its number, and ends those it still knows of when the pipe is closed. Only what it cannot
//! know, a child started in the very moment of the death, is left to the next server.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::Pid;

/// What the shell does. A number below zero is a process group, as `kill` has it; a postmaster ends its
/// own processes when it is told to quit.
const WATCH: &str = r#"
trap '' INT TERM HUP
held=' '
while read -r word id; do
    case $word in
    hold) held="$held$id " ;;
    free) case $held in *" $id "*) held="${held%%" $id "*} ${held#*" $id "}" ;; esac ;;
    esac
done
[ "$held" = ' ' ] && exit
for id in $held; do
    case $id in
    -*) kill -s TERM -- "$id" ;;
    *) kill -s QUIT "$id" ;;
    esac
done
sleep 0.4
for id in $held; do kill -s KILL -- "$id"; done
"#;

/// A child that ends with this process, until this is dropped.
#[derive(Debug)]
pub(crate) struct Tethered(i32);

/// Ends the process `id` with this one.
pub(crate) fn process(id: Pid) -> Tethered {
    Tethered::hold(id.as_raw_nonzero().get())
}

/// Ends the process group `id` with this process.
pub(crate) fn group(id: Pid) -> Tethered {
    Tethered::hold(-id.as_raw_nonzero().get())
}

impl Tethered {
    fn hold(number: i32) -> Self {
        tell("hold", number);
        Tethered(number)
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        tell("free", self.0);
    }
}

fn tell(word: &str, number: i32) {
    static WATCHER: OnceLock<Mutex<Option<Watcher>>> = OnceLock::new();
    let watcher = WATCHER.get_or_init(|| {
        let watcher = Watcher::start();
        if let Err(error) = &watcher {
            tracing::warn!("what this server starts would outlive it: {error}");
        }
        Mutex::new(watcher.ok())
    });
    let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watcher) = watcher.as_mut()
        && let Err(error) = watcher.tell(word, number)
    {
        tracing::warn!("what this server starts would outlive it: {error}");
    }
}

/// The shell that waits for the end.
struct Watcher(Child);

impl Watcher {
    fn start() -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH]).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: Ctrl-C is for the server, which then stops everything itself.
        command.process_group(0).spawn().map(Watcher)
    }

    fn tell(&mut self, word: &str, number: i32) -> io::Result<()> {
        match &mut self.0.stdin {
            // One write a line: it is shorter than what a pipe takes in one piece.
            Some(pipe) => pipe.write_all(format!("{word} {number}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_held_ends_with_the_pipe_and_what_was_freed_goes_on() {
        let (mut one, mut group, mut freed) = (sleeper(), sleeper(), sleeper());
        let number = |child: &Child| child.id().cast_signed();
        let mut watcher = Watcher::start().unwrap();
        for number in [number(&freed), number(&one), -number(&group)] {
            watcher.tell("hold", number).unwrap();
        }
        watcher.tell("free", number(&freed)).unwrap();
        watcher.tell("free", 1).unwrap();

        drop(watcher.0.stdin.take());

        assert!(!one.wait().unwrap().success());
        assert!(!group.wait().unwrap().success());
        watcher.0.wait().unwrap();
        assert!(freed.try_wait().unwrap().is_none());
        freed.kill().unwrap();
        freed.wait().unwrap();
    }
}
