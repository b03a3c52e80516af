//! Random topologies through `gen`: always the same bytes, a bundle that holds together, and a plan.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::forge::Forge;

const BUNDLE: &str = "bundle: {name: random, engine: direct}
include: [resources/*.yml]
targets: {local: {default: true, workspace: {profile: local}}, preview: {workspace: {profile: local}}}
";

/// Returns what one branch may say.
fn branch() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"ttl": "7d"})),
        Just(json!({"expires_at": "2099-01-02T03:04:05Z"})),
        Just(json!({"protected": true})),
        Just(json!({"endpoints": {"primary": {"min_cu": 1, "max_cu": 4}}})),
        Just(json!({"roles": {"only-here": {"login": "none", "createdb": true}}})),
    ]
}

/// Returns what one project may say beside its branches.
fn settings() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"pg_version": 17, "retention": "14d", "display_name": "a: \"b\" #c"})),
        Just(json!({"min_cu": 0.5, "max_cu": 2, "suspend_after": "5m", "prevent_destroy": false})),
        Just(
            json!({"roles": {"keeper": {"login": "none"}, "team": {"identity": "group", "name": "A team"}},
                    "databases": {"orders": {"owner": "keeper", "name": "orders_1"}}})
        ),
    ]
}

/// Returns a whole lakeforge.yml; the first branch of a project, when it has one, is `production` at times.
fn config() -> impl Strategy<Value = Value> {
    let id = "[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?";
    let branches = proptest::collection::btree_map(id, branch(), 0..4);
    let project = (settings(), branches, any::<bool>()).prop_map(|(settings, branches, root)| {
        let mut project = settings.as_object().unwrap().clone();
        let mut all = Map::new();
        if root {
            all.insert("production".into(), json!({"protected": true}));
        }
        all.extend(branches);
        project.insert("branches".into(), all.into());
        Value::from(project)
    });
    let projects = proptest::collection::btree_map(id, project, 1..4);
    (projects, any::<bool>()).prop_map(|(projects, with_preview)| {
        let previews = if with_preview { vec!["preview"] } else { Vec::new() };
        json!({"projects": projects, "previews": previews})
    })
}

/// Returns the JSON Schema of bundles, when there is a Databricks CLI to say it.
fn bundle_schema() -> Option<&'static Value> {
    static SCHEMA: OnceLock<Option<Value>> = OnceLock::new();
    let read = || {
        let output = Command::new("databricks").args(["bundle", "schema"]).output().ok()?;
        Some(serde_json::from_slice(&output.stdout).expect("the CLI's schema is JSON"))
    };
    SCHEMA.get_or_init(read).as_ref()
}

/// Says where `value` is not as `schema` wants it; knows the keywords that the CLI uses and no other.
fn breach(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let below = |schema: &Value, value: &Value, at: &str| breach(root, schema, value, at);
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    schema.as_object()?.iter().find_map(|(keyword, says)| match keyword.as_str() {
        // The CLI takes a text here; its schema, made from Go types, says an empty object.
        "$ref" if says.as_str().unwrap().ends_with("/time.Time") => None,
        "$ref" => {
            let pointer = says.as_str().unwrap().trim_start_matches('#');
            below(root.pointer(pointer).unwrap(), value, at)
        }
        "oneOf" | "anyOf" => {
            let all: Vec<_> =
                says.as_array().unwrap().iter().map(|one| below(one, value, at)).collect();
            if all.iter().any(Option::is_none) { None } else { all.into_iter().flatten().next() }
        }
        "type" => {
            let fits = match says.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "number" => value.is_number(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("there is no type `{other}`"),
            };
            (!fits).then(|| format!("{at}: {value} is no {says}"))
        }
        "pattern" => {
            let pattern = regex::Regex::new(says.as_str().unwrap()).unwrap();
            let misses = value.as_str().is_some_and(|text| !pattern.is_match(text));
            misses.then(|| format!("{at}: {value} is not like {says}"))
        }
        "enum" => (!says.as_array().unwrap().contains(value)).then(|| format!("{at}: {value}")),
        "required" => says.as_array().unwrap().iter().find_map(|key| {
            let misses = value.is_object() && value.get(key.as_str().unwrap()).is_none();
            misses.then(|| format!("{at}: {key} is missing"))
        }),
        "properties" => fields(value)
            .iter()
            .find_map(|(key, one)| below(says.get(key)?, one, &format!("{at}.{key}"))),
        "additionalProperties" => fields(value).iter().find_map(|(key, one)| {
            match schema.get("properties").is_some_and(|known| known.get(key).is_some()) {
                true => None,
                false if says == false => Some(format!("{at}: the key `{key}` is not known")),
                false => below(says, one, &format!("{at}.{key}")),
            }
        }),
        "items" => value.as_array()?.iter().find_map(|one| below(says, one, at)),
        "description"
        | "markdownDescription"
        | "deprecationMessage"
        | "deprecated"
        | "doNotSuggest"
        | "enumDescriptions"
        | "$defs"
        | "$id"
        | "$schema"
        | "default" => None,
        extension if extension.starts_with("x-") => None,
        other => panic!("the keyword `{other}` is not looked at"),
    })
}

/// Returns the resources of a generated file: those of every target, or of those that are no preview.
fn resources(file: &Value) -> Vec<Value> {
    match file.get("targets").and_then(Value::as_object) {
        None => vec![file["resources"].clone()],
        Some(targets) => targets.values().map(|target| target["resources"].clone()).collect(),
    }
}

/// Expects keys that are unique, references that lead somewhere, and what the CLI's schema wants.
fn check(file: &Value) {
    let reference = regex::Regex::new(r"\$\{resources\.(\w+)\.(\w+)\.id\}").unwrap();
    for resources in resources(file) {
        let mut keys = BTreeSet::new();
        for (kind, entries) in resources.as_object().unwrap() {
            for key in entries.as_object().unwrap().keys() {
                assert!(keys.insert(key.clone()), "`{key}` of `{kind}` is there twice");
            }
        }
        for found in reference.captures_iter(&resources.to_string()) {
            assert!(resources[&found[1]].get(&found[2]).is_some(), "{} leads nowhere", &found[0]);
        }
    }
    if let Some(schema) = bundle_schema() {
        assert_eq!(breach(schema, schema, file, "bundle"), None);
    }
}

/// Tries one topology, and counts it in `planned` unless two of its ids share a key.
fn try_one(forge: &Forge, config: &Value, planned: &mut usize) {
    forge.write("databricks.yml", BUNDLE);
    forge.write("lakeforge.yml", &config.to_string());
    let first = forge.output("gen --overwrite");
    if !first.status.success() {
        // Two ids may well share a key; nothing else is wrong with what is made here.
        let stderr = String::from_utf8(first.stderr).unwrap();
        assert!(stderr.contains("has the same resource key as"), "{config}: {stderr}");
        return;
    }
    let text = forge.read("resources/lakebase.yml");
    assert_eq!(forge.succeed("gen --stdout"), text);
    let mut document: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    document.apply_merge().unwrap();
    check(&serde_json::to_value(document).unwrap());

    let plan = forge.json("deploy --dry-run");
    let names: BTreeSet<&str> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["name"].as_str().unwrap())
        .collect();
    for (project, said) in config["projects"].as_object().unwrap() {
        assert!(names.contains(format!("projects/{project}").as_str()), "{project}: {names:?}");
        for branch in said["branches"].as_object().unwrap().keys() {
            let name = format!("projects/{project}/branches/{branch}");
            assert!(names.contains(name.as_str()), "{name}: {names:?}");
        }
    }
    if config["previews"] == json!(["preview"]) {
        let preview = forge.json("deploy --dry-run -t preview");
        assert_eq!(preview["changes"], json!([]));
    }
    *planned += 1;
}

#[test]
fn every_topology_is_the_same_bytes_a_valid_bundle_and_a_plan() {
    let forge = Forge::new();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let settings = Config { failure_persistence: None, ..Config::with_cases(24) };
    let mut runner = TestRunner::new_with_rng(settings, rng);
    let planned = std::cell::Cell::new(0);
    runner
        .run(&config(), |config| {
            let mut count = planned.get();
            try_one(&forge, &config, &mut count);
            planned.set(count);
            Ok(())
        })
        .unwrap();
    assert!(planned.get() >= 12, "only {} topologies were planned", planned.get());
}
