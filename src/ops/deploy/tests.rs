//! Consent to random plans of both engines of the Databricks CLI.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::{add_names, databricks};
use crate::error::{Error, Kind};
use crate::ops::change::Change;
use crate::ops::confirm::{Confirmed, Deletes, Losses};
use crate::wire::postgres::{Branch, Project};

const HARMLESS: [&str; 5] = ["skip", "create", "update", "update_id", "resize"];
const KINDS: [&str; 11] = [
    "postgres_projects",
    "postgres_branches",
    "postgres_endpoints",
    "postgres_roles",
    "postgres_databases",
    "postgres_catalogs",
    "database_instances",
    "apps",
    "jobs",
    "schemas",
    "kinds_of_tomorrow",
];
const DEAR_KINDS: [&str; 3] = ["postgres_projects", "postgres_branches", "database_instances"];

/// A plan whose losses are looked at in a workspace that is made up.
#[derive(Debug, Clone)]
struct Planned(Losses);

impl Deletes for Planned {
    fn losses(&self) -> &Losses {
        &self.0
    }
}

/// What the workspace holds: two projects, and branches with their `default` and `protected`.
#[derive(Debug, Clone)]
struct World {
    branches: Vec<(String, bool, bool)>,
}

const PROJECTS: [&str; 2] = ["shop", "lab"];
const BRANCHES: [&str; 4] = ["production", "main", "dev", "pr-7"];

impl World {
    fn is_dear(&self, name: &str) -> bool {
        let found = self.branches.iter().find(|(branch, ..)| branch == name);
        found.is_some_and(|(name, default, protected)| {
            *default || *protected || name.ends_with("/production")
        })
    }

    fn projects(&self) -> Vec<Project> {
        let project =
            |id: &&str| json!({"name": format!("projects/{id}"), "uid": format!("p-{id}")});
        PROJECTS.iter().map(project).map(|text| serde_json::from_value(text).unwrap()).collect()
    }

    fn wire_branches(&self) -> Vec<Branch> {
        let branch = |(name, default, protected): &(String, bool, bool)| {
            let id = name.rsplit('/').next().unwrap();
            json!({"name": name, "uid": format!("br-{name}"),
                "status": {"branch_id": id, "default": default, "is_protected": protected}})
        };
        self.branches.iter().map(branch).map(|text| serde_json::from_value(text).unwrap()).collect()
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let flags = prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 8);
    flags.prop_map(|flags| {
        let names = PROJECTS.iter().flat_map(|project| {
            BRANCHES.iter().map(move |branch| format!("projects/{project}/branches/{branch}"))
        });
        let branches = names.zip(flags).filter(|(_, (exists, ..))| *exists);
        World {
            branches: branches
                .map(|(name, (_, default, protected))| (name, default, protected))
                .collect(),
        }
    })
}

/// One entry of a plan: label, action, id, whether it is gone.
type Entry = (String, Option<String>, Option<String>, bool);

fn actions() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        3 => select(HARMLESS.to_vec()).prop_map(|word| Some(word.to_owned())),
        4 => select(vec!["delete", "recreate"]).prop_map(|word| Some(word.to_owned())),
        1 => "[a-z_]{0,8}".prop_map(Some),
        1 => Just(None),
    ]
}

fn ids() -> impl Strategy<Value = Option<String>> {
    let projects = select(vec!["shop", "lab", "gone"]);
    let branches = select([&BRANCHES[..], &["gone"]].concat());
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(String::new())),
        2 => select(vec!["shop", "dev", "production", "web"]).prop_map(|id| Some(id.to_owned())),
        1 => Just(Some("0b9c64bd-2f39-4c4c-8d0a-5d3b8f1c9e11".to_owned())),
        2 => projects.clone().prop_map(|project| Some(format!("projects/{project}"))),
        4 => (projects, branches).prop_map(|(project, branch)| Some(format!("projects/{project}/branches/{branch}"))),
        1 => "[a-z/.]{0,12}".prop_map(Some),
    ]
}

fn plans() -> impl Strategy<Value = Vec<Entry>> {
    let part = prop_oneof![4 => Just(""), 1 => Just(".permissions"), 1 => Just(".grants")];
    let entry = (select(KINDS.to_vec()), 0..3u8, part, actions(), ids(), prop::bool::weighted(0.1));
    let entry = entry.prop_map(|(kind, key, part, action, id, gone)| {
        (format!("{kind}.key{key}{part}"), action, id, gone)
    });
    prop::collection::vec(entry, 0..6)
}

/// Writes the plan as the engine does: the direct one with ids, Terraform's without, in which case
/// the ids are what the state of the deployment holds.
fn document(plan: &[Entry], is_direct: bool) -> (Value, Vec<(String, String)>) {
    let (mut entries, mut state) = (Map::new(), Vec::new());
    for (label, action, id, gone) in plan {
        let mut entry = Map::new();
        if let Some(action) = action {
            entry.insert("action".to_owned(), json!(action));
        }
        match id {
            Some(id) if is_direct => drop(entry.insert("id".to_owned(), json!(id))),
            Some(id) => state.push((label.clone(), id.clone())),
            None => {}
        }
        if *gone {
            entry.insert("gone".to_owned(), json!(true));
        }
        entries.insert(format!("resources.{label}"), Value::Object(entry));
    }
    let document = match is_direct {
        true => json!({"plan_version": 2, "cli_version": "1.13.0", "plan": entries}),
        false => json!({"cli_version": "1.2.1", "plan": entries}),
    };
    (document, state)
}

/// Returns the names that have to be confirmed, by the words of the rule rather than by its code.
fn needed(world: &World, plan: &[Entry]) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    let lost: Vec<&Entry> = plan
        .iter()
        .filter(|(_, action, _, gone)| match action.as_deref() {
            Some("delete") => !gone,
            Some(word) => !HARMLESS.contains(&word),
            None => true,
        })
        .collect();
    let name = |entry: &&Entry| entry.2.clone().unwrap_or_default();
    let is_lost = |project: &str| lost.iter().any(|entry| name(entry) == project);
    for entry in &lost {
        let (name, label) = (name(entry), &entry.0);
        let kind = label.split('.').next().unwrap();
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["projects", project] if !project.is_empty() => {
                let inside = format!("{name}/branches/");
                let own = world.branches.iter().filter(|(branch, ..)| branch.starts_with(&inside));
                let protected =
                    own.filter(|(.., protected)| *protected).map(|(branch, ..)| short(branch));
                needed.extend(PROJECTS.contains(&project).then(|| project.to_owned()));
                needed.extend(protected);
            }
            ["projects", project, "branches", branch]
                if !project.is_empty() && !branch.is_empty() =>
            {
                let goes_by_name = world.is_dear(&name) && !is_lost(&format!("projects/{project}"));
                needed.extend(goes_by_name.then(|| short(&name)));
            }
            _ if DEAR_KINDS.contains(&kind) && label.matches('.').count() == 1 => {
                needed.insert(if name.is_empty() { label.clone() } else { name });
            }
            _ => {}
        }
    }
    needed
}

fn short(name: &str) -> String {
    name.replace("projects/", "").replace("/branches/", "/")
}

fn confirm(plan: &Planned, names: &BTreeSet<String>) -> Result<(), Error> {
    let names: Vec<String> = names.iter().cloned().collect();
    Confirmed::new(plan.clone(), &names).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nothing_dear_goes_without_its_name(world in worlds(), plan in plans(), is_direct in any::<bool>()) {
        // The last entry of a label is the one that counts.
        let labels: BTreeSet<&String> = plan.iter().map(|entry| &entry.0).collect();
        let plan: Vec<Entry> = labels
            .iter()
            .map(|label| plan.iter().rfind(|entry| entry.0 == **label).unwrap().clone())
            .collect();
        let (document, state) = document(&plan, is_direct);
        let mut changes: Vec<Change> = databricks::changes(&document).unwrap();
        add_names(&mut changes, &state, &[]);
        let planned = Planned(Losses::within(&changes, &world.projects(), &world.wire_branches()));
        let needed = needed(&world, &plan);

        prop_assert!(confirm(&planned, &needed).is_ok());
        for name in &needed {
            let mut but_one = needed.clone();
            but_one.remove(name);
            let refused = confirm(&planned, &but_one);
            prop_assert!(refused.is_err(), "`{name}` was not asked for: {changes:?}");
            let error = refused.unwrap_err();
            prop_assert_eq!(error.kind(), Kind::Refused);
            let hint = format!("--confirm {name}");
            prop_assert_eq!(error.hint_text(), Some(hint.as_str()));
        }
        let is_harmless = |entry: &Entry| match entry.1.as_deref() {
            Some("delete") => entry.3,
            Some(word) => HARMLESS.contains(&word),
            None => false,
        };
        if plan.iter().all(is_harmless) {
            prop_assert!(changes.iter().all(|change| !change.is_destructive()));
            prop_assert!(needed.is_empty());
        } else {
            // Whatever its kind, it is at least asked for.
            prop_assert!(changes.iter().any(Change::is_destructive));
        }
    }
}
