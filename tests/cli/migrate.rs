//! `lakeforge migrate` from the outside: each service's own command, with fresh credentials.

use insta::assert_snapshot;

use crate::forge::{Forge, assert_snake_case};

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
