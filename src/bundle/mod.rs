//! `databricks.yml` and `lakeforge.yml`: found, read, with a target chosen and variables resolved.
//!
//! The only room that knows the YAML crate.

mod apps;
mod config;
mod include;
mod keys;
mod layers;
mod locate;
mod node;
mod outline;
mod place;
mod read;
mod reference;
mod resolve;
mod resources;
mod variables;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub(crate) use config::{
    AppConfig, Branch, CONFIG_FILE, Compute, Config, Database, Endpoint, Expiry, Migrate, Project,
    Role, SCHEMA, WIDEST_CU, find_config,
};
pub(crate) use outline::{Attached, Outline};
pub(crate) use place::Place;
pub(crate) use resources::Resource;

use crate::error::{Error, Kind, Result};
use layers::Layers;
use read::Reader;

/// Names a root file may have.
pub(crate) const ROOT_FILES: [&str; 4] =
    ["databricks.yml", "databricks.yaml", "bundle.yml", "bundle.yaml"];

/// Returns the folder that holds the root file: `explicit`, else the first one from `from` upwards.
///
/// Fails when `explicit` has no root file, and when a folder has several.
pub(crate) fn find_root(from: &Path, explicit: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(folder) = explicit {
        let folder = std::path::absolute(from.join(folder))?;
        return match root_file(&folder)? {
            Some(_) => Ok(Some(folder)),
            None => Err(Error::new(
                Kind::Usage,
                format!("`{}` holds no databricks.yml", folder.display()),
            )),
        };
    }
    for folder in std::path::absolute(from)?.ancestors() {
        if root_file(folder)?.is_some() {
            return Ok(Some(folder.to_owned()));
        }
    }
    Ok(None)
}

/// Returns the name of the root file in `folder`, of which there may be only one.
fn root_file(folder: &Path) -> Result<Option<&'static str>> {
    let mut present = ROOT_FILES.into_iter().filter(|name| folder.join(name).is_file());
    match (present.next(), present.next()) {
        (Some(first), Some(second)) => Err(Error::new(
            Kind::Usage,
            format!("`{}` holds both `{first}` and `{second}`", folder.display()),
        )
        .hint("keep one of them")),
        (first, _) => Ok(first),
    }
}

/// What the command line and the environment say about a bundle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Target asked for.
    pub(crate) target: Option<String>,
    /// Values of `--var`, by variable.
    pub(crate) variables: BTreeMap<String, String>,
    /// Values of `BUNDLE_VAR_…`, by variable; one that is not declared is ignored.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Choice {
    /// Reads `NAME=VALUE` pairs of `--var`; the last of one name counts.
    pub(crate) fn parse_variables(pairs: &[String]) -> Result<BTreeMap<String, String>> {
        pairs
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(Error::new(Kind::Usage, format!("`--var {pair}` has no value"))
                    .hint("--var NAME=VALUE")),
            })
            .collect()
    }
}

/// The chosen target.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Name below `targets`, or `default` when there are none.
    pub(crate) name: String,
    /// Profile of the workspace.
    pub(crate) profile: Option<String>,
    /// Address of the workspace.
    pub(crate) host: Option<String>,
}

/// A database that an app is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Name of the entry in the app's `resources`.
    pub(crate) name: String,
    /// Full name of the branch.
    pub(crate) branch: String,
    /// Full name of the database.
    pub(crate) database: Option<String>,
}

/// An app.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// Key in the bundle.
    pub(crate) key: String,
    /// Name in the workspace.
    pub(crate) name: String,
    /// What the name begins with where variables make up the rest, such as the suffix of a preview.
    pub(crate) stem: String,
    /// Folder with the source, absolute; absent when it comes from git.
    pub(crate) source: Option<PathBuf>,
    /// Command and environment.
    pub(crate) config: Option<Value>,
    /// Databases it is given, as far as their names are known without a workspace.
    pub(crate) databases: Vec<Attachment>,
    /// Where it is written.
    pub(crate) place: Place,
}

/// A bundle as one target sees it.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// Folder of the root file.
    pub(crate) root: PathBuf,
    /// `bundle.name`.
    pub(crate) name: String,
    /// The chosen target.
    pub(crate) target: Target,
    /// Folder of this deployment in the workspace; may hold `${workspace.current_user.…}`.
    pub(crate) root_path: String,
    /// Folder of the uploaded files in the workspace; may hold `${workspace.current_user.…}`.
    pub(crate) file_path: String,
    /// The apps, by key as written.
    pub(crate) apps: Vec<App>,
    /// What people may call the apps that only other targets have.
    apps_elsewhere: Vec<String>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
    /// Everything: merged, with variables resolved; `${resources.…}` and
    /// `${workspace.current_user.…}` are still text.
    #[cfg(test)]
    pub(crate) tree: Value,
    resources: Vec<Resource>,
}

impl Bundle {
    /// Reads the bundle in the folder `root`. Needs no network.
    ///
    /// Fails as `Usage`, with file, line and column, for whatever in it does not fit together.
    pub(crate) fn load(root: &Path, choice: &Choice) -> Result<Bundle> {
        let root = std::path::absolute(root)?;
        let file = root_file(&root)?.ok_or_else(|| {
            Error::new(Kind::Usage, format!("`{}` holds no databricks.yml", root.display()))
                .hint("change to the folder of the bundle, or add `--root DIR`")
        })?;
        let documents = include::documents(&root, file, &[])?;
        let mut warnings = documents.iter().map(keys::check).collect::<Result<Vec<_>>>()?.concat();
        warnings.extend(include::unmatched(&root, &documents[0]));
        let (mut tree, layers, target) = layers::combine(&documents, choice.target.as_deref())?;
        let name = describe_bundle(&mut tree, &layers, &target)?;
        variables::assign(&mut tree, &layers, choice, &root, &target)?;
        resolve::workspace_paths(&mut tree, &name, &target);
        let mut tree = Value::Object(tree);
        resolve::resolve(&mut tree, &layers)?;
        let resources = resources::in_order(&tree, &layers)?;
        let reader = Reader { tree: &tree, layers: &layers };
        for (kind, id_field) in [
            ("postgres_projects", "project_id"),
            ("postgres_branches", "branch_id"),
            ("postgres_endpoints", "endpoint_id"),
        ] {
            reader.check_ids(kind, id_field)?;
        }
        let apps = reader.apps()?;
        Ok(Bundle {
            name: reader.text("bundle.name").unwrap_or(name),
            target: reader.target(target)?,
            root_path: reader.text("workspace.root_path").unwrap_or_default(),
            file_path: reader.text("workspace.file_path").unwrap_or_default(),
            apps_elsewhere: apps::elsewhere(&documents, &apps),
            apps,
            warnings,
            root: root.clone(),
            resources,
            #[cfg(test)]
            tree,
        })
    }

    /// Returns the full names of all resources of `kind`, as far as they are known without a workspace.
    #[cfg(test)]
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        resources::names(&self.tree, kind).into_values().flatten().collect()
    }

    /// Returns every resource, each after what it depends on.
    pub(crate) fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Replaces every reference in `value`, also those inside longer texts, by what `lookup` says.
    ///
    /// `lookup` is asked for paths such as `resources.postgres_projects.p.id` and
    /// `workspace.current_user.userName`. Fails for a path it does not know.
    pub(crate) fn resolve(value: &Value, lookup: impl Fn(&str) -> Option<Value>) -> Result<Value> {
        reference::substitute_all(value, &mut |path| match reference::namespace(path)? {
            None => Ok(None),
            Some(_) => match lookup(path) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::new(Kind::Usage, format!("`${{{path}}}` has no value yet"))
                    .code("UNKNOWN_REFERENCE")),
            },
        })
    }
}

/// Fills in `bundle.target` and returns `bundle.name`, which must be there.
fn describe_bundle(tree: &mut Map<String, Value>, layers: &Layers, target: &str) -> Result<String> {
    let name = tree
        .get("bundle")
        .and_then(|bundle| bundle.get("name"))
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| {
            layers.place(&["bundle".into(), "name".into()]).error("`bundle.name` is missing")
        })?;
    if let Some(Value::Object(bundle)) = tree.get_mut("bundle") {
        bundle.insert("target".to_owned(), target.into());
        bundle.insert("environment".to_owned(), target.into());
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
