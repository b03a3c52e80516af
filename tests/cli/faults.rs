//! How commands bear what goes wrong, on a workspace that lets it go wrong on demand.

use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::forge::{Forge, PROGRAM, Workspace, open_folder};
use crate::http::{Answer, send};

/// Returns the workspace of these tests; each uses a project of its own, and rules for that alone.
pub(crate) fn workspace() -> &'static Workspace {
    static OWN: OnceLock<Workspace> = OnceLock::new();
    OWN.get_or_init(|| Workspace::start(&[]))
}

/// Sends a request to the route of the faults and returns the rules in force.
pub(crate) fn faults(workspace: &Workspace, method: &str, body: &Value) -> Vec<Value> {
    let answer = ask(workspace, method, "/lakeforge/faults", body);
    answer.expect(200)["faults"].as_array().unwrap().clone()
}

/// Sends a request to `path` of a workspace as its user, and returns the answer.
pub(crate) fn ask(workspace: &Workspace, method: &str, path: &str, body: &Value) -> Answer {
    let (host, token) = (setting(workspace, "host"), setting(workspace, "token"));
    let bearer = format!("Bearer {token}");
    send(method, &format!("{host}{path}"), &[("Authorization", &bearer)], &body.to_string())
}

/// Returns the first value of `key` in the profiles of a workspace.
fn setting(workspace: &Workspace, key: &str) -> String {
    let profiles = std::fs::read_to_string(workspace.data().join("databrickscfg")).unwrap();
    let line = profiles.lines().find(|line| line.split('=').next().unwrap().trim() == key);
    line.unwrap().split_once('=').unwrap().1.trim().to_owned()
}

/// Lets something go wrong when branches of `project` are created.
pub(crate) fn on_create(project: &str, fault: &Value, times: Option<u32>) {
    let path = format!("*/projects/{project}/branches");
    let mut rule = json!({ "method": "POST", "path": path, "fault": fault });
    if let Some(times) = times {
        rule["times"] = json!(times);
    }
    faults(workspace(), "POST", &rule);
}

/// Returns how many rules for `project` are left.
pub(crate) fn left(project: &str) -> usize {
    let rules = faults(workspace(), "GET", &json!({}));
    let path = format!("*/projects/{project}/branches");
    rules.iter().filter(|rule| rule["path"] == path.as_str()).count()
}

/// Creates the branch `pr-7` of `project` and returns the answer.
fn create(forge: &Forge, project: &str) -> Value {
    let answer: Value =
        serde_json::from_str(&forge.succeed(&format!("branch create {project}/pr-7 -o json")))
            .unwrap();
    match answer {
        Value::Array(mut all) => all.remove(0),
        one => one,
    }
}

#[test]
fn a_branch_whose_creation_was_not_answered_is_there_once_and_nobody_s() {
    let forge = Forge::on(workspace(), &["lost"]);
    on_create("lost", &json!("lost_reply"), Some(1));

    assert_snapshot!(forge.run("branch create lost/pr-7"), @r#"
        --- stdout
        lost/pr-7  reused from production, expires in [LENGTH], takes SQL after [LENGTH]
        --- stderr
        → projects/lost/branches/pr-7 (as named)
        lost/pr-7: looking at the project
        lost/pr-7: copying `lost/production`
        lost/pr-7: looking again
        lost/pr-7: refreshing its expiry
        lost/pr-7: waiting for SQL
        warning: the answer to the creation of `lost/pr-7` was lost: it counts as one that was there
        --- exit 0
        "#);
    assert_eq!(left("lost"), 0, "the answer was not lost");
    assert_eq!(create(&forge, "lost")["created"], false);
    assert_eq!(forge.sql("lost/pr-7", "SELECT 1"), "1");
}

/// The restored branch may be ours or not, and holds what lies before the moment: its lineage says
/// which, and the moment that was asked for is not remembered. It is left, and told.
#[test]
fn a_restored_branch_whose_creation_was_not_answered_is_never_removed() {
    let forge = Forge::on(workspace(), &["lost-past"]);
    forge.sql("lost-past/production", "create table note as select 7 as n");
    on_create("lost-past", &json!("lost_reply"), Some(1));

    let shown = forge.run("branch restore lost-past/rescue --at now");

    assert_eq!(left("lost-past"), 0, "the answer was not lost");
    assert!(!shown.contains("removed again"), "{shown}");
    assert!(
        shown.ends_with("--- exit 0") || shown.contains("left as it is: lost-past/rescue"),
        "{shown}"
    );
    assert_eq!(forge.sql("lost-past/rescue", "select n from note"), "7");
}

#[test]
fn a_deployment_whose_answers_are_lost_converges_when_it_is_said_again() {
    let workspace = Workspace::start(&[]);
    let forge = Forge::on(&workspace, &["before"]);
    forge.bundle(&["lost-all"]);
    let config = "projects:\n  lost-all:\n    endpoints: []\n    branches: [production, dev]\n    \
                  roles: {keeper: {login: none}}\n    databases: {orders: {owner: keeper, name: orders_1}}\n";
    forge.write("lakeforge.yml", config);
    forge.succeed("gen --overwrite");

    for path in ["*/projects", "*/branches", "*/roles", "*/databases"] {
        let rule = json!({ "method": "POST", "path": path, "fault": "lost_reply", "times": 1 });
        faults(&workspace, "POST", &rule);
        let shown = forge.run("deploy --yes");
        assert!(!shown.ends_with("--- exit 0"), "{path}: {shown}");
        assert!(faults(&workspace, "GET", &json!({})).is_empty(), "{path}: {shown}");
    }
    forge.succeed("deploy");

    let owner = "select rolname from pg_database join pg_roles on pg_roles.oid = datdba \
                 where datname = 'orders_1'";
    for branch in ["production", "dev"] {
        assert_eq!(forge.sql(&format!("lost-all/{branch}"), owner), "keeper", "{branch}");
    }
    assert!(forge.run("deploy").contains("\nresources are up to date\n"));
}

#[test]
fn a_busy_service_is_asked_again_and_no_earlier_than_it_says() {
    let forge = Forge::on(workspace(), &["busy"]);
    on_create("busy", &json!({ "refuse": { "status": 429, "retry_after": 2 } }), Some(1));
    on_create("busy", &json!({ "refuse": { "status": 503 } }), Some(1));
    let start = Instant::now();

    let answer = create(&forge, "busy");

    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(left("busy"), 0);
    assert_eq!(answer["created"], true, "{answer}");
}

#[test]
fn whoever_waits_is_told_what_the_workspace_answers() {
    let forge = Forge::on(workspace(), &["told"]);
    let path = "*/projects/told/branches";
    let fault = json!({ "refuse": { "status": 503, "retry_after": 2 } });
    let rule = json!({ "method": "GET", "path": path, "fault": fault, "times": 1 });
    faults(workspace(), "POST", &rule);

    let output = forge.output("branch list --project told");

    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the workspace answers 503; trying again\n"), "{stderr}");
}

#[test]
fn a_service_that_stays_away_is_exit_12_and_nothing_is_left_behind() {
    let forge = Forge::on(workspace(), &["away"]);
    // Longer than the program is ready to wait, so that the test need not.
    on_create("away", &json!({ "refuse": { "status": 503, "retry_after": 3600 } }), None);

    let output = forge.output("branch create away/pr-7");

    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(12), "{stderr}");
    assert!(stderr.contains("temporarily unavailable (503 TEMPORARILY_UNAVAILABLE)"), "{stderr}");
    assert_eq!(left("away"), 1);
    let branches = forge.succeed("branch list -o json");
    assert!(branches.contains("branches/production\""), "{branches}");
    assert!(!branches.contains("branches/pr-7\""), "{branches}");
}

#[test]
fn an_operation_that_takes_too_long_is_exit_8_and_the_same_command_succeeds_later() {
    let forge = Forge::on(workspace(), &["slow"]);
    on_create("slow", &json!({ "slow_operation": "30s" }), Some(1));

    let start = Instant::now();
    let output = forge.output("branch create slow/pr-7 --wait-timeout 1s");

    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{stderr}");
    assert_eq!(left("slow"), 0);
    // One second for the branch and five to remove it; the operation takes thirty.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(stderr.contains("left behind"), "{stderr}");
    assert!(stderr.contains("lakeforge branch delete slow/pr-7"), "{stderr}");
    create(&forge, "slow");
    assert_eq!(forge.sql("slow/pr-7", "SELECT 1"), "1");
}

#[test]
fn a_killed_compute_keeps_what_was_committed() {
    let forge = Forge::on(workspace(), &["killed"]);
    let branch = "killed/production";
    forge.sql(branch, "CREATE TABLE notes AS SELECT 7 AS n");

    for blow in ["kill", "suspend"] {
        let name = "projects/killed/branches/production";
        faults(workspace(), "POST", &json!({ "compute": { blow: name } }));
        assert_eq!(forge.sql(branch, "SELECT n FROM notes"), "7", "{blow}");
    }
}

#[test]
fn a_request_can_suspend_or_kill_a_compute() {
    let forge = Forge::on(workspace(), &["struck"]);
    let branch = "struck/production";
    forge.sql(branch, "CREATE TABLE notes AS SELECT 7 AS n");
    let started = || forge.sql(branch, "SELECT pg_postmaster_start_time()");

    for blow in ["suspend", "kill"] {
        let before = started();
        let path = "*/projects/struck/branches";
        let fault = json!({ blow: "projects/struck/branches/production" });
        let rule = json!({ "method": "GET", "path": path, "fault": fault, "times": 1 });
        faults(workspace(), "POST", &rule);
        assert_eq!(started(), before, "{blow}: no request has met it yet");

        ask(workspace(), "GET", "/api/2.0/postgres/projects/struck/branches", &json!({}));

        assert_ne!(started(), before, "{blow}");
        assert_eq!(forge.sql(branch, "SELECT n FROM notes"), "7", "{blow}");
    }
}

#[test]
fn a_skewed_clock_ends_passwords_and_makes_others_too_early() {
    let workspace =
        Workspace::start(&["--fault", "{path: \"*/nothing\", fault: {clock_skew: 5s}}"]);
    let forge = Forge::on(&workspace, &["skewed"]);
    let mint = || forge.json("creds mint skewed/production");
    let login = |minted: &Value| {
        let text = |key: &str| minted[key].as_str().unwrap().to_owned();
        let output = Command::new("psql")
            .args(["-XAtqc", "SELECT 1"])
            .env("PGHOST", text("host"))
            .env("PGPORT", minted["port"].to_string())
            .env("PGUSER", text("user"))
            .env("PGDATABASE", text("database"))
            .env("PGPASSWORD", text("token"))
            .env("PGSSLMODE", "require")
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let date = || {
        let answer = ask(&workspace, "GET", "/api/2.0/postgres/projects", &json!({}));
        let date = &answer.headers["date"];
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).unwrap()
    };
    let before = mint();
    assert_eq!(login(&before), "1\n");

    faults(&workspace, "POST", &json!({ "fault": { "clock_skew": "7200s" } }));

    assert!(login(&before).contains("the token has expired"), "{}", login(&before));
    let ahead = mint();
    assert_eq!(login(&ahead), "1\n");
    assert!(date() > jiff::Timestamp::now() + Duration::from_secs(3600));
    assert_eq!(faults(&workspace, "DELETE", &json!({})), Vec::<Value>::new());
    assert!(login(&ahead).contains("the token is not valid yet"), "{}", login(&ahead));
    assert_eq!(login(&before), "1\n");
    faults(&workspace, "POST", &json!({ "fault": { "clock_skew": "-7200s" } }));
    assert!(login(&before).contains("the token is not valid yet"), "{}", login(&before));
    assert!(date() < jiff::Timestamp::now() - Duration::from_secs(3600));
}

#[test]
fn faults_come_from_the_command_line_one_by_one() {
    let workspace = Workspace::start(&[
        "--fault",
        "{path: \"*/projects\", fault: {refuse: {status: 503}}, times: 1}",
        "--fault",
        r#"{"path": "*/apps", "fault": "lost_reply"}"#,
    ]);
    let listed = faults(&workspace, "GET", &json!({}));
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[1]["fault"], "lost_reply");
    ask(&workspace, "GET", "/api/2.0/postgres/projects", &json!({})).expect(503);
    ask(&workspace, "GET", "/api/2.0/postgres/projects", &json!({})).expect(200);

    let forge = Forge::offline();
    let output = forge.output("local serve --port 0 --fault lost_reply");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("`lost_reply` is not a fault"), "{stderr}");
}

#[test]
fn faults_come_from_a_file_and_are_cleared_by_the_route() {
    let folder = open_folder();
    let file = folder.path().join("faults.yml");
    std::fs::write(&file, "- {path: '*/projects', fault: {latency: 0.1s}, times: 3}\n").unwrap();
    let workspace = Workspace::start(&["--faults", file.to_str().unwrap()]);

    let rule = json!({ "path": "*/projects", "fault": { "latency": "0.100s" }, "times": 3 });
    let listed = faults(&workspace, "GET", &json!({}));
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["path"], &listed[0]["times"]), (&rule["path"], &rule["times"]));
    assert!(faults(&workspace, "DELETE", &json!({})).is_empty());
    assert!(faults(&workspace, "GET", &json!({})).is_empty());

    std::fs::write(&file, "- {fault: {refuse: {status: 200}}}\n").unwrap();
    let output = Command::new(PROGRAM)
        .args(["local", "serve", "--port", "0", "--faults"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("workspace"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("faults.yml") && stderr.contains("status 200"), "{stderr}");
}
