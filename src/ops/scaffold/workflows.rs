//! `gen workflows`: continuous integration on GitHub, made from the bundle's targets. Offline.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{quoted, relative};
use super::templates::Templates;
use super::{HEADER, Rendered, check_header};
use crate::bundle::{Config, Outline};
use crate::error::{Error, Kind, Result};

/// Folder of workflows in a repository.
const FOLDER: &str = ".github/workflows";
/// Templates, and the files that they make.
const FILES: [(&str, &str); 3] = [
    ("workflows/deploy.yml", "lakeforge-deploy.yml"),
    ("workflows/pull-request.yml", "lakeforge-pull-request.yml"),
    ("workflows/gc.yml", "lakeforge-gc.yml"),
];
/// Beginning of a pull request's branch when `lakeforge.yml` says nothing.
const PREFIX: &str = "pr-";

/// What to generate.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkflowsRequest {
    /// Folder of the bundle, absolute.
    pub(crate) root: PathBuf,
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
    let targets = environments(&Outline::read(root, &[])?)?;
    let target = match &request.preview_target {
        None => &targets[0],
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
    };
    let render = |(template, file): (&str, &str)| {
        let source = templates.read(template)?;
        let text = source.render(&page)?;
        check_header(&source.shown, &text)?;
        let path = repository.join(FOLDER).join(file);
        Rendered::new(path, format!("{FOLDER}/{file}"), page.command.to_owned(), text)
    };
    let mut files = FILES.into_iter().map(render).collect::<Result<Vec<_>>>()?;
    files[0].notes = templates.notes();
    files.extend(orphans(&repository, &files)?);
    Ok(files)
}

/// Returns the generated workflows that are not among `files`.
fn orphans(repository: &Path, files: &[Rendered]) -> Result<Vec<Rendered>> {
    let mut orphans = Vec::new();
    for path in super::orphans::files(&repository.join(FOLDER)) {
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
fn environments(outline: &Outline) -> Result<Vec<Environment>> {
    let environments: Vec<Environment> = outline
        .targets
        .iter()
        .filter(|(_, profile)| profile.as_deref() != Some("local"))
        .map(|(name, profile)| Environment {
            name: name.clone(),
            job: job(name),
            profile: profile.clone(),
        })
        .collect();
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
        let jobs = environments(&outline(&["dev", "eu.prod", "2"])).unwrap();
        let jobs: Vec<&str> = jobs.iter().map(|target| target.job.as_str()).collect();
        assert_eq!(jobs, ["deploy_dev", "deploy_eu_prod", "deploy_2"]);

        let error = environments(&outline(&["eu.prod", "eu_prod"])).unwrap_err();
        assert!(error.to_string().contains("`eu.prod` and `eu_prod` would share a job"));
    }
}
