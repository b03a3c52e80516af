//! The tree of a bundle with its references resolved, as far as that needs no workspace.

use serde_json::{Map, Value};

use super::layers::Layers;
use super::place::{Step, suggest};
use super::reference::{at, namespace, references, substitute};
use crate::error::{Error, Kind, Result};

/// How often references may lead to further references, as in the Databricks CLI.
const ROUNDS: usize = 11;

/// Fields that the workspace or the checkout fills in later; references to them stay as they are.
const LATER: [&str; 4] =
    ["workspace.current_user", "workspace.host", "workspace.profile", "bundle.git"];

/// Sets the workspace paths that the bundle leaves to their defaults.
///
/// Source: `workspace.root_path` and what follows from it, Databricks CLI 1.13, read 2026-11.
pub(super) fn workspace_paths(tree: &mut Map<String, Value>, name: &str, target: &str) {
    let workspace = tree.entry("workspace").or_insert(Value::Null);
    if !workspace.is_object() {
        *workspace = Value::Object(Map::new());
    }
    let Value::Object(workspace) = workspace else { return };
    let root = workspace
        .get("root_path")
        .and_then(Value::as_str)
        .map_or_else(|| format!("~/.bundle/{name}/{target}"), str::to_owned);
    let root = absolute(&root);
    for (field, below) in [
        ("file_path", "files"),
        ("artifact_path", "artifacts"),
        ("state_path", "state"),
        ("resource_path", "resources"),
    ] {
        let path = workspace
            .get(field)
            .and_then(Value::as_str)
            .map_or_else(|| format!("{root}/{below}"), absolute);
        workspace.insert(field.to_owned(), path.into());
    }
    workspace.insert("root_path".to_owned(), root.into());
}

/// Writes `~` as the user's folder and puts `/Workspace` in front of the old short paths.
fn absolute(path: &str) -> String {
    let path = path.trim_end_matches('/');
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            format!("/Workspace/Users/${{workspace.current_user.userName}}{rest}")
        }
        _ if path.starts_with("/Users/") || path.starts_with("/Shared/") => {
            format!("/Workspace{path}")
        }
        _ => path.to_owned(),
    }
}

/// Replaces every reference to variables, bundle and workspace fields; `${resources.…}`,
/// `${artifacts.…}` and what the workspace answers later stay as text.
///
/// Fails for a reference to something that is not there, and for references that lead in circles.
pub(super) fn resolve(tree: &mut Value, layers: &Layers) -> Result<()> {
    let mut circle = Vec::new();
    for _ in 0..=ROUNDS {
        let before = tree.clone();
        let mut round = Round { before: &before, layers, path: Vec::new(), changed: None };
        round.visit(tree)?;
        match round.changed {
            None => return Ok(()),
            Some(path) => circle = path,
        }
    }
    let what = "the references here lead in circles, or through too many others";
    Err(layers.place(&circle).error(what))
}

/// One pass over the tree.
struct Round<'a> {
    before: &'a Value,
    layers: &'a Layers,
    path: Vec<Step>,
    changed: Option<Vec<Step>>,
}

impl Round<'_> {
    fn visit(&mut self, value: &mut Value) -> Result<()> {
        match value {
            Value::String(text) if text.contains("${") => {
                let mut found = false;
                let resolved = substitute(text, |path| {
                    let value = lookup(self.before, path)?;
                    found |= value.is_some();
                    Ok(value)
                });
                *value = resolved.map_err(|error| self.layers.place(&self.path).locate(&error))?;
                if found {
                    self.changed.get_or_insert_with(|| self.path.clone());
                }
                Ok(())
            }
            Value::Array(items) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, item)| self.below(Step::Index(index), item)),
            Value::Object(map) => {
                for (key, value) in map {
                    if !is_definition(&self.path, key) {
                        self.below(Step::from(key), value)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn below(&mut self, step: Step, value: &mut Value) -> Result<()> {
        self.path.push(step);
        self.visit(value)?;
        self.path.pop();
        Ok(())
    }
}

/// Returns whether `key` only says what a variable is; its `value` alone counts.
fn is_definition(path: &[Step], key: &str) -> bool {
    matches!(path, [Step::Key(first), Step::Key(_)] if first == "variables") && key != "value"
}

/// Returns what the reference `path` stands for in `tree`, or nothing when that is known only later.
fn lookup(tree: &Value, path: &str) -> Result<Option<Value>> {
    match namespace(path)? {
        Some("var") => variable(tree, path, &path["var".len()..]),
        Some("variables") => variable(tree, path, &path["variables".len()..]),
        Some("bundle" | "workspace") if !is_later(path) => match at(tree, path) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(unknown(tree, path)),
        },
        _ => Ok(None),
    }
}

fn is_later(path: &str) -> bool {
    LATER.iter().any(|later| {
        path.strip_prefix(later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Returns the value of `${var.NAME…}`, `rest` being `.NAME…`.
fn variable(tree: &Value, path: &str, rest: &str) -> Result<Option<Value>> {
    let rest = rest.trim_start_matches('.');
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, below) = rest.split_at(end);
    let Some(variable) = tree["variables"].get(name) else { return Err(unknown(tree, path)) };
    let Some(value) = variable.get("value") else { return Ok(None) };
    let below = match below.strip_prefix(".value") {
        Some(deeper) if path.starts_with("variables.") => deeper,
        _ => below,
    };
    if below.is_empty() {
        return Ok(Some(value.clone()));
    }
    if value.as_str().is_some_and(|text| !references(text).is_empty()) {
        return Ok(None);
    }
    match at(variable, &format!("value{below}")) {
        Some(value) => Ok(Some(value.clone())),
        None => Err(unknown(tree, path)),
    }
}

/// Says that `path` leads nowhere, and what is near.
fn unknown(tree: &Value, path: &str) -> Error {
    let error = Error::new(Kind::Usage, format!("`${{{path}}}` refers to nothing"));
    let (holder, name) = match path.split_once('.') {
        Some(("var" | "variables", rest)) => ("variables", rest),
        Some((holder, rest)) => (holder, rest),
        None => return error,
    };
    let name = name.split(['.', '[']).next().unwrap_or_default();
    let known = tree[holder].as_object();
    suggest(error, name, known.into_iter().flat_map(Map::keys).map(String::as_str))
}
