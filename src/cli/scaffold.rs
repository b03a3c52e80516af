//! `lakeforge gen`: what can be asked, and how the answer reads.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cx::Cx;
use crate::bundle::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::ops::scaffold::{
    self, Ejected, Listed, Rendered, Request, Runner, Templates, WorkflowsRequest,
};
use crate::ui::{self, Show, Table};

/// Generate resources/lakebase.yml: projects, branches and endpoints
///
/// The inputs are the flags, the bundle's own apps, or `projects:` of lakeforge.yml. The same
/// inputs make the same bytes; the file is written only when it would change. Needs no network.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_value_name = "WHAT")]
#[command(after_help = "Example:\n  lakeforge gen --project shop --branches dev,test")]
pub(crate) struct Gen {
    #[command(subcommand)]
    what: Option<What>,
    /// Project to generate [default: those of lakeforge.yml] (can be repeated)
    #[arg(long, value_name = "PROJECT", value_delimiter = ',')]
    project: Vec<String>,
    /// Branches of each project [default: dev]
    #[arg(long, value_name = "BRANCH,…", value_delimiter = ',')]
    branches: Vec<String>,
    /// Generate a project for each app of the bundle that has a `postgres` resource
    #[arg(long, conflicts_with = "project")]
    from_apps: bool,
    /// File to write [default: resources/lakebase.yml]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder whose files replace the built-in templates of the same names [default: templates of lakeforge.yml]
    #[arg(long, value_name = "DIR")]
    template_dir: Option<PathBuf>,
    /// Print the file instead of writing it
    #[arg(long, group = "instead")]
    stdout: bool,
    /// Write nothing; exit with 3 and show the difference when the file is not up to date, or one is left over
    #[arg(long, group = "instead")]
    check: bool,
    /// Show what would change and write nothing
    #[arg(long, visible_alias = "dry-run", group = "instead")]
    diff: bool,
    /// List the templates and the files that replace them
    #[arg(long, group = "instead")]
    list_templates: bool,
    /// Write the built-in template NAME, or all, to the folder of templates; a file that is there stays
    #[arg(long, value_name = "NAME", num_args = 0..=1, group = "instead")]
    eject: Option<Option<String>>,
    /// Replace a file that lakeforge did not write, or that was changed since
    #[arg(long, conflicts_with_all = ["stdout", "check", "list_templates", "eject"])]
    overwrite: bool,
}

/// What `gen` makes beside the resources.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the JSON Schema of lakeforge.yml, by which editors complete and check it
    #[command(after_help = "Example:\n  lakeforge gen schema > lakeforge.schema.json")]
    Schema,
    Workflows(Workflows),
}

/// Generate workflows: deploy to each target, branches and apps for pull requests, nightly gc
///
/// One environment of the repository for each target of the bundle but the embedded workspace;
/// the login is OIDC, and no secret is stored. Pull requests get apps of their own where
/// `previews:` of lakeforge.yml names a target and the bundle has the variables
/// `app_name_suffix` and `lakebase_branch`. Actions are pinned by commit. Needs no network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge gen workflows --preview-target dev")]
struct Workflows {
    /// Who runs them
    #[arg(long, value_enum, default_value_t)]
    ci: Ci,
    /// Target whose workspace has the branches of pull requests [default: the first]
    #[arg(long, value_name = "TARGET")]
    preview_target: Option<String>,
    /// Folder whose files replace the built-in templates of the same names [default: templates of lakeforge.yml]
    #[arg(long, value_name = "DIR")]
    template_dir: Option<PathBuf>,
    /// Write nothing; exit with 3 and show the difference when a file is not up to date
    #[arg(long, group = "instead")]
    check: bool,
    /// Show what would change and write nothing
    #[arg(long, visible_alias = "dry-run", group = "instead")]
    diff: bool,
    /// Replace files that lakeforge did not write, or that were changed since
    #[arg(long, conflicts_with = "check")]
    overwrite: bool,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Ci {
    /// GitHub Actions: .github/workflows/lakeforge-*.yml
    #[default]
    Github,
    /// GitLab CI: .gitlab/lakeforge.yml, to be included by .gitlab-ci.yml
    Gitlab,
}

impl Workflows {
    fn run(self, cx: &Cx) -> Result<()> {
        let here = cx.folder()?;
        let files = scaffold::render_workflows(&WorkflowsRequest {
            root: root(&here, cx.global.root.as_deref())?,
            runner: match self.ci {
                Ci::Github => Runner::GitHub,
                Ci::Gitlab => Runner::GitLab,
            },
            preview_target: self.preview_target,
            templates: self.template_dir.map(|folder| here.join(folder)),
        })?;
        for note in files.iter().flat_map(|file| &file.notes) {
            cx.ui.steps.warn(note);
        }
        if self.check || self.diff {
            cx.ui.show(&Answers { files: files.iter().map(Answer::planned).collect() })?;
            return finish(files.iter(), self.check, self.overwrite);
        }
        for file in &files {
            file.refuse_foreign(self.overwrite)?;
        }
        let write = |file| Ok(Answer::done(file, file.write(self.overwrite)?));
        let files = files.iter().map(write).collect::<Result<_>>()?;
        cx.ui.show(&Answers { files })
    }
}

impl Gen {
    pub(super) fn run(self, cx: &Cx) -> Result<()> {
        match self.what {
            None => {}
            Some(What::Schema) => return ui::write_stdout(bundle::SCHEMA),
            Some(What::Workflows(workflows)) => return workflows.run(cx),
        }
        let here = cx.folder()?;
        let templates = self.template_dir.map(|folder| here.join(folder));
        if self.list_templates || self.eject.is_some() {
            let root = root(&here, cx.global.root.as_deref())?;
            let templates = Templates::locate(&root, templates.as_deref(), &Config::load(&root)?);
            return match &self.eject {
                Some(name) => eject(cx, &templates, name.as_deref()),
                None => cx.ui.show(&List(templates.list()?)),
            };
        }
        let root = root(&here, cx.global.root.as_deref())?;
        let config = Config::load(&root)?;
        for variable in PLAIN_VARIABLES {
            if !config.projects.is_empty() && cx.environment.get(variable).is_some() {
                cx.ui
                    .steps
                    .note(format!("{variable} is left aside: lakeforge.yml names the projects"));
            }
        }
        let request = Request {
            root,
            out: self.out.map(|path| here.join(path)),
            templates,
            ..cx.generated_from(&self.project, &self.branches, self.from_apps, &config)
        };
        let rendered = scaffold::render(&request)?;
        for note in &rendered.notes {
            cx.ui.steps.warn(note);
        }
        if self.stdout {
            return ui::write_stdout(&rendered.text);
        }
        let orphans = scaffold::orphans(&request)?;
        let files = || std::iter::once(&rendered).chain(&orphans);
        if self.check || self.diff {
            let orphans = orphans.iter().map(Answer::planned).collect();
            cx.ui.show(&Answer { orphans, ..Answer::planned(&rendered) })?;
            return finish(files(), self.check, self.overwrite);
        }
        for file in files() {
            file.refuse_foreign(self.overwrite)?;
        }
        let wrote = rendered.write(self.overwrite)?;
        let remove = |file| Ok(Answer::done(file, file.write(self.overwrite)?));
        let orphans = orphans.iter().map(remove).collect::<Result<_>>()?;
        cx.ui.show(&Answer { orphans, ..Answer::done(&rendered, wrote) })
    }
}

/// Variables of existing generators: projects, and branches of each. CI systems set variables of
/// such names for purposes of their own, so they never change what lakeforge.yml says.
const PLAIN_VARIABLES: [&str; 2] = ["PROJECT_NAME", "CUSTOM_BRANCHES"];

impl Cx {
    /// Returns what the resources are generated from: flags, else the plain variables of existing
    /// generators where `config` names no projects, else `config` or the apps.
    pub(super) fn generated_from(
        &self,
        projects: &[String],
        branches: &[String],
        from_apps: bool,
        config: &Config,
    ) -> Request {
        let plain = |variable: &str| {
            let text = self.environment.get(variable).filter(|_| config.projects.is_empty());
            let names: Vec<String> =
                text.into_iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
            scaffold::given(&names)
        };
        let (mut projects, mut branches) = (scaffold::given(projects), scaffold::given(branches));
        let mut named_by = self.variable_of("project").map(str::to_owned);
        if projects.is_empty() && !from_apps {
            projects = plain(PLAIN_VARIABLES[0]);
            named_by = Some(PLAIN_VARIABLES[0].to_owned());
        }
        if branches.is_empty() && (from_apps || !projects.is_empty()) {
            branches = plain(PLAIN_VARIABLES[1]);
        }
        Request { projects, branches, named_by, from_apps, ..Request::default() }
    }
}

/// Returns the folder of the bundle, else that of lakeforge.yml, else the current one.
fn root(here: &Path, explicit: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = explicit {
        let folder = here.join(folder);
        return match folder.is_dir() {
            true => Ok(folder.canonicalize()?),
            false => {
                let what = format!("the folder `{}` does not exist", folder.display());
                Err(Error::new(Kind::Usage, what))
            }
        };
    }
    let found = bundle::find_root(here, None)?.or_else(|| bundle::find_config(here));
    Ok(found.unwrap_or_else(|| here.to_owned()))
}

/// Ends a run that writes nothing: with `check` a file that is not up to date is a failure, else
/// what the run itself would refuse is refused.
fn finish<'a>(
    mut files: impl Iterator<Item = &'a Rendered>,
    check: bool,
    overwrite: bool,
) -> Result<()> {
    match check {
        true => files.find(|file| !file.is_current()).map_or(Ok(()), |file| Err(stale(file))),
        false => files.try_for_each(|file| file.refuse_foreign(overwrite)),
    }
}

fn stale(rendered: &Rendered) -> Error {
    let what = match rendered.is_orphan() {
        true => format!("`{}` is made by nothing any more", rendered.shown),
        false => format!("`{}` is not up to date", rendered.shown),
    };
    Error::new(Kind::Difference, what).hint(rendered.command.clone())
}

/// What `gen` did, or would do.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    path: &'a str,
    changed: bool,
    wrote: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// Whether it is to go, because nothing makes it any more.
    #[serde(skip_serializing_if = "is_false")]
    orphan: bool,
    /// Files that are to go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orphans: Vec<Answer<'a>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Answer<'a> {
    fn planned(rendered: &'a Rendered) -> Self {
        let (path, changed) = (rendered.shown.as_str(), !rendered.is_current());
        let (diff, orphan) = (Some(rendered.diff()), rendered.is_orphan());
        Answer { path, changed, wrote: false, diff, orphan, orphans: Vec::new() }
    }

    fn done(rendered: &'a Rendered, wrote: bool) -> Self {
        let (path, orphan) = (rendered.shown.as_str(), rendered.is_orphan());
        Answer { path, changed: wrote, wrote, diff: None, orphan, orphans: Vec::new() }
    }
}

/// What `gen workflows` did, or would do.
#[derive(Debug, Serialize)]
struct Answers<'a> {
    files: Vec<Answer<'a>>,
}

impl Show for Answers<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        self.files.iter().try_for_each(|file| file.text(f))
    }
}

impl Show for Answer<'_> {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match &self.diff {
            Some(diff) if self.changed => f.write_str(diff),
            _ if self.wrote && self.orphan => writeln!(f, "removed {}", self.path),
            _ if self.wrote => writeln!(f, "wrote {}", self.path),
            _ => writeln!(f, "unchanged {}", self.path),
        }?;
        self.orphans.iter().try_for_each(|file| file.text(f))
    }
}

fn eject(cx: &Cx, templates: &Templates, name: Option<&str>) -> Result<()> {
    let ejected = templates.eject(name)?;
    if let Some(folder) = templates.unnamed() {
        cx.ui
            .steps
            .note(format!("add `templates: {folder}` to lakeforge.yml, and `gen` uses them"));
    }
    cx.ui.show(&Eject(ejected))
}

/// The templates there are.
#[derive(Debug, Serialize)]
struct List(Vec<Listed>);

impl Show for List {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let mut table = Table::new(["TEMPLATE", "MAKES", "REPLACED BY"]);
        for Listed { template, replaced_by } in &self.0 {
            let replaced_by = replaced_by.as_deref().unwrap_or("-");
            table.row([template.name, template.makes, replaced_by].map(str::to_owned));
        }
        table.write(f)
    }
}

/// The templates that were written out.
#[derive(Debug, Serialize)]
struct Eject(Vec<Ejected>);

impl Show for Eject {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        for Ejected { path, wrote } in &self.0 {
            writeln!(f, "{} {path}", if *wrote { "wrote" } else { "kept" })?;
        }
        Ok(())
    }
}
