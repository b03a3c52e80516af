//! Variables of a bundle: which value each has.

use std::path::Path;

use serde_json::{Map, Value};

use super::Choice;
use super::layers::Layers;
use super::place::{Step, suggest};
use super::yaml::Document;
use crate::error::{Error, Kind, Result};

/// Puts a `value` beside each variable's `default`; the first that has one wins: `--var`,
/// `BUNDLE_VAR_…`, a look-up in the workspace (left to whoever can reach it), the overrides file
/// of the target, the target, the default.
///
/// Fails for a value of an undeclared variable and for a variable without a value.
pub(super) fn assign(
    tree: &mut Map<String, Value>,
    layers: &Layers,
    choice: &Choice,
    root: &Path,
    target: &str,
) -> Result<()> {
    let variables = tree.entry("variables").or_insert_with(|| Value::Object(Map::new()));
    if variables.is_null() {
        *variables = Value::Object(Map::new());
    }
    let Value::Object(variables) = variables else {
        return Err(layers.place(&["variables".into()]).error("`variables` is a mapping"));
    };
    let overrides = overrides(root, target)?;
    let known = || variables.keys().map(String::as_str);
    if let Some(name) = choice.variables.keys().find(|name| !variables.contains_key(*name)) {
        let error = Error::new(Kind::Usage, format!("`--var {name}`: no such variable"));
        return Err(suggest(error, name, known()));
    }
    if let Some(name) = overrides.keys().find(|name| !variables.contains_key(*name)) {
        let file = overrides_file(target);
        let error = Error::new(Kind::Usage, format!("`{file}`: no such variable `{name}`"));
        return Err(suggest(error, name, known()));
    }
    for (name, variable) in variables.iter_mut() {
        if variable.is_null() {
            *variable = Value::Object(Map::new());
        }
        let place = || layers.place(&["variables".into(), Step::from(name)]).of_key();
        let Value::Object(variable) = variable else {
            return Err(place()
                .error(format!("the variable `{name}` is a mapping"))
                .hint(format!("write `{name}: {{default: …}}`")));
        };
        let typed = choice.variables.get(name).or_else(|| choice.environment.get(name));
        let is_complex = variable.get("type") == Some(&Value::from("complex"));
        let value = match typed {
            Some(_) if is_complex => {
                return Err(place().error(format!(
                    "the variable `{name}` is complex and cannot be set by flag or environment"
                )));
            }
            Some(text) => like(variable.get("default"), text),
            None if variable.get("lookup").is_some_and(|lookup| !lookup.is_null()) => continue,
            None => match overrides.get(name).or_else(|| variable.get("default")) {
                Some(value) => value.clone(),
                None => {
                    return Err(place()
                        .error(format!("the variable `{name}` has no value"))
                        .hint(format!("add `--var {name}=…`, or set BUNDLE_VAR_{name}")));
                }
            },
        };
        variable.insert("value".to_owned(), value);
    }
    Ok(())
}

/// Reads `text` as a number or boolean where the default is one, as the Databricks CLI would on use.
fn like(default: Option<&Value>, text: &str) -> Value {
    let typed = match default {
        Some(Value::Number(_) | Value::Bool(_)) => serde_json::from_str::<Value>(text).ok(),
        _ => None,
    };
    typed
        .filter(|value| value.is_number() || value.is_boolean())
        .filter(|value| format!("{value}") == text)
        .unwrap_or_else(|| text.into())
}

fn overrides_file(target: &str) -> String {
    format!(".databricks/bundle/{target}/variable-overrides.json")
}

/// Reads the file of overrides that a developer may keep beside the state; absent is empty.
fn overrides(root: &Path, target: &str) -> Result<Map<String, Value>> {
    let file = overrides_file(target);
    if !root.join(&file).is_file() {
        return Ok(Map::new());
    }
    let document = Document::read(root, &file)?;
    match document.value() {
        Value::Object(values) => Ok(values.clone()),
        _ => Err(Error::new(Kind::Usage, format!("`{file}` is not a JSON object"))),
    }
}
