//! `deploy`: resources first, then every app at the same time, each until it runs.

mod aftermath;
mod builtin;
mod databricks;
mod others;
mod record;
mod remove;
mod run;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use aftermath::explain;
pub(crate) use databricks::{Call, Databricks};
pub(crate) use others::Others;
pub(crate) use record::{Entry, Record, Shelf};
pub(crate) use run::Outcome;

use crate::api::{self, Client, DeploymentRequest};
use crate::bundle::{self, Bundle};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Action, Change, ResourceKind};
use crate::ops::confirm::{Confirmed, Deletes, Losses, Permits};
use crate::ops::drift::Drift;
use crate::ops::log::{self, FileName};
use crate::ops::protection;
use crate::ui::Steps;
use crate::wire::apps::EnvVar;
use run::{Orders, Run, Starter};

/// What a deployment is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Keys or names of the apps to run; all when empty.
    pub(crate) only: Vec<String>,
    /// Whether the resources are left as they are.
    pub(crate) skip_resources: bool,
    /// Whether apps are stopped first.
    pub(crate) restart: bool,
    /// Whether to wait until the apps run.
    pub(crate) wait: bool,
    /// Longest wait for one resource, one app, or the lock.
    pub(crate) limit: Duration,
}

/// What applies the resources of a bundle.
#[derive(Debug)]
pub(crate) enum Engine {
    /// Our own, for the embedded workspace.
    BuiltIn,
    /// The Databricks CLI.
    Databricks(Box<Databricks>),
}

/// What a deployment would do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Changes of resources, in order.
    pub(crate) changes: Vec<Change>,
    /// Names of the apps that are run.
    pub(crate) apps: Vec<String>,
    /// How the bundle differs from what was deployed last.
    pub(crate) drift: Option<Drift>,
    losses: Losses,
    guarded: Vec<String>,
    taken: Vec<String>,
    shelf: Shelf,
    record: Record,
    lost: Vec<Entry>,
    work: Work,
    runs: Vec<PlannedRun>,
}

#[derive(Debug)]
enum Work {
    Nothing,
    BuiltIn(Vec<builtin::Step>, Vec<Entry>),
    Databricks(databricks::Planned),
}

#[derive(Debug, Clone)]
struct PlannedRun {
    run: Run,
    source: Option<PathBuf>,
}

impl Entry {
    /// Returns the change that deletes it.
    pub(crate) fn deletion(&self) -> Change {
        let (resource, name) = (self.resource.clone(), self.name.clone());
        Change { action: Action::Delete, resource, name }
    }
}

impl Plan {
    /// Returns the changes that lose something.
    pub(crate) fn destructive(&self) -> Vec<&Change> {
        self.changes.iter().filter(|change| change.is_destructive()).collect()
    }

    /// Returns whether any resource changes.
    pub(crate) fn changes_resources(&self) -> bool {
        self.changes.iter().any(|change| change.action != Action::Unchanged)
    }

    /// Takes the plan as agreed to when `names` confirms what has to be; needs no workspace.
    ///
    /// Fails as `Refused` when it does not, when the bundle guards what would be lost, and unless
    /// `take_over`, when another deployment manages what this one would make its own.
    pub(crate) fn confirm(self, names: &[String], take_over: bool) -> Result<Confirmed<Plan>> {
        refuse_guarded("the plan deletes what must not be destroyed", &self.guarded)?;
        if !take_over && !self.taken.is_empty() {
            let headline = "another deployment manages what this one would take over";
            let error = Error::new(Kind::Refused, headline)
                .code("MANAGED_ELSEWHERE")
                .hint("--take-over, or another name for it in the bundle");
            return Err(self.taken.iter().fold(error, Error::why));
        }
        Confirmed::new(self, names)
    }
}

impl Deletes for Plan {
    fn losses(&self) -> &Losses {
        &self.losses
    }
}

/// Fails as `Refused` when something is guarded against its deletion.
pub(crate) fn refuse_guarded(headline: &str, guarded: &[String]) -> Result<()> {
    if guarded.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, headline)
        .code("PREVENT_DESTROY")
        .why(format!("guarded by `lifecycle.prevent_destroy`: {}", guarded.join(", ")))
        .hint("deploy once with `prevent_destroy: false` for it in lakeforge.yml"))
}

/// Works out what a deployment would do; changes nothing.
///
/// Fails with `NotFound` for an app that is not in the bundle.
pub(crate) async fn plan(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    bundle: &Bundle,
    request: &Request,
) -> Result<Plan> {
    let selected = bundle.select(&request.only, "--only")?;
    log::folder_of(bundle)?;
    let me = api.me().await.doing(|| "could not ask who is deploying".to_owned())?;
    let runs: Vec<PlannedRun> = selected
        .into_iter()
        .map(|app| planned_run(bundle, app, &me.user_name))
        .collect::<Result<_>>()?;
    let shelf = Shelf::of(bundle, &me.user_name)?;
    let record = Record::of(bundle, &me.user_name);
    let last = if request.skip_resources { None } else { shelf.read(api).await? };
    let lost = last.as_ref().map(|last| last.lost(&record)).unwrap_or_default();
    let (changes, work) = match engine {
        _ if request.skip_resources => (Vec::new(), Work::Nothing),
        Engine::BuiltIn => {
            let plan = builtin::plan(api, builtin::wanted(bundle, &me.user_name)?).await?;
            let gone = remove::present(api, lost.clone()).await?;
            let kept = plan.iter().map(|step| step.change.clone());
            (kept.chain(gone.iter().map(Entry::deletion)).collect(), Work::BuiltIn(plan, gone))
        }
        Engine::Databricks(cli) => {
            let step = steps.start("Validating the bundle");
            cli.validate().await?;
            step.say("Planning the deployment");
            let planned = cli.plan().await?;
            let known = last.as_ref().map(|last| &last.resources[..]).unwrap_or_default();
            let changes = named(cli, planned.changes.clone(), known).await?;
            (changes, Work::Databricks(planned))
        }
    };
    let losses = Losses::look(api, &changes, &shelf.folder).await?;
    let taken = match request.skip_resources {
        true => Vec::new(),
        false => taken_over(api, &record, last.as_ref(), &shelf.folder).await?,
    };
    let apps = runs.iter().map(|planned| planned.run.name.clone()).collect();
    let drift = last.and_then(|last| last.drift(&record));
    let guarded = guarded(&changes, &record);
    Ok(Plan { changes, apps, drift, losses, guarded, taken, shelf, record, lost, work, runs })
}

/// Returns what is there, is not of the last deployment, and is managed by another one: a sentence
/// for each.
async fn taken_over(
    api: &Client,
    now: &Record,
    last: Option<&Record>,
    own: &str,
) -> Result<Vec<String>> {
    let ours = last.map(Record::names).unwrap_or_default();
    let is_taken = |entry: &&Entry| {
        let kinds = [ResourceKind::Project, ResourceKind::Branch, ResourceKind::App];
        kinds.contains(&entry.kind()) && !ours.contains(&entry.shown())
    };
    let new: Vec<Entry> = now.resources.iter().filter(is_taken).cloned().collect();
    let there = remove::present(api, new).await?;
    let others = Others::find(api, &there, Some(own)).await?;
    Ok(there.iter().flat_map(|entry| others.holders(entry)).collect())
}

/// Names what `changes` lose and do not name: as the state of the deployment says, else as `known`,
/// its record, does.
///
/// Plans of the Terraform engine name nothing.
async fn named(cli: &Databricks, mut changes: Vec<Change>, known: &[Entry]) -> Result<Vec<Change>> {
    if changes.iter().any(is_nameless) {
        let state = cli.deployed().await?;
        add_names(&mut changes, &state, known);
    }
    Ok(changes)
}

fn is_nameless(change: &Change) -> bool {
    change.is_destructive() && change.name.is_empty()
}

fn add_names(changes: &mut [Change], state: &[(String, String)], known: &[Entry]) {
    for change in changes.iter_mut().filter(|change| is_nameless(change)) {
        let label = &change.resource;
        let in_state = state.iter().find(|(resource, _)| resource == label).map(|(_, name)| name);
        let recorded =
            || known.iter().find(|entry| entry.resource == *label).map(|entry| &entry.name);
        change.name = in_state.or_else(recorded).cloned().unwrap_or_default();
    }
}

/// Returns what `changes` lose although the bundle, as `now` describes it, guards it.
fn guarded(changes: &[Change], now: &Record) -> Vec<String> {
    let is_lost = |entry: &&Entry| {
        let mut changes = changes.iter().filter(|change| change.is_destructive());
        changes.any(|change| change.resource == entry.resource)
    };
    now.resources.iter().filter(|entry| entry.guarded).filter(is_lost).map(Entry::shown).collect()
}

/// Carries out `plan`; `told` hears of each app as it ends.
///
/// Fails when a resource cannot be applied. An app that does not come up is in the answer and
/// stops no other. Interrupted, what is applied stays, and the same call again goes on from there.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    bundle: &Bundle,
    confirmed: Confirmed<Plan>,
    request: &Request,
    told: &dyn Fn(&Outcome),
) -> Result<Vec<Outcome>> {
    let folder = log::folder_of(bundle)?;
    let (plan, permits) = (confirmed.plan(), confirmed.permits());
    let resources = apply_resources(api, steps, engine, &confirmed, &folder, request.limit);
    match protection::without(api, steps, permits.protected(), request.limit, resources).await {
        Ok(()) => {}
        Err(error) => return Err(explain(api, steps, &plan.changes, error).await),
    }
    steps.unless_interrupted(run_apps(api, steps, engine, plan, request, &folder, told)).await?
}

/// Carries out the changes of resources.
async fn apply_resources(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    confirmed: &Confirmed<Plan>,
    folder: &Path,
    limit: Duration,
) -> Result<()> {
    let (plan, permits) = (confirmed.plan(), confirmed.permits());
    if matches!(plan.work, Work::Nothing) {
        return Ok(());
    }
    // Stopped half-way, what is made by then is known too.
    plan.shelf.write(api, &plan.record.with(&plan.lost)).await?;
    match (&plan.work, engine) {
        (Work::BuiltIn(planned, gone), _) => {
            builtin::apply(api, steps, planned, limit).await?;
            remove::apply(api, steps, gone, permits, limit).await?;
        }
        (Work::Databricks(planned), Engine::Databricks(cli)) => {
            let _step = steps.start("Deploying the bundle");
            permits.recheck(api).await?;
            cli.deploy(steps, planned, folder, limit).await?;
        }
        _ => {}
    }
    match plan.lost.is_empty() {
        true => Ok(()),
        false => plan.shelf.write(api, &plan.record).await,
    }
}

/// Runs the apps of the plan, each from its uploaded source.
async fn run_apps(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    plan: &Plan,
    request: &Request,
    folder: &Path,
    told: &dyn Fn(&Outcome),
) -> Result<Vec<Outcome>> {
    let starter = match engine {
        Engine::BuiltIn => {
            upload_all(api, steps, &plan.runs).await?;
            Starter::Api
        }
        Engine::Databricks(cli) => {
            cli.pull_state().await?;
            Starter::Databricks(cli)
        }
    };
    let orders = Orders {
        starter,
        restart: request.restart,
        wait: request.wait,
        limit: request.limit,
        logs: &folder.join("logs"),
    };
    let runs: Vec<Run> = plan.runs.iter().map(|planned| planned.run.clone()).collect();
    Ok(run::run_all(api, steps, &runs, orders, told).await)
}

fn planned_run(bundle: &Bundle, app: &bundle::App, user: &str) -> Result<PlannedRun> {
    let files = expand(&bundle.file_path, user)?;
    let folder = match &app.source {
        Some(_) => format!("{files}/{}", relative(bundle, app)),
        None => String::new(),
    };
    let deployment = DeploymentRequest {
        mode: "SNAPSHOT",
        source_code_path: folder,
        command: list(app.config.as_ref(), "command", |value| value.as_str().map(str::to_owned)),
        env_vars: list(app.config.as_ref(), "env", |value| {
            serde_json::from_value::<EnvVar>(value.clone()).ok()
        }),
    };
    let (key, name) = (app.key.clone(), app.name.clone());
    let log = FileName::check("an app", &name)?;
    let run = Run { key, name, log, deployment };
    Ok(PlannedRun { run, source: app.source.clone() })
}

/// Returns where the source of `app` stands in the uploaded files.
fn relative(bundle: &Bundle, app: &bundle::App) -> String {
    let inside = app.source.as_deref().and_then(|source| source.strip_prefix(&bundle.root).ok());
    match inside {
        Some(path) if !path.as_os_str().is_empty() => {
            let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
            parts.join("/")
        }
        _ => app.key.clone(),
    }
}

/// Replaces who deploys in a workspace path.
fn expand(path: &str, user: &str) -> Result<String> {
    let text = serde_json::Value::from(path);
    let resolved = Bundle::resolve(&text, |reference| match reference {
        "workspace.current_user.userName" => Some(user.into()),
        "workspace.current_user.short_name" => Some(user.split('@').next().unwrap_or(user).into()),
        _ => None,
    })?;
    Ok(resolved.as_str().unwrap_or(path).to_owned())
}

fn list<T>(
    config: Option<&serde_json::Value>,
    key: &str,
    read: impl Fn(&serde_json::Value) -> Option<T>,
) -> Vec<T> {
    let values = config.and_then(|config| config.get(key)).and_then(serde_json::Value::as_array);
    values.into_iter().flatten().filter_map(read).collect()
}

async fn upload_all(api: &Client, steps: &Steps, runs: &[PlannedRun]) -> Result<()> {
    let step = steps.start("Uploading the apps' sources");
    for planned in runs {
        let name = &planned.run.name;
        let source = planned.source.as_ref().ok_or_else(|| {
            Error::new(Kind::Usage, format!("the app `{name}` has no `source_code_path`"))
                .why("the built-in engine deploys local sources alone")
        })?;
        step.say(format!("Uploading `{name}`"));
        upload::upload(api, source, &planned.run.deployment.source_code_path).await?;
    }
    Ok(())
}

/// Returns what is deployed, in the order in which it can be deleted: of `known`, the record of the
/// deployment, what is there, or what the state of the Databricks CLI holds.
pub(crate) async fn deployed(api: &Client, engine: &Engine, known: &[Entry]) -> Result<Vec<Entry>> {
    let cli = match engine {
        Engine::BuiltIn => return remove::present(api, known.to_vec()).await,
        Engine::Databricks(cli) => cli,
    };
    let state = cli.deployed().await?;
    let entry = |(resource, name): (String, String)| {
        let said = known.iter().find(|entry| entry.resource == resource);
        let (guarded, purge) = said.map_or((false, false), |entry| (entry.guarded, entry.purge));
        Entry { resource, name, guarded, purge }
    };
    Ok(state.into_iter().map(entry).collect())
}

/// Deletes `entries` and the folder of the deployment in the workspace.
pub(crate) async fn destroy(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    entries: &[Entry],
    permits: &Permits,
    folder: &str,
    limit: Duration,
) -> Result<()> {
    match engine {
        Engine::Databricks(cli) => {
            let _step = steps.start("Destroying the deployment");
            permits.recheck(api).await?;
            cli.destroy(steps, entries, limit).await?;
        }
        Engine::BuiltIn => remove::apply(api, steps, entries, permits, limit).await?,
    }
    let gone = api::there(api.delete_object(folder, true).await);
    gone.doing(|| format!("could not delete the workspace folder `{folder}`")).map(drop)
}

#[cfg(test)]
mod tests;
