//! `lakeforge branch`: what can be asked, and how the answers read.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::cx::Cx;
use super::scope::{ProjectChoice, ProjectsChoice};
use super::{Done, WaitTimeout};
use crate::bundle::Config;
use crate::error::{Error, Kind, Result};
use crate::ops::branch::{self as ops, Created, DeletePlan, Deleted, Detail, Expiry, Outcome};
use crate::ops::names::{Resolved, Scope};
use crate::time::{Ttl, distance, human, parse_moment, to_milliseconds};
use crate::ui::{Show, Table};
use crate::wire::names::check_id;
use crate::wire::postgres::Branch;

/// Create, restore, list and delete branches
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge branch create shop/dev --ttl 7d")]
pub(crate) struct Branches {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    Restore(Restore),
    List(List),
    Get(Get),
    Delete(Delete),
}

impl Branches {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        match self.command {
            Command::Create(command) => command.run(cx).await,
            Command::Restore(command) => command.run(cx).await,
            Command::List(command) => command.run(cx).await,
            Command::Get(command) => command.run(cx).await,
            Command::Delete(command) => command.run(cx).await,
        }
        .map(Done::from)
    }
}

/// Create a branch, or keep it alive
///
/// The branch shares storage with its source until either side writes, so this takes seconds
/// whatever the size of the data. A branch that exists with the same source is reused and its
/// expiry refreshed. Waits until SQL works. In several projects it is all or nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge branch create pr-7 --all --ttl 7d")]
struct Create {
    /// Name of the new branch: dev, shop/dev or projects/shop/branches/dev
    name: String,
    #[command(flatten)]
    projects: ProjectsChoice,
    /// Branch to copy [default: the project's default branch]
    #[arg(long, value_name = "BRANCH")]
    from: Option<String>,
    #[command(flatten)]
    making: Making,
}

/// Restore a branch as it was at a moment, as a new branch
///
/// Nothing is written over: the moment becomes a branch of its own. The workspace goes back to the
/// last commit at or before the moment, and the answer says which that was.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lakeforge branch restore rescue --at '10 minutes ago' --ttl 1d"
)]
struct Restore {
    /// Name of the new branch: rescue, shop/rescue or projects/shop/branches/rescue
    name: String,
    /// Moment to go back to: 10 minutes ago, -2h, 2026-01-02T03:04:05Z, yesterday 14:00 Europe/Berlin
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    at: String,
    #[command(flatten)]
    projects: ProjectsChoice,
    /// Branch to go back on [default: the project's default branch]
    #[arg(long, value_name = "BRANCH")]
    from: Option<String>,
    #[command(flatten)]
    making: Making,
}

/// What `create` and `restore` share.
#[derive(Debug, clap::Args)]
struct Making {
    /// Life of the branch, at most 30d [default: branch.ttl of lakeforge.yml]
    #[arg(long, value_name = "DURATION", group = "expiry")]
    ttl: Option<Ttl>,
    /// Moment the branch is deleted
    #[arg(long, value_name = "TIME", group = "expiry")]
    expires_at: Option<String>,
    /// Keep the branch until somebody deletes it
    #[arg(long, group = "expiry")]
    no_expiry: bool,
    /// Protect the branch from deletion and reset; it never expires then
    #[arg(long)]
    protected: bool,
    /// Show what would be done and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Create {
    async fn run(self, cx: &Cx) -> Result<()> {
        let config = cx.config()?;
        let scope = self.projects.scope(cx, &config);
        make(cx, &config, &scope, &self.name, self.from, None, self.making).await
    }
}

impl Restore {
    async fn run(self, cx: &Cx) -> Result<()> {
        let config = cx.config()?;
        let at = moment(&self.at, "--at", cx.now())?;
        cx.ui.steps.note(format!("→ as of {at} ({})", distance(at, cx.now())));
        let scope = self.projects.scope(cx, &config);
        make(cx, &config, &scope, &self.name, self.from, Some(at), self.making).await
    }
}

async fn make(
    cx: &Cx,
    config: &Config,
    scope: &Scope,
    name: &str,
    from: Option<String>,
    at: Option<Timestamp>,
    making: Making,
) -> Result<()> {
    let branches = scope.branches(name)?;
    let request = ops::Create {
        from: from.map(|from| source(&from, &branches)).transpose()?,
        at,
        expiry: making.expiry(config, cx.now())?,
        protected: making.protected,
        wait: making.wait.limit(),
        branches,
    };
    let api = cx.api()?;
    announce(cx, &request.branches);
    let plan = ops::plan_create(&api, &cx.ui.steps, request).await?;
    let entries = if making.dry_run {
        plan.preview(cx.now())
    } else {
        ops::create(&api, &cx.ui.steps, plan).await?
    };
    cx.ui.show(&Answer { entries, several: scope.all, now: cx.now() })
}

/// Reads the branch to copy, which is in the same project as the new one.
fn source(text: &str, branches: &[Resolved]) -> Result<String> {
    let Some((rest, id)) = text.rsplit_once('/') else { return Ok(text.to_owned()) };
    let project = rest.strip_prefix("projects/").unwrap_or(rest);
    let project = project.strip_suffix("/branches").unwrap_or(project);
    match branches.iter().find(|branch| branch.name.project != project) {
        None => Ok(id.to_owned()),
        Some(other) => Err(Error::new(Kind::Usage, "a branch is copied within its project")
            .why(format!("`{text}` and `{}` are in two", other.name.short()))),
    }
}

impl Making {
    fn expiry(&self, config: &Config, now: Timestamp) -> Result<Expiry> {
        let expiry = match (self.ttl, &self.expires_at, config.branch_ttl) {
            (Some(ttl), ..) => Expiry::After(ttl),
            (None, Some(text), _) => Expiry::At(moment(text, "--expires-at", now)?),
            _ if self.no_expiry || self.protected => Expiry::Never,
            (None, None, Some(ttl)) => Expiry::After(ttl),
            (None, None, None) => {
                return Err(Error::new(Kind::Usage, "how long is the branch to live?")
                    .code("EXPIRY_NEEDED")
                    .why("the workspace wants to know, and lakeforge.yml sets no branch.ttl")
                    .hint("--ttl 7d, --expires-at TIME or --no-expiry"));
            }
        };
        match expiry {
            Expiry::At(moment) if moment <= now => {
                Err(Error::new(Kind::Usage, "the branch would expire in the past")
                    .why(format!("{moment} was {}", distance(moment, now))))
            }
            Expiry::After(_) | Expiry::At(_) if self.protected => {
                Err(Error::new(Kind::Usage, "a protected branch cannot expire")
                    .hint("leave out --protected, or the expiry"))
            }
            expiry => Ok(expiry),
        }
    }
}

fn moment(text: &str, flag: &str, now: Timestamp) -> Result<Timestamp> {
    parse_moment(text, now)
        .map(to_milliseconds)
        .map_err(|why| Error::new(Kind::Usage, format!("`{flag}` is not understood")).why(why))
}

fn announce(cx: &Cx, branches: &[Resolved]) {
    for branch in branches {
        cx.ui.steps.note(branch.announcement());
    }
}

/// List branches
///
/// Without --project: those of every project in lakeforge.yml, or where it lists none, of every
/// project in the workspace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge branch list --project shop")]
struct List {
    #[command(flatten)]
    project: ProjectChoice,
}

impl List {
    async fn run(self, cx: &Cx) -> Result<()> {
        let projects = self.project.scope(cx, &cx.config()?).any_projects();
        for name in &projects {
            check_id(&name.project).map_err(|why| Error::new(Kind::Usage, why))?;
        }
        let branches = ops::list(&cx.api()?, projects).await?;
        cx.ui.show(&Listing { branches, now: cx.now() })
    }
}

/// Show a branch and its endpoints
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge branch get shop/dev -o json")]
struct Get {
    /// Name of the branch: dev, shop/dev or projects/shop/branches/dev
    name: String,
    #[command(flatten)]
    project: ProjectChoice,
}

impl Get {
    async fn run(self, cx: &Cx) -> Result<()> {
        let branch = self.project.scope(cx, &cx.config()?).branch(&self.name)?;
        let detail = ops::get(&cx.api()?, &branch.name).await?;
        cx.ui.show(&Shown { detail, now: cx.now() })
    }
}

/// Delete branches
///
/// Default, protected and production branches also need --confirm with their exact name. A branch
/// that others were copied from goes only together with them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge branch delete pr-7 --all --yes")]
struct Delete {
    /// Names of the branches: dev, shop/dev or projects/shop/branches/dev
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    projects: ProjectsChoice,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Exact name of a default, protected or production branch that is to go (can be repeated)
    #[arg(long, value_name = "NAME")]
    confirm: Vec<String>,
    /// Show what would be done and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl Delete {
    async fn run(self, cx: &Cx) -> Result<()> {
        let scope = self.projects.scope(cx, &cx.config()?);
        let mut branches = Vec::new();
        for name in &self.names {
            branches.extend(scope.branches(name)?);
        }
        let api = cx.api()?;
        announce(cx, &branches);
        let plan = ops::plan_delete(&api, branches, &self.confirm, scope.all).await?;
        for name in &plan.deleted {
            cx.ui.steps.note(format!("{} is deleted already", name.short()));
        }
        if self.dry_run {
            return cx.ui.show(&Planned { plan, now: cx.now() });
        }
        if !self.yes && !plan.branches.is_empty() {
            let names: Vec<String> =
                plan.branches.iter().map(|branch| branch.name.short()).collect();
            cx.ui.confirm(&format!("delete {}?", names.join(", ")), "--yes").await?;
        }
        let deleted = ops::delete(&api, &cx.ui.steps, plan, self.wait.limit()).await?;
        cx.ui.show(&DeletedAnswer(deleted))
    }
}

/// The answer of `create` and `restore`: one entry, or a list with `--all`.
struct Answer {
    entries: Vec<Created>,
    several: bool,
    now: Timestamp,
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.entries[..] {
            [one] if !self.several => one.serialize(serializer),
            entries => entries.serialize(serializer),
        }
    }
}

impl Show for Answer {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        for entry in &self.entries {
            let verb = match entry.outcome {
                Outcome::Created => "created",
                Outcome::Reused => "reused",
                Outcome::WouldCreate => "would be created",
                Outcome::WouldReuse => "would be reused",
            };
            write!(f, "{}  {verb}", entry.name.short())?;
            if let Some(source) = &entry.source {
                write!(f, " from {}", source.branch)?;
            }
            if let Some(requested) = entry.requested_time {
                write!(f, ", asked for {requested} ({})", distance(requested, self.now))?;
                if let Some(actual) = entry.source_time {
                    write!(f, ", is {actual} ({})", distance(actual, self.now))?;
                }
            }
            match entry.expire_time {
                Some(end) => write!(f, ", expires {}", distance(end, self.now))?,
                None => f.write_str(", never expires")?,
            }
            if entry.host.is_some() {
                let elapsed = std::time::Duration::from_millis(entry.elapsed_ms);
                write!(f, ", takes SQL after {}", human(elapsed))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Listing {
    branches: Vec<Branch>,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for Listing {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["BRANCH", "STATE", "SOURCE", "CREATED", "EXPIRES", "NOTES"]);
        for branch in &self.branches {
            let status = &branch.status;
            let when = |time: Option<Timestamp>| {
                time.map_or("-".to_owned(), |time| distance(time, self.now))
            };
            table.row([
                branch.name.short(),
                state(branch),
                status.source_branch.as_ref().map_or("-".to_owned(), |name| name.branch.clone()),
                when(branch.create_time),
                when(status.expire_time),
                notes(branch),
            ]);
        }
        table.write(f)
    }
}

fn state(branch: &Branch) -> String {
    format!("{:?}", branch.status.current_state).to_uppercase()
}

fn notes(branch: &Branch) -> String {
    let mut notes = Vec::new();
    if branch.status.default {
        notes.push("default");
    }
    if branch.status.is_protected {
        notes.push("protected");
    }
    notes.join(", ")
}

#[derive(Serialize)]
#[serde(transparent)]
struct Shown {
    detail: Detail,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for Shown {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let branch = &self.detail.branch;
        let status = &branch.status;
        writeln!(f, "{}", branch.name)?;
        let notes = notes(branch);
        let space = if notes.is_empty() { "" } else { ", " };
        writeln!(f, "state     {}{space}{notes}", state(branch))?;
        if let Some(source) = &status.source_branch {
            write!(f, "source    {}", source.branch)?;
            if let Some(time) = status.source_branch_time {
                write!(f, " as of {time} ({})", distance(time, self.now))?;
            }
            writeln!(f)?;
        }
        if let Some(time) = branch.create_time {
            writeln!(f, "created   {time} ({})", distance(time, self.now))?;
        }
        match status.expire_time {
            Some(time) => writeln!(f, "expires   {time} ({})", distance(time, self.now))?,
            None => writeln!(f, "expires   never")?,
        }
        for endpoint in &self.detail.endpoints {
            let host = endpoint.status.hosts.as_ref().and_then(|hosts| hosts.host.as_deref());
            let state = format!("{:?}", endpoint.status.current_state).to_uppercase();
            writeln!(f, "endpoint  {} {state} {}", endpoint.name.endpoint, host.unwrap_or("-"))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Planned {
    plan: DeletePlan,
    #[serde(skip)]
    now: Timestamp,
}

impl Show for Planned {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["WOULD DELETE", "SOURCE", "CREATED"]);
        for branch in &self.plan.branches {
            table.row([
                branch.name.short(),
                branch.source.as_ref().map_or("-".to_owned(), |name| name.branch.clone()),
                branch.create_time.map_or("-".to_owned(), |time| distance(time, self.now)),
            ]);
        }
        table.write(f)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct DeletedAnswer(Vec<Deleted>);

impl Show for DeletedAnswer {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        for deleted in &self.0 {
            writeln!(f, "{}  deleted", deleted.name.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn making(ttl: Option<&str>, at: Option<&str>, never: bool, protected: bool) -> Making {
        Making {
            ttl: ttl.map(|text| text.parse().unwrap()),
            expires_at: at.map(str::to_owned),
            no_expiry: never,
            protected,
            dry_run: false,
            wait: WaitTimeout { wait_timeout: Ttl::from_secs(1) },
        }
    }

    #[test]
    fn every_branch_has_an_expiry_or_says_that_it_has_none() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let with_ttl = Config { branch_ttl: Some(Ttl::from_secs(60)), ..Config::default() };
        let none = Config::default();
        let hour = Expiry::After(Ttl::from_secs(3600));
        let later = Expiry::At("2026-11-21T12:00:00Z".parse().unwrap());
        for (making, config, expected) in [
            (making(Some("1h"), None, false, false), &with_ttl, Some(hour)),
            (making(None, Some("2026-11-21T12:00:00Z"), false, false), &with_ttl, Some(later)),
            (making(None, None, true, false), &with_ttl, Some(Expiry::Never)),
            (making(None, None, false, false), &with_ttl, Some(Expiry::After(Ttl::from_secs(60)))),
            (making(None, None, false, true), &with_ttl, Some(Expiry::Never)),
            (making(None, None, false, false), &none, None),
            (making(Some("1h"), None, false, true), &none, None),
            (making(None, Some("2026-11-19T12:00:00Z"), false, false), &none, None),
            (making(None, Some("tomorrow"), false, false), &none, None),
        ] {
            let found = making.expiry(config, now);
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{making:?} {found:?}");
        }
    }

    #[test]
    fn the_source_is_in_the_same_project() {
        let branches =
            Scope { flag: Some("shop".to_owned()), ..Scope::default() }.branches("dev").unwrap();

        for text in ["test", "shop/test", "projects/shop/branches/test"] {
            assert_eq!(source(text, &branches).unwrap(), "test");
        }
        assert!(source("lab/test", &branches).is_err());
    }
}
