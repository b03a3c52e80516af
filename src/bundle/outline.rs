//! What a bundle says beside one of its files: for whoever writes that file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::place::{Place, Step};
use super::reference::stem;
use super::{include, keys, root_file};
use crate::error::Result;

/// Names that the other files of a bundle take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    /// Whether there is a bundle.
    pub(crate) exists: bool,
    /// Whether the root file includes the first file that was passed over.
    pub(crate) includes: bool,
    /// Variables the other files declare.
    pub(crate) variables: BTreeSet<String>,
    /// Targets of the root file with the profiles they name, in its order.
    pub(crate) targets: Vec<(String, Option<String>)>,
    /// Resource keys the other files use, and where.
    pub(crate) keys: BTreeMap<String, Place>,
    /// Folders of the deployment that the files name, for all targets or for one.
    pub(crate) root_paths: Vec<String>,
    /// Apps with a database, in the order of the files.
    pub(crate) apps: Vec<Attached>,
}

/// An app that is given a database of Lakebase.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// Name, as far as it is written out.
    pub(crate) name: String,
    /// The branch, as it is written.
    pub(crate) branch: String,
    /// Where the app is written.
    pub(crate) place: Place,
}

impl Outline {
    /// Reads the bundle in the folder `root`, if there is one, as it is without the files `without`;
    /// whether it includes the first of them is told.
    pub(crate) fn read(root: &Path, without: &[&str]) -> Result<Outline> {
        let Some(file) = root_file(root)? else { return Ok(Outline::default()) };
        let documents = include::documents(root, file, without)?;
        documents.iter().try_for_each(|document| keys::check(document).map(|_| ()))?;
        let mut outline = Outline { exists: true, ..Outline::default() };
        let patterns = documents[0].value().get("include").and_then(Value::as_array);
        outline.includes = patterns
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|pattern| without.first().is_some_and(|file| include::names(pattern, file)));
        outline.targets = targets(documents[0].value());
        for document in &documents {
            outline.root_paths.extend(root_paths(document.value()));
            let variables = document.value().get("variables").and_then(Value::as_object);
            outline.variables.extend(variables.into_iter().flat_map(Map::keys).cloned());
            let kinds = document.value().get("resources").and_then(Value::as_object);
            for (kind, entries) in kinds.into_iter().flatten() {
                for key in entries.as_object().into_iter().flat_map(Map::keys) {
                    let path = vec!["resources".into(), Step::from(kind), Step::from(key)];
                    let place = Place::new(document.clone(), path).of_key();
                    if kind == "apps" {
                        outline.apps.extend(attached(key, &entries[key], &place));
                    }
                    outline.keys.insert(key.clone(), place);
                }
            }
        }
        Ok(outline)
    }
}

/// Returns what a file says about the folder of the deployment.
fn root_paths(file: &Value) -> Vec<String> {
    let targets = file.get("targets").and_then(Value::as_object);
    let all = targets.into_iter().flat_map(Map::values).chain([file]);
    let path = |level: &Value| level.pointer("/workspace/root_path")?.as_str().map(str::to_owned);
    all.filter_map(path).collect()
}

/// Returns the databases that the app `key` is given.
fn attached(key: &str, app: &Value, place: &Place) -> Vec<Attached> {
    let name = app.get("name").and_then(Value::as_str).unwrap_or(key);
    let plain = stem(name);
    let name = if plain.is_empty() { key.replace('_', "-") } else { plain.to_owned() };
    let resources = app.get("resources").and_then(Value::as_array).into_iter().flatten();
    resources
        .filter_map(|resource| resource.pointer("/postgres/branch")?.as_str())
        .map(|branch| Attached {
            name: name.clone(),
            branch: branch.to_owned(),
            place: place.clone(),
        })
        .collect()
}

fn targets(root: &Value) -> Vec<(String, Option<String>)> {
    let targets = root.get("targets").and_then(Value::as_object);
    let profile = |target: &Value| {
        let profile = target.pointer("/workspace/profile").and_then(Value::as_str);
        profile.filter(|name| !name.contains("${")).map(str::to_owned)
    };
    targets.into_iter().flatten().map(|(name, target)| (name.clone(), profile(target))).collect()
}
