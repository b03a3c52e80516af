//! `lakeforge smoke`: what can be asked, and how the answer reads.

use std::fmt;

use serde::Serialize;

use super::Done;
use super::cx::Cx;
use crate::bundle::{App, AppConfig, Bundle, Config};
use crate::error::{Error, Kind, Result};
use crate::ops::smoke::{self, Assertion, Health};
use crate::time::{Ttl, human};
use crate::ui::Show;

/// Health path of an app that lakeforge.yml does not name one for.
const HEALTH_PATH: &str = "/healthz";

/// Check every app of the bundle, strictly
///
/// Reads each app's health path on its canonical address, all at once: exact status, JSON-equal
/// body, no redirects. A login page is a failure, also with status 200. Health paths and expected
/// answers are in lakeforge.yml; without it /healthz must answer 200 and {"ok":true}.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge smoke -t dev --app portal")]
pub(crate) struct Smoke {
    /// App to check, by key or name (can be repeated) [default: every app of the bundle]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    app: Vec<String>,
    /// Longest wait for an app that is starting
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    wait_timeout: Ttl,
}

impl Smoke {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let bundle = cx.bundle()?;
        let config = Config::load(&bundle.root)?;
        config.check_apps(&bundle)?;
        let assertions = assertions(&bundle, &config, &self.app)?;
        let api = cx.api_for(Some(&bundle))?;
        let health = smoke::smoke(&api, &cx.ui.steps, assertions, self.wait_timeout.0).await?;
        for health in &health {
            cx.ui.event(&Event::App(health))?;
        }
        let healthy = health.iter().filter(|health| health.healthy).count();
        cx.ui.event(&Event::Summary { apps: health.len(), healthy })?;
        smoke::unhealthy(&health).map_or_else(|| Ok(Done::from(())), Err)
    }
}

/// Returns what to assert of the apps that `wanted` names, or of all.
fn assertions(bundle: &Bundle, config: &Config, wanted: &[String]) -> Result<Vec<Assertion>> {
    if bundle.apps.is_empty() {
        return Err(Error::new(Kind::Usage, format!("bundle `{}` has no apps", bundle.name)));
    }
    let chosen = bundle.select(wanted, "--app")?;
    Ok(chosen.into_iter().map(|app| assertion(app, config.app(bundle, app))).collect())
}

fn assertion(app: &App, config: Option<&AppConfig>) -> Assertion {
    let path = config.and_then(|config| config.health.as_deref()).unwrap_or(HEALTH_PATH);
    let mut assertion = Assertion::new(&app.name, path);
    if let Some(config) = config {
        assertion.status = config.expect.status.unwrap_or(assertion.status);
        if let Some(body) = &config.expect.body {
            assertion.body = Some(body.clone());
        }
    }
    assertion
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    App(&'a Health),
    Summary { apps: usize, healthy: usize },
}

impl Show for Event<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Event::App(health) => {
                let word = if health.healthy { "ok" } else { "FAILED" };
                let elapsed = human(std::time::Duration::from_millis(health.elapsed_ms));
                write!(f, "{word:<6}  {}  {elapsed}", health.app)?;
                if let Some(url) = &health.url {
                    write!(f, "  {url}")?;
                }
                if let Some(failure) = &health.failure {
                    write!(f, "\n        {}", failure.detail)?;
                }
                writeln!(f)
            }
            Event::Summary { apps, healthy } => writeln!(f, "{healthy} of {apps} apps are healthy"),
        }
    }
}
