//! `migrate`: each service's own migration command against its branch, then grants for its app.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::{self, Patience, Stopped};
use super::creds::{self, Connection};
use super::log::{self, FileName, Log};
use super::{parallel, sql};
use crate::api::Client;
use crate::bundle::{App, Bundle, Config, Migrate};
use crate::error::{Doing, Error, Kind, Result};
use crate::time::human;
use crate::ui::{Interrupt, Steps};
use crate::wire::names::{BranchName, ProjectName};

/// How many lines of a failed command are shown.
const TAIL: usize = 20;
/// How long after its command has ended a log may still grow: what the command left running in the
/// background keeps it open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a command that was told to end may take to roll back.
const PATIENCE: Duration = Duration::from_secs(10);

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
    #[serde(skip)]
    log: FileName,
}

/// What all commands of one call are run with.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    /// Folder of the logs, one file a service.
    pub(crate) logs: PathBuf,
    /// Variables the commands get beside the connection.
    pub(crate) set: BTreeMap<String, String>,
    /// Variables of ours they do not get.
    pub(crate) unset: Vec<String>,
    /// Longest wait for a sleeping compute.
    pub(crate) limit: Duration,
}

/// How far a migration came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Command and grants worked.
    Migrated,
    /// One of them did not.
    Failed,
    /// A signal ended the command, or came before the grants.
    Interrupted,
    /// A signal came before the command was run.
    NotStarted,
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
    /// How far it came.
    pub(crate) state: State,
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
        log: FileName::check("an app", &format!("migrate-{}", app.key))?,
        app: app.key.clone(),
        branch: target,
        directory: migrate.directory.clone(),
        command: migrate.command.clone(),
        user,
    })
}

/// Returns the folder where the commands of `bundle` leave what they say.
///
/// Fails with `Usage` for a target whose name would lead elsewhere.
pub(crate) fn logs(bundle: &Bundle) -> Result<PathBuf> {
    Ok(log::folder_of(bundle)?.join("logs"))
}

/// Runs `migrations` at the same time; one that fails does not stop the others.
///
/// Each gets a compute that answers and a password minted just before. What it says goes to a log of
/// its own. A signal ends the commands that run, each with all it started, and no other is begun: the
/// answers say how far each came.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    migrations: &[Migration],
    runs: &Runs,
) -> Vec<Outcome> {
    let work = |migration: &'_ Migration| one(api, steps, migration.clone(), runs);
    parallel::each(migrations, work).await
}

async fn one(api: &Client, steps: &Steps, migration: Migration, runs: &Runs) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome {
        app: migration.app.clone(),
        branch: migration.branch.clone(),
        ok: false,
        state: State::NotStarted,
        elapsed_ms: 0,
        log: log::path(&runs.logs, &migration.log),
        error: None,
    };
    if steps.signal().is_some() {
        return outcome;
    }
    let step = steps.lane(&migration.app, format!("migrating `{}`", migration.branch.short()));
    // Begun before anything can fail: what an earlier run said is not what this one says.
    let log = Log::create(&runs.logs, &migration.log, api.login().mask())
        .map(Arc::new)
        .map_err(Error::from)
        .doing(|| format!("could not write `{}`", outcome.log.display()));
    let done = match &log {
        Ok(log) => migrate(api, steps, &migration, runs, log, &mut outcome.state).await,
        Err(error) => Err(error.clone()),
    };
    let elapsed = start.elapsed();
    outcome.ok = done.is_ok();
    outcome.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    match done {
        Ok(()) => {
            outcome.state = State::Migrated;
            step.finish(format!("migrated in {}", human(elapsed)));
        }
        Err(error) => {
            if !matches!(error.kind(), Kind::Interrupted | Kind::Terminated) {
                outcome.state = State::Failed;
            }
            let error = api.login().mask().text(&error.to_string()).into_owned();
            let mut text = match outcome.state {
                State::Failed => format!("failed: {error}"),
                _ => error.clone(),
            };
            let end = log.map(|log| log.last_lines(TAIL)).unwrap_or_default();
            end.iter().for_each(|line| text.push_str(&format!("\n    {line}")));
            step.finish(text);
            outcome.error = Some(error);
        }
    }
    outcome
}

/// Runs one migration; `state` is how far it came when it does not end well.
async fn migrate(
    api: &Client,
    steps: &Steps,
    migration: &Migration,
    runs: &Runs,
    log: &Arc<Log>,
    state: &mut State,
) -> Result<()> {
    let ready = creds::ready(api, &migration.branch, runs.limit);
    let connection = steps.unless_interrupted(ready).await.flatten()?;
    steps.announce_secret(&connection.token);
    *state = State::Interrupted;
    run(steps, migration, &connection, runs, log).await?;
    match &migration.user {
        Some(app) => steps.unless_interrupted(grant(api, app, &connection)).await.flatten(),
        None => Ok(()),
    }
}

async fn run(
    steps: &Steps,
    migration: &Migration,
    connection: &Connection,
    runs: &Runs,
    log: &Arc<Log>,
) -> Result<()> {
    let doing = || format!("could not run `{}`", migration.command.trim());
    let (said, out) = io::pipe()?;
    let mut command = tokio::process::Command::new("sh");
    command
        .arg("-c")
        .arg(&migration.command)
        .current_dir(&migration.directory)
        .envs(&runs.set)
        .env("ENDPOINT_NAME", connection.endpoint.to_string())
        .env("LAKEBASE_BRANCH", &migration.branch.branch)
        .stdout(out.try_clone()?)
        .stderr(out);
    for name in &runs.unset {
        command.env_remove(name);
    }
    for (name, value) in connection.variables() {
        command.env(name, value.expose());
    }
    let spawned = child::spawn(steps, &mut command, Patience::Until(PATIENCE));
    let (mut child, group) = spawned.map_err(Error::from).doing(doing)?;
    // It holds the other end of the pipe.
    drop(command);
    let log = Arc::clone(log);
    let writer = tokio::task::spawn_blocking(move || log.write_all(said));
    let (status, stopped) = group.wait(child.wait()).await;
    if let Ok(written) = tokio::time::timeout(LAST_WORDS, writer).await {
        written.map_err(io::Error::from)?.doing(|| "could not write the log".to_owned())?;
    }
    ended(status.map_err(Error::from).doing(doing)?, stopped)
}

/// Says how a command ended that was, or was not, told to.
fn ended(status: ExitStatus, stopped: Option<Stopped>) -> Result<()> {
    match stopped {
        // It was through already, or would not be stopped.
        _ if status.success() => Ok(()),
        None => Err(Error::new(Kind::Failed, format!("the migration command ended with {status}"))),
        Some(Stopped { signal, killed }) => {
            let kind = match signal {
                Interrupt::Interrupted => Kind::Interrupted,
                Interrupt::Terminated => Kind::Terminated,
            };
            let how = if killed { "killed" } else { "stopped" };
            Err(Error::new(kind, format!("its command was {how} half-way ({status})"))
                .why("what it had committed by then stays"))
        }
    }
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
    // As digits alone: nothing in a name can end what it stands in.
    let role: String = role.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "DO $grants$
         DECLARE
           app text := convert_from(decode('{role}', 'hex'), 'UTF8');
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_role_cannot_break_out_of_the_grants(role in "(\\PC|\\$grants\\$|'|\\\\){1,20}") {
            let statement = grants(&role);
            let literal = statement.split("decode('").nth(1).unwrap().split('\'').next().unwrap();

            assert!(literal.bytes().all(|byte| byte.is_ascii_hexdigit()), "{literal}");
            assert_eq!(statement.matches("$grants$").count(), 2);
            let bytes: Vec<u8> = (0..literal.len() / 2)
                .map(|at| u8::from_str_radix(&literal[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), role);
        }
    }
}
