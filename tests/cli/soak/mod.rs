//! The embedded workspace under load, killed at random moments: nothing that was confirmed is lost,
//! and what was begun comes to an end. `make soak` is the long form.

mod check;
mod family;
mod load;
mod mixed;
mod plan;
mod victim;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;

use self::check::Tally;
use self::family::Family;
use self::load::{Bench, Commit, Writer};
use self::plan::{Deed, PARTS, Plan, Victim};
use self::victim::Outside;
use crate::apps::{App, bundle};
use crate::dice::seed;
use crate::http::{Admin, send};
use crate::own::{self, Own, within};
use crate::processes;

const ROOT: &str = "soak/production";
/// The root by its read-only endpoint.
const READERS: &str = "soak/production --endpoint readers";
const APP: &str = "soak-app";
/// Longest time a command may take that was cut off or comes after one that was.
const PATIENCE: Duration = Duration::from_secs(180);

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

/// A run: one workspace, many rounds.
struct Run {
    forge: Own,
    seed: u64,
    round: u64,
    family: Family,
    /// Number of the source that the app is to run.
    deployed: u64,
    outside: Outside,
    passed: bool,
}

/// A command that was started.
struct Begun {
    child: Child,
    /// Moment before it was.
    asked: Timestamp,
    /// Moment that it restores.
    moment: Option<Timestamp>,
}

impl Run {
    fn start(seed: u64) -> Self {
        let forge = Own::start();
        bundle(&forge, "soak", &["soak"], &[(APP, App::Answers(&answers(0)))]);
        // With a process of its own, which is not to outlive it either.
        let program = forge.read("apps/soak-app/app.py");
        let program = format!("import subprocess\nsubprocess.Popen(['sleep', '3600'])\n{program}");
        forge.write("apps/soak-app/app.py", &program);
        forge.succeed("deploy");
        load::prepare(&forge, ROOT);
        let path = "/api/2.0/postgres/projects/soak/branches/production/endpoints";
        let body = r#"{"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}}"#;
        Admin::of(&forge).send("POST", &format!("{path}?endpoint_id=readers"), body).expect(200);
        Run {
            forge,
            seed,
            round: 0,
            family: Family::of(ROOT),
            deployed: 0,
            outside: Outside::default(),
            passed: false,
        }
    }

    /// Plays one round: load, a deed, a kill, a start, and all the checks.
    fn play(&mut self) {
        let plan = Plan::of(self.seed, self.round, &self.family);
        let (deed, pause) = (&plan.deed, plan.pause);
        self.say(&format!("{deed:?}, {:?} killed after {} ms", plan.victim, pause.as_millis()));
        let bench = Bench::start(&self.forge, ROOT);
        let written = [ROOT].into_iter().chain(plan.writer.as_deref());
        let writers: Vec<Writer> =
            written.map(|name| Writer::start(&self.forge, self.family.get(name))).collect();
        writers.iter().for_each(|writer| writer.wait_for(plan.commits));

        let begun = self.begin(deed, &writers);
        let (asked, moment) = (begun.asked, begun.moment);
        std::thread::sleep(pause);
        let app_killed = victim::kill(&self.forge, plan.victim, plan.which, &mut self.outside);
        if plan.victim == Victim::ServerTwice {
            victim::kill_starting(&self.forge, pause / 2);
        }
        let output = finish(begun.child);
        self.forge.succeed("local start");
        bench.end();
        let mut confirmed = Vec::new();
        for writer in writers {
            let name = writer.branch().to_owned();
            let (commits, next) = writer.end();
            let branch = self.family.get_mut(&name);
            branch.commits.extend(&commits);
            branch.next = next;
            confirmed.push((name, commits));
        }

        check::operations_are_done(&self.forge);
        self.check_told(deed, &output, app_killed);
        self.settle(&plan, moment);
        self.check_app(app_killed && plan.victim == Victim::App && *deed != Deed::Deploy);
        let tallies = self.check_rows(&confirmed);
        self.check_moment(deed, asked, moment, &tallies);
    }

    /// Starts the command of a deed.
    fn begin(&mut self, deed: &Deed, writers: &[Writer]) -> Begun {
        let moment = match deed {
            Deed::Restore { source, part, .. } => Some(self.moment(source, *part, writers)),
            _ => None,
        };
        let command = match deed {
            Deed::Renew { branch, .. } => {
                self.forge.succeed(&format!("branch delete {branch} --yes"));
                self.making(deed, moment)
            }
            Deed::Delete(branches) => format!("branch delete {} --yes", branches.join(" ")),
            Deed::DeleteParent(branch) => format!("branch delete {branch} --yes"),
            Deed::Deploy => {
                self.deployed += 1;
                self.forge.write("apps/soak-app/answers.json", &answers(self.deployed));
                "deploy".to_owned()
            }
            Deed::Create { .. } | Deed::Restore { .. } => self.making(deed, moment),
        };
        let asked = Timestamp::now();
        let mut command = self.forge.command(&command);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Begun { child, asked, moment }
    }

    /// Returns the command that makes the branch of a deed. One that may be copied has no end.
    fn making(&self, deed: &Deed, moment: Option<Timestamp>) -> String {
        let (Deed::Create { branch, source }
        | Deed::Renew { branch, source }
        | Deed::Restore { branch, source, .. }) = deed
        else {
            panic!("{deed:?} makes no branch");
        };
        let what = match moment {
            Some(at) => format!("restore {branch} --at {at}"),
            None => format!("create {branch}"),
        };
        let expiry = if source == ROOT { "--no-expiry" } else { "--ttl 1d" };
        format!("branch {what} --from {source} {expiry}")
    }

    /// Returns the moment after some commit on `source`, as moments are said.
    fn moment(&self, source: &str, part: u64, writers: &[Writer]) -> Timestamp {
        let writer = writers.iter().find(|writer| writer.branch() == source).unwrap();
        let commits = [self.family.get(source).commits.clone(), writer.commits()].concat();
        let index = part * commits.len() as u64 / PARTS;
        let confirmed = commits[usize::try_from(index).unwrap()].confirmed;
        Timestamp::from_millisecond(confirmed.as_millisecond() + 1).unwrap()
    }

    /// Checks that the workspace is what a command said of it, whether it could end or not.
    fn check_told(&self, deed: &Deed, output: &Output, app_killed: bool) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap_or_else(|| panic!("{deed:?} was killed: {stderr}"));
        let there = self.forge.branches("soak");
        let orphan = self.family.all().iter().find(|branch| {
            there.contains(&branch.name)
                && branch.source.as_ref().is_some_and(|source| !there.contains(source))
        });
        assert!(orphan.is_none(), "{} is there without its source", orphan.unwrap().name);
        if code != 0 {
            let told = code < 14 && stderr.contains("error: ");
            assert!(told, "{deed:?} ended with {code}:\n{stderr}");
            return;
        }
        match deed {
            Deed::Create { branch, .. }
            | Deed::Restore { branch, .. }
            | Deed::Renew { branch, .. } => {
                assert!(there.contains(branch), "{branch} was made and is not there");
            }
            Deed::Delete(branches) => {
                let left: Vec<_> = branches.iter().filter(|name| there.contains(name)).collect();
                assert!(left.is_empty(), "deleted, and there: {left:?}");
            }
            Deed::DeleteParent(branch) => panic!("{branch} was deleted before what it became"),
            // One that was killed after all that was not served any more.
            Deed::Deploy if app_killed => {}
            Deed::Deploy => self.serves_what_was_deployed(),
        }
    }

    /// Says the same again until it is so.
    fn settle(&mut self, plan: &Plan, moment: Option<Timestamp>) {
        match &plan.deed {
            deed @ Deed::Create { branch, source } => {
                self.forge.succeed(&self.making(deed, moment));
                self.family.add(branch, source);
            }
            deed @ Deed::Restore { branch, source, .. } => {
                let there = self.forge.branches("soak").contains(branch);
                let again = self.forge.output(&self.making(deed, moment));
                // The workspace remembers the last commit before the moment, which may be long before it: a
                // defect of `branch restore`, which then takes its own branch for another.
                let said = String::from_utf8_lossy(&again.stderr).into_owned();
                let other = there
                    && again.status.code() == Some(7)
                    && said.contains("exists with another lineage")
                    && said.contains("it holds");
                assert!(other || again.status.success(), "{deed:?} again: {again:?}");
                self.family.add(branch, source);
            }
            deed @ Deed::Renew { branch, source } => {
                self.forge.succeed(&self.making(deed, moment));
                self.family.remove(std::slice::from_ref(branch));
                self.family.add(branch, source);
            }
            Deed::Delete(branches) => {
                let there = self.forge.branches("soak");
                let left: Vec<String> =
                    branches.iter().filter(|name| there.contains(name)).cloned().collect();
                if !left.is_empty() {
                    self.forge.succeed(&format!("branch delete {} --yes", left.join(" ")));
                }
                for branch in branches.iter().filter(|_| plan.purge) {
                    self.delete(branch, "?purge=true").expect(200);
                }
                self.family.remove(branches);
            }
            Deed::DeleteParent(branch) => {
                let again = self.forge.output(&format!("branch delete {branch} --yes"));
                assert_eq!(again.status.code(), Some(13), "{branch} has copies: {again:?}");
                let refused = self.delete(branch, "").expect(400);
                assert_eq!(refused["message"], "cannot delete branch with child branches");
            }
            Deed::Deploy => {
                self.forge.succeed("deploy");
            }
        }
        let known: BTreeSet<String> = self.forge.branches("soak").into_iter().collect();
        let all = self.family.all().iter().map(|branch| branch.name.clone());
        assert_eq!(known, all.chain(["soak/dev".to_owned()]).collect());
        let states = self.forge.json("branch list --project soak");
        for branch in states.as_array().unwrap() {
            assert_eq!(branch["status"]["current_state"], "READY", "{branch}");
        }
    }

    /// Deletes a branch by the API itself.
    fn delete(&self, branch: &str, query: &str) -> crate::http::Answer {
        let (project, id) = branch.split_once('/').unwrap();
        let path = format!("/api/2.0/postgres/projects/{project}/branches/{id}{query}");
        Admin::of(&self.forge).send("DELETE", &path, "")
    }

    /// Checks that the app runs its newest source, and once; `crashed` is one that was killed under a server
    /// that saw it, says so, and runs with the next deployment.
    fn check_app(&self, crashed: bool) {
        if crashed {
            let status = || Admin::of(&self.forge).app(APP)["app_status"].clone();
            let told = within(PATIENCE, || status()["state"] == "CRASHED");
            assert!(told, "the app was killed and is {}", status());
            assert!(victim::apps(&self.forge).is_empty(), "something of a killed app is left");
            self.forge.succeed("deploy");
        }
        self.serves_what_was_deployed();
        assert_eq!(victim::apps(&self.forge).len(), 1, "an app has one process");
    }

    /// Checks the rows of every branch against what was confirmed and what it was copied from.
    fn check_rows(&self, confirmed: &[(String, Vec<Commit>)]) -> BTreeMap<String, Tally> {
        let mut tallies = BTreeMap::new();
        for branch in self.family.all() {
            let tally = check::sums_agree(&self.forge, &branch.name);
            if let Some(source) = &branch.source {
                let copy = (branch.name.as_str(), &tally);
                check::is_a_past_of(&self.forge, copy, (source, &tallies[source]));
            }
            let (count, last) =
                tally.get(&branch.name).map_or((0, 0), |rows| (rows.count, rows.last));
            let all = branch.commits.len() as u64;
            assert!(count >= all && last < branch.next, "{all} confirmed: {tally:?}");
            tallies.insert(branch.name.clone(), tally);
        }
        for (branch, commits) in confirmed.iter().filter(|(name, _)| tallies.contains_key(name)) {
            check::nothing_is_lost(&self.forge, branch, branch, commits);
        }
        check::nothing_is_lost(&self.forge, READERS, ROOT, &confirmed[0].1);
        tallies
    }

    /// Checks that a new branch has what was confirmed before its moment, and nothing of what came after.
    fn check_moment(
        &self,
        deed: &Deed,
        asked: Timestamp,
        moment: Option<Timestamp>,
        tallies: &BTreeMap<String, Tally>,
    ) {
        let (Deed::Create { branch, source }
        | Deed::Renew { branch, source }
        | Deed::Restore { branch, source, .. }) = deed
        else {
            return;
        };
        let (from, to) = (moment.unwrap_or(asked), moment.unwrap_or(Timestamp::MAX));
        let last = tallies[branch].get(source).map_or(0, |rows| rows.last);
        let commits = &self.family.get(source).commits;
        let before = commits.iter().rev().find(|commit| commit.confirmed < from);
        let after = commits.iter().find(|commit| commit.sent > to);
        let first = before.map_or(0, |commit| commit.id);
        assert!(last >= first, "{branch} lacks {first}, confirmed before {from}: {last}");
        let end = after.map_or(u64::MAX, |commit| commit.id);
        assert!(last < end, "{branch} has {end}, sent after {to}: {last}");
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
        let app = admin.app(APP);
        let url = format!("{}/version", app["url"].as_str()?);
        send("GET", &url, &[("Authorization", &admin.bearer())], "").body.parse().ok()
    }

    /// Stops the workspace and looks for what is left.
    fn finish(mut self) {
        self.outside.note(&processes::below(own::server(&self.forge)));
        self.forge.succeed("local stop");
        check::nothing_is_left(&self.forge, &self.outside);
        self.forge.succeed("local reset --yes");
        assert!(!self.forge.data().exists(), "a reset leaves the data folder");
        self.passed = true;
        let commits: usize = self.family.all().iter().map(|branch| branch.commits.len()).sum();
        self.say(&format!("{} rounds, {commits} confirmed commits, nothing lost", self.round));
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
