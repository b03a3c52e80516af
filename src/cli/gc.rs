//! `lakeforge gc`: what can be asked, and how the answer reads.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::cx::Cx;
use super::{Done, WaitTimeout};
use crate::bundle::Config;
use crate::error::{Error, Kind, Result};
use crate::ops::gc::{self, Decision, OpenPullRequests, Plan, Removed, Rules, Summary};
use crate::ops::names::Scope;
use crate::time::{Ttl, distance};
use crate::ui::{Show, Table};

/// Find and remove the branches that no open pull request needs
///
/// Shows a plan and stops, unless --apply is given. Goes: a branch named like pr-7 whose pull
/// request is not in the list, older than the grace period, that nothing was copied from. Default,
/// protected and root branches are never touched, and any doubt keeps a branch.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  gh pr list --state open --limit 1000 --json number | lakeforge gc --open-prs - --apply --yes"
)]
pub(crate) struct Gc {
    /// Open pull requests: a file or `-`, one number per line or a JSON array
    #[arg(long, value_name = "FILE", required_unless_present = "no_open_prs")]
    open_prs: Option<PathBuf>,
    /// No pull request is open
    #[arg(long, conflicts_with = "open_prs")]
    no_open_prs: bool,
    /// Beginning of a pull request's branch [default: gc.prefix of lakeforge.yml, else pr-]
    #[arg(long)]
    prefix: Option<String>,
    /// How old a branch must be [default: gc.grace of lakeforge.yml, else 24h]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Ttl>,
    /// Project to look at (can be repeated) [default: those of lakeforge.yml, else all]
    #[arg(long, value_name = "NAME")]
    project: Vec<String>,
    /// Delete what the plan lets go
    #[arg(long)]
    apply: bool,
    /// Do not ask
    #[arg(short, long, requires = "apply")]
    yes: bool,
    /// Show the plan and stop, which is the default
    #[arg(long, conflicts_with = "apply")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Gc {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let config = cx.config()?;
        let open = self.open()?;
        let rules = self.rules(&config)?;
        let projects = self.projects(cx, &config)?;
        let api = cx.api()?;
        let now = cx.now();
        let plan = gc::look(&api, projects, &open, now, &rules).await?;
        for decision in &plan.branches {
            cx.ui.event(&Event::Branch { decision, deletes: decision.reason.deletes() })?;
        }
        if cx.ui.is_text() {
            cx.ui.event(&PlanTable { plan: &plan, now })?;
        }
        let count = plan.deletions().count();
        let seen = plan.branches.len();
        if !self.apply || count == 0 {
            let summary = Summary { seen, kept: seen - count, deleted: count, failed: 0 };
            cx.ui.event(&Event::Summary { applied: self.apply, summary })?;
            return Ok(Done::from(()));
        }
        if !self.yes {
            cx.ui.confirm(&format!("delete {count} of {seen} branches?"), "--yes").await?;
        }
        let removing = gc::apply(&api, &cx.ui.steps, &plan, &open, &rules, self.wait.limit());
        finish(cx, &removing.await, seen)
    }

    /// Reads the list of open pull requests; what cannot be read deletes nothing.
    fn open(&self) -> Result<OpenPullRequests> {
        let Some(path) = &self.open_prs else { return Ok(OpenPullRequests::none()) };
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.map_err(|error| {
            Error::new(Kind::Usage, "the list of open pull requests cannot be read")
                .why(format!("{}: {error}", path.display()))
        })?;
        OpenPullRequests::parse(&text)
    }

    fn rules(&self, config: &Config) -> Result<Rules> {
        let prefix = self.prefix.clone().or_else(|| config.gc.prefix.clone());
        let prefix = prefix.unwrap_or_else(|| "pr-".to_owned());
        if prefix.is_empty() || prefix.ends_with(|last: char| last.is_ascii_digit()) {
            return Err(Error::new(Kind::Usage, format!("`{prefix}` cannot be the prefix"))
                .why("the number of the pull request follows it, and must be told from it"));
        }
        Ok(Rules {
            prefix,
            grace: self.grace.or(config.gc.grace).unwrap_or(Ttl::from_secs(86_400)),
            protected: config.gc.protected_names.iter().cloned().collect(),
        })
    }

    fn projects(&self, cx: &Cx, config: &Config) -> Result<Vec<crate::wire::names::ProjectName>> {
        if !self.project.is_empty() {
            let one =
                |flag: &String| Scope { flag: Some(flag.clone()), ..Scope::default() }.project();
            return self.project.iter().map(|flag| one(flag).map(|(name, _)| name)).collect();
        }
        let scope = Scope {
            variable: cx.environment.get("LAKEFORGE_PROJECT").map(str::to_owned),
            known: config.projects.iter().map(|project| project.id.clone()).collect(),
            ..Scope::default()
        };
        Ok(scope.any_projects())
    }
}

fn finish(cx: &Cx, removed: &[Removed], seen: usize) -> Result<Done> {
    for removed in removed {
        cx.ui.event(&Event::Removed(removed))?;
    }
    let count = |test: fn(&Removed) -> bool| removed.iter().filter(|entry| test(entry)).count();
    let (deleted, failed) = (count(|entry| entry.deleted), count(|entry| entry.error.is_some()));
    let summary = Summary { seen, kept: seen - deleted - failed, deleted, failed };
    cx.ui.event(&Event::Summary { applied: true, summary })?;
    if failed == 0 {
        return Ok(Done::from(()));
    }
    let error = Error::new(
        Kind::Partial,
        format!("{failed} of {} branches were not deleted", removed.len()),
    );
    let reasons = removed.iter().filter_map(|entry| entry.error.as_deref());
    Err(reasons.fold(error, |error, reason| error.why(reason)))
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    Branch {
        #[serde(flatten)]
        decision: &'a Decision,
        deletes: bool,
    },
    Removed(&'a Removed),
    Summary {
        applied: bool,
        #[serde(flatten)]
        summary: Summary,
    },
}

impl Show for Event<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            // People read the plan as one table.
            Event::Branch { .. } => Ok(()),
            Event::Removed(removed) if removed.deleted => {
                writeln!(f, "{}  deleted", removed.name.short())
            }
            Event::Removed(removed) => match removed.kept {
                Some(reason) => {
                    writeln!(f, "{}  kept after all: {}", removed.name.short(), reason.text())
                }
                None => writeln!(f, "{}  not deleted", removed.name.short()),
            },
            Event::Summary { applied, summary } => {
                let verb = if *applied { "deleted" } else { "to delete" };
                let Summary { seen, kept, deleted, failed } = summary;
                write!(f, "{seen} branches: {deleted} {verb}, {kept} kept")?;
                if *failed > 0 {
                    write!(f, ", {failed} failed")?;
                }
                if !applied && *deleted > 0 {
                    f.write_str("; nothing was changed, --apply deletes")?;
                }
                writeln!(f)
            }
        }
    }
}

#[derive(Serialize)]
struct PlanTable<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for PlanTable<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["", "BRANCH", "CREATED", "REASON"]);
        for decision in &self.plan.branches {
            let word = if decision.reason.deletes() { "delete" } else { "keep" };
            table.row([
                word.to_owned(),
                decision.name.short(),
                decision.create_time.map_or("-".to_owned(), |time| distance(time, self.now)),
                decision.reason.text().to_owned(),
            ]);
        }
        table.write(f)
    }
}
