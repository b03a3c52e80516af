//! `migrate`: each service's own migration command against its branch, then grants for its app.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::creds::{self, Connection};
use super::{parallel, sql};
use crate::api::Client;
use crate::bundle::{App, Bundle, Config, Migrate};
use crate::error::{Doing, Error, Kind, Result};
use crate::secret::Secret;
use crate::time::human;
use crate::ui::Steps;
use crate::wire::names::{BranchName, ProjectName};

/// How many lines of a failed command are shown.
const TAIL: usize = 20;
/// How long after its command has ended a log may still grow: what the command left running in the
/// background keeps it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One migration to run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Migration {
    /// Key of the app in the bundle.
    pub(crate) app: String,
    /// Branch whose database is changed.
    pub(crate) branch: BranchName,
    /// Folder the command runs in.
    pub(crate) directory: PathBuf,
    /// Shell command.
    pub(crate) command: String,
    /// Name in the workspace of the app that uses this very branch, and so gets grants.
    #[serde(skip)]
    user: Option<String>,
}

/// How it went with one migration.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Key of the app in the bundle.
    pub(crate) app: String,
    /// Branch whose database was changed.
    pub(crate) branch: BranchName,
    /// Whether command and grants worked.
    pub(crate) ok: bool,
    /// Time the command took.
    pub(crate) elapsed_ms: u64,
    /// What the command said.
    pub(crate) log: PathBuf,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Works out which migrations to run: of `only`, or of every app that has one; on `branch` instead
/// of the branch the app uses, when given.
///
/// Fails with `NotFound` for an app that is not in the bundle, and with `Usage` for one without a
/// migration command, folder or database, and for a name in lakeforge.yml that is no app.
pub(crate) fn plan(
    bundle: &Bundle,
    config: &Config,
    only: &[String],
    branch: Option<&str>,
) -> Result<Vec<Migration>> {
    config.check_apps(bundle)?;
    let command = |app: &App| config.app(bundle, app)?.migrate.as_ref();
    let mut chosen = bundle.select(only, "--only")?;
    if only.is_empty() {
        chosen.retain(|app| command(app).is_some());
    }
    chosen.into_iter().map(|app| migration(command(app), app, branch)).collect()
}

fn migration(migrate: Option<&Migrate>, app: &App, branch: Option<&str>) -> Result<Migration> {
    let refuse = |why: &str| {
        Error::new(Kind::Usage, format!("{}: `{}` cannot be migrated", app.place, app.key)).why(why)
    };
    let migrate = migrate.ok_or_else(|| refuse("lakeforge.yml has no `migrate` for it"))?;
    let own = app.databases.first().map(|attachment| attachment.branch.parse::<BranchName>());
    let own = own.transpose().map_err(|why| refuse(&why))?;
    let target = match (&migrate.project, own.clone()) {
        (Some(project), Some(own)) => ProjectName::new(project).branch(own.branch),
        (None, Some(own)) => own,
        (_, None) => return Err(refuse("it has no `postgres` resource in the bundle")),
    };
    let target = match branch {
        Some(id) => target.parent().branch(id),
        None => target,
    };
    if !migrate.directory.is_dir() {
        return Err(refuse(&format!("the folder `{}` is not there", migrate.directory.display())));
    }
    let user = (own.as_ref() == Some(&target)).then(|| app.name.clone());
    Ok(Migration {
        app: app.key.clone(),
        branch: target,
        directory: migrate.directory.clone(),
        command: migrate.command.clone(),
        user,
    })
}

/// Runs `migrations` at the same time; one that fails does not stop the others.
///
/// Each gets a compute that answers and a password minted just before. What it says goes to a file
/// in `logs`. Waits up to `limit` for a sleeping compute.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    migrations: &[Migration],
    logs: &Path,
    limit: Duration,
) -> Result<Vec<Outcome>> {
    std::fs::create_dir_all(logs)
        .map_err(Error::from)
        .doing(|| format!("could not create `{}`", logs.display()))?;
    let work = |migration: &'_ Migration| one(api, steps, migration.clone(), logs, limit);
    Ok(parallel::each(migrations, work).await)
}

async fn one(
    api: &Client,
    steps: &Steps,
    migration: Migration,
    logs: &Path,
    limit: Duration,
) -> Outcome {
    let start = Instant::now();
    let log = logs.join(format!("migrate-{}.log", migration.app));
    let step = steps.lane(&migration.app, format!("migrating `{}`", migration.branch.short()));
    let done = migrate(api, &migration, &log, limit).await;
    let elapsed = start.elapsed();
    match &done {
        Ok(()) => step.finish(format!("migrated in {}", human(elapsed))),
        Err(error) => {
            let mut text = format!("failed: {error}");
            last_lines(&log).iter().for_each(|line| text.push_str(&format!("\n    {line}")));
            step.finish(text);
        }
    }
    Outcome {
        app: migration.app,
        branch: migration.branch,
        ok: done.is_ok(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        log,
        error: done.err().map(|error| error.to_string()),
    }
}

async fn migrate(api: &Client, migration: &Migration, log: &Path, limit: Duration) -> Result<()> {
    // Made before anything can fail: what an earlier run said is not what this one says.
    let file = File::create(log)
        .map_err(Error::from)
        .doing(|| format!("could not write `{}`", log.display()))?;
    let connection = creds::ready(api, &migration.branch, limit).await?;
    run(migration, &connection, file).await?;
    match &migration.user {
        Some(app) => grant(api, app, &connection).await,
        None => Ok(()),
    }
}

async fn run(migration: &Migration, connection: &Connection, log: File) -> Result<()> {
    let doing = || format!("could not run `{}`", migration.command.trim());
    let (said, out) = io::pipe()?;
    let mut command = tokio::process::Command::new("sh");
    command
        .arg("-c")
        .arg(&migration.command)
        .current_dir(&migration.directory)
        .env("ENDPOINT_NAME", connection.endpoint.to_string())
        .env("LAKEBASE_BRANCH", &migration.branch.branch)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .kill_on_drop(true);
    for (name, value) in connection.variables() {
        command.env(name, value.expose());
    }
    let secret = connection.token.clone();
    let writer = tokio::task::spawn_blocking(move || keep(said, log, &secret));
    let status = command.status().await.map_err(Error::from).doing(doing)?;
    // It holds the other end of the pipe.
    drop(command);
    if let Ok(written) = tokio::time::timeout(LAST_WORDS, writer).await {
        written.map_err(io::Error::from)?.doing(|| "could not write the log".to_owned())?;
    }
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Failed, format!("the migration command ended with {status}")))
}

/// Writes what a command says to its log, line by line, without the password.
fn keep(said: PipeReader, mut log: File, secret: &Secret<String>) -> io::Result<()> {
    let (mut said, mut line) = (BufReader::new(said), Vec::new());
    while said.read_until(b'\n', &mut line)? > 0 {
        let shown = String::from_utf8_lossy(&line).replace(secret.expose(), "***");
        log.write_all(shown.as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// Lets the app's own identity use what the migration made; does nothing for an app that is not
/// there or has no login on this branch yet.
async fn grant(api: &Client, app: &str, connection: &Connection) -> Result<()> {
    let doing = || format!("could not grant `{app}` the use of its tables");
    let found = match api.get_app(app).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error).doing(doing),
    };
    let Some(role) = found.service_principal_client_id else { return Ok(()) };
    sql::run(connection, &grants(&role)).await.doing(doing)
}

/// Returns the statement that gives `role` schemas, tables and sequences of the caller, present and
/// future; it does nothing when the role does not exist.
fn grants(role: &str) -> String {
    let role = role.replace('\'', "''");
    format!(
        "DO $grants$
         DECLARE
           app text := '{role}';
           thing record;
         BEGIN
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = app) THEN RETURN; END IF;
           FOR thing IN
             SELECT DISTINCT n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname !~ '^(pg_|information_schema)' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
               AND pg_has_role(c.relowner, 'USAGE')
           LOOP
             EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', thing.schema, app);
             EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I', thing.schema, app);
             EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT USAGE, SELECT ON SEQUENCES TO %I', thing.schema, app);
           END LOOP;
           FOR thing IN
             SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'S' AS sequence
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname !~ '^(pg_|information_schema)' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
               AND pg_has_role(c.relowner, 'USAGE')
           LOOP
             IF thing.sequence THEN
               EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %I.%I TO %I', thing.schema, thing.name, app);
             ELSE
               EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.%I TO %I', thing.schema, thing.name, app);
             END IF;
           END LOOP;
         END $grants$"
    )
}

fn last_lines(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_cannot_break_out_of_the_grants() {
        assert!(grants("o'brien").contains("app text := 'o''brien';"));
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text: String = (1..=30).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&log, text).unwrap();

        let shown = last_lines(&log);

        assert_eq!(shown.len(), TAIL);
        assert_eq!(shown[TAIL - 1], "line 30");
        assert_eq!(last_lines(&folder.path().join("none")), Vec::<String>::new());
    }
}
