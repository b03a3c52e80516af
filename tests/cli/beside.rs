//! `branch create` beside somebody else: what a call may remove again, and what it has to leave.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::{ask, faults, left, on_create, workspace};
use crate::forge::Forge;
use crate::job::Job;

/// Sends a request on a branch as the user of the workspace, and expects success.
fn act(method: &str, branch: &str, rest: &str, body: &Value) -> Value {
    let (project, branch) = branch.split_once('/').unwrap();
    let path = format!("/api/2.0/postgres/projects/{project}/branches/{branch}{rest}");
    ask(workspace(), method, &path, body).expect(200)
}

/// Starts creating a branch of `project` as somebody else, from `source`.
fn create_as_somebody_else(project: &str, id: &str, source: &str) {
    let path = format!("/api/2.0/postgres/projects/{project}/branches?branch_id={id}");
    let source = format!("projects/{project}/branches/{source}");
    let body = json!({ "spec": { "source_branch": source, "no_expiry": true } });
    ask(workspace(), "POST", &path, &body).expect(200);
}

/// Keeps the first that waits for SQL on `branch` waiting, for longer than a test takes.
fn hold(branch: &str) {
    let rule = json!({
        "method": "GET", "path": endpoints(branch), "fault": { "latency": "600s" }, "times": 1,
    });
    faults(workspace(), "POST", &rule);
}

/// Waits until somebody is held by [`hold`].
fn wait_until_held(branch: &str) {
    poll(|| {
        let rules = faults(workspace(), "GET", &json!({}));
        !rules.iter().any(|rule| rule["path"] == endpoints(branch).as_str())
    });
}

fn endpoints(branch: &str) -> String {
    let (project, branch) = branch.split_once('/').unwrap();
    format!("*/projects/{project}/branches/{branch}/endpoints")
}

/// Waits until `is_so`, a minute at most.
fn poll(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came to that");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a row into `branch` that must not be lost.
fn write(forge: &Forge, branch: &str) {
    forge.sql(branch, "create table kept as select 7 as n");
}

/// Expects the row of [`write`].
fn assert_kept(forge: &Forge, branch: &str) {
    assert_eq!(forge.sql(branch, "select n from kept"), "7");
}

#[test]
fn a_lost_answer_never_makes_a_colleague_s_branch_ours() {
    let forge = Forge::on(workspace(), &["claim"]);
    on_create("claim", &json!({ "latency": "4s" }), Some(1));
    on_create("claim", &json!("lost_reply"), Some(1));

    let job = Job::start(&forge, "branch create claim/shared");
    poll(|| left("claim") == 0);
    create_as_somebody_else("claim", "shared", "dev");
    let shown = job.end();

    assert!(shown.contains("why: it comes from `claim/dev`\n"), "{shown}");
    assert!(shown.ends_with("--- exit 7"), "{shown}");
    assert!(!shown.contains("removed again"), "{shown}");
    write(&forge, "claim/shared");
    assert_kept(&forge, "claim/shared");
}

#[test]
fn what_may_be_a_colleague_s_is_left_when_a_sibling_fails() {
    let forge = Forge::on(workspace(), &["sibling-a", "sibling-b"]);
    on_create("sibling-a", &json!({ "latency": "4s" }), Some(1));
    on_create("sibling-a", &json!("lost_reply"), Some(1));
    on_create("sibling-b", &json!({ "latency": "8s" }), Some(1));
    on_create("sibling-b", &json!({ "refuse": { "status": 403 } }), Some(1));

    let job = Job::start(&forge, "branch create shared --all");
    poll(|| left("sibling-a") == 0);
    create_as_somebody_else("sibling-a", "shared", "production");
    let shown = job.end();

    assert!(shown.contains("left as it is: sibling-a/shared"), "{shown}");
    assert!(!shown.contains("removed again"), "{shown}");
    assert!(shown.ends_with("--- exit 5"), "{shown}");
    write(&forge, "sibling-a/shared");
    assert_kept(&forge, "sibling-a/shared");
}

#[test]
fn what_a_call_created_is_removed_when_a_sibling_fails_and_can_be_brought_back() {
    let forge = Forge::on(workspace(), &["undo-a", "undo-b"]);
    on_create("undo-b", &json!({ "latency": "2s" }), Some(1));
    on_create("undo-b", &json!({ "refuse": { "status": 403 } }), Some(1));

    let shown = forge.run("branch create pr-1 --all");

    assert!(shown.contains("why: removed again: undo-a/pr-1\n"), "{shown}");
    assert!(shown.ends_with("--- exit 5"), "{shown}");
    assert_eq!(forge.branches("undo-a"), ["undo-a/dev", "undo-a/production"]);
    act("POST", "undo-a/pr-1", "/undelete", &json!({}));
    assert_eq!(forge.sql("undo-a/pr-1", "select 1"), "1");
}

#[test]
fn an_interrupted_create_keeps_the_branch_that_somebody_changed_and_says_why() {
    let forge = Forge::on(workspace(), &["touched"]);
    type Act = fn(&str);
    let acts: [(&str, Act, &str); 4] = [
        ("later", |branch| patch(branch, "spec.expiration", &json!({ "ttl": "7200s" })), "expiry"),
        // What was said is said again: nothing but the time of the change tells it.
        (
            "same",
            |branch| patch(branch, "spec.expiration", &json!({ "no_expiry": true })),
            "refreshed",
        ),
        (
            "guarded",
            |branch| patch(branch, "spec.is_protected", &json!({ "is_protected": true })),
            "protected",
        ),
        (
            "parent",
            |_| create_as_somebody_else("touched", "child", "parent"),
            "copied from it: child",
        ),
    ];
    for (id, act, why) in acts {
        let branch = format!("touched/{id}");
        hold(&branch);
        let mut job = Job::start(&forge, &format!("branch create {branch} --no-expiry"));
        job.wait_until_it_says("waiting for SQL");
        wait_until_held(&branch);
        act(&branch);
        job.signal(Signal::INT);
        let shown = job.end();

        let line = shown.lines().find(|line| line.contains(&format!("kept: {branch}: ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{why}: {shown}");
        assert!(shown.ends_with("--- exit 130"), "{shown}");
        assert_eq!(forge.sql(&branch, "select 1"), "1", "{id}");
    }
}

fn patch(branch: &str, mask: &str, spec: &Value) {
    act("PATCH", branch, &format!("?update_mask={mask}"), &json!({ "spec": spec }));
}

/// GitHub's `cancel-in-progress`: the second job has found the branch of the first by then.
#[test]
fn a_job_that_is_cancelled_leaves_the_branch_to_the_one_that_found_it() {
    let forge = Forge::on(workspace(), &["cancel"]);
    for (id, options) in [("pr-1", ""), ("pr-2", " --no-expiry")] {
        let branch = format!("cancel/{id}");
        hold(&branch);
        let mut first = Job::start(&forge, &format!("branch create {branch}{options}"));
        first.wait_until_it_says("waiting for SQL");
        wait_until_held(&branch);
        let second = forge.json(&format!("branch create {branch}{options}"));
        assert_eq!(second["created"], false);
        write(&forge, &branch);

        first.signal(Signal::TERM);
        let shown = first.end();

        assert!(shown.contains(&format!("kept: {branch}: ")), "{shown}");
        assert!(shown.ends_with("--- exit 143"), "{shown}");
        assert_kept(&forge, &branch);
    }
}

#[test]
fn a_job_that_found_a_branch_never_removes_it() {
    let forge = Forge::on(workspace(), &["found"]);
    forge.succeed("branch create found/pr-1");
    write(&forge, "found/pr-1");
    hold("found/pr-1");

    let mut second = Job::start(&forge, "branch create found/pr-1");
    second.wait_until_it_says("waiting for SQL");
    wait_until_held("found/pr-1");
    second.signal(Signal::TERM);
    let shown = second.end();

    assert!(!shown.contains("removed again") && shown.ends_with("--- exit 143"), "{shown}");
    assert_kept(&forge, "found/pr-1");
}

/// Whether the first is cancelled before its request arrived, while the branch is being made, or
/// when it is there: the second has its branch in the end, and keeps what it wrote.
#[test]
fn whenever_a_job_is_cancelled_the_next_one_has_its_branch() {
    let forge = Forge::on(workspace(), &["moments"]);
    for (id, fault) in
        [("early", json!({ "latency": "3s" })), ("midway", json!({ "slow_operation": "3s" }))]
    {
        let branch = format!("moments/{id}");
        on_create("moments", &fault, Some(1));
        let mut first = Job::start(&forge, &format!("branch create {branch}"));
        first.wait_until_it_says("copying");
        poll(|| left("moments") == 0);
        let mut second = Job::start(&forge, &format!("branch create {branch}"));
        second.wait_until_it_says("looking");
        first.signal(Signal::TERM);
        let (first, second) = (first.end(), second.end());

        assert!(first.ends_with("--- exit 143"), "{first}");
        assert!(second.ends_with("--- exit 0"), "{second}\n{first}");
        write(&forge, &branch);
        assert_kept(&forge, &branch);
    }
}

#[test]
fn a_second_signal_leaves_at_once_and_names_what_is_left() {
    let forge = Forge::on(workspace(), &["twice"]);
    hold("twice/pr-1");
    let path = "*/projects/twice/branches/pr-1";
    let rule = json!({ "method": "DELETE", "path": path, "fault": { "latency": "600s" } });
    faults(workspace(), "POST", &rule);

    let mut job = Job::start(&forge, "branch create twice/pr-1");
    job.wait_until_it_says("waiting for SQL");
    wait_until_held("twice/pr-1");
    job.signal(Signal::INT);
    job.wait_until_it_says("removing what this call created: twice/pr-1");
    // What comes within half a second of the first counts as the same signal.
    thread::sleep(Duration::from_millis(700));
    job.signal(Signal::INT);
    let shown = job.end();

    assert!(shown.contains("left behind, if it was created: twice/pr-1"), "{shown}");
    assert!(shown.contains("try: lakeforge branch delete twice/pr-1\n"), "{shown}");
    assert!(shown.ends_with("--- exit 130"), "{shown}");
    assert!(forge.branches("twice").contains(&"twice/pr-1".to_owned()));
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse() {
    let forge = Forge::on(workspace(), &["dry"]);
    forge.succeed("branch create dry/ends --ttl 1d");
    forge.succeed("branch create dry/source --no-expiry");
    forge.succeed("branch create dry/copy --from source");
    let before = forge.branches("dry");

    for (arguments, why) in [
        ("branch create dry/pr-1 --ttl 40d", "lives at most 30 days"),
        ("branch create dry/pr-1 --expires-at 2099-01-01T00:00:00Z", "lives at most 30 days"),
        ("branch create dry/pr-1 --from ends", "expires, so it cannot be copied"),
        ("branch create dry/pr-1 --from none", "there is no branch `dry/none`"),
        ("branch create dry/copy", "exists with another lineage"),
        ("branch create dry/source --ttl 1d", "others were copied from it"),
        ("branch restore dry/pr-1 --at 2020-01-01T00:00:00Z", "has no history as of"),
        ("branch restore dry/pr-1 --at 2099-01-01T00:00:00Z", "in the future"),
    ] {
        let run = forge.run(arguments);
        assert!(run.contains(why) && !run.ends_with("--- exit 0"), "{arguments}: {run}");
        assert_eq!(forge.run(&format!("{arguments} --dry-run")), run);
    }
    assert_eq!(forge.branches("dry"), before);
}
