//! The embedded workspace under load, killed at random moments: nothing that was confirmed is lost,
//! and what was begun comes to an end. `make soak` is the long form.

mod check;
mod load;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Pid;

use self::load::{Commit, Load};
use crate::apps::{App, bundle};
use crate::dice::{Dice, seed};
use crate::http::{Admin, send};
use crate::own::{self, Own, within};
use crate::processes::{self, Memory};

const ROOT: &str = "soak/production";
/// Longest time a command may take that was cut off or comes after one that was.
const PATIENCE: Duration = Duration::from_secs(180);
/// Branches from which on one is deleted rather than made.
const ENOUGH: usize = 4;

#[test]
fn a_workspace_that_is_killed_loses_nothing() {
    soak(3);
}

#[test]
#[ignore = "takes minutes: `make soak`"]
fn a_workspace_that_is_killed_hundreds_of_times_loses_nothing() {
    let rounds = std::env::var("LAKEFORGE_SOAK_ROUNDS").expect("LAKEFORGE_SOAK_ROUNDS is set");
    soak(rounds.parse().expect("LAKEFORGE_SOAK_ROUNDS is a number"));
}

fn soak(rounds: u64) {
    let mut run = Run::start(seed());
    for round in 1..=rounds {
        run.round = round;
        run.play();
    }
    run.finish();
}

/// What is done while the workspace is killed.
#[derive(Debug, Clone)]
enum Deed {
    Create(String),
    Restore(String, Timestamp),
    Delete(String),
    /// Deletes a branch and makes another of its name.
    Renew(String),
    Deploy,
}

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Server,
    Compute,
    Backend,
    ServerAndCompute,
}

/// A run: one workspace, many rounds.
struct Run {
    forge: Own,
    dice: Dice,
    seed: u64,
    round: u64,
    /// Everything that was confirmed, and the next key.
    commits: Vec<Commit>,
    next: u64,
    /// Branches besides those of the bundle.
    branches: Vec<String>,
    /// Number of the source that the app is to run.
    deployed: u64,
    /// Folders in which computes had sockets, and the shared memory they used.
    sockets: BTreeSet<PathBuf>,
    memory: BTreeSet<Memory>,
    passed: bool,
}

impl Run {
    fn start(seed: u64) -> Self {
        let forge = Own::start();
        bundle(&forge, "soak", &["soak"], &[("soak-app", App::Answers(&answers(0)))]);
        forge.succeed("deploy");
        load::prepare(&forge, ROOT);
        Run {
            forge,
            dice: Dice::new(seed),
            seed,
            round: 0,
            commits: Vec::new(),
            next: 1,
            branches: Vec::new(),
            deployed: 0,
            sockets: BTreeSet::new(),
            memory: BTreeSet::new(),
            passed: false,
        }
    }

    /// Plays one round: load, a deed, a kill, a start, and all the checks.
    fn play(&mut self) {
        let load = Load::start(&self.forge, ROOT, self.next);
        let enough = 1 + self.dice.below(60);
        load.wait_for(usize::try_from(enough).unwrap());
        let deed = self.choose_deed();
        let victim = *self.dice.one_of(&[
            Victim::Server,
            Victim::Server,
            Victim::Compute,
            Victim::Backend,
            Victim::ServerAndCompute,
        ]);
        let pause = self.dice.within(Duration::from_millis(1200));
        self.say(&format!("{deed:?}, {victim:?} killed after {} ms", pause.as_millis()));

        let asked = Timestamp::now();
        let begun = self.begin(&deed);
        std::thread::sleep(pause);
        self.kill(victim);
        let output = finish(begun);
        self.forge.succeed("local start");
        let (commits, next) = load.end();
        self.commits.extend(&commits);
        self.next = next;

        check::operations_are_done(&self.forge);
        self.check_told(&deed, &output);
        self.settle(&deed);
        let rows = check::sums_agree(&self.forge, ROOT);
        assert!(rows.last < self.next, "{rows:?}");
        check::nothing_is_lost(&self.forge, ROOT, &commits);
        for branch in self.branches.clone() {
            let rows = check::sums_agree(&self.forge, &branch);
            check::is_a_past_of(&self.forge, ROOT, &branch, rows);
        }
        self.check_moment(&deed, asked);
    }

    fn choose_deed(&mut self) -> Deed {
        let number = self.round;
        let some = if self.branches.is_empty() {
            None
        } else {
            Some(self.dice.one_of(&self.branches).clone())
        };
        match (self.dice.below(8), some) {
            (_, Some(branch)) if self.branches.len() >= ENOUGH => Deed::Delete(branch),
            (0, Some(branch)) => Deed::Delete(branch),
            (1 | 2, Some(branch)) => Deed::Renew(branch),
            (3, _) => Deed::Deploy,
            (4 | 5, _) if !self.commits.is_empty() => {
                let at = self.dice.one_of(&self.commits).confirmed;
                // What a moment is said in.
                let at = Timestamp::from_millisecond(at.as_millisecond() + 1).unwrap();
                Deed::Restore(format!("soak/r{number}"), at)
            }
            _ => Deed::Create(format!("soak/b{number}")),
        }
    }

    /// Starts the command of a deed.
    fn begin(&mut self, deed: &Deed) -> Child {
        let command = match deed {
            Deed::Create(branch) => format!("branch create {branch}"),
            Deed::Restore(branch, at) => format!("branch restore {branch} --at {at}"),
            Deed::Delete(branch) => format!("branch delete {branch} --yes"),
            Deed::Renew(branch) => {
                self.forge.succeed(&format!("branch delete {branch} --yes"));
                format!("branch create {branch}")
            }
            Deed::Deploy => {
                self.deployed += 1;
                self.forge.write("apps/soak-app/answers.json", &answers(self.deployed));
                "deploy".to_owned()
            }
        };
        let mut command = self.forge.command(&command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn kill(&mut self, victim: Victim) {
        let server = own::server(&self.forge);
        let processes = processes::below(server);
        let computes = processes::postmasters(&processes);
        self.sockets.extend(computes.iter().filter_map(|compute| compute.sockets()));
        self.memory.extend(computes.iter().flat_map(|compute| compute.memory()));
        let of = |computes: &[&processes::Process], dice: &mut Dice| -> Option<Pid> {
            (!computes.is_empty()).then(|| dice.one_of(computes).pid)
        };
        let victims: Vec<Pid> = match victim {
            Victim::Server => vec![server],
            Victim::Compute => of(&computes, &mut self.dice).into_iter().collect(),
            Victim::Backend => {
                let compute = of(&computes, &mut self.dice);
                let backends = compute.map(own::descendants).unwrap_or_default();
                (!backends.is_empty()).then(|| *self.dice.one_of(&backends)).into_iter().collect()
            }
            Victim::ServerAndCompute => {
                of(&computes, &mut self.dice).into_iter().chain([server]).collect()
            }
        };
        for victim in &victims {
            own::kill_if_there(*victim);
        }
        assert!(own::gone(&victims), "a killed process is still there: {victims:?}");
    }

    /// Checks that the workspace is what a command said of it, whether it could end or not.
    fn check_told(&self, deed: &Deed, output: &Output) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap_or_else(|| panic!("{deed:?} was killed: {stderr}"));
        if code != 0 {
            assert!(
                code < 14 && stderr.contains("error: "),
                "{deed:?} ended with {code}:\n{stderr}"
            );
            return;
        }
        let branches = self.forge.branches("soak");
        match deed {
            Deed::Create(branch) | Deed::Restore(branch, _) | Deed::Renew(branch) => {
                assert!(branches.contains(branch), "{branch} was made and is not there");
            }
            Deed::Delete(branch) => {
                assert!(!branches.contains(branch), "{branch} was deleted and is there");
            }
            Deed::Deploy => self.serves_what_was_deployed(),
        }
    }

    /// Says the same again until it is so; what comes out is checked.
    fn settle(&mut self, deed: &Deed) {
        match deed {
            Deed::Create(branch) | Deed::Renew(branch) => {
                self.forge.succeed(&format!("branch create {branch}"));
                self.add(branch);
            }
            Deed::Restore(branch, at) => {
                self.forge.succeed(&format!("branch restore {branch} --at {at}"));
                self.add(branch);
            }
            Deed::Delete(branch) => {
                let again = self.forge.output(&format!("branch delete {branch} --yes"));
                let code = again.status.code();
                let said = String::from_utf8_lossy(&again.stderr);
                assert!(matches!(code, Some(0 | 6)), "deleting {branch} again: {code:?}\n{said}");
                self.branches.retain(|other| other != branch);
                if self.dice.below(2) == 0 {
                    self.purge(branch);
                }
            }
            Deed::Deploy => {
                self.forge.succeed("deploy");
                self.serves_what_was_deployed();
            }
        }
        let known: BTreeSet<String> = self.forge.branches("soak").into_iter().collect();
        let own = ["soak/dev", ROOT].map(str::to_owned);
        let wanted: BTreeSet<String> = self.branches.iter().cloned().chain(own).collect();
        assert_eq!(known, wanted);
        let states = self.forge.json("branch list --project soak");
        for branch in states.as_array().unwrap() {
            assert_eq!(branch["status"]["current_state"], "READY", "{branch}");
        }
    }

    fn add(&mut self, branch: &str) {
        if !self.branches.iter().any(|other| other == branch) {
            self.branches.push(branch.to_owned());
        }
    }

    /// Checks that a new branch has what was confirmed before its moment, and nothing of what came after.
    fn check_moment(&self, deed: &Deed, asked: Timestamp) {
        let (branch, from, to) = match deed {
            Deed::Create(branch) | Deed::Renew(branch) => (branch, asked, Timestamp::MAX),
            Deed::Restore(branch, at) => (branch, *at, *at),
            Deed::Delete(_) | Deed::Deploy => return,
        };
        let rows = check::sums_agree(&self.forge, branch);
        let before = self.commits.iter().rev().find(|commit| commit.confirmed < from);
        let after = self.commits.iter().find(|commit| commit.sent > to);
        let first = before.map_or(0, |commit| commit.id);
        assert!(rows.last >= first, "{branch} lacks {first}, confirmed before {from}: {rows:?}");
        let end = after.map_or(u64::MAX, |commit| commit.id);
        assert!(rows.last < end, "{branch} has {end}, sent after {to}: {rows:?}");
    }

    /// Checks that the app runs its newest source; a started workspace starts its apps in its own time.
    fn serves_what_was_deployed(&self) {
        let wanted = Some(self.deployed);
        let serves = within(PATIENCE, || self.version() == wanted);
        assert!(serves, "the app serves {:?} instead of {wanted:?}", self.version());
    }

    /// Returns which source the app serves.
    fn version(&self) -> Option<u64> {
        let admin = Admin::of(&self.forge);
        let app = admin.app("soak-app");
        let url = format!("{}/version", app["url"].as_str()?);
        send("GET", &url, &[("Authorization", &admin.bearer())], "").body.parse().ok()
    }

    /// Deletes a branch for good.
    fn purge(&self, branch: &str) {
        let (project, id) = branch.split_once('/').unwrap();
        let path = format!("/api/2.0/postgres/projects/{project}/branches/{id}?purge=true");
        Admin::of(&self.forge).send("DELETE", &path, "").expect(200);
    }

    /// Stops the workspace and looks for what is left.
    fn finish(mut self) {
        let server = own::server(&self.forge);
        let computes = processes::below(server);
        self.sockets.extend(computes.iter().filter_map(processes::Process::sockets));
        self.memory.extend(computes.iter().flat_map(processes::Process::memory));
        self.forge.succeed("local stop");
        check::nothing_is_left(&self.forge, &self.sockets);
        let kept: Vec<&Memory> = self.memory.iter().filter(|memory| memory.is_there()).collect();
        assert!(kept.is_empty(), "shared memory is left: {kept:?}");
        self.passed = true;
        let (rounds, commits) = (self.round, self.commits.len());
        self.say(&format!("{rounds} rounds, {commits} confirmed commits, nothing lost"));
    }

    #[expect(clippy::print_stderr, reason = "the progress of a run that takes minutes")]
    fn say(&self, what: &str) {
        eprintln!("soak: seed {}, round {}: {what}", self.seed, self.round);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.passed {
            let log = std::fs::read_to_string(self.forge.data().join("server.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            self.say(&format!(
                "failed; LAKEFORGE_SEED={} makes the same choices; the end of the server's log:\n{}",
                self.seed,
                end.join("\n")
            ));
        }
    }
}

fn answers(version: u64) -> String {
    format!(r#"{{"/version": {{"body": "{version}"}}}}"#)
}

/// Waits for a command that may have been cut off.
fn finish(mut begun: Child) -> Output {
    let ended = within(PATIENCE, || begun.try_wait().unwrap().is_some());
    if !ended {
        let _ = begun.kill();
    }
    let output = begun.wait_with_output().unwrap();
    assert!(ended, "it hangs: {}", String::from_utf8_lossy(&output.stderr));
    output
}
