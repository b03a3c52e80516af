//! `gen workflows`: continuous integration on GitHub or GitLab, made from the bundle's targets. Offline.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{quoted, relative};
use super::templates::Templates;
use super::{HEADER, Rendered, check_header};
use crate::bundle::{Config, Outline};
use crate::error::{Error, Kind, Result};

/// Who runs the workflows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Runner {
    /// GitHub Actions.
    #[default]
    GitHub,
    /// GitLab CI.
    GitLab,
}

impl Runner {
    /// Returns the folder of workflows in a repository.
    fn folder(self) -> &'static str {
        match self {
            Runner::GitHub => ".github/workflows",
            Runner::GitLab => ".gitlab",
        }
    }

    /// Returns the templates, and the files that they make.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Runner::GitHub => &[
                ("workflows/deploy.yml", "lakeforge-deploy.yml"),
                ("workflows/pull-request.yml", "lakeforge-pull-request.yml"),
                ("workflows/gc.yml", "lakeforge-gc.yml"),
            ],
            Runner::GitLab => &[("gitlab/lakeforge.yml", "lakeforge.yml")],
        }
    }
}

/// Variables of a bundle by which a preview differs from what it is a preview of.
const PREVIEW_VARIABLES: [&str; 2] = ["app_name_suffix", "lakebase_branch"];
/// Beginning of a pull request's branch when `lakeforge.yml` says nothing.
const PREFIX: &str = "pr-";

/// What to generate.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkflowsRequest {
    /// Folder of the bundle, absolute.
    pub(crate) root: PathBuf,
    /// Who runs them.
    pub(crate) runner: Runner,
    /// Target whose workspace has the branches of pull requests; the first one by default.
    pub(crate) preview_target: Option<String>,
    /// Folder with templates that replace the built-in ones, absolute; that of `lakeforge.yml` by default.
    pub(crate) templates: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    command: &'a str,
    version: &'static str,
    folder: &'a str,
    prefix: &'a str,
    targets: &'a [Environment],
    target: &'a Environment,
    /// The target of pull requests: a preview, or `target` itself.
    pull_request: &'a Environment,
    /// Whether pull requests have apps of their own.
    has_preview: bool,
}

/// A target that continuous integration deploys to.
#[derive(Debug, Clone, Serialize)]
struct Environment {
    name: String,
    job: String,
    profile: Option<String>,
}

/// Renders the workflows of `request`. Writes nothing.
///
/// Fails as `Usage` when the bundle has no target beside the embedded workspace, and for a target
/// that it does not have.
pub(crate) fn render_workflows(request: &WorkflowsRequest) -> Result<Vec<Rendered>> {
    let root = &request.root;
    let config = Config::load(root)?;
    let templates = Templates::open(root, request.templates.as_deref(), &config)?;
    let outline = Outline::read(root, &[])?;
    let targets = environments(&outline, &config.previews)?;
    let preview = preview(&outline, &config.previews);
    let usual = preview
        .as_ref()
        .and_then(|preview| targets.iter().find(|target| target.profile == preview.profile));
    let target = match &request.preview_target {
        None => usual.unwrap_or(&targets[0]),
        Some(name) => targets.iter().find(|target| target.name == *name).ok_or_else(|| {
            let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
            Error::new(Kind::Usage, format!("there is no target `{name}` to deploy to"))
                .why(format!("known: {}", names.join(", ")))
        })?,
    };
    let repository = repository(root);
    let folder = match root == &repository {
        true => String::new(),
        false => relative(&repository, root)?,
    };
    let page = Page {
        command: &command(request)?,
        version: env!("CARGO_PKG_VERSION"),
        folder: &folder,
        prefix: config.gc.prefix.as_deref().unwrap_or(PREFIX),
        targets: &targets,
        target,
        pull_request: preview.as_ref().unwrap_or(target),
        has_preview: preview.is_some(),
    };
    let folder = request.runner.folder();
    let render = |(template, file): (&str, &str)| {
        let source = templates.read(template)?;
        let text = source.render(&page)?;
        check_header(&source.shown, &text)?;
        let path = repository.join(folder).join(file);
        Rendered::new(path, format!("{folder}/{file}"), page.command.to_owned(), text)
    };
    let made = request.runner.files().iter().copied();
    let mut files = made.map(render).collect::<Result<Vec<_>>>()?;
    files[0].notes = templates.notes();
    files.extend(orphans(&repository, folder, &files)?);
    Ok(files)
}

/// Returns the generated workflows that are not among `files`.
fn orphans(repository: &Path, folder: &str, files: &[Rendered]) -> Result<Vec<Rendered>> {
    let mut orphans = Vec::new();
    for path in super::orphans::files(&repository.join(folder)) {
        let is_made = files.iter().any(|file| file.path == path);
        let is_ours = || std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(HEADER));
        if !is_made && is_ours() {
            let shown = relative(repository, &path)?;
            orphans.push(Rendered::orphan(path, shown)?);
        }
    }
    Ok(orphans)
}

/// Returns the targets that are not the embedded workspace, in the order of the bundle.
fn real(outline: &Outline) -> impl Iterator<Item = Environment> {
    let targets = outline.targets.iter();
    targets.filter(|(_, profile)| profile.as_deref() != Some("local")).map(|(name, profile)| {
        Environment { name: name.clone(), job: job(name), profile: profile.clone() }
    })
}

/// Returns the first preview, when the bundle can tell one from another.
fn preview(outline: &Outline, previews: &[String]) -> Option<Environment> {
    let has_variables = PREVIEW_VARIABLES.iter().all(|name| outline.variables.contains(*name));
    real(outline).find(|target| has_variables && previews.contains(&target.name))
}

/// Returns the targets that are deployed to, each with a job of its own.
fn environments(outline: &Outline, previews: &[String]) -> Result<Vec<Environment>> {
    let environments: Vec<Environment> =
        real(outline).filter(|target| !previews.contains(&target.name)).collect();
    for (index, target) in environments.iter().enumerate() {
        if let Some(first) = environments[..index].iter().find(|first| first.job == target.job) {
            let (first, name) = (&first.name, &target.name);
            let what = format!("the targets `{first}` and `{name}` would share a job");
            return Err(Error::new(Kind::Usage, what)
                .why(format!("both would be `{}`", target.job))
                .hint("rename one of them"));
        }
    }
    match environments.is_empty() {
        true => Err(Error::new(Kind::Usage, "the bundle has no target to deploy to")
            .why("the embedded workspace, profile `local`, is not deployed to by a workflow")
            .hint("add a target to databricks.yml")),
        false => Ok(environments),
    }
}

/// Returns `name` as far as the id of a job goes.
fn job(name: &str) -> String {
    format!("deploy_{}", name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"))
}

/// Returns the folder of the repository: the nearest one from `root` upwards that git knows, else `root`.
fn repository(root: &Path) -> PathBuf {
    let known = root.ancestors().find(|folder| folder.join(".git").exists());
    known.unwrap_or(root).to_owned()
}

/// Returns the command that makes the same files again.
fn command(request: &WorkflowsRequest) -> Result<String> {
    let mut command = "lakeforge gen workflows".to_owned();
    if request.runner == Runner::GitLab {
        command.push_str(" --ci gitlab");
    }
    if let Some(target) = &request.preview_target {
        command.push_str(&format!(" --preview-target {}", quoted(target)));
    }
    if let Some(folder) = &request.templates {
        let shown = relative(&request.root, folder)?;
        command.push_str(&format!(" --template-dir {}", quoted(&shown)));
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(names: &[&str]) -> Outline {
        let targets = names.iter().map(|name| ((*name).to_owned(), None)).collect();
        Outline { targets, ..Outline::default() }
    }

    #[test]
    fn targets_become_jobs_of_their_own_or_are_refused() {
        let jobs =
            environments(&outline(&["dev", "eu.prod", "2", "pr"]), &["pr".to_owned()]).unwrap();
        let jobs: Vec<&str> = jobs.iter().map(|target| target.job.as_str()).collect();
        assert_eq!(jobs, ["deploy_dev", "deploy_eu_prod", "deploy_2"]);

        let error = environments(&outline(&["eu.prod", "eu_prod"]), &[]).unwrap_err();
        assert!(error.to_string().contains("`eu.prod` and `eu_prod` would share a job"));
    }
}
