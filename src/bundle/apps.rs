//! Apps by the names people give them, on the command line and in `lakeforge.yml`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::place::suggest;
use super::reference::stem;
use super::yaml::Document;
use super::{App, AppConfig, Bundle, Config};
use crate::error::{Error, Kind, Result, nearest};

/// Returns the app that people call `name`: by its key, else by its name, else by what its name
/// begins with before a variable such as a preview's suffix, where that is one app alone.
fn called<'a>(apps: &'a [App], name: &str) -> Option<&'a App> {
    let mut of_stem = apps.iter().filter(|app| app.stem == name);
    apps.iter()
        .find(|app| app.key == name)
        .or_else(|| apps.iter().find(|app| app.name == name))
        .or_else(|| of_stem.next().filter(|_| of_stem.next().is_none()))
}

impl Bundle {
    /// Returns the apps that `wanted` names, each once and in the bundle's order; all when it is empty.
    ///
    /// Fails with `NotFound` for a name that is not in the bundle; `flag` is what offers the nearest one.
    pub(crate) fn select(&self, wanted: &[String], flag: &str) -> Result<Vec<&App>> {
        let mut keys = Vec::new();
        for name in wanted {
            let app = called(&self.apps, name).ok_or_else(|| self.no_app(name, flag))?;
            keys.push(&app.key);
        }
        let chosen = |app: &&App| wanted.is_empty() || keys.contains(&&app.key);
        Ok(self.apps.iter().filter(chosen).collect())
    }

    fn no_app(&self, name: &str, flag: &str) -> Error {
        let keys: Vec<&str> = self.apps.iter().map(|app| app.key.as_str()).collect();
        let has = if keys.is_empty() { "no apps".to_owned() } else { keys.join(", ") };
        let error = Error::new(Kind::NotFound, format!("there is no app `{name}` in the bundle"))
            .code("APP_NOT_FOUND")
            .why(format!("the bundle has {has}"));
        let known = self.apps.iter().flat_map(|app| [app.key.as_str(), app.name.as_str()]);
        match nearest(name, known) {
            Some(near) => error.hint(format!("{flag} {near}")),
            None => error,
        }
    }
}

impl Config {
    /// Returns what is known of the app.
    pub(crate) fn app(&self, bundle: &Bundle, app: &App) -> Option<&AppConfig> {
        let is_it = |name: &str| called(&bundle.apps, name).is_some_and(|one| one.key == app.key);
        self.apps.iter().find(|(name, _)| is_it(name)).map(|(_, config)| config)
    }

    /// Refuses a name below `apps` that no target of the bundle has an app for, and two names of one app.
    ///
    /// Fails as `Usage` with line, column and the nearest app.
    pub(crate) fn check_apps(&self, bundle: &Bundle) -> Result<()> {
        let mut described = BTreeMap::new();
        for (name, config) in &self.apps {
            let place = &config.place;
            let Some(app) = called(&bundle.apps, name) else {
                if bundle.apps_elsewhere.contains(name) {
                    continue;
                }
                let error = place.error(format!("the bundle has no app `{name}`"));
                let here = bundle.apps.iter().map(|app| app.key.as_str());
                let elsewhere = bundle.apps_elsewhere.iter().map(String::as_str);
                return Err(suggest(error.code("APP_NOT_FOUND"), name, here.chain(elsewhere)));
            };
            if let Some(first) = described.insert(&app.key, place) {
                return Err(place
                    .error(format!("`{name}` is the app `{}`", app.key))
                    .why(format!("what is known of it is at {first}"))
                    .hint("keep one of them"));
            }
        }
        Ok(())
    }
}

/// Returns what people may call the apps that only targets beside the chosen one have, `apps`
/// being those of the chosen one: keys, names, and what names begin with.
pub(super) fn elsewhere(documents: &[Arc<Document>], apps: &[App]) -> Vec<String> {
    let targets = documents.iter().filter_map(|document| document.value().get("targets"));
    let levels = targets.filter_map(Value::as_object).flat_map(Map::values);
    let entries = levels.filter_map(|level| level.pointer("/resources/apps")?.as_object());
    let others = entries.flatten().filter(|(key, _)| !apps.iter().any(|app| app.key == **key));
    let mut names: Vec<String> = others
        .flat_map(|(key, app)| {
            let name = app.get("name").and_then(Value::as_str).unwrap_or_default();
            [key.as_str(), name, stem(name)].map(str::to_owned)
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}
