//! `lakeforge init`: what can be asked, and how the answer reads.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::cx::Cx;
use crate::error::{Error, Kind, Result};
use crate::ops::init::{self, Planned, Request};
use crate::ui::Show;

/// Write databricks.yml, lakeforge.yml and resources/lakebase.yml for a new or existing repository
///
/// Looks for apps: folders with app.yaml, or with app.py and Python requirements. A file that is
/// there is never changed, so that a second run writes what is still missing. Needs no network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge init --project shop --profile shop-dev --yes")]
pub(crate) struct Init {
    /// Folder of the bundle, made when it is missing [default: this one]
    dir: Option<PathBuf>,
    /// Lakebase project (can be repeated) [default: one for each app, else the folder's name]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    project: Vec<String>,
    /// Folder of an app, relative to DIR (can be repeated) [default: those found]
    #[arg(long, value_name = "DIR")]
    app: Vec<String>,
    /// Folder whose files replace the built-in templates of the same names
    #[arg(long, value_name = "DIR")]
    template_dir: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Show what would be written and stop
    #[arg(long)]
    dry_run: bool,
}

impl Init {
    pub(super) async fn run(self, cx: &Cx) -> Result<()> {
        let here = cx.folder()?;
        let root = self.dir.as_ref().or(cx.global.root.as_ref()).map(|folder| here.join(folder));
        let root = root.unwrap_or_else(|| here.clone());
        let root = match root.canonicalize() {
            Ok(root) => root,
            Err(_) => std::path::absolute(root)?,
        };
        if root.exists() && !root.is_dir() {
            return Err(Error::new(Kind::Usage, format!("`{}` is not a folder", root.display())));
        }
        for project in &self.project {
            init::check_project(project)?;
        }
        let search = init::search(&root, &self.app)?;
        for folder in &search.doubtful {
            cx.ui.steps.warn(format!(
                "`{folder}` is left out: neither app.yaml nor app.py says how it starts (`--app {folder}` takes it)"
            ));
        }
        for app in &search.apps {
            cx.ui.steps.note(format!("app `{}` in {}", app.name, app.folder));
        }
        let mut request = Request {
            root,
            projects: self.project,
            apps: search.apps,
            profile: cx.global.profile.clone(),
            templates: self.template_dir.map(|folder| here.join(folder)),
        };
        if !self.yes && !self.dry_run {
            ask_projects(cx, &mut request).await?;
        }
        let plan = init::plan(&request)?;
        for note in &plan.notes {
            cx.ui.steps.warn(note);
        }
        if self.dry_run || !plan.writes() {
            return cx.ui.show(&Answer { files: &plan.files, dry_run: self.dry_run });
        }
        if !self.yes {
            let files: Vec<&str> = plan
                .files
                .iter()
                .filter(|file| file.write)
                .map(|file| file.path.as_str())
                .collect();
            cx.ui.confirm(&format!("write {}?", files.join(", ")), "--yes").await?;
        }
        let files = plan.apply()?;
        cx.ui.show(&Answer { files: &files, dry_run: false })
    }
}

/// Asks for the projects where nothing names them and somebody can be asked.
async fn ask_projects(cx: &Cx, request: &mut Request) -> Result<()> {
    if !request.projects.is_empty() || request.has_config() {
        return Ok(());
    }
    let usual = request.usual_projects().join(",");
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect()
    };
    let check =
        move |text: &str| match split(text).iter().try_for_each(|id| init::check_project(id)) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
    if let Some(text) = cx.ui.input("Lakebase projects", &usual, check).await? {
        request.projects = split(&text);
    }
    Ok(())
}

/// What `init` wrote, or would write.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    files: &'a [Planned],
    dry_run: bool,
}

impl Show for Answer<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        for Planned { path, write, .. } in self.files {
            let word = match (write, self.dry_run) {
                (false, _) => "kept",
                (true, true) => "would write",
                (true, false) => "wrote",
            };
            writeln!(f, "{word} {path}")?;
        }
        Ok(())
    }
}
