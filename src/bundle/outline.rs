//! What a bundle says beside one of its files: for whoever writes that file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::place::{Place, Step};
use super::{include, root_file};
use crate::error::Result;

/// Names that the other files of a bundle take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    /// Whether there is a bundle.
    pub(crate) exists: bool,
    /// Whether the root file includes the file that was passed over.
    pub(crate) includes: bool,
    /// Variables the other files declare.
    pub(crate) variables: BTreeSet<String>,
    /// Targets of the root file with the profiles they name, in its order.
    pub(crate) targets: Vec<(String, Option<String>)>,
    /// Resource keys the other files use, and where.
    pub(crate) keys: BTreeMap<String, Place>,
}

impl Outline {
    /// Reads the bundle in the folder `root`, if there is one, as it is without the file `without`.
    pub(crate) fn read(root: &Path, without: &str) -> Result<Outline> {
        let Some(file) = root_file(root)? else { return Ok(Outline::default()) };
        let documents = include::documents(root, file, Some(without))?;
        let mut outline = Outline { exists: true, ..Outline::default() };
        let patterns = documents[0].value().get("include").and_then(Value::as_array);
        outline.includes = patterns
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|pattern| include::names(pattern, without));
        outline.targets = targets(documents[0].value());
        for document in &documents {
            let variables = document.value().get("variables").and_then(Value::as_object);
            outline.variables.extend(variables.into_iter().flat_map(Map::keys).cloned());
            let kinds = document.value().get("resources").and_then(Value::as_object);
            for (kind, entries) in kinds.into_iter().flatten() {
                for key in entries.as_object().into_iter().flat_map(Map::keys) {
                    let path = vec!["resources".into(), Step::from(kind), Step::from(key)];
                    let place = Place::new(document.clone(), path).of_key();
                    outline.keys.insert(key.clone(), place);
                }
            }
        }
        Ok(outline)
    }
}

fn targets(root: &Value) -> Vec<(String, Option<String>)> {
    let targets = root.get("targets").and_then(Value::as_object);
    let profile = |target: &Value| {
        let profile = target.pointer("/workspace/profile").and_then(Value::as_str);
        profile.filter(|name| !name.contains("${")).map(str::to_owned)
    };
    targets.into_iter().flatten().map(|(name, target)| (name.clone(), profile(target))).collect()
}
