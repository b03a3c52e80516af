//! `lakeforge deploy`: what can be asked, and how the answer reads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::cx::Cx;
use super::{Done, WaitTimeout};
use crate::api::Client;
use crate::bundle::{Bundle, Choice};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::deploy::{self, Action, Call, Change, Databricks, Engine, Outcome, Plan, Request};
use crate::ui::{Show, Table};

/// Deploy the bundle: its resources, then every app at the same time
///
/// Wraps the Databricks CLI (validate, plan, consent, deploy, run). Where it is not installed, a
/// built-in engine applies projects, branches, endpoints and apps to the embedded workspace. Each
/// app is watched until it runs and keeps its own log in .databricks/lakeforge/TARGET/logs.
/// Run again after an interruption, it goes on from where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge deploy -t dev --only patient,billing")]
pub(crate) struct Deploy {
    /// Apps to run, by key or name [default: all] (can be repeated)
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    only: Vec<String>,
    /// Run the apps and leave the resources as they are
    #[arg(long)]
    skip_deploy: bool,
    /// Stop each app before it is run
    #[arg(long)]
    restart: bool,
    /// Do not wait until the apps run
    #[arg(long)]
    no_wait: bool,
    /// Show what would be done and stop
    #[arg(long)]
    dry_run: bool,
    /// Agree to what deletes or recreates resources
    #[arg(short, long)]
    yes: bool,
    /// What applies the resources
    #[arg(long, value_enum, default_value_t, env = "LAKEFORGE_ENGINE", hide_env = true)]
    engine: EngineChoice,
    #[command(flatten)]
    wait: WaitTimeout,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum EngineChoice {
    /// The Databricks CLI where it is installed
    #[default]
    Auto,
    /// The Databricks CLI
    Cli,
    /// Our own, for the embedded workspace alone
    Builtin,
}

impl Deploy {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let bundle = cx.bundle()?;
        let api = cx.api_for(Some(&bundle))?;
        let engine = self.engine(cx, &api, &bundle).await?;
        let request = Request {
            only: self.only,
            skip_resources: self.skip_deploy,
            restart: self.restart,
            wait: !self.no_wait,
            limit: self.wait.limit(),
        };
        let steps = &cx.ui.steps;
        let planned = deploy::plan(&api, steps, &engine, &bundle, &request);
        let plan = steps.unless_interrupted(planned).await??;
        if self.dry_run {
            return cx.ui.show(&PlanAnswer::new(&bundle, &plan)).map(Done::from);
        }
        announce(cx, &bundle, &api, &plan);
        consent(cx, &plan, self.yes)?;
        let left = Mutex::new(plan.apps.clone());
        let told = |outcome: &Outcome| {
            left.lock().unwrap_or_else(PoisonError::into_inner).retain(|app| *app != outcome.app);
            // A stdout that went away must not stop the other apps.
            let _ = cx.ui.event(&Event::App(outcome));
        };
        let applied = deploy::apply(&api, steps, &engine, &bundle, plan, &request, &told);
        let outcomes =
            steps.unless_interrupted(applied).await.and_then(|done| done).map_err(|error| {
                match error.kind() {
                    Kind::Interrupted | Kind::Terminated => {
                        left_behind(error, &left.lock().unwrap_or_else(PoisonError::into_inner))
                    }
                    _ => error,
                }
            })?;
        summary(cx, &outcomes)
    }

    /// Chooses what applies the resources, and says so when it is our own.
    async fn engine(&self, cx: &Cx, api: &Client, bundle: &Bundle) -> Result<Engine> {
        let program = match self.engine {
            EngineChoice::Builtin => None,
            EngineChoice::Auto | EngineChoice::Cli => cx.databricks_cli(),
        };
        if let Some(program) = program {
            let cli = Databricks::open(program, self.call(cx, api, bundle).await?).await?;
            cx.ui.steps.note(format!("→ with the {}", cli.name()));
            return Ok(Engine::Databricks(Box::new(cli)));
        }
        if self.engine == EngineChoice::Cli {
            return Err(no_cli("the Databricks CLI is not installed"));
        }
        if !api.is_embedded().await.doing(|| "could not look at the workspace".to_owned())? {
            return Err(no_cli("a real workspace is deployed to with the Databricks CLI"));
        }
        cx.ui.steps.note("→ with the built-in engine, for the embedded workspace alone");
        Ok(Engine::BuiltIn)
    }

    async fn call(&self, cx: &Cx, api: &Client, bundle: &Bundle) -> Result<Call> {
        let mut environment = std::collections::BTreeMap::new();
        // The CLI keys its local state by target alone; deployments of other inputs stay apart, and
        // so do workspaces: it takes what another one has for deployed here.
        let workspace = workspace_name(api).await?;
        let state = bundle.root.join(".databricks/lakeforge/state").join(workspace);
        let state = state.join(plain_name(&bundle.root_path));
        environment.insert("DATABRICKS_BUNDLE_TMP".to_owned(), state.display().to_string());
        let mut profile = api.login().profile().map(str::to_owned);
        if api.login().is_embedded() {
            let file = cx.data_dir()?.join("databrickscfg");
            environment.insert("DATABRICKS_CONFIG_FILE".to_owned(), file.display().to_string());
        } else if cx.environment.get("DATABRICKS_HOST").is_some() && cx.global.profile.is_none() {
            profile = None;
        }
        Ok(Call {
            root: bundle.root.clone(),
            target: bundle.target.name.clone(),
            profile,
            variables: Choice::parse_variables(&cx.global.var)?,
            environment,
        })
    }
}

/// Returns a folder name that differs where the workspace does.
///
/// An embedded one is another after a reset, at the address it had.
async fn workspace_name(api: &Client) -> Result<String> {
    let known = if api.login().is_embedded() {
        let asked = api.discovery().await.doing(|| "could not look at the workspace".to_owned())?;
        asked.workspace_id
    } else {
        None
    };
    Ok(known.unwrap_or_else(|| plain_name(&api.host().to_string())))
}

/// Returns a folder name for a path or an address.
fn plain_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    let keep = name.len().saturating_sub(100);
    name[keep..].to_owned()
}

/// Says what an interrupted deployment left behind; `apps` are those that nobody saw running.
fn left_behind(error: Error, apps: &[String]) -> Error {
    let error = error.why("what was applied stays, and apps that were started go on starting");
    let error = match apps {
        [] => error,
        apps => error.why(format!("not seen running: {}", apps.join(", "))),
    };
    error.hint("the same command again goes on from there")
}

fn no_cli(what: &str) -> Error {
    Error::new(Kind::Usage, what)
        .code("DATABRICKS_CLI_NEEDED")
        .hint("install it: https://docs.databricks.com/dev-tools/cli/install.html")
}

fn announce(cx: &Cx, bundle: &Bundle, api: &Client, plan: &Plan) {
    let target = &bundle.target.name;
    cx.ui.steps.note(format!("→ bundle `{}`, target `{target}`, {}", bundle.name, api.host()));
    if !plan.changes.is_empty() && !plan.changes_resources() {
        cx.ui.steps.note("resources are up to date");
    }
}

/// Asks before anything that loses data or an address.
fn consent(cx: &Cx, plan: &Plan, yes: bool) -> Result<()> {
    let losses = plan.destructive();
    if losses.is_empty() || yes {
        return Ok(());
    }
    for change in &losses {
        cx.ui.steps.warn(format!("{} {} {}", word(change.action), change.resource, change.name));
    }
    cx.ui.confirm(&format!("delete or recreate {} resources?", losses.len()), "--yes")
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Recreate => "recreate",
        Action::Delete => "delete",
        Action::Unchanged => "keep",
    }
}

fn summary(cx: &Cx, outcomes: &[Outcome]) -> Result<Done> {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.is_failed()).collect();
    let (apps, count) = (outcomes.len(), failed.len());
    cx.ui.event(&Event::Summary { apps, failed: count })?;
    let Some(first) = failed.first() else { return Ok(Done::from(())) };
    let names: Vec<&str> = failed.iter().map(|outcome| outcome.app.as_str()).collect();
    let headline = format!("{count} of {apps} apps did not come up: {}", names.join(", "));
    let log = first.log.display();
    Err(Error::new(Kind::Partial, headline)
        .hint(format!("see {log}, then lakeforge deploy --only {}", names.join(","))))
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    App(&'a Outcome),
    Summary { apps: usize, failed: usize },
}

impl Show for Event<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Event::App(outcome) if outcome.is_failed() => Ok(()),
            Event::App(outcome) => {
                writeln!(f, "{}  {}", outcome.app, outcome.url.as_deref().unwrap_or("-"))
            }
            Event::Summary { .. } => Ok(()),
        }
    }
}

#[derive(Debug, Serialize)]
struct PlanAnswer<'a> {
    bundle: &'a str,
    target: &'a str,
    changes: &'a [Change],
    apps: &'a [String],
}

impl<'a> PlanAnswer<'a> {
    fn new(bundle: &'a Bundle, plan: &'a Plan) -> Self {
        let (name, target) = (&bundle.name, &bundle.target.name);
        PlanAnswer { bundle: name, target, changes: &plan.changes, apps: &plan.apps }
    }
}

impl Show for PlanAnswer<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["ACTION", "RESOURCE", "NAME"]);
        for change in self.changes {
            let name = if change.name.is_empty() { "-" } else { &change.name };
            table.row([word(change.action).to_owned(), change.resource.clone(), name.to_owned()]);
        }
        for app in self.apps {
            table.row(["run".to_owned(), "app".to_owned(), app.clone()]);
        }
        table.write(f)
    }
}

impl Cx {
    /// Returns the Databricks CLI: `DATABRICKS_CLI_PATH`, else `databricks` on the search path.
    fn databricks_cli(&self) -> Option<PathBuf> {
        if let Some(program) = self.environment.get("DATABRICKS_CLI_PATH") {
            return Some(PathBuf::from(program));
        }
        let path = self.environment.get("PATH")?;
        std::env::split_paths(path)
            .map(|folder| folder.join("databricks"))
            .find(|file| is_program(file))
    }
}

fn is_program(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}
