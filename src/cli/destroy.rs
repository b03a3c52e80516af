//! `lakeforge destroy`: what can be asked, and how the answer reads.

use std::fmt;

use serde::Serialize;

use super::WaitTimeout;
use super::cx::Cx;
use super::deploy::word;
use super::engine::{Inputs, With};
use crate::error::Result;
use crate::ops::change::Change;
use crate::ops::destroy;
use crate::ui::{Show, Table};

/// Destroy what `deploy` deployed: apps, branches, endpoints, projects
///
/// Works from what was deployed, which is recorded beside the deployment in the workspace, and
/// stops when the inputs or the bundle say something else now. Wraps `databricks bundle destroy`;
/// where the CLI is not installed, a built-in engine serves the embedded workspace. What
/// `lifecycle.prevent_destroy` guards is never destroyed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge destroy -t dev --var app_name_suffix=-pr-7 --yes")]
pub(crate) struct Destroy {
    /// Show what would be deleted and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Project, or default, protected or production branch, that is to go (can be repeated)
    #[arg(long, value_name = "NAME")]
    confirm: Vec<String>,
    /// Destroy what was deployed although the inputs or the bundle say something else now
    #[arg(long)]
    as_deployed: bool,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Destroy {
    pub(super) async fn run(self, cx: &Cx) -> Result<()> {
        let bundle = cx.bundle()?;
        if !self.as_deployed {
            self.inputs.check(cx, &bundle)?;
        }
        let api = cx.api_for(Some(&bundle))?;
        let engine = self.with.open(cx, &api, &bundle).await?;
        let steps = &cx.ui.steps;
        let target = &bundle.target.name;
        steps.note(format!("→ bundle `{}`, target `{target}`, {}", bundle.name, api.host()));
        let Some(plan) = destroy::plan(&api, &engine, &bundle).await? else {
            steps.note("nothing is deployed here");
            return cx.ui.show(&Answer { deleted: Vec::new(), dry_run: self.dry_run });
        };
        match &plan.drift {
            Some(drift) if self.as_deployed || self.dry_run => {
                drift.lists().iter().for_each(|list| steps.warn(list));
            }
            Some(drift) => return Err(drift.refuse().hint("--as-deployed")),
            None => {}
        }
        let deleted = plan.changes();
        if self.dry_run {
            cx.ui.show(&Answer { deleted, dry_run: true })?;
            return plan.confirm(&self.confirm).map(drop);
        }
        let plan = plan.confirm(&self.confirm)?;
        if !self.yes {
            for change in &deleted {
                steps.warn(format!("delete {} {}", change.resource, change.name));
            }
            let what = format!("delete {} resources and `{}`?", deleted.len(), plan.plan().folder);
            cx.ui.confirm(&what, "--yes").await?;
        }
        let limit = self.wait.limit();
        destroy::apply(&api, steps, &engine, &plan, limit).await?;
        cx.ui.show(&Answer { deleted, dry_run: false })
    }
}

/// What was deleted, or would be.
#[derive(Debug, Serialize)]
struct Answer {
    deleted: Vec<Change>,
    dry_run: bool,
}

impl Show for Answer {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        if !self.dry_run {
            return self
                .deleted
                .iter()
                .try_for_each(|change| writeln!(f, "deleted {} {}", change.resource, change.name));
        }
        let mut table = Table::new(["ACTION", "RESOURCE", "NAME"]);
        for change in &self.deleted {
            let word = word(&change.action).to_owned();
            table.row([word, change.resource.clone(), change.name.clone()]);
        }
        table.write(f)
    }
}
