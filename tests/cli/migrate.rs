//! `lakeforge migrate` from the outside: each service's own command, with fresh credentials.

use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal};

use crate::forge::{Forge, assert_snake_case};
use crate::job::Job;
use crate::own;

/// An app that needs nothing but the standard library.
const APP: &str = r#"
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ok":true}')
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["DATABRICKS_APP_PORT"])), Answer).serve_forever()
"#;

/// Writes and deploys a bundle with an app for each of `projects`, which uses that project's
/// default branch and has the migration command of the same place in `commands`.
fn deployed(projects: &[&str], commands: &[&str]) -> Forge {
    let forge = Forge::new();
    let mut bundle = format!(
        "bundle: {{name: {}}}\ninclude: [resources/*.yml]\n\
         targets: {{local: {{default: true, workspace: {{profile: local}}}}}}\n\
         resources:\n  apps:\n",
        projects[0]
    );
    for project in projects {
        let key = project.replace('-', "_");
        bundle.push_str(&format!(
            "    {project}:\n      name: {project}\n      source_code_path: ./{project}\n      resources:\n\
             \x20       - name: database\n          postgres:\n\
             \x20           branch: ${{resources.postgres_projects.lakebase_project_{key}.id}}/branches/production\n\
             \x20           database: ${{resources.postgres_projects.lakebase_project_{key}.id}}/branches/production/databases/databricks-postgres\n\
             \x20           permission: CAN_CONNECT_AND_CREATE\n"
        ));
        forge.write(&format!("{project}/app.py"), APP);
        forge.write(&format!("{project}/app.yaml"), "command: [python, app.py]\n");
    }
    forge.write("databricks.yml", &bundle);
    configure(&forge, projects, commands);
    forge.succeed("gen");
    forge.succeed("deploy");
    forge
}

fn configure(forge: &Forge, projects: &[&str], commands: &[&str]) {
    let list: Vec<String> = projects.iter().map(|id| format!("{id}: {{endpoints: []}}")).collect();
    let mut config = format!("projects: {{{}}}\nbranch: {{ttl: 1d}}\napps:\n", list.join(", "));
    for (project, command) in projects.iter().zip(commands) {
        let command = serde_json::to_string(command).unwrap();
        config.push_str(&format!(
            "  {project}: {{migrate: {{directory: {project}, command: {command}}}}}\n"
        ));
    }
    forge.write("lakeforge.yml", &config);
}

#[test]
fn migrate_runs_each_command_on_its_branch_and_grants_the_app_its_tables() {
    let schema = "psql -XqAt -v ON_ERROR_STOP=1 -f schema.sql && \
                  echo \"$PGSSLMODE $PGDATABASE $LAKEBASE_BRANCH $ENDPOINT_NAME\"";
    let forge = deployed(&["move-a"], &[schema]);
    forge.write("move-a/schema.sql", "create table if not exists note (id int primary key);\n");

    assert_snapshot!(forge.run("migrate --dry-run"), @r#"
        --- stdout
        APP     BRANCH             DIRECTORY
        move-a  move-a/production  [DIR]/move-a
        --- exit 0
        "#);
    assert_eq!(forge.sql("production", "select to_regclass('note') is null"), "t");
    assert_snapshot!(forge.run("migrate"), @r#"
        --- stderr
        move-a: migrating `move-a/production`
        move-a: migrated in [LENGTH]
        --- exit 0
        "#);
    let role = "select count(*) from pg_roles r where rolname <> current_user and rolcanlogin and \
                has_table_privilege(r.oid, 'note', 'select, insert, update, delete') and not rolsuper";
    assert_eq!(forge.sql("production", role), "1");
    let log = forge.read(".databricks/lakeforge/local/logs/migrate-move-a.log");
    assert!(log.contains("require databricks_postgres production projects/move-a/branches/production/endpoints/primary"), "{log}");

    forge.succeed("branch create pr-1");
    forge.write("move-a/schema.sql", "alter table note add column if not exists text text;\n");
    let answer = forge.json("migrate --branch pr-1");
    assert_snake_case(&answer);
    assert_eq!(answer["migrations"][0]["branch"], "projects/move-a/branches/pr-1");
    assert_eq!(answer["migrations"][0]["ok"], true);
    let columns = "select count(*) from information_schema.columns where table_name = 'note'";
    assert_eq!(forge.sql("pr-1", columns), "2");
    assert_eq!(forge.sql("production", columns), "1");
}

#[test]
fn a_failed_migration_is_told_and_its_siblings_finish() {
    let projects = ["fail-a", "fail-b"];
    let good = "psql -XqAtc 'create table if not exists done (id int)'";
    let forge = deployed(&projects, &["echo first; echo last >&2; exit 3", good]);

    let shown = forge.run("migrate");
    assert!(
        shown.contains("fail-a: failed: the migration command ended with exit status: 3"),
        "{shown}"
    );
    assert!(shown.contains("    first\n    last\n"), "{shown}");
    assert!(shown.contains("fail-b: migrated in [LENGTH]"), "{shown}");
    assert!(shown.ends_with("--- exit 11"), "{shown}");
    assert_eq!(forge.sql("fail-b/production", "select to_regclass('done') is null"), "f");

    assert_snapshot!(forge.run("migrate --only fail-aa"), @r#"
        --- stderr
        error: there is no app `fail-aa` in the bundle
          why: the bundle has fail-a, fail-b
          try: --only fail-a
        --- exit 6
        "#);
    // Nothing ran on a branch that is not there, so nothing of an earlier run may be shown for it.
    assert_snapshot!(forge.run("migrate --only fail-a --branch pr-9"), @r#"
        --- stderr
        fail-a: migrating `fail-a/pr-9`
        fail-a: failed: could not get credentials for `fail-a/pr-9`: there is no branch `fail-a/pr-9`
        error: 1 of 1 migrations failed: fail-a
          try: mend them, then lakeforge migrate --only fail-a
        --- exit 11
        "#);

    configure(&forge, &projects, &[good, good]);
    assert_snapshot!(forge.run("migrate --only fail-a"), @r#"
        --- stderr
        fail-a: migrating `fail-a/production`
        fail-a: migrated in [LENGTH]
        --- exit 0
        "#);
    assert_eq!(forge.sql("fail-a/production", "select to_regclass('done') is null"), "f");
}

#[test]
fn migrate_never_shows_the_password_that_a_command_prints() {
    let forge = deployed(&["leak-a"], &["env | grep PGPASSWORD; exit 1"]);

    let shown = forge.run("migrate");

    assert!(shown.ends_with("--- exit 11"), "{shown}");
    assert!(!shown.contains("eyJ"), "{shown}");
    assert!(!forge.read(".databricks/lakeforge/local/logs/migrate-leak-a.log").contains("eyJ"));
}

/// What a line says of the name before the colon: `token: VALUE`.
fn said<'a>(log: &'a str, name: &str) -> &'a str {
    let line = log.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no `{name}` in {log}"))
}

#[test]
fn a_migration_gets_the_login_it_needs_and_its_log_holds_no_secret() {
    let script = r#"
        echo "token: ${DATABRICKS_TOKEN-none}"
        echo "secret: ${DATABRICKS_CLIENT_SECRET-none}"
        echo "variable: ${BUNDLE_VAR_api_token-none}"
        echo "profile: $DATABRICKS_CONFIG_PROFILE of $DATABRICKS_CONFIG_FILE"
        echo "host: ${DATABRICKS_HOST-none}"
        echo "pip: $PIP_INDEX_URL"
        echo "region: $BUNDLE_VAR_region"
        echo "password: $PGPASSWORD"
        echo "base64: $(printf %s "$PGPASSWORD" | base64)"
        echo "inside: $(printf 'user:%s!' "$PGPASSWORD" | base64 -w0)"
        printf %s "$PGPASSWORD" | fold -w 40; echo
        printf %s "$PGPASSWORD" | fold -w 1; echo
        printf 'pip-pa'; sleep 0.1; echo 'ssword'
        echo 'the end'; exit 1"#;
    let forge = deployed(&["leak-b"], &[script]);

    let output = forge
        .command("migrate -p local")
        .env("DATABRICKS_TOKEN", "dapi-canary-0123")
        .env("DATABRICKS_CLIENT_SECRET", "dose-canary-0123")
        .env("DATABRICKS_HOST", "https://other.test")
        .env("BUNDLE_VAR_api_token", "bundle-canary-0123")
        .env("BUNDLE_VAR_region", "eu-west-1")
        .env("PIP_INDEX_URL", "https://me:pip-password@pypi.test/simple")
        .output()
        .unwrap();

    let shown = forge.shown(&output);
    assert!(shown.ends_with("--- exit 11"), "{shown}");
    let file = forge.path().join(".databricks/lakeforge/local/logs/migrate-leak-b.log");
    let log = std::fs::read_to_string(&file).unwrap();
    for text in [&shown, &log] {
        assert!(!text.contains("eyJ") && !text.contains("ZXlK"), "{text}");
        assert!(!text.contains("canary") && !text.contains("pip-password"), "{text}");
        assert!(text.contains("the end"), "{text}");
    }
    for name in ["token", "secret", "variable", "host"] {
        assert_eq!(said(&log, name), "none");
    }
    let profiles = forge.data().join("databrickscfg");
    assert_eq!(said(&log, "profile"), format!("local of {}", profiles.display()));
    assert_eq!(said(&log, "pip"), "https://me:***@pypi.test/simple");
    assert_eq!(said(&log, "region"), "eu-west-1");
    assert_eq!(said(&log, "password"), "***");
    // What is left holds bits of the secret's first and last byte and of what stands around it.
    for name in ["base64", "inside"] {
        assert!(said(&log, name).contains("***") && said(&log, name).len() < 20, "{log}");
    }
    // Folded, a secret is one all the same; the last is one that came in two pieces.
    assert!(log.ends_with("***\n***\n***\nthe end\n"), "{log}");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
}

/// Returns who may do what with `path`.
fn mode(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_target_cannot_lead_the_logs_out_of_the_bundle() {
    let forge = deployed(&["move-t"], &["true"]);
    let victim = forge.path().with_extension("victim");
    let target = format!("../../../{}", victim.file_name().unwrap().display());
    let text = forge.read("databricks.yml");
    forge.write("databricks.yml", &text.replace("{local: {", &format!("{{{target}: {{")));

    for command in ["migrate", "migrate --dry-run", "deploy", "deploy --dry-run"] {
        let shown = forge.run(command);
        assert!(shown.contains("a target cannot be called `../../../"), "{shown}");
        assert!(shown.ends_with("--- exit 2"), "{shown}");
    }
    assert!(!victim.exists());
}

#[test]
fn what_a_migration_says_cannot_steer_the_terminal_or_ci() {
    let script = r"printf 'wipe \033[2J \033]0;title\007\n::stop-commands::x\n  ::error::no\n##[group]x\n'; exit 1";
    let forge = deployed(&["steer-a"], &[script]);

    let output = forge.output("migrate");
    let stderr = String::from_utf8(output.stderr).unwrap();

    assert!(!stderr.contains(|c: char| c.is_control() && c != '\n'), "{stderr:?}");
    assert!(!stderr.lines().any(|line| line.trim_start().starts_with("::")), "{stderr}");
    assert!(
        stderr.contains("wipe \\u{1b}[2J") && stderr.contains("\\::stop-commands::x"),
        "{stderr}"
    );
    assert!(stderr.contains("#\\#[group]x"), "{stderr}");
    let log = forge.read(".databricks/lakeforge/local/logs/migrate-steer-a.log");
    assert!(log.contains("::stop-commands::x"), "the log is what was said: {log}");
}

/// A command that writes its shell's process id, and goes on for ever in a shell below.
const ENDLESS: &str = "sh -c 'echo $$ > inner; while :; do echo x >> lines; sleep 0.05; done' & echo $$ > outer; wait";

/// Waits until the command of the service in `folder` runs, and returns its processes.
fn wait_until_it_runs(forge: &Forge, folder: &str) -> Vec<Pid> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(forge.path().join(folder).join(name)).ok()?;
        text.strip_suffix('\n')?.parse().ok().map(own::pid)
    };
    let there = || read("inner").is_some() && read("outer").is_some();
    assert!(own::within(Duration::from_secs(60), there));
    ["inner", "outer"].iter().filter_map(|name| read(name)).collect()
}

#[test]
fn an_interrupted_migration_ends_with_all_it_started_and_says_how_far_it_came() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let names = [format!("cut-a-{code}"), format!("cut-b-{code}")];
        let [cut, done] = &names;
        let good = "psql -XqAtc 'create table if not exists done (id int)'";
        let forge = deployed(&[cut, done], &[ENDLESS, good]);
        let mut migrate = Job::start(&forge, "migrate");
        migrate.wait_until_it_says(&format!("{done}: migrated"));
        let processes = wait_until_it_runs(&forge, cut);

        migrate.signal(signal);
        let shown = migrate.end();

        assert!(shown.ends_with(&format!("--- exit {code}")), "{shown}");
        assert!(own::gone(&processes), "{processes:?}");
        for part in [
            format!("why: migrated: {done}\n"),
            format!("why: stopped half-way, what it had committed stays: {cut}\n"),
            format!("try: lakeforge migrate --only {cut}\n"),
        ] {
            assert!(shown.contains(&part), "`{part}` is not in {shown}");
        }
    }
}

#[test]
fn a_second_signal_kills_what_ignores_the_first() {
    let forge = deployed(&["cut-deaf"], &[&format!("trap '' TERM; {ENDLESS}")]);
    let mut migrate = Job::start(&forge, "migrate");
    let processes = wait_until_it_runs(&forge, "cut-deaf");

    migrate.signal(Signal::TERM);
    migrate.wait_until_it_says("again to leave at once");
    // What comes within half a second is the same wish.
    std::thread::sleep(Duration::from_millis(600));
    migrate.signal(Signal::TERM);
    let shown = migrate.end();

    assert!(shown.contains("why: what still ran is killed"), "{shown}");
    assert!(shown.ends_with("--- exit 143"), "{shown}");
    assert!(own::gone(&processes), "{processes:?}");
}
