//! Running apps: each started, watched until it serves, its log kept; all at the same time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::databricks::Databricks;
use crate::api::{Client, DeploymentRequest, Poll};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::log::{self, FileName, Log};
use crate::ops::parallel;
use crate::secret::Mask;
use crate::ui::{Step, Steps};
use crate::wire::apps::{App, AppState, ComputeState, Deployment, DeploymentState};

/// How many apps start at once.
const APPS: usize = 16;
/// How many lines of an app's log are shown when it fails.
const TAIL: usize = 20;

/// An app to run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Key in the bundle.
    pub(super) key: String,
    /// Name in the workspace.
    pub(super) name: String,
    /// Name of its log.
    pub(super) log: FileName,
    /// What to deploy, when we deploy it ourselves.
    pub(super) deployment: DeploymentRequest,
}

/// Who starts a deployment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Starter<'a> {
    /// We, through the API.
    Api,
    /// `databricks bundle run`.
    Databricks(&'a Databricks),
}

/// What all apps of one call share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orders<'a> {
    pub(super) starter: Starter<'a>,
    pub(super) restart: bool,
    pub(super) wait: bool,
    pub(super) limit: Duration,
    /// Folder of the logs, one file an app.
    pub(super) logs: &'a Path,
}

/// How it went with one app.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Name of the app.
    pub(crate) app: String,
    /// `RUNNING`, `DEPLOYED` when nobody waited, or `FAILED`.
    pub(crate) state: &'static str,
    /// Canonical address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Time from start to state.
    pub(crate) elapsed_ms: u64,
    /// Everything that was said on the way.
    pub(crate) log: PathBuf,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The last lines of a failed app's own log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) last_lines: Vec<String>,
}

impl Outcome {
    /// Returns whether the app did not come up.
    pub(crate) fn is_failed(&self) -> bool {
        self.state == "FAILED"
    }
}

/// Runs `apps` at the same time; one that fails does not stop the others.
///
/// `told` hears of each as it ends.
pub(super) async fn run_all(
    api: &Client,
    steps: &Steps,
    apps: &[Run],
    orders: Orders<'_>,
    told: &dyn Fn(&Outcome),
) -> Vec<Outcome> {
    let run = |app: &'_ Run| run(api, steps, app.clone(), orders, told);
    parallel::each_up_to(APPS, apps, run).await
}

async fn run(
    api: &Client,
    steps: &Steps,
    app: Run,
    orders: Orders<'_>,
    told: &dyn Fn(&Outcome),
) -> Outcome {
    let start = Instant::now();
    let mask = api.login().mask();
    let log = Journal::new(orders.logs, &app.log, mask);
    let step = steps.lane(&app.name, "starting");
    let watch =
        Watch { api, step: &step, log: &log, app: &app, orders, poll: Poll::new(orders.limit) };
    let ended = watch.run().await;
    let elapsed = start.elapsed();
    let mut outcome = Outcome {
        app: app.name.clone(),
        state: if orders.wait { "RUNNING" } else { "DEPLOYED" },
        url: None,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        log: log::path(orders.logs, &app.log),
        error: None,
        last_lines: Vec::new(),
    };
    match ended {
        Ok(url) => {
            outcome.url = url;
            log.line("done");
            step.finish(format!(
                "{} in {} {}",
                outcome.state.to_lowercase(),
                crate::time::human(elapsed),
                outcome.url.as_deref().unwrap_or_default()
            ));
        }
        Err(error) => {
            let error = mask.text(&error.to_string()).into_owned();
            let said = last_lines(api, orders.starter, &app.name).await;
            outcome.state = "FAILED";
            outcome.last_lines = lines_without_secrets(mask, &said);
            log.line(&format!("failed: {error}"));
            outcome.last_lines.iter().for_each(|line| log.line(line));
            let mut text = format!("failed: {error}");
            outcome.last_lines.iter().for_each(|line| text.push_str(&format!("\n    {line}")));
            outcome.error = Some(error);
            step.finish(text);
        }
    }
    told(&outcome);
    outcome
}

/// Returns the end of an app's own log, as far as it can be had.
async fn last_lines(api: &Client, starter: Starter<'_>, app: &str) -> Vec<String> {
    match (api.app_log(app, TAIL).await, starter) {
        (Ok(lines), _) => lines,
        (Err(_), Starter::Databricks(cli)) => cli.app_log(app, TAIL).await.unwrap_or_default(),
        (Err(_), Starter::Api) => Vec::new(),
    }
}

/// Returns `lines` without secrets, also without those that were broken into several.
fn lines_without_secrets(mask: &Mask, lines: &[String]) -> Vec<String> {
    mask.text(&lines.join("\n")).lines().map(str::to_owned).collect()
}

/// One app under way.
struct Watch<'a> {
    api: &'a Client,
    step: &'a Step,
    log: &'a Journal,
    app: &'a Run,
    orders: Orders<'a>,
    poll: Poll,
}

impl Watch<'_> {
    /// Brings the app up and returns its address.
    async fn run(mut self) -> Result<Option<String>> {
        self.say("waiting for its compute");
        let mut app = self.compute().await?;
        if self.orders.restart {
            app = self.restart(app).await?;
        }
        self.say("deploying");
        match self.orders.starter {
            Starter::Api => self.deploy().await?,
            Starter::Databricks(cli) => cli.run_app(&self.app.key, self.log).await?,
        }
        if self.orders.wait {
            self.say("waiting until it runs");
            app = self.running().await?;
        }
        Ok(app.url)
    }

    fn say(&self, text: &str) {
        self.step.say(text);
        self.log.line(text);
    }

    async fn app(&self) -> Result<App> {
        Ok(self.api.get_app(&self.app.name).await?)
    }

    /// Starts the machine of the app, if it does not run, and waits for it.
    async fn compute(&mut self) -> Result<App> {
        let mut started = false;
        loop {
            let app = self.app().await?;
            match app.compute_status.as_ref().map(|status| status.state) {
                Some(ComputeState::Active) => return Ok(app),
                Some(ComputeState::Deleting) => {
                    return Err(Error::new(Kind::Conflict, "it is being deleted")
                        .hint("wait until it is gone, then deploy again"));
                }
                None | Some(ComputeState::Stopped | ComputeState::Error) if !started => {
                    self.api.start_app(&self.app.name).await?;
                    started = true;
                    continue;
                }
                Some(ComputeState::Error) => {
                    let message = app.compute_status.map(|status| status.message);
                    return Err(Error::new(Kind::Failed, "its compute does not start")
                        .why(message.unwrap_or_default()));
                }
                _ => self.pause("its compute to be ACTIVE").await?,
            }
        }
    }

    async fn restart(&mut self, app: App) -> Result<App> {
        self.say("stopping");
        self.api.stop_app(&app.name).await?;
        loop {
            let app = self.app().await?;
            if app.compute_status.is_none_or(|status| status.state == ComputeState::Stopped) {
                return self.compute().await;
            }
            self.pause("its compute to be STOPPED").await?;
        }
    }

    /// Deploys the source and waits until the workspace says that it worked.
    async fn deploy(&mut self) -> Result<()> {
        let mut deployment = self.post().await?;
        loop {
            let status = deployment.status.clone();
            match status.as_ref().map(|status| status.state) {
                Some(DeploymentState::Succeeded) => return Ok(()),
                Some(DeploymentState::Failed | DeploymentState::Cancelled) => {
                    let message = status.map(|status| status.message).unwrap_or_default();
                    return Err(Error::new(Kind::Failed, "its deployment failed").why(message));
                }
                _ => self.pause("its deployment to succeed").await?,
            }
            let id = deployment.deployment_id.as_deref().ok_or_else(|| {
                Error::new(Kind::Failed, "the workspace did not name the deployment")
            })?;
            deployment = self.api.get_deployment(&self.app.name, id).await?;
        }
    }

    /// Starts the deployment; one that is under way, left by an interrupted call, is waited for.
    async fn post(&mut self) -> Result<Deployment> {
        loop {
            match self.api.create_deployment(&self.app.name, &self.app.deployment).await {
                Ok(deployment) => return Ok(deployment),
                Err(error) if error.is_conflict() => {
                    self.say("waiting for the deployment in progress");
                    self.pause("the deployment in progress to end").await?;
                }
                Err(error) => return Err(error).doing(|| "its deployment was refused".to_owned()),
            }
        }
    }

    async fn running(&mut self) -> Result<App> {
        loop {
            let app = self.app().await?;
            match &app.app_status {
                Some(status) if status.state == AppState::Running => return Ok(app),
                Some(status) if status.state == AppState::Crashed => {
                    return Err(Error::new(Kind::Failed, "it crashed").why(status.message.clone()));
                }
                _ => self.pause("it to be RUNNING").await?,
            }
        }
    }

    async fn pause(&mut self, awaited: &str) -> Result<()> {
        if self.poll.pause().await {
            return Ok(());
        }
        let limit = crate::time::human(self.orders.limit);
        Err(Error::new(Kind::TimedOut, format!("waited {limit} for {awaited}"))
            .hint("a longer --wait-timeout"))
    }
}

/// The log of one app; a log that cannot be written must not stop a deployment.
#[derive(Debug)]
pub(super) struct Journal(Option<Log>);

impl Journal {
    fn new(folder: &Path, name: &FileName, mask: &Mask) -> Self {
        Journal(Log::create(folder, name, mask).ok())
    }

    fn line(&self, text: &str) {
        self.write(&format!("{:.3} {text}\n", Timestamp::now()));
    }

    /// Adds `text`, which is whole.
    pub(super) fn write(&self, text: &str) {
        if let Some(log) = &self.0 {
            let _ = log.write(text);
        }
    }
}
