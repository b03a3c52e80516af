//! The typed parts of a bundle, read out of its resolved tree.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::layers::Layers;
use super::place::{Step, suggest};
use super::{App, Attachment, Target, reference, resources};
use crate::error::Result;

/// Reads the typed parts out of a resolved tree.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a Value,
    pub(super) layers: &'a Layers,
}

impl Reader<'_> {
    /// Returns the text at `path`, unless it is empty.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        reference::at(self.tree, path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Reads what the chosen target says of the workspace.
    pub(super) fn target(&self, name: String) -> Result<Target> {
        const MODES: [&str; 2] = ["development", "production"];
        if let Some(mode) = self.text("bundle.mode")
            && !MODES.contains(&mode.as_str())
        {
            let place = self.layers.place(&["targets".into(), Step::from(&name), "mode".into()]);
            return Err(suggest(place.error(format!("there is no mode `{mode}`")), &mode, MODES));
        }
        let (profile, host) = (self.text("workspace.profile"), self.text("workspace.host"));
        Ok(Target { name, profile, host })
    }

    fn entries(&self, kind: &str) -> impl Iterator<Item = (&String, &Value, Vec<Step>)> {
        self.tree["resources"][kind].as_object().into_iter().flatten().map(move |(key, body)| {
            (key, body, vec!["resources".into(), kind.into(), Step::from(key)])
        })
    }

    /// Checks that every resource of `kind` has its `id_field`.
    pub(super) fn check_ids(&self, kind: &str, id_field: &str) -> Result<()> {
        for (key, body, path) in self.entries(kind) {
            match body.get(id_field) {
                Some(Value::String(id)) if !id.is_empty() => {}
                _ => {
                    let place = self.layers.place(&path).of_key();
                    return Err(place.error(format!("`{key}` has no `{id_field}`")));
                }
            }
        }
        Ok(())
    }

    /// Reads the apps.
    pub(super) fn apps(&self) -> Result<Vec<App>> {
        self.entries("apps").map(|(key, body, path)| self.app(key, body, &path)).collect()
    }

    fn app(&self, key: &str, body: &Value, path: &[Step]) -> Result<App> {
        let place = self.layers.place(path).of_key();
        let Some(name) = body.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())
        else {
            return Err(place.error(format!("the app `{key}` has no `name`")));
        };
        let written = body.get("source_code_path").and_then(Value::as_str);
        let from_git = body.get("git_source").is_some_and(|source| !source.is_null());
        let source = match (written, from_git) {
            (Some(folder), false) => {
                let field = [path, &["source_code_path".into()]].concat();
                Some(tidy(&self.layers.place(&field).folder().join(folder)))
            }
            (None, true) => None,
            (None, false) => {
                return Err(place.error(format!("the app `{key}` has no `source_code_path`")));
            }
            (Some(_), true) => {
                return Err(place.error(format!(
                    "the app `{key}` has both `source_code_path` and `git_source`"
                )));
            }
        };
        let config = body.get("config").filter(|config| !config.is_null()).cloned();
        let written = self.layers.written(&[path, &["name".into()]].concat());
        let stem = reference::stem(written.and_then(Value::as_str).unwrap_or(name)).to_owned();
        let (key, name, databases) = (key.to_owned(), name.to_owned(), self.databases(body));
        Ok(App { key, name, stem, source, config, databases, place })
    }

    fn databases(&self, app: &Value) -> Vec<Attachment> {
        let known = |value: &Value, field: &str| {
            resources::known_text(self.tree, value.get(field)?.as_str()?)
        };
        let items = app.get("resources").and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(|item| {
                let postgres = item.get("postgres")?;
                Some(Attachment {
                    name: item.get("name")?.as_str()?.to_owned(),
                    branch: known(postgres, "branch")?,
                    database: known(postgres, "database"),
                })
            })
            .collect()
    }
}

/// Takes `.` and `..` out of an absolute path without asking the file system.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            part => result.push(part),
        }
    }
    result
}
