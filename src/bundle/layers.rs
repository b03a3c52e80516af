//! The files of a bundle laid over each other: root file, included files, chosen target.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::place::{Place, Step, suggest};
use super::yaml::Document;
use crate::error::{Error, Kind, Result};

/// What a target may say beside `resources`; each is laid over the field of the same name.
///
/// Source: Databricks CLI 1.13 `bundle/config/root.go`, read 2026-11.
const TARGET_FIELDS: [&str; 7] =
    ["bundle", "workspace", "artifacts", "resources", "sync", "permissions", "presets"];

/// One mapping of one file that the tree is made of.
#[derive(Debug, Clone)]
struct Layer {
    document: Arc<Document>,
    prefix: Vec<Step>,
}

/// Everything the tree is made of, lowest first: knows where each value was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(Vec<Layer>);

impl Layers {
    /// Returns where the value at `path` of the tree was written, or what holds it.
    pub(super) fn place(&self, path: &[Step]) -> Place {
        (0..=path.len())
            .rev()
            .find_map(|length| {
                self.0.iter().rev().find_map(|layer| {
                    let whole = [&layer.prefix, &path[..length]].concat();
                    get(layer.document.value(), &whole)?;
                    Some(Place::new(Arc::clone(&layer.document), whole))
                })
            })
            .unwrap_or_else(|| self.root())
    }

    /// Returns the value at `path` as it was written.
    pub(super) fn written(&self, path: &[Step]) -> Option<&Value> {
        self.0
            .iter()
            .rev()
            .find_map(|layer| get(layer.document.value(), &[&layer.prefix, path].concat()))
    }

    /// Returns the beginning of the root file.
    fn root(&self) -> Place {
        let first = self.0.first().expect("a bundle has a root file");
        Place::new(Arc::clone(&first.document), Vec::new())
    }
}

/// Returns the value at `path` below `value`.
pub(super) fn get<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

/// Lays the documents over each other and the target `wanted`, or the one chosen for want of it, on top.
///
/// Returns the tree without `targets`, where its parts come from, and the target's name.
pub(super) fn combine(
    documents: &[Arc<Document>],
    wanted: Option<&str>,
) -> Result<(Map<String, Value>, Layers, String)> {
    let mut layers = Layers::default();
    let mut tree = Value::Object(Map::new());
    for document in documents {
        layers.0.push(Layer { document: Arc::clone(document), prefix: Vec::new() });
        if !matches!(document.value(), Value::Object(_) | Value::Null) {
            return Err(layers.place(&[]).error("a bundle file is a mapping"));
        }
        overlay(&mut tree, document.value().clone(), &[], &layers)?;
    }
    let Value::Object(mut tree) = tree else { unreachable!("mappings merge into a mapping") };
    check_unique(documents)?;
    let targets = tree.remove("targets").unwrap_or(Value::Null);
    tree.remove("environments");
    let name = choose(&targets, wanted, &layers)?;
    for document in documents {
        let prefix = vec!["targets".into(), Step::from(&name)];
        if get(document.value(), &prefix).is_some() {
            layers.0.push(Layer { document: Arc::clone(document), prefix });
        }
    }
    if let Some(Value::Object(target)) = targets.get(&name) {
        apply_target(&mut tree, target, &layers)?;
    }
    merge_app_resources(&mut tree);
    Ok((tree, layers, name))
}

/// Lays `from` over `into`: mappings are merged, lists appended, anything else replaced.
fn overlay(into: &mut Value, from: Value, path: &[Step], layers: &Layers) -> Result<()> {
    match (into, from) {
        (_, Value::Null) => {}
        (into @ Value::Null, from) => *into = from,
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                let below = [path, &[Step::from(&key)]].concat();
                match into.get_mut(&key) {
                    Some(present) => overlay(present, value, &below, layers)?,
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => {
            return Err(layers
                .place(path)
                .error("another place of this bundle has a value of another shape here"));
        }
        (into, from) => *into = from,
    }
    Ok(())
}

/// Chooses a target: the wanted one, else the only one, else the one marked `default: true`.
fn choose(targets: &Value, wanted: Option<&str>, layers: &Layers) -> Result<String> {
    let empty = Map::new();
    let targets = targets.as_object().unwrap_or(&empty);
    let names = || targets.keys().map(String::as_str);
    let file = layers.root();
    let file = file.file();
    if let Some(wanted) = wanted {
        if targets.contains_key(wanted) {
            return Ok(wanted.to_owned());
        }
        let error = Error::new(Kind::Usage, format!("`{file}` has no target `{wanted}`"))
            .code("UNKNOWN_TARGET");
        return Err(suggest(error, wanted, names()));
    }
    let mut defaults = targets
        .iter()
        .filter(|(_, target)| target.get("default") == Some(&Value::Bool(true)))
        .map(|(name, _)| name);
    match (targets.len(), defaults.next(), defaults.next()) {
        (0, ..) => Ok("default".to_owned()),
        (_, Some(first), Some(second)) => Err(layers
            .place(&["targets".into(), Step::from(second)])
            .of_key()
            .error(format!("`{first}` and `{second}` are both the default target"))),
        (_, Some(only), None) => Ok(only.clone()),
        (1, None, _) => Ok(names().next().unwrap_or_default().to_owned()),
        _ => Err(Error::new(Kind::Usage, format!("`{file}` has several targets and no default"))
            .why(format!("targets: {}", names().collect::<Vec<_>>().join(", ")))
            .hint("add `--target NAME`")),
    }
}

/// Applies what a target says.
fn apply_target(
    tree: &mut Map<String, Value>,
    target: &Map<String, Value>,
    layers: &Layers,
) -> Result<()> {
    for field in TARGET_FIELDS {
        if let Some(value) = target.get(field) {
            let place = tree.entry(field).or_insert(Value::Null);
            overlay(place, value.clone(), &[field.into()], layers)?;
        }
    }
    if let Some(Value::Object(variables)) = target.get("variables") {
        for (name, value) in variables {
            override_variable(tree, name, value, layers)?;
        }
    }
    if let Some(run_as) = target.get("run_as") {
        tree.insert("run_as".to_owned(), run_as.clone());
    }
    let bundle = tree.entry("bundle").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(bundle) = bundle {
        if let Some(mode) = target.get("mode") {
            bundle.insert("mode".to_owned(), mode.clone());
        }
        if let Some(git) = target.get("git") {
            let place = bundle.entry("git").or_insert(Value::Null);
            overlay(place, git.clone(), &["bundle".into(), "git".into()], layers)?;
        }
    }
    Ok(())
}

/// Replaces the default of a variable by what the target says, written short or in full.
fn override_variable(
    tree: &mut Map<String, Value>,
    name: &str,
    value: &Value,
    layers: &Layers,
) -> Result<()> {
    let variables = tree.entry("variables").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(variables) = variables else { return Ok(()) };
    if !variables.contains_key(name) {
        let error = layers
            .place(&["variables".into(), name.into()])
            .of_key()
            .error(format!("the variable `{name}` is not declared"));
        return Err(suggest(error, name, variables.keys().map(String::as_str)));
    }
    let declared = &mut variables[name];
    if !declared.is_object() {
        *declared = Value::Object(Map::new());
    }
    let Value::Object(declared) = declared else { return Ok(()) };
    let full = ["default", "lookup", "type", "description"];
    let (default, lookup) = match value {
        Value::Object(map) if map.keys().all(|key| full.contains(&key.as_str())) => {
            (map.get("default"), map.get("lookup"))
        }
        short => (Some(short), None),
    };
    if let Some(default) = default {
        declared.remove("lookup");
        declared.insert("default".to_owned(), default.clone());
    } else if let Some(lookup) = lookup {
        declared.remove("default");
        declared.insert("lookup".to_owned(), lookup.clone());
    }
    Ok(())
}

/// Joins the entries of one name in the `resources` of an app, which lists the target's after its own.
fn merge_app_resources(tree: &mut Map<String, Value>) {
    let apps = tree.get_mut("resources").and_then(|resources| resources.get_mut("apps"));
    let Some(Value::Object(apps)) = apps else { return };
    for app in apps.values_mut() {
        let Some(Value::Array(items)) = app.get_mut("resources") else { continue };
        let mut joined: Vec<Value> = Vec::new();
        for item in std::mem::take(items) {
            let name = item.get("name").cloned();
            let earlier = joined
                .iter_mut()
                .find(|earlier| name.is_some() && earlier.get("name") == name.as_ref());
            match (earlier, item) {
                (Some(Value::Object(earlier)), Value::Object(item)) => earlier.extend(item),
                (_, item) => joined.push(item),
            }
        }
        *items = joined;
    }
}

/// Refuses a resource key that is used twice, in whatever files or types.
fn check_unique(documents: &[Arc<Document>]) -> Result<()> {
    let mut seen: BTreeMap<&str, (Place, &str)> = BTreeMap::new();
    for document in documents {
        let kinds = document.value().get("resources").and_then(Value::as_object);
        for (kind, entries) in kinds.into_iter().flatten() {
            for key in entries.as_object().into_iter().flat_map(Map::keys) {
                let path = vec!["resources".into(), Step::from(kind), Step::from(key)];
                let here = Place::new(Arc::clone(document), path).of_key();
                if let Some((first, first_kind)) = seen.get(key.as_str()) {
                    return Err(here
                        .error(format!("the resource key `{key}` is used twice"))
                        .why(format!("first at {first}, in `{first_kind}`"))
                        .hint("keys are unique over all types and files: rename one"));
                }
                seen.insert(key, (here, kind));
            }
        }
    }
    Ok(())
}
