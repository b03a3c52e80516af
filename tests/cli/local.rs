//! `lakeforge local` from the outside: its life, and what survives the end of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::json;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::{Admin, send};
use crate::job::Job;
use crate::own::{self, Own, within};
#[cfg(target_os = "linux")]
use crate::processes;

#[test]
fn start_leaves_a_running_workspace_alone() {
    let forge = Forge::new();
    let before = own::status(&forge);
    let shown = forge.run("local start");

    assert!(shown.contains("already running\n"), "{shown}");
    assert!(shown.ends_with("--- exit 0"), "{shown}");
    assert_eq!(own::status(&forge)["pid"], before["pid"]);
}

#[test]
fn an_interrupted_start_says_what_goes_on_and_can_be_said_again() {
    for (signal, exit) in [(Signal::INT, "--- exit 130"), (Signal::TERM, "--- exit 143")] {
        let forge = Forge::offline();
        let mut start = Job::start(&forge, "local start --port 0");
        start.wait_until_it_says("Starting the embedded workspace");
        start.signal(signal);
        let shown = start.end();

        assert!(shown.contains("goes on"), "{shown}");
        assert!(shown.contains("in the background\n  try: lakeforge local stop"), "{shown}");
        assert!(shown.ends_with(exit), "{shown}");
        forge.succeed("local start --port 0");
        assert_eq!(own::status(&forge)["running"], true);
        forge.succeed("local stop");
    }
}

#[test]
fn status_of_a_running_workspace_says_where_it_is() {
    let forge = Forge::new();
    let status = own::status(&forge);
    let text = forge.succeed("local status");

    assert_eq!(status["running"], true);
    assert_eq!(status["data_folder"], json!(forge.data()));
    assert!(status["postgres_version"].as_str().unwrap() >= "15", "{status}");
    for (line, key) in [("host", "host"), ("pid", "pid"), ("data", "data_folder")] {
        let value = status[key].as_str().map_or_else(|| status[key].to_string(), str::to_owned);
        let shown = text.lines().any(|shown| shown.split_whitespace().eq([line, &value]));
        assert!(shown, "`{line}` is not {value} in\n{text}");
    }
    assert!(text.starts_with("state     running\n"), "{text}");
}

#[test]
fn status_of_a_stopped_workspace_is_an_answer_and_no_failure() {
    let forge = Forge::offline();

    assert_snapshot!(forge.run("local status"), @r#"
        --- stdout
        state     stopped
        data      [DATA]
        disk      0 MB
        --- exit 0
        "#);
    assert_snapshot!(forge.run("local status -o json"), @r#"
        --- stdout
        {
          "running": false,
          "host": null,
          "pid": null,
          "data_folder": "[DATA]",
          "config_file": null,
          "certificate_file": null,
          "version": null,
          "postgres_version": null,
          "projects": null,
          "branches": null,
          "apps": null,
          "awake": null,
          "disk_bytes": 0
        }
        --- exit 0
        "#);
}

#[test]
fn stop_of_a_stopped_workspace_is_done() {
    let forge = Forge::offline();

    assert_snapshot!(forge.run("local stop"), @r"
        --- stdout
        not running
        --- stderr
        Stopping the embedded workspace
        --- exit 0
        ");
}

#[test]
fn a_command_against_a_stopped_workspace_says_how_to_start_it() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);

    assert_snapshot!(forge.run("branch list"), @r"
        --- stderr
        error: the embedded workspace is not running
          try: lakeforge local start
        --- exit 12
        ");
    assert_snapshot!(forge.run("local env"), @r"
        --- stderr
        error: there is no embedded workspace yet
          try: lakeforge local start
        --- exit 6
        ");
}

#[test]
fn a_shell_takes_the_environment_as_it_is_printed() {
    let forge = Forge::new();
    let output = Command::new("sh")
        .arg("-euc")
        .arg(
            "eval \"$(\"$0\" local env)\"\n\
             printf '%s\\n' \"$DATABRICKS_CONFIG_FILE\" \"$DATABRICKS_CONFIG_PROFILE\"\n\
             printf '%s\\n' \"${DATABRICKS_HOST-none}\" \"${DATABRICKS_TOKEN-none}\"",
        )
        .arg(crate::forge::PROGRAM)
        .env("LAKEFORGE_LOCAL_DIR", forge.data())
        .env("DATABRICKS_HOST", "https://elsewhere.test")
        .env("DATABRICKS_TOKEN", "dapi-elsewhere")
        .output()
        .unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1..], ["local", "none", "none"]);
    let profiles = fs::read_to_string(lines[0]).unwrap();
    let host = own::status(&forge)["host"].as_str().unwrap().to_owned();
    assert!(profiles.contains("\n[local]\n") && profiles.contains(&host), "{profiles}");
}

#[test]
fn the_environment_holds_no_secret() {
    let forge = Forge::new();
    let admin = Admin::of(&forge);

    assert!(!forge.succeed("local env").contains(&admin.client_secret));
}

#[test]
fn a_taken_port_is_a_conflict_with_a_hint() {
    let forge = Forge::offline();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let shown =
        forge.run(&format!("local start --port {port}")).replace(&port.to_string(), "[PORT]");

    assert_snapshot!(shown, @r"
        --- stderr
        Starting the embedded workspace
        error: the embedded workspace could not start
          why: port [PORT] of [ADDRESS] cannot be used
          why: Address already in use (os error 98)
          try: choose another with `--port PORT`, or let the system choose with `--port 0`
        --- exit 7
        ");
    assert_eq!(own::status(&forge)["running"], false);
}

#[test]
fn without_postgres_the_answer_names_what_to_install() {
    let forge = Forge::offline();
    fs::create_dir(forge.path().join("empty")).unwrap();

    assert_snapshot!(forge.run("local start --port 0 --postgres-bin empty"), @r"
        --- stderr
        Starting the embedded workspace
        error: the embedded workspace could not start
          why: no PostgreSQL server in `empty`
          try: install one: `apt install postgresql` or `brew install postgresql@17`; or name the folder that holds `postgres` and `initdb`
        --- exit 2
        ");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let forge = Forge::new();
    let pid = own::status(&forge)["pid"].to_string();
    let shown = forge.run("local serve --port 0").replace(&pid, "[PID]");

    assert_snapshot!(shown, @r"
        --- stderr
        error: another server (process [PID]) uses `[DATA]`
          try: lakeforge local stop, or choose another folder with --data-dir
        --- exit 7
        ");
}

#[test]
fn start_waits_for_a_server_that_is_just_ending() {
    let forge = Own::start();
    forge.succeed("local stop");
    let lock = fs::File::open(forge.data().join("lock")).unwrap();
    lock.lock().unwrap();

    let start = forge.command("local start").stdout(Stdio::piped()).spawn().unwrap();
    // Long enough for it to find the folder taken; should it be slower, it has nothing to wait for.
    std::thread::sleep(Duration::from_millis(300));
    lock.unlock().unwrap();
    let output = start.wait_with_output().unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(own::status(&forge)["running"], true);
}

#[test]
fn reset_asks_and_then_deletes_everything() {
    let forge = Own::start();
    bundle(&forge, "reset", &["reset"], &[]);
    forge.succeed("deploy");
    let before = own::status(&forge);
    assert_eq!(before["projects"], 1);
    let below = own::descendants(own::server(&forge));

    assert_snapshot!(forge.run("local reset"), @r#"
        --- stderr
        error: needs consent: Delete the embedded workspace in `[DATA]`?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        "#);
    assert_snapshot!(forge.run("local reset --dry-run"), @r#"
        --- stdout
        would delete what is in [DATA]
        --- exit 0
        "#);
    assert_eq!(own::status(&forge), before, "nothing has happened yet");
    assert_snapshot!(forge.run("local reset --yes"), @r#"
        --- stdout
        deleted [DATA]
        --- exit 0
        "#);
    assert!(own::gone(&below), "computes outlived the reset");
    assert!(!forge.data().exists());

    assert_snapshot!(forge.run("local reset --yes"), @r#"
        --- stdout
        nothing to delete: there is no workspace in [DATA]
        --- exit 0
        "#);
}

#[cfg(target_os = "linux")]
#[test]
fn stop_and_reset_of_a_killed_workspace_leave_nothing_of_it() {
    let forge = Own::start();
    bundle(&forge, "left", &["left"], &[]);
    forge.succeed("deploy");

    for end in ["local stop", "local reset --yes"] {
        forge.succeed("local start");
        forge.sql("left/production", "select 1");
        let server = own::server(&forge);
        let below = processes::below(server);
        let computes = processes::postmasters(&below);
        let sockets = computes.first().and_then(|compute| compute.sockets()).unwrap();
        assert!(sockets.exists(), "{}", sockets.display());
        computes.iter().for_each(|compute| own::kill_if_there(compute.pid));
        own::kill(server);

        // The killed server may still be on its way out.
        forge.succeed(end);

        assert!(!sockets.exists(), "{} is left after {end}", sockets.display());
        assert!(within(Duration::from_secs(60), || processes::working_in(forge.data()).is_empty()));
    }
    assert!(!forge.data().exists());
}

#[test]
fn what_a_workspace_holds_survives_stop_and_start() {
    let forge = Own::start();
    bundle(&forge, "kept", &["kept"], &[("kept-app", App::Healthy)]);
    forge.succeed("deploy");
    forge.sql("kept/production", "create table item as select generate_series(1, 100) as id");
    let moment = forge.sql(
        "kept/production",
        "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    forge.sql("kept/production", "delete from item");
    forge.succeed(&format!("branch restore kept/rescue --at {moment}"));
    forge.succeed("branch create kept/pr-1");
    forge.sql("kept/pr-1", "insert into item values (7)");
    let branches = forge.succeed("branch list --project kept -o json");
    let app = Admin::of(&forge).app("kept-app");
    let before = own::status(&forge);
    let processes = own::descendants(own::server(&forge));

    assert_eq!(forge.succeed("local stop"), "stopped\n");
    assert!(own::gone(&processes), "something outlived the server");
    assert_eq!(own::status(&forge)["running"], false);
    forge.succeed("local start");

    assert_eq!(own::status(&forge)["host"], before["host"]);
    assert_eq!(
        without_states(&forge.succeed("branch list --project kept -o json")),
        without_states(&branches)
    );
    assert_eq!(forge.sql("kept/production", "select count(*) from item"), "0");
    assert_eq!(forge.sql("kept/rescue", "select count(*) from item"), "100");
    assert_eq!(forge.sql("kept/pr-1", "select string_agg(id::text, ',') from item"), "7");
    let admin = Admin::of(&forge);
    assert!(answers(&admin, &app), "the app does not answer at {}", app["url"]);
    assert_eq!(admin.app("kept-app")["active_deployment"], app["active_deployment"]);
}

/// Returns a list of branches without what changes when a compute sleeps and wakes.
fn without_states(list: &str) -> serde_json::Value {
    serde_json::from_str(list).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_app_is_told_crashed_until_it_is_deployed_again() {
    let forge = Forge::new();
    bundle(&forge, "dies", &[], &[("dies-app", App::Healthy)]);
    forge.succeed("deploy");
    let admin = Admin::of(&forge);
    let app = admin.app("dies-app");
    let running = || processes::working_in(&forge.data().join("apps").join("dies-app"));
    let before = running();
    assert_eq!(before.len(), 1, "{before:?}");

    own::kill(before[0].pid);

    let status = || admin.app("dies-app")["app_status"].clone();
    let told = within(Duration::from_secs(60), || status()["state"] == "CRASHED");
    assert!(told, "{}", status());
    let message = "App ended: signal: 9 (SIGKILL); see `lakeforge local logs dies-app`";
    assert_eq!(status()["message"], message);
    assert!(running().is_empty(), "{:?}", running());
    forge.succeed("deploy");
    assert!(answers(&admin, &app), "the app does not answer at {}", app["url"]);
    assert_eq!(status()["state"], "RUNNING");
}

/// Waits until the app answers at the address it had.
fn answers(admin: &Admin, app: &serde_json::Value) -> bool {
    let url = format!("{}/healthz", app["url"].as_str().unwrap());
    within(Duration::from_secs(30), || {
        let answer = send("GET", &url, &[("Authorization", &admin.bearer())], "");
        answer.body == r#"{"ok": true}"#
    })
}

#[test]
fn a_killed_server_comes_back_with_every_committed_row() {
    let forge = Own::start();
    bundle(&forge, "killed", &["killed"], &[("killed-app", App::Healthy)]);
    forge.succeed("deploy");
    forge.sql("killed/production", "create table item (id bigint primary key)");
    let app = Admin::of(&forge).app("killed-app");
    let host = own::status(&forge)["host"].clone();
    let address = address(&forge);
    let server = own::server(&forge);
    let processes = own::descendants(server);
    assert!(processes.len() > 2, "a compute and an app run: {processes:?}");

    let committed = write_until_cut_off(&forge, 300, || own::kill(server));
    assert_eq!(own::status(&forge)["running"], false);
    assert!(own::gone(&processes), "something outlived the killed server");
    forge.succeed("local start");

    assert_eq!(own::status(&forge)["host"], host);
    assert_eq!(self::address(&forge), address);
    let query = format!("select count(*) from item where id <= {committed}");
    assert_eq!(forge.sql("killed/production", &query), committed.to_string());
    assert!(answers(&Admin::of(&forge), &app), "the app does not answer at {}", app["url"]);
}

/// Returns host and port of the production branch.
fn address(forge: &Forge) -> Vec<String> {
    let text = forge.succeed("creds env killed/production");
    let lines = text.lines().filter(|line| line.contains("PGHOST") || line.contains("PGPORT"));
    lines.map(str::to_owned).collect()
}

/// Inserts 1, 2, 3 … in a transaction each, calls `cut` when `enough` are there, goes on until
/// the connection breaks, and returns the last number that was confirmed.
fn write_until_cut_off(forge: &Forge, enough: u64, cut: impl FnOnce()) -> u64 {
    let mut psql = forge
        .command("-q creds exec killed/production -- psql -XAtq -v ON_ERROR_STOP=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = psql.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        (1_u64..)
            .find(|id| writeln!(input, "insert into item values ({id}) returning id;").is_err())
    });
    let mut cut = Some(cut);
    let mut committed = 0;
    for line in BufReader::new(psql.stdout.take().unwrap()).lines().map_while(Result::ok) {
        committed = line.parse().unwrap();
        if committed >= enough
            && let Some(cut) = cut.take()
        {
            cut();
        }
    }
    assert!(cut.is_none(), "the connection broke after {committed}, before it was cut");
    psql.wait().unwrap();
    writer.join().unwrap();
    committed
}

#[test]
fn a_compute_that_was_killed_comes_back_with_the_next_connection() {
    let forge = Forge::with_project("local-compute");
    let backend = forge.sql(
        "local-compute/production",
        "create table item as select generate_series(1, 10) as id; select pg_backend_pid()",
    );
    assert!(backend.parse::<i64>().is_ok(), "{backend}");
    let mut session = forge
        .command("-q creds exec local-compute/production -- psql -XAtq")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    writeln!(input, "select pg_backend_pid();").unwrap();
    let mut line = String::new();
    BufReader::new(session.stdout.take().unwrap()).read_line(&mut line).unwrap();
    own::kill(own::parent(own::pid(line.trim().parse().unwrap())));
    drop(input);
    session.wait().unwrap();

    assert_eq!(forge.sql("local-compute/production", "select count(*) from item"), "10");
}
