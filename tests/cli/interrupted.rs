//! Deletions that fail or are interrupted: what was done is said, and protection is put back.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::apps::{App, bundle};
use crate::faults::{ask, faults, workspace};
use crate::forge::Forge;
use crate::job::Job;

/// Lets something go wrong with a request below `projects/{path}`.
fn fault(method: &str, path: &str, fault: &Value, times: u32) {
    let rule = json!({"method": method, "path": format!("*/projects/{path}"), "fault": fault, "times": times});
    faults(workspace(), "POST", &rule);
}

/// Lets the next deletion of `projects/{path}` wait for longer than the test does.
fn hold(path: &str) {
    fault("DELETE", path, &json!({"latency": "300s"}), 1);
}

/// Waits until the deletion of `projects/{path}` has arrived and is held.
fn wait_until_held(path: &str) {
    let path = format!("*/projects/{path}");
    let is_held = || {
        let rules = faults(workspace(), "GET", &json!({}));
        !rules.iter().any(|rule| rule["path"] == path.as_str() && rule["method"] == "DELETE")
    };
    wait_until("the deletion is held", is_held);
}

/// Returns what the workspace says of `path`, or nothing where there is nothing.
fn look(path: &str) -> Option<Value> {
    let answer = ask(workspace(), "GET", &format!("/api/2.0/{path}"), &json!({}));
    (answer.status != 404).then(|| answer.expect(200))
}

fn is_protected(branch: &str) -> bool {
    look(&format!("postgres/projects/{branch}")).unwrap()["status"]["is_protected"] == true
}

/// Waits until `is_so`.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_deletion_that_is_refused_leaves_the_branch_protected() {
    let forge = Forge::on(workspace(), &["held-back"]);
    forge.succeed("branch create kept --protected");
    fault("DELETE", "held-back/branches/kept", &json!({"refuse": {"status": 403}}), 1);

    let shown = forge.run("branch delete kept --yes --confirm kept");

    assert!(shown.contains("error: could not delete branch `held-back/kept`\n"), "{shown}");
    assert!(shown.contains("why: protected again: held-back/kept\n"), "{shown}");
    assert!(shown.ends_with("--- exit 5"), "{shown}");
    assert!(is_protected("held-back/branches/kept"));
}

#[test]
fn a_deletion_that_is_interrupted_leaves_the_branch_protected() {
    let forge = Forge::on(workspace(), &["held-cut"]);
    forge.succeed("branch create kept --protected");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        hold("held-cut/branches/kept");
        let job = Job::start(&forge, "branch delete kept --yes --confirm held-cut/kept");
        wait_until_held("held-cut/branches/kept");
        assert!(!is_protected("held-cut/branches/kept"));
        job.signal(signal);
        let shown = job.end();

        assert!(shown.contains("why: protected again: held-cut/kept\n"), "{shown}");
        assert!(
            shown.contains("why: not done: delete projects/held-cut/branches/kept\n"),
            "{shown}"
        );
        assert!(shown.ends_with(&format!("--- exit {code}")), "{shown}");
        assert!(is_protected("held-cut/branches/kept"));
    }
}

#[test]
fn protection_that_cannot_be_put_back_is_told_with_what_to_type() {
    let forge = Forge::on(workspace(), &["held-lost"]);
    forge.succeed("branch create kept --protected");
    hold("held-lost/branches/kept");
    let job = Job::start(&forge, "branch delete kept --yes --confirm held-lost/kept");
    wait_until_held("held-lost/branches/kept");
    fault("PATCH", "held-lost/branches/kept", &json!({"refuse": {"status": 403}}), 1);
    job.signal(Signal::INT);
    let shown = job.end();

    assert!(shown.contains("why: LEFT WITHOUT ITS PROTECTION: held-lost/kept: "), "{shown}");
    let hint = "try: databricks postgres update-branch projects/held-lost/branches/kept spec.is_protected \
                --json '{\"spec\":{\"is_protected\":true}}'\n";
    assert!(shown.contains(hint) && shown.ends_with("--- exit 130"), "{shown}");
}

#[test]
fn branch_delete_that_is_interrupted_says_what_is_deleted_and_goes_on_when_run_again() {
    let forge = Forge::on(workspace(), &["cut-delete"]);
    for branch in ["one", "two", "three"] {
        forge.succeed(&format!("branch create {branch}"));
    }
    hold("cut-delete/branches/two");
    let job = Job::start(&forge, "branch delete one two three --yes");
    wait_until_held("cut-delete/branches/two");
    job.signal(Signal::INT);
    let shown = job.end();

    let name = |branch| format!("delete projects/cut-delete/branches/{branch}");
    assert!(shown.contains(&format!("why: done: {}\n", name("one"))), "{shown}");
    assert!(
        shown.contains(&format!("why: not done: {}, {}\n", name("two"), name("three"))),
        "{shown}"
    );
    assert!(shown.contains("try: the same command again goes on from there\n"), "{shown}");
    assert!(shown.ends_with("--- exit 130"), "{shown}");

    let again = forge.run("branch delete one two three --yes");
    assert!(again.contains("cut-delete/one is deleted already\n"), "{again}");
    assert!(
        again.contains("cut-delete/three  deleted\n") && again.ends_with("--- exit 0"),
        "{again}"
    );
    // A name that was never a branch's is still refused.
    let typo = forge.run("branch delete one tow --yes");
    assert!(
        typo.contains("there is no branch `cut-delete/tow`") && typo.ends_with("--- exit 6"),
        "{typo}"
    );
}

#[test]
fn destroy_that_is_interrupted_says_what_is_deleted_and_goes_on_when_run_again() {
    let forge = Forge::on(workspace(), &["cut-destroy"]);
    bundle(&forge, "cut-destroy", &["cut-destroy"], &[("cut-destroy-web", App::Healthy)]);
    forge.write(
        "lakeforge.yml",
        "projects: {cut-destroy: {prevent_destroy: false, endpoints: [], branches: {dev: {}, kept: {protected: true}}}}\n",
    );

    forge.succeed("gen");
    forge.succeed("deploy --no-wait");
    let command = "destroy --yes --confirm cut-destroy --confirm cut-destroy/kept";
    hold("cut-destroy");
    let job = Job::start(&forge, command);
    wait_until_held("cut-destroy");
    assert!(!is_protected("cut-destroy/branches/kept"));
    job.signal(Signal::TERM);
    let shown = job.end();

    assert!(shown.contains("why: done: delete cut-destroy-web"), "{shown}");
    assert!(
        shown.contains("why: not done: delete projects/cut-destroy/branches/kept, "),
        "{shown}"
    );
    assert!(shown.contains(", delete projects/cut-destroy\n"), "{shown}");
    assert!(shown.contains("why: protected again: cut-destroy/kept\n"), "{shown}");
    assert!(shown.ends_with("--- exit 143"), "{shown}");
    assert!(is_protected("cut-destroy/branches/kept"));

    forge.succeed(command);
    assert!(look("postgres/projects/cut-destroy").is_none());
}

#[test]
fn deploy_protects_again_what_it_could_not_delete() {
    let forge = Forge::on(workspace(), &["cut-deploy"]);
    let config = |branches: &str| {
        forge.write(
            "lakeforge.yml",
            &format!("projects: {{cut-deploy: {{endpoints: [], branches: {{{branches}}}}}}}\n"),
        );
        forge.succeed("gen");
    };
    config("dev: {}, kept: {protected: true}, new: {}");
    forge.succeed("deploy");
    config("dev: {}, more: {}");
    hold("cut-deploy/branches/kept");
    let job = Job::start(&forge, "deploy --yes --confirm cut-deploy/kept");
    wait_until_held("cut-deploy/branches/kept");
    assert!(!is_protected("cut-deploy/branches/kept"));
    job.signal(Signal::INT);
    let shown = job.end();

    assert!(shown.contains("why: protected again: cut-deploy/kept\n"), "{shown}");
    assert!(shown.contains("create projects/cut-deploy/branches/more"), "{shown}");
    assert!(shown.contains("delete projects/cut-deploy/branches/kept"), "{shown}");
    assert!(shown.ends_with("--- exit 130"), "{shown}");
    assert!(is_protected("cut-deploy/branches/kept"));
    forge.succeed("deploy --yes --confirm cut-deploy/kept");
    assert!(look("postgres/projects/cut-deploy/branches/kept").is_none());
}
