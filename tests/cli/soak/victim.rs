//! The kill itself: the processes of a workspace, and which of them die.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;

use super::plan::Victim;
use crate::forge::Forge;
use crate::own;
use crate::processes::{self, Memory, Process};

/// What computes used outside the data folder, which has to go with them.
#[derive(Default)]
pub(crate) struct Outside {
    /// Folders of sockets.
    pub(crate) sockets: BTreeSet<PathBuf>,
    /// Shared memory.
    pub(crate) memory: BTreeSet<Memory>,
}

impl Outside {
    /// Adds what the computes of a running server use.
    pub(crate) fn note(&mut self, processes: &[Process]) {
        self.sockets.extend(processes.iter().filter_map(Process::sockets));
        self.memory.extend(processes.iter().flat_map(Process::memory));
    }
}

/// Returns the processes of apps that run, without what those started.
pub(crate) fn apps(forge: &Forge) -> Vec<Pid> {
    let all = processes::working_in(&forge.data().join("apps"));
    all.iter().filter(|process| process.runs("app.py")).map(|process| process.pid).collect()
}

/// Kills the server that a start brings up, `pause` after that was begun.
pub(crate) fn kill_starting(forge: &Forge, pause: Duration) {
    let mut start = forge.command("-q local start");
    let mut start = start.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(pause);
    if let Some(server) = own::status(forge)["pid"].as_i64().map(own::pid) {
        own::kill_if_there(server);
        assert!(own::gone(&[server]), "a killed server is still there");
    }
    // It may have been quicker than the kill, or come before its server.
    start.wait().unwrap();
}

/// Kills `victim`, as far as it is there, and waits until it is gone; says whether an app was killed.
pub(crate) fn kill(
    forge: &Forge,
    victim: Victim,
    which: [usize; 2],
    outside: &mut Outside,
) -> bool {
    let server = own::server(forge);
    let below = processes::below(server);
    outside.note(&below);
    let computes: Vec<Pid> =
        processes::postmasters(&below).iter().map(|compute| compute.pid).collect();
    let one_of =
        |all: &[Pid], lot: usize| all.get(lot % all.len().max(1)).copied().into_iter().collect();
    let compute: Vec<Pid> = one_of(&computes, which[0]);
    let app: Vec<Pid> = one_of(&apps(forge), which[0]);
    let victims = match victim {
        Victim::Server | Victim::ServerTwice => vec![server],
        Victim::Compute => compute,
        Victim::Backend => {
            let backends: Vec<Pid> = compute.into_iter().flat_map(own::descendants).collect();
            one_of(&backends, which[1])
        }
        Victim::App => app.clone(),
        Victim::ServerAndCompute => [compute, vec![server]].concat(),
        Victim::ServerAndApp => [app.clone(), vec![server]].concat(),
    };
    // What an app started goes with it.
    let of_app = matches!(victim, Victim::App | Victim::ServerAndApp) && !app.is_empty();
    let mut ends = victims.clone();
    if of_app {
        ends.extend(app.iter().flat_map(|app| own::descendants(*app)));
    }
    victims.iter().for_each(|victim| own::kill_if_there(*victim));
    assert!(own::gone(&ends), "of what was killed something is still there: {ends:?}");
    of_app
}
