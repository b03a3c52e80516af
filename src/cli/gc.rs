//! `lakeforge gc`: what can be asked, and how the answer reads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::cx::Cx;
use super::{Done, WaitTimeout};
use crate::api::Client;
use crate::bundle::Config;
use crate::error::{Error, Kind, Result};
use crate::ops::gc::{
    self, Decision, Obstacle, Plan, PullRequests, Removed, Rules, Stage, Summary,
};
use crate::ops::names::Scope;
use crate::time::{Ttl, distance};
use crate::ui::{Show, Table};
use crate::wire::names::{ProjectName, check_id};

/// Find and remove the branches that no pull request needs any more
///
/// Shows a plan and stops, unless --apply is given. Goes: a branch named like pr-7 whose pull
/// request is listed as closed or merged, older than the grace period, that nothing was copied
/// from. A number that is not listed keeps its branch. Default, protected and root branches are
/// never touched, any doubt keeps a branch, and each is looked at again just before it goes. More
/// than half of a project's branches, all of them counted, go only with --confirm.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  gh pr list --state all --limit 10000 --json number,state | lakeforge gc --prs - --apply --yes"
)]
#[command(group = clap::ArgGroup::new("list").required(true))]
pub(crate) struct Gc {
    /// State of each pull request: a file or `-`, JSON with `number` and `state`, as gh, GitHub or
    /// GitLab prints it
    #[arg(long, value_name = "FILE", group = "list")]
    prs: Option<PathBuf>,
    /// Every open pull request: a file or `-`, one number per line and then `end COUNT`; it tells
    /// nothing of numbers above the highest in it
    #[arg(long, value_name = "FILE", group = "list")]
    open_prs: Option<PathBuf>,
    /// Beginning of a pull request's branch [default: gc.prefix of lakeforge.yml, else pr-]
    #[arg(long)]
    prefix: Option<String>,
    /// How old a branch must be [default: gc.grace of lakeforge.yml, else 24h]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Ttl>,
    /// Project to look at (can be repeated) [default: LAKEFORGE_PROJECT, else those of lakeforge.yml]
    #[arg(long, value_name = "NAME")]
    project: Vec<String>,
    /// Every project in the workspace that a deployment of this bundle holds, by its record there
    #[arg(long, conflicts_with = "project")]
    all_projects: bool,
    /// Delete what the plan lets go
    #[arg(long)]
    apply: bool,
    /// Do not ask
    #[arg(short, long, requires = "apply")]
    yes: bool,
    /// How many branches go, where that is more than half of a project's
    #[arg(long, value_name = "COUNT")]
    confirm: Option<usize>,
    /// Show the plan and stop, which is the default
    #[arg(long, conflicts_with = "apply")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Gc {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        let config = cx.config()?;
        let projects = self.projects(cx, &config)?;
        let rules = self.rules(&config, self.pull_requests().await?)?;
        let api = cx.api()?;
        let projects = match projects {
            Some(named) => named,
            None => ours(cx, &api).await?,
        };
        let now = cx.now();
        let plan = gc::look(&api, &cx.ui.steps, projects, now, &rules).await?;
        for decision in &plan.branches {
            cx.ui.event(&Event::Branch { decision, deletes: decision.reason.deletes() })?;
        }
        if cx.ui.is_text() {
            cx.ui.event(&PlanTable { plan: &plan, now })?;
        }
        let deleted = plan.deletions().count();
        let seen = plan.branches.len();
        let confirmed = plan.confirm(self.confirm);
        let applied = self.apply && confirmed.is_ok();
        if !applied || deleted == 0 {
            let summary = Summary { seen, kept: seen - deleted, deleted, ..Summary::default() };
            cx.ui.event(&Event::Summary { applied, summary })?;
            return confirmed.map(|_| Done::from(()));
        }
        let confirmed = confirmed?;
        if !self.yes {
            cx.ui.confirm(&format!("delete {deleted} of {seen} branches?"), "--yes").await?;
        }
        let tally = Tally::new(seen);
        let told = |removed: Removed| tally.add(cx, removed);
        let limit = self.wait.limit();
        let ended = gc::apply(&api, &cx.ui.steps, &confirmed, &rules, limit, &told).await;
        tally.finish(cx, ended, self.confirm)
    }

    /// Reads what is known of the pull requests; what cannot be read deletes nothing.
    async fn pull_requests(&self) -> Result<PullRequests> {
        match (&self.prs, &self.open_prs) {
            (Some(path), _) => PullRequests::parse_states(&read(path).await?),
            (None, Some(path)) => PullRequests::parse_open(&read(path).await?),
            (None, None) => unreachable!("one of the two is required"),
        }
    }

    fn rules(&self, config: &Config, pull_requests: PullRequests) -> Result<Rules> {
        let prefix = self.prefix.clone().or_else(|| config.gc.prefix.clone());
        let prefix = prefix.unwrap_or_else(|| "pr-".to_owned());
        let refuse =
            |why| Error::new(Kind::Usage, format!("`{prefix}` cannot be the prefix")).why(why);
        if prefix.is_empty() || prefix.ends_with(|last: char| last.is_ascii_digit()) {
            return Err(refuse(
                "the number of the pull request follows it, and must be told from it".to_owned(),
            ));
        }
        check_id(&format!("{prefix}1")).map_err(refuse)?;
        let declared = config.projects.iter().flat_map(|project| &project.branches);
        let declared = declared.map(|branch| &branch.id);
        Ok(Rules {
            pull_requests,
            grace: self.grace.or(config.gc.grace).unwrap_or(Ttl::from_secs(86_400)),
            protected: config.gc.protected_names.iter().chain(declared).cloned().collect(),
            prefix,
        })
    }

    /// Returns the projects that are named, or nothing when all of this bundle are meant.
    ///
    /// Fails with `Usage` when nothing names any: a whole workspace is never meant by silence.
    fn projects(&self, cx: &Cx, config: &Config) -> Result<Option<BTreeSet<ProjectName>>> {
        let one = |name: &str| {
            let scope = Scope { flag: Some(name.to_owned()), ..Scope::default() };
            scope.project().map(|(project, _)| project)
        };
        if self.all_projects {
            return Ok(None);
        }
        if !self.project.is_empty() {
            return self.project.iter().map(|name| one(name)).collect::<Result<_>>().map(Some);
        }
        if let Some(name) = cx.environment.get("LAKEFORGE_PROJECT") {
            return one(name).map(|project| Some(BTreeSet::from([project])));
        }
        if config.projects.is_empty() {
            return Err(Error::new(Kind::Usage, "which projects?")
                .code("PROJECT_UNKNOWN")
                .why("no project is named, and there is no lakeforge.yml that lists any")
                .hint("--project NAME, or --all-projects for those this bundle deployed"));
        }
        Ok(Some(config.projects.iter().map(|project| ProjectName::new(&project.id)).collect()))
    }
}

/// Reads a file, or standard input; signals are heard meanwhile.
async fn read(path: &Path) -> Result<String> {
    let source = path.to_owned();
    let read = move || match source.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(source),
    };
    let text = tokio::task::spawn_blocking(read).await.expect("reading does not panic");
    text.map_err(|error| {
        Error::new(Kind::Usage, "the list of pull requests cannot be read")
            .why(format!("{}: {error}", path.display()))
    })
}

/// Returns the projects of the workspace that belong to this bundle, and shows the others.
async fn ours(cx: &Cx, api: &Client) -> Result<BTreeSet<ProjectName>> {
    let found = gc::of_bundle(api, &cx.bundle_of_each_target()?).await?;
    for name in &found.others {
        cx.ui.event(&Event::Skipped { name })?;
    }
    if found.ours.is_empty() {
        return Err(Error::new(Kind::Refused, "no project is known to belong to this bundle")
            .code("NO_PROJECT_OF_THIS_BUNDLE")
            .why("no record of a deployment of this bundle is in the workspace, or none holds a project that is there")
            .hint("--project NAME"));
    }
    Ok(found.ours.into_iter().collect())
}

/// Counts what became of the branches, and shows each as it ends.
struct Tally {
    summary: Cell<Summary>,
    errors: RefCell<Vec<String>>,
}

impl Tally {
    fn new(seen: usize) -> Self {
        let summary = Summary { seen, kept: seen, ..Summary::default() };
        Tally { summary: Cell::new(summary), errors: RefCell::default() }
    }

    fn add(&self, cx: &Cx, removed: Removed) {
        let mut summary = self.summary.get();
        let count = match &removed.obstacle {
            None => Some(&mut summary.deleted),
            Some(Obstacle::Kept(_)) => None,
            Some(Obstacle::Error(_)) => Some(&mut summary.failed),
            Some(Obstacle::Interrupted(_)) => Some(&mut summary.interrupted),
        };
        if let Some(count) = count {
            *count += 1;
            summary.kept -= 1;
        }
        self.summary.set(summary);
        // A stdout that went away must not hide what follows.
        let _ = cx.ui.event(&Event::Removed(&removed));
        if let Some(Obstacle::Error(error)) = removed.obstacle {
            self.errors.borrow_mut().push(error);
        }
    }

    /// Shows the summary; `ended` is how the work ended, and `confirm` what was confirmed.
    fn finish(self, cx: &Cx, ended: Result<()>, confirm: Option<usize>) -> Result<Done> {
        let summary = self.summary.get();
        cx.ui.event(&Event::Summary { applied: true, summary })?;
        let errors = self.errors.into_inner();
        if let Err(error) = ended {
            let error = errors.into_iter().fold(error, Error::why);
            return Err(error.hint(match confirm {
                None => "the same command again goes on from there",
                Some(_) => "the same again goes on from there, with `--confirm` for what is left",
            }));
        }
        if errors.is_empty() {
            return Ok(Done::from(()));
        }
        let all = summary.deleted + summary.failed;
        let headline = format!("{} of {all} branches were not deleted", summary.failed);
        Err(errors.into_iter().fold(Error::new(Kind::Partial, headline), Error::why))
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    Branch {
        #[serde(flatten)]
        decision: &'a Decision,
        deletes: bool,
    },
    /// A project that belongs to somebody else.
    Skipped {
        name: &'a ProjectName,
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
            Event::Skipped { name } => {
                writeln!(f, "{}  skipped: no deployment of this bundle holds it", name.project)
            }
            Event::Removed(removed) => {
                let name = removed.name.short();
                match &removed.obstacle {
                    None => writeln!(f, "{name}  deleted"),
                    Some(Obstacle::Kept(reason)) => {
                        writeln!(f, "{name}  kept after all: {}", reason.text())
                    }
                    Some(Obstacle::Error(_)) => writeln!(f, "{name}  not deleted"),
                    Some(Obstacle::Interrupted(Stage::NotBegun)) => {
                        writeln!(f, "{name}  not deleted: interrupted")
                    }
                    Some(Obstacle::Interrupted(Stage::UnderWay)) => {
                        writeln!(f, "{name}  being deleted when interrupted")
                    }
                }
            }
            Event::Summary { applied, summary } => {
                let verb = if *applied { "deleted" } else { "to delete" };
                let Summary { seen, kept, deleted, failed, interrupted } = summary;
                write!(f, "{seen} branches: {deleted} {verb}, {kept} kept")?;
                if *failed > 0 {
                    write!(f, ", {failed} failed")?;
                }
                if *interrupted > 0 {
                    write!(f, ", {interrupted} interrupted")?;
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
