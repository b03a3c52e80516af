//! Resources of a bundle: what each refers to, and the order in which they can be made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::layers::Layers;
use super::place::{Place, Step, suggest};
use super::reference::{at, references, substitute_all};
use crate::error::Result;

/// Kinds that make up a full name: `projects/p/branches/b/endpoints/e`, and which field holds the id.
const NAMED: [(&str, &str, &str); 5] = [
    ("postgres_projects", "projects", "project_id"),
    ("postgres_branches", "branches", "branch_id"),
    ("postgres_endpoints", "endpoints", "endpoint_id"),
    ("postgres_databases", "databases", "database_id"),
    ("postgres_roles", "roles", "role_id"),
];

/// How the keys begin that `gen` makes.
const GENERATED: &str = "lakebase_";

/// Deepest chain of references to a parent: role or endpoint, branch, project, with room to spare.
const DEPTH: usize = 8;

/// One entry below `resources`.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Such as `postgres_branches`.
    pub(crate) kind: String,
    /// Key in the bundle, unique over all kinds.
    pub(crate) key: String,
    /// Name in the workspace, such as `projects/shop`; may hold `${workspace.current_user.…}`, and
    /// is absent where only the workspace knows it.
    pub(crate) name: Option<String>,
    /// Where it is written.
    pub(crate) place: Place,
    /// What is written; references to other resources are still text.
    pub(crate) body: Value,
    /// Kind and key of what has to exist first.
    pub(crate) depends_on: Vec<(String, String)>,
}

/// Returns the resources in an order in which each comes after what it depends on.
///
/// A reference is a dependency, and so is the written-out name of a project or branch of this
/// bundle. Fails for a reference to a resource that is not there and for a circle.
pub(super) fn in_order(tree: &Value, layers: &Layers) -> Result<Vec<Resource>> {
    let mut waiting = Vec::new();
    let written = written(tree);
    let kinds = tree["resources"].as_object();
    for (kind, entries) in kinds.into_iter().flatten() {
        for (key, body) in entries.as_object().into_iter().flatten() {
            let path = vec!["resources".into(), Step::from(kind), Step::from(key)];
            let place = layers.place(&path).of_key();
            let depends_on = dependencies(tree, &written, layers, &path, (kind, key), body)?;
            let name = workspace_name(tree, kind, key, body);
            let (kind, key, body) = (kind.clone(), key.clone(), body.clone());
            waiting.push(Resource { kind, key, name, place, body, depends_on });
        }
    }
    waiting.sort_by_key(|resource| rank(&resource.kind));
    sort(waiting)
}

impl Resource {
    /// Returns type and key: `postgres_projects.shop`.
    pub(crate) fn label(&self) -> String {
        format!("{}.{}", self.kind, self.key)
    }

    /// Returns whether it must not be destroyed.
    pub(crate) fn is_guarded(&self) -> bool {
        self.body.pointer("/lifecycle/prevent_destroy") == Some(&Value::Bool(true))
    }
}

/// Returns the name that a resource gets in the workspace, as far as the bundle says it.
fn workspace_name(tree: &Value, kind: &str, key: &str, body: &Value) -> Option<String> {
    if NAMED.iter().any(|(named, ..)| *named == kind) {
        return full_name(tree, kind, key, DEPTH);
    }
    let name = body.get("name")?.as_str()?;
    Some(known_text(tree, name).unwrap_or_else(|| name.to_owned()))
}

/// Puts each resource after its dependencies and keeps the order otherwise.
fn sort(mut waiting: Vec<Resource>) -> Result<Vec<Resource>> {
    let mut done = BTreeSet::new();
    let mut sorted = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut blocked = Vec::new();
        for resource in waiting {
            if resource.depends_on.iter().all(|needed| done.contains(needed)) {
                done.insert((resource.kind.clone(), resource.key.clone()));
                sorted.push(resource);
            } else {
                blocked.push(resource);
            }
        }
        if blocked.len() == before {
            return Err(circle(&blocked));
        }
        waiting = blocked;
    }
    Ok(sorted)
}

/// Names the resources of one circle among `blocked`, all of which wait for one.
fn circle(blocked: &[Resource]) -> crate::error::Error {
    let next = |resource: &Resource| {
        blocked.iter().find(|other| {
            resource.depends_on.iter().any(|(kind, key)| *kind == other.kind && *key == other.key)
        })
    };
    let mut way: Vec<&Resource> = vec![&blocked[0]];
    let start = loop {
        let last = way[way.len() - 1];
        let Some(following) = next(last) else { break 0 };
        if let Some(start) = way.iter().position(|seen| seen.key == following.key) {
            break start;
        }
        way.push(following);
    };
    let mut names: Vec<String> = way[start..].iter().map(|one| format!("`{}`", one.key)).collect();
    names.push(names[0].clone());
    way[start].place.error("resources refer to each other in a circle").why(names.join(" → "))
}

/// Returns the order in which kinds are made where nothing else decides.
fn rank(kind: &str) -> usize {
    match NAMED.iter().position(|(named, ..)| *named == kind) {
        Some(position) => position,
        None if kind == "apps" => NAMED.len() + 1,
        None => NAMED.len(),
    }
}

/// Returns what `body`, the resource `own`, refers to.
fn dependencies(
    tree: &Value,
    written: &Written,
    layers: &Layers,
    path: &[Step],
    own: (&str, &str),
    body: &Value,
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    each_text(body, &mut path.to_vec(), &mut |text, path| {
        for reference in references(text) {
            let Some(rest) = reference.path.strip_prefix("resources.") else { continue };
            let (kind, key) =
                target_of(tree, rest).map_err(|error| layers.place(path).locate(&error))?;
            if (kind, key) != own {
                found.push((kind.to_owned(), key.to_owned()));
            }
        }
        found.extend(written_out(tree, written, own, text));
        Ok(())
    })?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Full names of the projects and branches of a bundle, with their kinds and keys.
type Written = BTreeMap<String, (&'static str, String)>;

fn written(tree: &Value) -> Written {
    let kinds = ["postgres_projects", "postgres_branches"];
    let of = |kind| names(tree, kind).into_iter().map(move |(key, name)| (name, (kind, key)));
    let all = kinds.into_iter().flat_map(of);
    all.filter_map(|(name, resource)| Some((name?, resource))).collect()
}

/// Returns the projects and branches of this bundle whose full names `text` begins with.
fn written_out(
    tree: &Value,
    written: &Written,
    own: (&str, &str),
    text: &str,
) -> Vec<(String, String)> {
    // A project may name its default branch; the branch still comes after the project.
    let may_refer = own.0 != "postgres_projects";
    let may_be_name =
        text.starts_with("projects/") || text.starts_with("${resources.postgres_projects.");
    let text = (may_refer && may_be_name).then(|| known_text(tree, text)).flatten();
    let Some(text) = text else { return Vec::new() };
    let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
    ends.filter_map(|end| written.get(&text[..end]))
        .filter(|(kind, key)| (*kind, key.as_str()) != own)
        .map(|(kind, key)| ((*kind).to_owned(), key.clone()))
        .collect()
}

fn each_text(
    value: &Value,
    path: &mut Vec<Step>,
    see: &mut dyn FnMut(&str, &[Step]) -> Result<()>,
) -> Result<()> {
    match value {
        Value::String(text) => see(text, path),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            path.push(Step::Index(index));
            each_text(item, path, see)?;
            path.pop();
            Ok(())
        }),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            path.push(Step::from(key));
            each_text(value, path, see)?;
            path.pop();
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// Returns kind and key of the resource that `rest`, what follows `resources.`, leads to.
fn target_of<'r>(tree: &Value, rest: &'r str) -> Result<(&'r str, &'r str)> {
    let mut parts = rest.splitn(3, '.');
    let (kind, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let resources = &tree["resources"];
    let refuse = || {
        crate::error::Error::new(
            crate::error::Kind::Usage,
            format!("`${{resources.{rest}}}` refers to a resource that is not there"),
        )
    };
    let names = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flat_map(Map::keys).cloned().collect()
    };
    let (wanted, known) = match resources.get(kind) {
        None => (kind, names(resources)),
        Some(entries) if entries.get(key).is_none() => (key, names(entries)),
        Some(_) => return Ok((kind, key)),
    };
    let error = suggest(refuse(), wanted, known.iter().map(String::as_str));
    Err(match error.hint_text() {
        None if key.starts_with(GENERATED) => error.hint("lakeforge gen"),
        _ => error,
    })
}

/// Returns what the reference `path` (`resources.apps.shop.name`) stands for, when that is known
/// without a workspace: full names of Postgres resources and whatever is written in the bundle.
fn known_within(tree: &Value, path: &str, depth: usize) -> Option<Value> {
    let mut parts = path.strip_prefix("resources.")?.splitn(3, '.');
    let (kind, key, field) = (parts.next()?, parts.next()?, parts.next()?);
    if matches!(field, "id" | "name") && NAMED.iter().any(|(named, ..)| *named == kind) {
        return full_name(tree, kind, key, depth).map(Value::String);
    }
    let value = at(tree["resources"].get(kind)?.get(key)?, field)?.clone();
    match value {
        Value::String(text) => known_within_text(tree, &text, depth).map(Value::String),
        plain => Some(plain),
    }
}

/// Returns the full name of a Postgres resource, when every id in it is written down.
fn full_name(tree: &Value, kind: &str, key: &str, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let (_, segment, field) = NAMED.iter().find(|(named, ..)| *named == kind)?;
    let body = tree["resources"].get(kind)?.get(key)?;
    let id = known_within_text(tree, body.get(field)?.as_str()?, depth)?;
    if kind == "postgres_projects" {
        return Some(format!("{segment}/{id}"));
    }
    let parent = known_within_text(tree, body.get("parent")?.as_str()?, depth)?;
    Some(format!("{parent}/{segment}/{id}"))
}

/// Returns `text` with its references replaced, when all of them are known.
pub(super) fn known_text(tree: &Value, text: &str) -> Option<String> {
    known_within_text(tree, text, DEPTH)
}

fn known_within_text(tree: &Value, text: &str, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let mut lookup = |path: &str| Ok(known_within(tree, path, depth));
    match substitute_all(&Value::String(text.to_owned()), &mut lookup).ok()? {
        Value::String(text) if references(&text).is_empty() => Some(text),
        _ => None,
    }
}

/// Returns the entries of `kind` with their full names.
pub(super) fn names(tree: &Value, kind: &str) -> BTreeMap<String, Option<String>> {
    tree["resources"][kind]
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .map(|key| (key.clone(), full_name(tree, kind, key, DEPTH)))
        .collect()
}
