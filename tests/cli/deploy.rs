//! `lakeforge deploy` from the outside, with the built-in engine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::Admin;
use crate::own;

/// Returns the text with its lines in order, because apps end in any.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn deploy_runs_every_app_and_keeps_a_log_of_each() {
    let forge = Forge::new();
    let apps = ["both-first", "both-second"];
    bundle(&forge, "both", &[], &apps.map(|app| (app, App::Healthy)));
    let stdout = forge.succeed("deploy");
    let admin = Admin::of(&forge);

    let mut expected = String::new();
    for app in apps {
        let shown = admin.app(app);
        assert_eq!(shown["app_status"]["state"], "RUNNING");
        assert_eq!(shown["active_deployment"]["status"]["state"], "SUCCEEDED");
        expected.push_str(&format!("{app}   {}\n", shown["url"].as_str().unwrap()));
        let log = forge.read(&format!(".databricks/lakeforge/local/logs/{app}.log"));
        assert!(log.lines().last().unwrap().ends_with("Z done"), "{log}");
    }
    let words = |text: &str| sorted(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&stdout), words(&expected));
}

#[test]
fn deploy_streams_an_object_for_each_app_and_a_summary() {
    let forge = Forge::new();
    bundle(&forge, "stream", &[], &[("stream-app", App::Healthy)]);
    let stdout = forge.succeed("-q deploy -o json");
    let lines: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    assert_eq!(lines.len(), 2, "{stdout}");
    assert_eq!((&lines[0]["type"], &lines[0]["app"]), (&"app".into(), &"stream-app".into()));
    assert_eq!(lines[0]["state"], "RUNNING");
    assert!(lines[0]["elapsed_ms"].is_u64());
    assert_eq!(lines[1]["type"], "summary");
    assert_eq!((&lines[1]["apps"], &lines[1]["failed"]), (&1.into(), &0.into()));
}

#[test]
fn deploy_again_leaves_the_resources_as_they_are() {
    let forge = Forge::new();
    bundle(&forge, "again", &["deploy-again"], &[("again-app", App::Healthy)]);
    forge.succeed("deploy");
    let admin = Admin::of(&forge);
    let project = "/api/2.0/postgres/projects/deploy-again";
    let before = (admin.get(project).expect(200), admin.app("again-app")["id"].clone());

    assert_snapshot!(forge.run("deploy --dry-run"), @r"
        --- stdout
        ACTION  RESOURCE                                                       NAME
        keep    postgres_projects.lakebase_project_deploy_again                projects/deploy-again
        keep    postgres_branches.lakebase_branch_deploy_again_dev             projects/deploy-again/branches/dev
        keep    postgres_endpoints.lakebase_endpoint_deploy_again_dev_primary  projects/deploy-again/branches/dev/endpoints/primary
        keep    apps.again_app                                                 again-app
        run     app                                                            again-app
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        --- exit 0
        ");
    let shown = forge.run("deploy");
    assert!(shown.contains("\nresources are up to date\n"), "{shown}");
    let after = (admin.get(project).expect(200), admin.app("again-app")["id"].clone());
    assert_eq!(after, before);
}

#[test]
fn deploy_makes_roles_and_databases_on_every_branch() {
    let forge = Forge::new();
    forge.bundle(&["deploy-roles"]);
    let config = |more: &str| {
        forge.write(
            "lakeforge.yml",
            &format!(
                "projects:\n  deploy-roles:\n    prevent_destroy: false\n    endpoints: []\n    \
                 branches: [production, dev]\n    roles: {{keeper: {{login: none{more}}}}}\n    \
                 databases: {{orders: {{owner: keeper, name: orders_1}}}}\n"
            ),
        );
        forge.succeed("gen");
    };
    config("");
    forge.succeed("deploy");
    let owner = "select rolcreatedb, rolcanlogin from pg_database join pg_roles on pg_roles.oid = datdba \
                 where datname = 'orders_1'";
    for branch in ["production", "dev"] {
        assert_eq!(forge.sql(&format!("deploy-roles/{branch}"), owner), "f|f", "{branch}");
    }
    assert!(forge.run("deploy").contains("\nresources are up to date\n"));

    config(", createdb: true");
    forge.succeed("deploy");
    assert_eq!(forge.sql("deploy-roles/dev", owner), "t|f");
    forge.succeed("destroy --yes --confirm deploy-roles");
}

#[test]
fn only_names_an_app_of_the_bundle() {
    let forge = Forge::new();
    bundle(&forge, "only", &[], &[("only-patient", App::Healthy), ("only-billing", App::Healthy)]);

    assert_snapshot!(forge.run("deploy --only only-patients"), @r"
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        error: there is no app `only-patients` in the bundle
          why: the bundle has only_patient, only_billing
          try: --only only-patient
        --- exit 6
        ");
    Admin::of(&forge).get("/api/2.0/apps/only-patient").expect(404);
}

#[test]
fn only_runs_the_apps_it_names() {
    let forge = Forge::new();
    bundle(&forge, "some", &[], &[("some-first", App::Healthy), ("some-second", App::Healthy)]);
    let stdout = forge.succeed("deploy --only some_second");

    assert!(stdout.starts_with("some-second ") && stdout.lines().count() == 1, "{stdout}");
    let first = Admin::of(&forge).app("some-first");
    assert!(first["active_deployment"].is_null(), "{first}");
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let forge = Forge::new();
    bundle(&forge, "dry", &["deploy-dry"], &[("dry-app", App::Healthy)]);

    assert_snapshot!(forge.run("deploy --dry-run"), @r"
        --- stdout
        ACTION  RESOURCE                                                     NAME
        create  postgres_projects.lakebase_project_deploy_dry                projects/deploy-dry
        create  postgres_branches.lakebase_branch_deploy_dry_dev             projects/deploy-dry/branches/dev
        create  postgres_endpoints.lakebase_endpoint_deploy_dry_dev_primary  projects/deploy-dry/branches/dev/endpoints/primary
        create  apps.dry_app                                                 dry-app
        run     app                                                          dry-app
        --- stderr
        → with the built-in engine, for the embedded workspace alone
        --- exit 0
        ");
    let admin = Admin::of(&forge);
    admin.get("/api/2.0/apps/dry-app").expect(404);
    admin.get("/api/2.0/postgres/projects/deploy-dry").expect(404);
    assert!(!forge.path().join(".databricks").exists());
}

#[test]
fn an_app_that_crashes_shows_its_last_lines_and_its_sibling_runs() {
    let forge = Forge::new();
    bundle(&forge, "crash", &[], &[("crash-app", App::Crashes), ("crash-sibling", App::Healthy)]);
    let output = forge.output("deploy");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();

    assert_eq!(output.status.code(), Some(11), "{stderr}");
    assert!(stderr.contains("the setting COLOUR is missing\n"), "{stderr}");
    assert!(stderr.contains("error: 1 of 2 apps did not come up: crash-app\n"), "{stderr}");
    assert!(stderr.contains("lakeforge deploy --only crash-app\n"), "{stderr}");
    assert!(stdout.starts_with("crash-sibling ") && stdout.lines().count() == 1, "{stdout}");
    let log = forge.read(".databricks/lakeforge/local/logs/crash-app.log");
    assert!(log.contains("the setting COLOUR is missing"), "{log}");
    let admin = Admin::of(&forge);
    assert_eq!(admin.app("crash-sibling")["app_status"]["state"], "RUNNING");
    assert_eq!(admin.app("crash-app")["app_status"]["state"], "CRASHED");
}

#[test]
fn an_app_that_never_listens_ends_the_wait() {
    let forge = Forge::new();
    bundle(&forge, "deaf", &[], &[("deaf-app", App::Deaf), ("deaf-sibling", App::Healthy)]);
    let output = forge.output("deploy --wait-timeout 4s");
    let stderr = String::from_utf8(output.stderr).unwrap();

    assert_eq!(output.status.code(), Some(11), "{stderr}");
    assert!(stderr.contains("deaf-app: failed: waited 4.0s for its deployment"), "{stderr}");
    assert!(stderr.contains("deaf-sibling: running in "), "{stderr}");
}

#[test]
fn a_repaired_app_comes_up_with_the_next_deploy() {
    let forge = Forge::new();
    bundle(&forge, "repair", &[], &[("repair-app", App::Crashes)]);
    assert_eq!(forge.output("deploy").status.code(), Some(11));
    bundle(&forge, "repair", &[], &[("repair-app", App::Healthy)]);

    forge.succeed("deploy --only repair-app");
    assert_eq!(Admin::of(&forge).app("repair-app")["app_status"]["state"], "RUNNING");
}

#[test]
fn deploy_goes_on_after_an_interruption() {
    let forge = Forge::new();
    bundle(
        &forge,
        "cut",
        &["deploy-cut"],
        &[("cut-first", App::Late(3)), ("cut-second", App::Late(3))],
    );
    let mut deploy =
        forge.command("deploy").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(deploy.stderr.take().unwrap()).lines().map(Result::unwrap);
    stderr.find(|line| line.ends_with(": deploying")).unwrap();
    kill_process(Pid::from_child(&deploy), Signal::INT).unwrap();
    let rest: Vec<String> = stderr.collect();

    assert_eq!(deploy.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("cut-first")), "left behind: {rest:?}");
    forge.succeed("deploy");
    let admin = Admin::of(&forge);
    for app in ["cut-first", "cut-second"] {
        assert_eq!(admin.app(app)["app_status"]["state"], "RUNNING");
    }
}

/// A Databricks CLI that deploys until it is told to stop, and then gives its lock back.
const PATIENT_CLI: &str = r#"#!/bin/sh
case "$*" in
version*) echo '{"Version": "1.14.0"}' ;;
"bundle plan"*) echo '{"plan_version": 2, "plan": {}}' ;;
"bundle deploy"*)
    trap 'sleep 0.3; echo "given back" >> lock; exit 1' INT TERM
    echo taken > lock
    while :; do sleep 0.05; done ;;
esac
"#;

#[test]
fn a_signal_reaches_the_databricks_cli_and_its_lock_is_given_back() {
    let forge = Forge::new();
    bundle(&forge, "lock", &[], &[("lock-app", App::Healthy)]);
    forge.write("databricks", PATIENT_CLI);
    let cli = forge.path().join("databricks");
    fs::set_permissions(&cli, fs::Permissions::from_mode(0o755)).unwrap();
    let lock = || fs::read_to_string(forge.path().join("lock")).unwrap_or_default();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let deploy = forge
            .command("deploy --engine cli")
            .env("DATABRICKS_CLI_PATH", &cli)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert!(own::within(Duration::from_secs(60), || lock() == "taken\n"));

        kill_process(Pid::from_child(&deploy), signal).unwrap();
        let output = deploy.wait_with_output().unwrap();

        assert_eq!(output.status.code(), Some(code), "{}", forge.shown(&output));
        assert_eq!(lock(), "taken\ngiven back\n");
        fs::remove_file(forge.path().join("lock")).unwrap();
    }
}

#[test]
fn an_app_reaches_the_database_of_its_bundle() {
    let forge = Forge::new();
    bundle(&forge, "bound", &["deploy-bound"], &[("bound-app", App::Healthy)]);
    let project = "${resources.postgres_projects.lakebase_project_deploy_bound.id}";
    let branch = format!("{project}/branches/production");
    let resource = format!(
        "{{name: database, postgres: {{branch: '{branch}', permission: CAN_CONNECT_AND_CREATE, \
         database: '{branch}/databases/databricks-postgres'}}}}"
    );
    let text = forge.read("databricks.yml");
    let text =
        text.replace("apps/bound-app}", &format!("apps/bound-app, resources: [{resource}]}}"));
    forge.write("databricks.yml", &text);
    forge.write(
        "apps/bound-app/app.py",
        "import os\nfor name in sorted(os.environ):\n    \
         if name.startswith('PG') and name != 'PGPASSWORD':\n        \
         print(name, os.environ[name], flush=True)\nraise SystemExit(3)\n",
    );
    let stderr = String::from_utf8(forge.output("deploy").stderr).unwrap();

    let app = Admin::of(&forge).app("bound-app");
    let client = app["service_principal_client_id"].as_str().unwrap();
    for line in [
        "PGAPPNAME bound-app".to_owned(),
        "PGDATABASE databricks_postgres".to_owned(),
        "PGSSLMODE require".to_owned(),
        format!("PGUSER {client}"),
    ] {
        assert!(stderr.contains(&line), "`{line}` is not in\n{stderr}");
    }
}
