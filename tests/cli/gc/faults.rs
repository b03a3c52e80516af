//! `lakeforge gc` where something goes wrong, is interrupted, or somebody else is at work.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{make, states};
use crate::faults::faults;
use crate::forge::{Forge, Workspace, short_name};

const APPLY: &str = "-o json gc --prs prs.json --grace 1ms --apply --yes";

/// Returns the workspace of these tests; each uses a project of its own, and rules for that alone.
fn workspace() -> &'static Workspace {
    static OWN: OnceLock<Workspace> = OnceLock::new();
    OWN.get_or_init(|| Workspace::start(&[]))
}

/// Makes a project with the branches pr-1 to pr-4, all of whose pull requests are closed, and as
/// many others.
fn four_closed(workspace: &Workspace, project: &str) -> Forge {
    let forge = Forge::on(workspace, &[project]);
    make(&forge, &["pr-1", "pr-2", "pr-3", "pr-4 --no-expiry", "kept-1", "kept-2"]);
    states(&forge, &[(1, "CLOSED"), (2, "MERGED"), (3, "CLOSED"), (4, "MERGED")]);
    forge
}

/// Lets something go wrong when the branch `name` is deleted.
fn on_delete(workspace: &Workspace, project: &str, name: &str, fault: &Value, times: u32) {
    let path = format!("*/projects/{project}/branches/{name}");
    let rule = json!({ "method": "DELETE", "path": path, "fault": fault, "times": times });
    faults(workspace, "POST", &rule);
}

/// Waits until every rule for deletions in `project` has met its requests.
fn await_met(workspace: &Workspace, project: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    let path = format!("*/projects/{project}/branches/");
    let is_left = |rule: &Value| rule["path"].as_str().is_some_and(|text| text.starts_with(&path));
    while faults(workspace, "GET", &json!({})).iter().any(is_left) {
        assert!(Instant::now() < end, "nothing was deleted in `{project}`");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the program and returns when its stderr says `moment`; the rest of stderr comes back too.
fn start_until(forge: &Forge, arguments: &str, moment: &str) -> (Child, impl Read + use<>) {
    let mut child =
        forge.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(moment) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "it never said {moment:?}: {said}");
    }
    (child, stderr)
}

/// Waits for the program and returns its exit code and what it streamed.
fn finish(child: Child, mut stderr: impl Read) -> (Option<i32>, Vec<Value>, String) {
    let output = child.wait_with_output().unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, rest)
}

/// Returns what became of each branch that was to go: its id, and what kept it.
fn removed(lines: &[Value]) -> Vec<(String, String)> {
    let all = lines.iter().filter(|line| line["type"] == "removed");
    let obstacle = |line: &Value| {
        let fields = ["kept", "error", "interrupted"];
        fields.iter().find_map(|field| line[field].as_str().map(|text| format!("{field} {text}")))
    };
    let one = |line: &Value| {
        let left = obstacle(line).unwrap_or_else(|| "deleted".to_owned());
        assert_eq!(line["deleted"], left == "deleted", "{line}");
        (short_name(&line["name"]).split_once('/').unwrap().1.to_owned(), left)
    };
    all.map(one).collect()
}

fn pairs<const N: usize>(of: [(&str, &str); N]) -> Vec<(String, String)> {
    of.map(|(id, left)| (id.to_owned(), left.to_owned())).into()
}

#[test]
fn interrupted_it_says_what_was_deleted_and_what_was_not_and_the_same_again_goes_on() {
    for (project, signal, code) in
        [("stop-int", Signal::INT, 130), ("stop-term", Signal::TERM, 143)]
    {
        let forge = four_closed(workspace(), project);
        on_delete(workspace(), project, "pr-2", &json!({ "slow_operation": "300s" }), 1);

        let (child, stderr) = start_until(&forge, APPLY, &format!("{project}/pr-2: deleting"));
        await_met(workspace(), project);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (exit, lines, stderr) = finish(child, stderr);

        assert_eq!(exit, Some(code), "{stderr}");
        assert_eq!(
            removed(&lines),
            pairs([
                ("pr-1", "deleted"),
                ("pr-2", "interrupted under_way"),
                ("pr-3", "interrupted not_begun"),
                ("pr-4", "interrupted not_begun"),
            ])
        );
        let summary = lines.last().unwrap();
        assert_eq!(summary["type"], "summary");
        assert_eq!((&summary["deleted"], &summary["interrupted"]), (&json!(1), &json!(3)));
        assert!(
            stderr.contains(r#""hint":"the same command again goes on from there""#),
            "{stderr}"
        );
        let left = forge.branches(project);
        assert!(!left.contains(&format!("{project}/pr-1")), "{left:?}");
        assert!(left.contains(&format!("{project}/pr-3")), "{left:?}");

        forge.succeed(APPLY);
        let others = ["dev", "kept-1", "kept-2", "production"];
        assert_eq!(forge.branches(project), others.map(|id| format!("{project}/{id}")));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn interrupted_while_it_waits_for_the_list_it_ends() {
    let forge = Forge::on(workspace(), &["waits"]);
    let mut child =
        forge.command("gc --prs -").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let listens = |child: &Child| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::INT.as_raw() - 1)) != 0
    };
    let mut signalled = false;

    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => {
                child.kill().unwrap();
                panic!("it waits on");
            }
            None if !signalled && listens(&child) => {
                kill_process(Pid::from_child(&child), Signal::INT).unwrap();
                signalled = true;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };

    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_branch_that_cannot_be_deleted_stops_no_other_and_goes_the_next_time() {
    let forge = four_closed(workspace(), "trouble");
    let refuse = |status: u16| json!({ "refuse": { "status": status } });
    on_delete(workspace(), "trouble", "pr-1", &refuse(503), 2);
    on_delete(workspace(), "trouble", "pr-2", &refuse(403), 1);
    on_delete(workspace(), "trouble", "pr-3", &json!("lost_reply"), 1);

    let output = forge.output(APPLY);

    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(11), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let removed = removed(&lines);
    assert_eq!(removed.len(), 4, "{removed:?}");
    for (id, left) in removed {
        let refused = "error could not delete branch `trouble/pr-2`";
        assert!(if id == "pr-2" { left.starts_with(refused) } else { left == "deleted" }, "{left}");
    }
    let left = || forge.branches("trouble").into_iter().filter(|name| name.contains("pr-"));
    assert_eq!(left().collect::<Vec<_>>(), ["trouble/pr-2"]);
    forge.succeed(APPLY);
    assert_eq!(left().count(), 0);
}

#[test]
fn a_project_that_cannot_be_read_keeps_all_of_every_project() {
    let forge = Forge::on(workspace(), &["seen", "unseen"]);
    forge.succeed("branch create pr-1 --all");
    states(&forge, &[(1, "CLOSED")]);
    let fault = json!({ "refuse": { "status": 403 } });
    let rule = json!({ "method": "GET", "path": "*/projects/unseen/branches", "fault": fault, "times": 1 });
    faults(workspace(), "POST", &rule);

    let output = forge.output(APPLY);

    assert_eq!(output.status.code(), Some(5));
    assert!(output.stdout.is_empty());
    assert_eq!(forge.branches("seen").len(), 3);
    assert_eq!(forge.branches("unseen").len(), 3);
}

/// While `gc` waits for the first deletion, a colleague makes pr-2 anew, refreshes pr-3 and copies
/// pr-4: all three stay.
#[test]
fn what_somebody_else_makes_refreshes_or_copies_after_the_plan_stays() {
    let workspace = Workspace::start(&[]);
    let forge = four_closed(&workspace, "shared");
    on_delete(&workspace, "shared", "pr-1", &json!({ "slow_operation": "300s" }), 1);

    let (child, stderr) = start_until(&forge, APPLY, "shared/pr-1: deleting");
    await_met(&workspace, "shared");
    forge.succeed("branch delete pr-2 --yes");
    make(&forge, &["pr-2", "pr-3 --ttl 2d", "copy --from pr-4"]);
    // What seems unfinished is finished now.
    faults(&workspace, "DELETE", &json!({}));
    let (exit, lines, stderr) = finish(child, stderr);

    assert_eq!(exit, Some(0), "{stderr}");
    assert_eq!(
        removed(&lines),
        pairs([
            ("pr-1", "deleted"),
            ("pr-2", "kept replaced"),
            ("pr-3", "kept changed"),
            ("pr-4", "kept parent"),
        ])
    );
    let left = ["copy", "dev", "kept-1", "kept-2", "pr-2", "pr-3", "pr-4", "production"];
    assert_eq!(forge.branches("shared"), left.map(|id| format!("shared/{id}")));
}
