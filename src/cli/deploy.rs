//! `lakeforge deploy`: what can be asked, and how the answer reads.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::cx::Cx;
use super::engine::{Inputs, With};
use super::{Done, WaitTimeout};
use crate::api::Client;
use crate::bundle::Bundle;
use crate::error::{Error, Kind, Result};
use crate::ops::change::{Action, Change};
use crate::ops::deploy::{self, Outcome, Plan, Request};
use crate::ops::drift::Drift;
use crate::ui::{Show, Table};

/// Deploy the bundle: its resources, then every app at the same time
///
/// Wraps the Databricks CLI (validate, plan, consent, deploy, run). Where it is not installed, a
/// built-in engine applies projects, branches, endpoints and apps to the embedded workspace. Each
/// app is watched until it runs and keeps its own log in .databricks/lakeforge/TARGET/logs.
/// Run again after an interruption, it goes on from where it stopped. What is deployed is recorded
/// beside the deployment in the workspace; what the bundle no longer has is deleted after consent.
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
    /// Project, or default, protected or production branch, that is to go (can be repeated)
    #[arg(long, value_name = "NAME")]
    confirm: Vec<String>,
    /// Take over what another deployment manages
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Deploy {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let bundle = cx.bundle()?;
        if !self.skip_deploy {
            self.inputs.check(cx, &bundle)?;
        }
        let api = cx.api_for(Some(&bundle))?;
        let engine = self.with.open(cx, &api, &bundle).await?;
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
        for list in plan.drift.iter().flat_map(Drift::lists) {
            steps.note(list);
        }
        if self.dry_run {
            cx.ui.show(&PlanAnswer::new(&bundle, &plan))?;
            return plan.confirm(&self.confirm, self.take_over).map(|_| Done::from(()));
        }
        announce(cx, &bundle, &api, &plan);
        let plan = plan.confirm(&self.confirm, self.take_over)?;
        consent(cx, plan.plan(), self.yes).await?;
        let left = Mutex::new(plan.plan().apps.clone());
        let told = |outcome: &Outcome| {
            left.lock().unwrap_or_else(PoisonError::into_inner).retain(|app| *app != outcome.app);
            // A stdout that went away must not stop the other apps.
            let _ = cx.ui.event(&Event::App(outcome));
        };
        let applied = deploy::apply(&api, steps, &engine, &bundle, plan, &request, &told);
        let outcomes = applied.await.map_err(|error| match error.kind() {
            Kind::Interrupted | Kind::Terminated => {
                left_behind(error, &left.lock().unwrap_or_else(PoisonError::into_inner))
            }
            _ => error,
        })?;
        summary(cx, &outcomes)
    }
}

/// Says what an interrupted deployment left behind; `apps` are those that nobody saw running.
fn left_behind(error: Error, apps: &[String]) -> Error {
    let error = error.why("what was applied stays, and apps that were started go on starting");
    let error = match apps {
        [] => error,
        apps => error.why(format!("not seen running: {}", apps.join(", "))),
    };
    match error.hint_text() {
        None => error.hint("the same command again goes on from there"),
        Some(_) => error,
    }
}

fn announce(cx: &Cx, bundle: &Bundle, api: &Client, plan: &Plan) {
    let target = &bundle.target.name;
    cx.ui.steps.note(format!("→ bundle `{}`, target `{target}`, {}", bundle.name, api.host()));
    if !plan.changes.is_empty() && !plan.changes_resources() {
        cx.ui.steps.note("resources are up to date");
    }
}

/// Asks before anything that loses data or an address.
async fn consent(cx: &Cx, plan: &Plan, yes: bool) -> Result<()> {
    let losses = plan.destructive();
    if losses.is_empty() || yes {
        return Ok(());
    }
    for change in &losses {
        cx.ui.steps.warn(format!("{} {} {}", word(&change.action), change.resource, change.name));
    }
    cx.ui.confirm(&format!("delete or recreate {} resources?", losses.len()), "--yes").await
}

pub(super) fn word(action: &Action) -> &str {
    match action {
        Action::Unchanged => "keep",
        action => action.word(),
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
            table.row([word(&change.action).to_owned(), change.resource.clone(), name.to_owned()]);
        }
        for app in self.apps {
            table.row(["run".to_owned(), "app".to_owned(), app.clone()]);
        }
        table.write(f)
    }
}
