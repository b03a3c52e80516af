//! `lakeforge migrate`: what can be asked, and how the answer reads.

use std::fmt;

use serde::Serialize;

use super::cx::Cx;
use super::{Done, WaitTimeout};
use crate::error::{Error, Kind, Result};
use crate::ops::migrate::{self, Migration, Outcome, Runs, State};
use crate::ui::{Show, Table};

/// Run each service's own migration command against its branch
///
/// Commands come from lakeforge.yml (`apps.NAME.migrate`) and get PGHOST, PGPORT, PGDATABASE, PGUSER,
/// PGSSLMODE, a fresh PGPASSWORD, ENDPOINT_NAME and LAKEBASE_BRANCH. A sleeping compute is woken first;
/// afterwards the app that uses the branch is granted the use of the tables. Services are migrated
/// at the same time, each with its own log in .databricks/lakeforge/TARGET/logs. A command that logs
/// in to the workspace itself finds the profile that was chosen in DATABRICKS_CONFIG_PROFILE; tokens and
/// secrets of the environment are not passed on. Ctrl-C ends every command with all it started.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge migrate --only patient --branch pr-7")]
pub(crate) struct Migrate {
    /// Apps whose services are migrated [default: all that have a command] (can be repeated)
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    only: Vec<String>,
    /// Id of the branch, instead of the one each app uses
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Show what would be run and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Migrate {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let bundle = cx.bundle()?;
        let config = cx.config()?;
        let plan = migrate::plan(&bundle, &config, &self.only, self.branch.as_deref())?;
        let logs = migrate::logs(&bundle)?;
        if self.dry_run {
            return cx.ui.show(&Planned { migrations: &plan }).map(Done::from);
        }
        if plan.is_empty() {
            cx.ui.steps.note("no app has a migration command in lakeforge.yml");
        }
        let api = cx.api_for(Some(&bundle))?;
        let (set, unset) = cx.variables_of_children(api.login());
        let runs = Runs { logs, set, unset, limit: self.wait.limit() };
        let outcomes = migrate::apply(&api, &cx.ui.steps, &plan, &runs).await;
        cx.ui.show(&Migrated { migrations: &outcomes })?;
        if let Some(signal) = cx.ui.steps.signal() {
            return Err(interrupted(signal.into(), &outcomes));
        }
        let failed = in_state(&outcomes, State::Failed);
        if failed.is_empty() {
            return Ok(Done::from(()));
        }
        let (count, names) = (failed.len(), failed.join(", "));
        Err(Error::new(
            Kind::Partial,
            format!("{count} of {} migrations failed: {names}", plan.len()),
        )
        .hint(format!("mend them, then lakeforge migrate --only {}", failed.join(","))))
    }
}

fn in_state(outcomes: &[Outcome], state: State) -> Vec<&str> {
    let of = outcomes.iter().filter(|outcome| outcome.state == state);
    of.map(|outcome| outcome.app.as_str()).collect()
}

/// Says how far an interrupted call came.
fn interrupted(mut error: Error, outcomes: &[Outcome]) -> Error {
    for (state, what) in [
        (State::Migrated, "migrated"),
        (State::Failed, "failed"),
        (State::Interrupted, "stopped half-way, what it had committed stays"),
        (State::NotStarted, "not started"),
    ] {
        let apps = in_state(outcomes, state);
        if !apps.is_empty() {
            error = error.why(format!("{what}: {}", apps.join(", ")));
        }
    }
    let left: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.state != State::Migrated)
        .map(|outcome| outcome.app.as_str())
        .collect();
    if left.is_empty() {
        return error;
    }
    error.hint(format!("lakeforge migrate --only {}", left.join(",")))
}

#[derive(Debug, Serialize)]
struct Planned<'a> {
    migrations: &'a [Migration],
}

impl Show for Planned<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["APP", "BRANCH", "DIRECTORY"]);
        for migration in self.migrations {
            let directory = migration.directory.display().to_string();
            table.row([migration.app.clone(), migration.branch.short(), directory]);
        }
        table.write(f)
    }
}

#[derive(Debug, Serialize)]
struct Migrated<'a> {
    migrations: &'a [Outcome],
}

impl Show for Migrated<'_> {
    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        // The steps on stderr have said it all.
        Ok(())
    }
}
