//! Keys that a bundle file may have: a misspelt one would hide all that it holds.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::place::{Place, Step};
use super::yaml::Document;
use crate::error::{Result, nearest};

/// Keys of a file; `environments` is the old name of `targets`.
///
/// Source: Databricks CLI 1.13 `bundle/config/root.go`, read 2026-11.
const FILE: [&str; 15] = [
    "bundle",
    "include",
    "variables",
    "workspace",
    "artifacts",
    "resources",
    "targets",
    "environments",
    "sync",
    "run_as",
    "permissions",
    "presets",
    "python",
    "scripts",
    "experimental",
];
/// Keys of a target.
///
/// Source: Databricks CLI 1.13 `bundle/config/target.go`, read 2026-11.
const TARGET: [&str; 14] = [
    "default",
    "mode",
    "bundle",
    "workspace",
    "artifacts",
    "resources",
    "variables",
    "git",
    "run_as",
    "sync",
    "permissions",
    "presets",
    "cluster_id",
    "compute_id",
];
/// Kinds of resources.
///
/// Source: Databricks CLI 1.13 `bundle/config/resources.go`, read 2026-11.
const KINDS: [&str; 35] = [
    "jobs",
    "job_runs",
    "pipelines",
    "models",
    "experiments",
    "model_serving_endpoints",
    "registered_models",
    "quality_monitors",
    "catalogs",
    "schemas",
    "volumes",
    "external_locations",
    "clusters",
    "dashboards",
    "genie_spaces",
    "apps",
    "secret_scopes",
    "alerts",
    "sql_warehouses",
    "database_instances",
    "database_catalogs",
    "synced_database_tables",
    "postgres_projects",
    "postgres_branches",
    "postgres_endpoints",
    "postgres_catalogs",
    "postgres_databases",
    "postgres_roles",
    "postgres_synced_tables",
    "postgres_snapshot_schedules",
    "vector_search_endpoints",
    "vector_search_indexes",
    "instance_pools",
    "secrets",
    "cluster_policies",
];

/// Refuses a key of the file, of a target or of `resources` that is nearly a known one, and a kind
/// of resource that stands beside `resources`: the Databricks CLI only warns, and what was deployed
/// from there would be deleted.
///
/// Returns a warning for each other key that nothing knows, which may be newer than this list. Keys
/// that begin with `x-`, `_` or `.` are the user's own.
pub(super) fn check(document: &Arc<Document>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let file = document.value();
    let mut look = |value: Option<&Value>, path: &[Step], known: &[&str]| {
        for key in value.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let place = || {
                let path = [path, &[Step::from(key)]].concat();
                Place::new(Arc::clone(document), path).of_key()
            };
            if known.contains(&key.as_str()) || key.starts_with(['_', '.']) || key.starts_with("x-")
            {
                continue;
            }
            if let Some(near) = nearest(key, known.iter().copied()) {
                let what = format!("nothing knows the key `{key}`");
                return Err(place().error(what).hint(format!("did you mean `{near}`?")));
            }
            if KINDS.contains(&key.as_str()) {
                let what = format!("`{key}` does not stand below `resources`");
                return Err(place().error(what).hint("indent it below `resources:`"));
            }
            warnings.push(format!("{}: nothing knows the key `{key}`", place()));
        }
        Ok(())
    };
    look(Some(file), &[], &FILE)?;
    look(file.get("resources"), &["resources".into()], &KINDS)?;
    for holder in ["targets", "environments"] {
        let targets = file.get(holder).and_then(Value::as_object);
        for (name, target) in targets.into_iter().flatten() {
            let path = vec![holder.into(), Step::from(name)];
            look(Some(target), &path, &TARGET)?;
            let below = [&path[..], &["resources".into()]].concat();
            look(target.get("resources"), &below, &KINDS)?;
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn checked(text: &str) -> Result<Vec<String>> {
        let document =
            Document::parse("databricks.yml", PathBuf::from("/bundle"), text.to_owned()).unwrap();
        check(&document)
    }

    #[test]
    fn a_key_that_is_nearly_known_is_refused_at_its_place() {
        for (text, expected) in [
            ("bundle: {}\nresorces: {}\n", "2:1: nothing knows the key `resorces`"),
            ("target: {}\n", "1:1: nothing knows the key `target`"),
            ("resources:\n  app: {}\n", "2:3: nothing knows the key `app`"),
            (
                "resources: {postgres_project: {}}\n",
                "1:13: nothing knows the key `postgres_project`",
            ),
            ("targets:\n  dev:\n    worspace: {}\n", "3:5: nothing knows the key `worspace`"),
            ("targets: {dev: {resources: {aps: {}}}}\n", "1:29: nothing knows the key `aps`"),
            ("apps: {}\n", "1:1: `apps` does not stand below `resources`"),
            ("targets: {dev: {jobs: {}}}\n", "1:17: `jobs` does not stand below `resources`"),
        ] {
            let error = checked(text).unwrap_err();
            assert_eq!(error.message(), format!("databricks.yml:{expected}"), "{text}");
            assert!(error.hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn other_keys_are_told_and_the_users_own_are_not() {
        let text = "x-common: &a {b: 1}\n.anchors: {}\n_mine: {}\nnewer_than_we: {}\nresources: {jobs: {}}\n";
        assert_eq!(
            checked(text).unwrap(),
            ["databricks.yml:4:1: nothing knows the key `newer_than_we`"]
        );
        assert!(checked("").unwrap().is_empty());
        assert!(checked("targets: {dev: }\nresources:\n").unwrap().is_empty());
    }
}
