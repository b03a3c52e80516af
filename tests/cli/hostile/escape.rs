//! SQL stays inside its cluster: no role reaches files or programs of the machine, superuser rights, or
//! another cluster's socket, on any major of PostgreSQL that is at hand.
//!
//! An attempt proves something only if it is a right that is missing: a superuser makes each of them too, and
//! is never refused for that reason.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::forge::Forge;
use crate::http::{Admin, send};
use crate::own::{self, Own, within};

const API: &str = "/api/2.0/postgres";
const VAULT: &str = "projects/vault/branches/production";
const CONTROL: &str = "projects/control/branches/production";
const DEVELOPER: &str = "developer@lakeforge.test";
const SUPERUSER: &str = "lakeforge";
const DATABASE: &str = "databricks_postgres";
/// A right is missing; a password would have to be asked for.
const REFUSALS: [&str; 2] = ["42501", "2F003"];

/// What is there before the attempts: something to load and to call, and every role that can be had.
const PRELUDE: &str = "
CREATE TEMP TABLE loot (line text);
CREATE FUNCTION pg_temp.own() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION pg_temp.trap() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
DO $$
DECLARE role name;
BEGIN
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname NOT IN (current_user, 'lakeforge') LOOP
        BEGIN
            EXECUTE format('GRANT %I TO CURRENT_USER', role);
        EXCEPTION WHEN OTHERS THEN
        END;
    END LOOP;
END $$;
";

/// One attempt a line; `!` before it says that it cannot be part of a transaction.
const ATTEMPTS: &str = "
COPY loot FROM '/etc/passwd'
COPY (SELECT 1) TO '/dev/null'
COPY loot FROM PROGRAM 'id'
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_file('postgresql.conf', 0, 10)
SELECT pg_read_binary_file('/etc/passwd')
SELECT * FROM pg_stat_file('/etc/passwd')
SELECT pg_ls_dir('/')
SELECT pg_ls_dir('.')
SELECT lo_import('/etc/passwd')
SELECT lo_import('/etc/passwd', 77)
SELECT lo_export(lo_from_bytea(0, 'x'), '/dev/null')
SELECT pg_reload_conf()
SELECT pg_rotate_logfile()
SELECT pg_hba_file_rules()
SELECT * FROM pg_hba_file_rules
SELECT * FROM pg_file_settings
SELECT pg_switch_wal()
SELECT pg_create_restore_point('here')
SELECT pg_create_physical_replication_slot('mine')
SELECT pg_promote()
!ALTER SYSTEM SET work_mem = '8MB'
!ALTER SYSTEM RESET ALL
!CREATE TABLESPACE elsewhere LOCATION '/nowhere'
!CREATE DATABASE theirs OWNER lakeforge
!CREATE SUBSCRIPTION follow CONNECTION 'host={folder} port={port} user=lakeforge dbname=postgres' PUBLICATION all_of_it WITH (connect = false)
LOAD 'plpgsql'
SET session_preload_libraries = 'plpgsql'
SET dynamic_library_path = '/tmp'
SET allow_system_table_mods = on
SET zero_damaged_pages = on
GRANT SET ON PARAMETER session_preload_libraries TO CURRENT_USER
GRANT ALTER SYSTEM ON PARAMETER work_mem TO CURRENT_USER
ALTER ROLE CURRENT_USER SET session_preload_libraries = 'plpgsql'
ALTER ROLE ALL SET work_mem = '8MB'
ALTER DATABASE databricks_postgres SET dynamic_library_path = '/tmp'
ALTER DATABASE postgres SET search_path = public
ALTER DATABASE template1 OWNER TO CURRENT_USER
CREATE FUNCTION pg_temp.c() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'
CREATE FUNCTION pg_temp.i(bytea) RETURNS bytea LANGUAGE internal AS 'sha256_bytea'
CREATE LANGUAGE mine HANDLER plpgsql_call_handler
UPDATE pg_language SET lanpltrusted = true
UPDATE pg_authid SET rolsuper = true
DELETE FROM pg_auth_members
UPDATE pg_proc SET proacl = NULL
CREATE FOREIGN DATA WRAPPER mine
CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION pg_temp.trap()
CREATE ACCESS METHOD mine TYPE INDEX HANDLER bthandler
CREATE TEXT SEARCH TEMPLATE mine (LEXIZE = dsimple_lexize)
CREATE CAST (text AS box) WITHOUT FUNCTION
ALTER FUNCTION pg_temp.own() LEAKPROOF
ALTER FUNCTION pg_temp.own() OWNER TO lakeforge
ALTER FUNCTION pg_temp.own() OWNER TO pg_execute_server_program
REASSIGN OWNED BY CURRENT_USER TO pg_execute_server_program
ALTER DEFAULT PRIVILEGES FOR ROLE lakeforge GRANT ALL ON TABLES TO CURRENT_USER
CREATE OR REPLACE FUNCTION public.databricks_create_role(identity_name text, identity_type text) RETURNS void LANGUAGE sql AS ''
ALTER EXTENSION databricks_auth ADD FUNCTION pg_temp.own()
DROP EXTENSION databricks_auth
SET SESSION AUTHORIZATION lakeforge
SET SESSION AUTHORIZATION pg_execute_server_program
SET ROLE lakeforge
SET ROLE pg_execute_server_program
SET ROLE pg_read_server_files
SET ROLE pg_write_server_files
GRANT lakeforge TO CURRENT_USER
GRANT pg_execute_server_program TO CURRENT_USER
GRANT pg_read_server_files TO CURRENT_USER
GRANT pg_write_server_files TO CURRENT_USER
GRANT pg_execute_server_program TO CURRENT_USER WITH ADMIN OPTION
GRANT pg_execute_server_program TO databricks_superuser
CREATE ROLE other IN ROLE pg_execute_server_program
CREATE ROLE other IN ROLE pg_read_server_files
CREATE ROLE other IN GROUP pg_write_server_files
CREATE ROLE other IN ROLE lakeforge
CREATE ROLE other SUPERUSER
CREATE ROLE other REPLICATION
ALTER ROLE CURRENT_USER SUPERUSER
ALTER ROLE CURRENT_USER REPLICATION
ALTER ROLE databricks_superuser SUPERUSER
ALTER ROLE lakeforge PASSWORD 'known'
ALTER ROLE lakeforge SET search_path = public
ALTER ROLE lakeforge NOSUPERUSER
ALTER ROLE lakeforge RENAME TO weaker
COMMENT ON ROLE lakeforge IS 'databricks identity: user'
DROP ROLE lakeforge
";

/// The same for roles that came with PostgreSQL 16.
const SINCE_16: &str = "
GRANT pg_create_subscription TO CURRENT_USER
GRANT pg_use_reserved_connections TO CURRENT_USER
CREATE ROLE other IN ROLE pg_create_subscription
";

/// The same for a setting that came with PostgreSQL 18.
const SINCE_18: &str = "
SET extension_control_path = '/tmp'
";

/// What would wait for the workspace's own sessions in the databases they use, and for databases to come.
const TRAPS: &str = "
CREATE TABLE public.trap ()
CREATE SCHEMA trap
CREATE FUNCTION public.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'
CREATE EXTENSION hstore
ALTER SCHEMA public OWNER TO CURRENT_USER
";

/// What a superuser let in reaches no other cluster either.
const THROUGH_EXTENSIONS: &str = "
SELECT * FROM public.dblink('host={folder} port={port} user=lakeforge dbname=postgres', 'SELECT 1') AS t(n int)
SELECT * FROM public.dblink('host={folder} port={port} user=lakeforge dbname=postgres password=x', 'SELECT 1') AS t(n int)
SELECT public.dblink_connect('host={folder} port={port} user={owner} password=x dbname=databricks_postgres')
SELECT public.dblink_connect_u('host={folder} port={port} user=lakeforge dbname=postgres')
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{folder}', port '{port}', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'lakeforge', password 'x'); CREATE FOREIGN TABLE far (rolname name) SERVER s OPTIONS (schema_name 'pg_catalog', table_name 'pg_roles'); SELECT * FROM far
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{folder}', port '{port}', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'lakeforge', password_required 'false')
CREATE SERVER s FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE far (line text) SERVER s OPTIONS (filename '/etc/passwd')
CREATE SERVER s FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE far (line text) SERVER s OPTIONS (program 'id')
";

/// What a superuser sets up for them; the wrappers are there for everybody.
const EXTENSIONS: &str = "
CREATE EXTENSION dblink SCHEMA public;
CREATE EXTENSION postgres_fdw SCHEMA public;
CREATE EXTENSION file_fdw SCHEMA public;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw, file_fdw TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
";

const AVAILABLE: &str = "SELECT count(*) FROM pg_available_extensions \
    WHERE name IN ('dblink', 'postgres_fdw', 'file_fdw');";
/// Attempts to have what only superusers may have.
const UNTRUSTED: &str = "SELECT DISTINCT 'CREATE EXTENSION \"' || name || '\" CASCADE' FROM pg_available_extension_versions \
    WHERE superuser AND NOT trusted AND NOT installed ORDER BY 1;";

/// What owners of databases may have has no way out, and parsers follow no links.
const EXTENDING: &str = "
CREATE EXTENSION plperl; DO LANGUAGE plperl 'open(my $f, \"<\", \"/etc/passwd\") or die'
CREATE EXTENSION plperl; DO LANGUAGE plperl 'system(\"true\")'
CREATE EXTENSION pltcl; DO LANGUAGE pltcl 'open /etc/passwd'
CREATE EXTENSION pltcl; DO LANGUAGE pltcl 'exec true'
CREATE EXTENSION xml2; SELECT xslt_process('<a/>', 'file:///etc/passwd')
CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = synonym, SYNONYMS = '../../../../../etc/passwd')
";

/// The roles above and what else would do.
const REACH: &str = "SELECT string_agg(rolname, ' ') FROM pg_roles \
    WHERE rolname <> current_user AND pg_has_role(current_user, oid, 'MEMBER') AND (rolsuper \
    OR rolreplication OR rolname LIKE '%server%' OR rolname = 'pg_create_subscription')";

#[test]
fn sql_stays_inside_its_cluster_on_every_major_at_hand() {
    for programs in installations() {
        let forge = Own::offline();
        let major = start(&forge, programs.as_deref());
        let admin = Admin::of(&forge);
        for project in ["vault", "control"] {
            let spec = json!({ "spec": { "enable_pg_native_login": true } });
            change(&admin, "POST", &format!("projects?project_id={project}"), &spec);
        }
        let control = superuser(&admin, CONTROL);
        let filled = |text: &str| {
            let text = text.replace("{folder}", &control.host).replace("{port}", &control.port);
            text.replace("{owner}", &admin.client_id)
        };
        let attempts = filled(&match major {
            ..16 => ATTEMPTS.to_owned(),
            16 | 17 => format!("{ATTEMPTS}{SINCE_16}"),
            18.. => format!("{ATTEMPTS}{SINCE_16}{SINCE_18}"),
        });
        let roles = roles(&forge, &admin);
        let mut done = try_each(&roles, &lines(&attempts));
        done.extend(roles.iter().flat_map(try_to_extend));
        for database in ["postgres", "template1"] {
            let there: Vec<Login> = roles.iter().map(|role| role.in_database(database)).collect();
            done.extend(try_each(&there, &lines(TRAPS)));
        }
        // They come with every major, but not with every package of one.
        let vault = superuser(&admin, VAULT);
        let through = filled(THROUGH_EXTENSIONS);
        let through =
            if vault.psql(AVAILABLE).trim() == "3" { lines(&through) } else { Vec::new() };
        if !through.is_empty() {
            vault.psql(EXTENSIONS);
            control.psql(EXTENSIONS);
        }
        done.extend(try_each(&roles, &through));
        let all = [through, lines(TRAPS), lines(&attempts)].concat();
        done.extend(not_for_want_of_a_right(&control, &all));
        assert!(done.is_empty(), "PostgreSQL {major}:\n{}", done.join("\n"));
    }
}

#[test]
fn other_users_of_the_machine_do_not_reach_a_socket() {
    let forge = Own::start();
    let admin = Admin::of(&forge);
    change(&admin, "POST", "projects?project_id=vault", &json!({}));
    let vault = superuser(&admin, VAULT);
    let folder = PathBuf::from(&vault.host);

    let open_to_others = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o077;
    assert_eq!(open_to_others(&folder), 0);
    assert_eq!(open_to_others(&folder.join(format!(".s.PGSQL.{}", vault.port))), 0);
    assert_eq!(vault.psql("SELECT current_user;").trim(), SUPERUSER, "its own user does");
    if rustix::process::geteuid().is_root() {
        let said = vault.command().arg("-c").arg("SELECT 1").uid(54_321).gid(54_321).output();
        let said = String::from_utf8(said.unwrap().stderr).unwrap();
        assert!(said.contains("Permission denied"), "{said}");
    }
}

/// Returns what each role may do of the attempts, and which roles it reached that it must not.
fn try_each(roles: &[Login], attempts: &[&str]) -> Vec<String> {
    let mut done = Vec::new();
    for role in roles {
        for (attempt, outcome) in attempts.iter().zip(role.outcomes(attempts)) {
            if !REFUSALS.contains(&outcome.as_str()) {
                done.push(format!("`{}` may `{attempt}`: {outcome}", role.user));
            }
        }
        let reached = role.psql(&format!("{PRELUDE}{REACH};"));
        if !reached.trim().is_empty() {
            done.push(format!("`{}` is a member of {}", role.user, reached.trim()));
        }
    }
    done
}

/// Returns what a role may do with extensions and parsers that it is not to have, or that have no way out.
fn try_to_extend(role: &Login) -> Vec<String> {
    let untrusted = role.psql(UNTRUSTED);
    let attempts = [lines(&untrusted), lines(EXTENDING)].concat();
    let outcomes = role.outcomes(&attempts);
    let done = attempts.iter().zip(&outcomes).filter(|(_, outcome)| *outcome == "00000");
    done.map(|(attempt, _)| format!("`{}` may `{attempt}`", role.user)).collect()
}

/// Returns the attempts that a superuser is refused as well: they say nothing.
fn not_for_want_of_a_right(superuser: &Login, attempts: &[&str]) -> Vec<String> {
    let outcomes = superuser.outcomes(attempts);
    let wrong = attempts.iter().zip(&outcomes).filter(|(_, outcome)| {
        let (refused, nonsense) =
            (REFUSALS.contains(&outcome.as_str()), outcome.starts_with("4260"));
        refused || nonsense || outcome.is_empty()
    });
    wrong.map(|(attempt, outcome)| format!("a superuser may not `{attempt}`: {outcome}")).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

/// Makes roles of every kind that the API and SQL can make, and returns their logins.
fn roles(forge: &Forge, admin: &Admin) -> Vec<Login> {
    let everything = json!({ "createdb": true, "createrole": true, "bypassrls": true });
    let administrator = json!(["DATABRICKS_SUPERUSER"]);
    let (address, port) = address(admin, VAULT);
    let login = |user: &str, password: &str| Login {
        host: address.clone(),
        port: port.clone(),
        user: user.to_owned(),
        password: password.to_owned(),
        database: DATABASE,
    };
    let wanted = [
        (DEVELOPER, json!({ "identity_type": "USER", "membership_roles": administrator })),
        ("admins", json!({ "identity_type": "GROUP", "attributes": everything })),
        ("plain", json!({})),
        ("maker", json!({ "attributes": { "createrole": true } })),
        ("keeper", json!({ "membership_roles": administrator, "attributes": everything })),
    ];
    let mut roles = vec![login(&admin.client_id, &credential_for(admin, VAULT, admin.token()))];
    let developers = credential_for(admin, VAULT, &developers_token(forge));
    for (number, (name, mut spec)) in wanted.into_iter().enumerate() {
        let identity = spec.get("identity_type").is_some();
        spec["postgres_role"] = json!(name);
        let path = format!("{VAULT}/roles?role_id=role-{number}");
        change(admin, "POST", &path, &json!({ "spec": spec }));
        let path = format!("{API}/{VAULT}/roles/role-{number}/password");
        roles.push(match identity {
            true => login(name, &developers),
            false => {
                let drawn = admin.send("POST", &path, "{}").expect(200);
                login(name, drawn["password"].as_str().unwrap())
            }
        });
    }
    for (of, name) in [(0, "by_owner"), (4, "by_maker")] {
        let make = format!("CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'made by SQL';");
        roles[of].psql(&make);
        roles.push(login(name, "made by SQL"));
    }
    roles
}

/// Who logs in where.
#[derive(Clone)]
struct Login {
    host: String,
    port: String,
    user: String,
    password: String,
    database: &'static str,
}

impl Login {
    /// Returns the same login to another database.
    fn in_database(&self, database: &'static str) -> Self {
        Login { database, ..self.clone() }
    }

    /// Prepares a run of `psql`.
    fn command(&self) -> Command {
        let mut command = Command::new("psql");
        command
            .arg("-XAtq")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs([("PGHOST", &self.host), ("PGPORT", &self.port), ("PGUSER", &self.user)])
            .envs([("PGPASSWORD", &*self.password), ("PGDATABASE", self.database)]);
        command
    }

    /// Runs a script and returns what it prints; statements that fail do not end it.
    fn psql(&self, script: &str) -> String {
        let mut child = self
            .command()
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} could not log in: {said}", self.user);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the SQLSTATE that each attempt ends with: that of its first statement that fails.
    fn outcomes(&self, attempts: &[&str]) -> Vec<String> {
        let mut script = PRELUDE.to_owned();
        for (number, attempt) in attempts.iter().enumerate() {
            let (begin, rollback, attempt) = match attempt.strip_prefix('!') {
                Some(attempt) => ("", "", attempt),
                None => ("BEGIN;\n", "ROLLBACK;\n", *attempt),
            };
            script += begin;
            for statement in attempt.split("; ") {
                script += &format!("{statement};\n\\echo @@ {number} :SQLSTATE\n");
            }
            script += rollback;
        }
        let printed = self.psql(&script);
        let read = printed.contains("root:x:0") && self.user != SUPERUSER;
        assert!(!read, "{} reads files:\n{printed}", self.user);
        let mut outcomes = vec![String::new(); attempts.len()];
        for line in printed.lines().filter_map(|line| line.strip_prefix("@@ ")) {
            let (number, state) = line.split_once(' ').unwrap();
            let outcome = &mut outcomes[number.parse::<usize>().unwrap()];
            if outcome.is_empty() || outcome == "00000" {
                *outcome = state.to_owned();
            }
        }
        outcomes
    }
}

/// Returns the login of the superuser at the socket of a branch's compute, which its owner can ask for.
fn superuser(admin: &Admin, branch: &str) -> Login {
    let (host, port) = address(admin, branch);
    let password = credential_for(admin, branch, admin.token());
    let owner = Login { host, port, user: admin.client_id.clone(), password, database: DATABASE };
    let place = owner.psql("SHOW unix_socket_directories; SHOW port;");
    let (host, port) = place.trim().split_once('\n').unwrap();
    Login {
        host: host.to_owned(),
        port: port.to_owned(),
        user: SUPERUSER.to_owned(),
        password: String::new(),
        database: DATABASE,
    }
}

/// Returns where the endpoint of a branch listens.
fn address(admin: &Admin, branch: &str) -> (String, String) {
    let endpoint = admin.get(&format!("{API}/{branch}/endpoints/primary")).expect(200);
    let hosts = &endpoint["status"]["hosts"];
    let port = hosts["port"].as_u64().unwrap_or(5432);
    (hosts["host"].as_str().unwrap().to_owned(), port.to_string())
}

/// Mints a password for the endpoint of a branch.
fn credential_for(admin: &Admin, branch: &str, token: &str) -> String {
    let body = json!({ "endpoint": format!("{branch}/endpoints/primary") }).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let answer = send("POST", &format!("{}{API}/credentials", admin.host), &headers, &body);
    answer.expect(200)["token"].as_str().unwrap().to_owned()
}

/// Makes a change and waits for its operation.
fn change(admin: &Admin, method: &str, path: &str, body: &Value) {
    let mut operation = admin.send(method, &format!("{API}/{path}"), &body.to_string()).expect(200);
    let name = operation["name"].as_str().unwrap().to_owned();
    let done = within(Duration::from_secs(60), || {
        operation = admin.get(&format!("{API}/{name}")).expect(200);
        operation["done"] == true
    });
    assert!(done && operation.get("error").is_none(), "{path}: {operation}");
}

/// Starts the workspace with the PostgreSQL in `programs`, else with the system's; returns its major version.
fn start(forge: &Forge, programs: Option<&Path>) -> u32 {
    let mut command = forge.command("local start --port 0");
    if let Some(programs) = programs {
        // Postgres may run as a user who cannot enter the target folder.
        let copied = Command::new("cp")
            .arg("-R")
            .arg(programs.parent().unwrap())
            .arg(forge.path().join("postgres"))
            .status();
        assert!(copied.unwrap().success(), "{} could not be copied", programs.display());
        command.args(["--postgres-bin", "postgres/bin"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let version = own::status(forge)["postgres_version"].as_str().unwrap().to_owned();
    version.split('.').next().unwrap().parse().unwrap()
}

/// Returns the folders of PostgreSQL's programs to try: nothing stands for the system's own, the others are
/// those that `LAKEFORGE_TEST_POSTGRES` names, with colons between them.
fn installations() -> Vec<Option<PathBuf>> {
    let others = std::env::var_os("LAKEFORGE_TEST_POSTGRES").unwrap_or_default();
    let others = std::env::split_paths(&others).filter(|path| !path.as_os_str().is_empty());
    std::iter::once(None).chain(others.map(Some)).collect()
}

/// Returns the token of the user that the profile `local-user` is.
fn developers_token(forge: &Forge) -> String {
    let profiles = std::fs::read_to_string(forge.data().join("databrickscfg")).unwrap();
    let (_, user) = profiles.split_once("[local-user]").unwrap();
    let token = user.lines().find_map(|line| line.strip_prefix("token = ")).unwrap();
    token.trim().to_owned()
}
