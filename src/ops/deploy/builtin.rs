//! The built-in engine: applies a bundle's Postgres and app resources to the embedded workspace.
//!
//! It creates and updates what the bundle declares; `remove` deletes what it no longer does. A real
//! workspace always goes through the Databricks CLI.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::{self, Client, there};
use crate::bundle::{Bundle, Resource};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Action, Change};
use crate::ops::parallel;
use crate::ui::Steps;
use crate::wire::apps::App;
use crate::wire::names::{BranchName, EndpointName, ProjectName};
use crate::wire::postgres::{Body, BranchSpec, BranchStatus, EndpointSpec, ProjectSpec};
use crate::wire::roles::{DatabaseSpec, RoleSpec, RoleStatus};

/// Keys of a bundle resource that say how it is deployed, not what it is.
const CONTROL: [&str; 11] = [
    "project_id",
    "branch_id",
    "endpoint_id",
    "role_id",
    "database_id",
    "parent",
    "replace_existing",
    "purge_on_delete",
    "permissions",
    "lifecycle",
    "source_code_path",
];

/// A resource as the bundle wants it, its references resolved.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// `postgres_projects.shop`.
    pub(super) label: String,
    /// Labels of what must be there before.
    pub(super) after: Vec<String>,
    kind: WantedKind,
}

#[derive(Debug, Clone)]
enum WantedKind {
    Project { name: ProjectName, spec: Box<ProjectSpec> },
    Branch { name: BranchName, spec: Box<BranchSpec>, replace: bool },
    Endpoint { name: EndpointName, spec: Box<EndpointSpec>, replace: bool },
    Role(Below<RoleSpec>),
    Database(Below<DatabaseSpec>),
    App(Box<App>),
}

/// A role or database of a branch.
#[derive(Debug, Clone)]
struct Below<Spec> {
    branch: BranchName,
    id: String,
    /// Full name.
    name: String,
    spec: Box<Spec>,
    replace: bool,
}

/// One planned step of the built-in engine.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) change: Change,
    wanted: Wanted,
    /// What a change of an existing resource names in `update_mask`.
    mask: Vec<String>,
}

/// Reads what the bundle wants, for the identity `user`.
///
/// Fails with `Usage`, naming file and line, for a resource the engine does not know.
pub(super) fn wanted(bundle: &Bundle, user: &str) -> Result<Vec<Wanted>> {
    let resources = bundle.resources();
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut all = Vec::new();
    for resource in resources {
        let lookup = |path: &str| look_up(&known, user, path);
        let body = Bundle::resolve(&resource.body, lookup)
            .doing(|| format!("{}: cannot resolve `{}`", resource.place, resource.label()))?;
        let kind = read(resource, &body)?;
        let mut attributes = body.as_object().cloned().unwrap_or_default();
        let id = Value::from(kind.id());
        attributes.insert("id".to_owned(), id.clone());
        attributes.entry("name").or_insert(id);
        known.insert(format!("resources.{}", resource.label()), Value::Object(attributes));
        let after = resource.depends_on.iter().map(|(kind, key)| format!("{kind}.{key}")).collect();
        all.push(Wanted { label: resource.label(), after, kind });
    }
    Ok(all)
}

/// Finds what `${path}` stands for.
fn look_up(known: &BTreeMap<String, Value>, user: &str, path: &str) -> Option<Value> {
    match path {
        "workspace.current_user.userName" => return Some(Value::from(user)),
        "workspace.current_user.short_name" => {
            return Some(Value::from(user.split('@').next().unwrap_or(user)));
        }
        _ => {}
    }
    let mut parts = path.splitn(4, '.');
    let label = format!("{}.{}.{}", parts.next()?, parts.next()?, parts.next()?);
    let pointer = format!("/{}", parts.next()?.replace('.', "/"));
    known.get(&label)?.pointer(&pointer).cloned()
}

/// Reads one resource of the bundle.
fn read(resource: &Resource, body: &Value) -> Result<WantedKind> {
    let refuse = |what: String| {
        Error::new(Kind::Usage, format!("{}: {what}", resource.place)).code("BUNDLE_INVALID")
    };
    let text = |key: &str| {
        let value = body.get(key).and_then(Value::as_str);
        value.ok_or_else(|| refuse(format!("`{}` has no `{key}`", resource.label())))
    };
    let flag = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or(false);
    let fields = || -> Map<String, Value> {
        let all = body.as_object().into_iter().flatten();
        all.filter(|(key, _)| !CONTROL.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let parent = |what: &str| text("parent").map(|parent| format!("{parent}/{what}"));
    Ok(match resource.kind.as_str() {
        "postgres_projects" => WantedKind::Project {
            name: ProjectName::new(text("project_id")?),
            spec: Box::new(typed(fields()).map_err(refuse)?),
        },
        "postgres_branches" => WantedKind::Branch {
            name: format!("{}/{}", parent("branches")?, text("branch_id")?)
                .parse()
                .map_err(refuse)?,
            spec: Box::new(typed(fields()).map_err(refuse)?),
            replace: flag("replace_existing"),
        },
        "postgres_endpoints" => WantedKind::Endpoint {
            name: format!("{}/{}", parent("endpoints")?, text("endpoint_id")?)
                .parse()
                .map_err(refuse)?,
            spec: Box::new(typed(fields()).map_err(refuse)?),
            replace: flag("replace_existing"),
        },
        "postgres_roles" => {
            let (name, id) = (parent("roles")?, text("role_id")?);
            WantedKind::Role(below(name, id, fields(), flag("replace_existing")).map_err(refuse)?)
        }
        "postgres_databases" => {
            let (name, id) = (parent("databases")?, text("database_id")?);
            let below = below(name, id, fields(), flag("replace_existing"));
            WantedKind::Database(below.map_err(refuse)?)
        }
        "apps" => {
            let mut fields = fields();
            fields.remove("config");
            WantedKind::App(Box::new(typed(fields).map_err(refuse)?))
        }
        other => {
            return Err(refuse(format!("the built-in engine does not know `{other}`"))
                .why("it knows apps, and projects, branches, endpoints, roles and databases of Postgres")
                .hint("install the Databricks CLI, which `deploy` then uses"));
        }
    })
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| error.to_string())
}

/// Reads a role or database; `folder` is the full name of its branch with what it is a part of.
fn below<Spec: DeserializeOwned>(
    folder: String,
    id: &str,
    fields: Map<String, Value>,
    replace: bool,
) -> Result<Below<Spec>, String> {
    let (branch, _) = folder.rsplit_once('/').unwrap_or_default();
    Ok(Below {
        branch: branch.parse()?,
        id: id.to_owned(),
        name: format!("{folder}/{id}"),
        spec: Box::new(typed(fields)?),
        replace,
    })
}

impl WantedKind {
    /// Returns the id that references to the resource get.
    fn id(&self) -> String {
        match self {
            WantedKind::Project { name, .. } => name.to_string(),
            WantedKind::Branch { name, .. } => name.to_string(),
            WantedKind::Endpoint { name, .. } => name.to_string(),
            WantedKind::Role(role) => role.name.clone(),
            WantedKind::Database(database) => database.name.clone(),
            WantedKind::App(app) => app.name.clone(),
        }
    }
}

/// Compares what is wanted with what is there; changes nothing.
pub(super) async fn plan(api: &Client, wanted: Vec<Wanted>) -> Result<Vec<Step>> {
    let steps = parallel::each(wanted, |wanted| compare(api, wanted)).await;
    steps.into_iter().collect()
}

async fn compare(api: &Client, wanted: Wanted) -> Result<Step> {
    let reading = || format!("could not read `{}`", wanted.kind.id());
    let (exists, mask) = match &wanted.kind {
        WantedKind::Project { name, spec } => {
            let project = there(api.get_project(name).await).doing(reading)?;
            (
                project.is_some(),
                project.map(|now| differences(spec, &now.status)).unwrap_or_default(),
            )
        }
        WantedKind::Branch { name, spec, .. } => {
            match there(api.get_branch(name).await).doing(reading)? {
                Some(now) => (true, branch_differences(name, spec, &now.status)?),
                None => (false, Vec::new()),
            }
        }
        WantedKind::Endpoint { name, spec, .. } => {
            let endpoint = there(api.get_endpoint(name).await).doing(reading)?;
            (
                endpoint.is_some(),
                endpoint.map(|now| differences(spec, &now.status)).unwrap_or_default(),
            )
        }
        WantedKind::Role(role) => {
            let now = there(api.get_role(&role.name).await).doing(reading)?;
            let mask = now.as_ref().map(|now| role_differences(&role.spec, &now.status));
            (now.is_some(), mask.unwrap_or_default())
        }
        WantedKind::Database(database) => {
            let now = there(api.get_database(&database.name).await).doing(reading)?;
            let mask = now.as_ref().map(|now| differences(&database.spec, &now.status));
            (now.is_some(), mask.unwrap_or_default())
        }
        WantedKind::App(app) => {
            let now = there(api.get_app(&app.name).await).doing(reading)?;
            (now.is_some(), now.map(|now| app_differences(app, &now)).unwrap_or_default())
        }
    };
    let action = match (exists, mask.is_empty()) {
        (false, _) => Action::Create,
        (true, false) => Action::Update,
        (true, true) => Action::Unchanged,
    };
    let change = Change { action, resource: wanted.label.clone(), name: wanted.kind.id() };
    Ok(Step { change, wanted, mask })
}

/// Returns the mask paths of `spec` whose value is not what `status` says.
fn differences(spec: &impl serde::Serialize, status: &impl serde::Serialize) -> Vec<String> {
    let plain = |value: Value| value.as_object().cloned().unwrap_or_default();
    let spec = plain(serde_json::to_value(spec).expect("specs are plain data"));
    let status = plain(serde_json::to_value(status).expect("statuses are plain data"));
    let mut mask: Vec<String> = spec
        .iter()
        // The major version cannot change, and a laptop may not have the one that is asked for.
        .filter(|(key, _)| *key != "pg_version")
        // Answers leave out what is off.
        .filter(|(key, wanted)| match status.get(*key) {
            Some(now) => !covers(now, wanted),
            None => **wanted != Value::Bool(false),
        })
        .map(|(key, _)| mask_path(key))
        .collect();
    mask.dedup();
    mask
}

/// Returns the name of a field in `update_mask`; one-of groups are named as a group.
///
/// Source: Go SDK 0.175.0 `service/postgres`, read 2026-08.
fn mask_path(key: &str) -> String {
    match key {
        "suspend_timeout_duration" | "no_suspension" => "spec.suspension".to_owned(),
        "ttl" | "expire_time" | "no_expiry" => "spec.expiration".to_owned(),
        key => format!("spec.{key}"),
    }
}

/// Returns whether `now` says all that `wanted` says; numbers are compared as numbers.
fn covers(now: &Value, wanted: &Value) -> bool {
    match (now, wanted) {
        (Value::Object(now), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| now.get(key).is_some_and(|now| covers(now, value)))
        }
        (Value::Number(now), Value::Number(wanted)) => now.as_f64() == wanted.as_f64(),
        (now, wanted) => now == wanted,
    }
}

/// Returns what to change on a branch; where it came from cannot be changed.
fn branch_differences(
    name: &BranchName,
    spec: &BranchSpec,
    now: &BranchStatus,
) -> Result<Vec<String>> {
    if let (Some(wanted), Some(real)) = (&spec.source_branch, &now.source_branch)
        && wanted != real
    {
        return Err(Error::new(
            Kind::Conflict,
            format!("`{name}` has another source than the bundle says"),
        )
        .code("BRANCH_LINEAGE_MISMATCH")
        .why(format!("it is a copy of `{real}`, the bundle says `{wanted}`"))
        .hint(format!("lakeforge branch delete {}", name.short())));
    }
    let mut mask = Vec::new();
    let expires = match (spec.no_expiry, spec.expire_time) {
        (Some(true), _) => now.expire_time.is_some(),
        (_, Some(wanted)) => now.expire_time != Some(wanted),
        // A `ttl` counts from creation, and the branch has been created.
        _ => false,
    };
    if expires {
        mask.push("spec.expiration".to_owned());
    }
    if spec.is_protected.is_some_and(|wanted| wanted != now.is_protected) {
        mask.push("spec.is_protected".to_owned());
    }
    Ok(mask)
}

/// Returns what to change on a role; who it stands for cannot be changed.
fn role_differences(wanted: &RoleSpec, now: &RoleStatus) -> Vec<String> {
    let mut mask = Vec::new();
    if wanted.membership_roles.clone().unwrap_or_default() != now.membership_roles {
        mask.push("spec.membership_roles".to_owned());
    }
    if wanted.attributes.unwrap_or_default() != now.attributes {
        mask.push("spec.attributes".to_owned());
    }
    mask
}

/// Returns which parts of an app differ.
fn app_differences(wanted: &App, now: &App) -> Vec<String> {
    let mut mask = Vec::new();
    if wanted.description.as_deref().unwrap_or_default()
        != now.description.as_deref().unwrap_or_default()
    {
        mask.push("description".to_owned());
    }
    if wanted.resources != now.resources {
        mask.push("resources".to_owned());
    }
    if wanted.user_api_scopes != now.user_api_scopes {
        mask.push("user_api_scopes".to_owned());
    }
    mask
}

/// Carries out what was planned, each step after those it depends on, independent ones at once.
///
/// Stops at the first failure; what is done stays, and the same call again goes on from there.
pub(super) async fn apply(
    api: &Client,
    steps: &Steps,
    plan: &[Step],
    limit: Duration,
) -> Result<()> {
    let mut left: Vec<&Step> = plan.iter().collect();
    while !left.is_empty() {
        let ready = |step: &&Step| {
            let after = &step.wanted.after;
            after.iter().all(|label| !left.iter().any(|other| other.wanted.label == *label))
        };
        let (now, later): (Vec<&Step>, Vec<&Step>) = left.iter().copied().partition(ready);
        assert!(!now.is_empty(), "the bundle room refuses circular references");
        let work = |step: &'_ Step| carry_out(api, steps, step.clone(), limit);
        for answer in parallel::each(now.iter().copied(), work).await {
            answer?;
        }
        left = later;
    }
    Ok(())
}

async fn carry_out(api: &Client, steps: &Steps, step: Step, limit: Duration) -> Result<()> {
    let Step { change, wanted, mask } = step;
    let verb = match change.action {
        Action::Create => "Creating",
        Action::Update => "Updating",
        _ => return Ok(()),
    };
    let _step = steps.start(format!("{verb} {} `{}`", wanted.label, change.name));
    let creates = change.action == Action::Create;
    let changed = match &wanted.kind {
        WantedKind::Project { name, spec } => project(api, name, spec, creates, &mask, limit).await,
        WantedKind::Branch { name, spec, replace } => {
            branch(api, name, spec, creates.then_some(*replace), &mask, limit).await
        }
        WantedKind::Endpoint { name, spec, replace } => {
            endpoint(api, name, spec, creates.then_some(*replace), &mask, limit).await
        }
        WantedKind::Role(role) => role_step(api, role, creates, &mask, limit).await,
        WantedKind::Database(database) => database_step(api, database, creates, &mask, limit).await,
        WantedKind::App(app) if creates => api.create_app(app, true).await.map(drop),
        WantedKind::App(app) => api.update_app(app).await.map(drop),
    };
    let verb = if creates { "create" } else { "update" };
    changed.doing(|| format!("could not {verb} {} `{}`", wanted.label, change.name))
}

async fn project(
    api: &Client,
    name: &ProjectName,
    spec: &ProjectSpec,
    creates: bool,
    mask: &[String],
    limit: Duration,
) -> api::Result<()> {
    let body = Body { spec: spec.clone() };
    let pending = if creates {
        api.create_project(name, &body).await?
    } else {
        api.update_project(name, &body, &mask.join(",")).await?
    };
    api.wait(pending, &format!("project `{}`", name.project), limit).await.map(drop)
}

/// Creates a branch (`replace` says whether over an existing one) or updates it.
async fn branch(
    api: &Client,
    name: &BranchName,
    spec: &BranchSpec,
    replace: Option<bool>,
    mask: &[String],
    limit: Duration,
) -> api::Result<()> {
    let body = Body { spec: spec.clone() };
    let pending = match replace {
        Some(replace) => api.create_branch(name, &body, replace).await?,
        None => api.update_branch(name, &body, &mask.join(",")).await?,
    };
    api.wait(pending, &format!("branch `{}`", name.short()), limit).await.map(drop)
}

/// Creates an endpoint (`replace` says whether over an existing one) or updates it.
async fn endpoint(
    api: &Client,
    name: &EndpointName,
    spec: &EndpointSpec,
    replace: Option<bool>,
    mask: &[String],
    limit: Duration,
) -> api::Result<()> {
    let body = Body { spec: spec.clone() };
    let pending = match replace {
        Some(replace) => api.create_endpoint(name, &body, replace).await?,
        None => api.update_endpoint(name, &body, &mask.join(",")).await?,
    };
    api.wait(pending, &format!("endpoint `{name}`"), limit).await.map(drop)
}

async fn role_step(
    api: &Client,
    role: &Below<RoleSpec>,
    creates: bool,
    mask: &[String],
    limit: Duration,
) -> api::Result<()> {
    let mut body = Body { spec: (*role.spec).clone() };
    // What the bundle does not say is off.
    body.spec.membership_roles.get_or_insert_default();
    body.spec.attributes.get_or_insert_default();
    let pending = match creates {
        true => api.create_role(&role.branch, &role.id, &body, role.replace).await?,
        false => api.update_role(&role.name, &body, &mask.join(",")).await?,
    };
    api.wait(pending, &format!("role `{}`", role.name), limit).await.map(drop)
}

async fn database_step(
    api: &Client,
    database: &Below<DatabaseSpec>,
    creates: bool,
    mask: &[String],
    limit: Duration,
) -> api::Result<()> {
    let body = Body { spec: (*database.spec).clone() };
    let pending = match creates {
        true => {
            api.create_database(&database.branch, &database.id, &body, database.replace).await?
        }
        false => api.update_database(&database.name, &body, &mask.join(",")).await?,
    };
    api.wait(pending, &format!("database `{}`", database.name), limit).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::time::Ttl;
    use crate::wire::postgres::{EndpointSettings, EndpointStatus};

    #[test]
    fn only_what_differs_is_in_the_mask() {
        let spec = EndpointSpec {
            settings: EndpointSettings {
                autoscaling_limit_min_cu: Some(2.0),
                autoscaling_limit_max_cu: Some(8.0),
                suspend_timeout_duration: Some(Ttl::from_secs(60)),
                ..EndpointSettings::default()
            },
            disabled: Some(false),
            ..EndpointSpec::default()
        };
        let mut status =
            EndpointStatus { settings: spec.settings.clone(), ..EndpointStatus::default() };
        assert_eq!(differences(&spec, &status), Vec::<String>::new());

        status.settings.autoscaling_limit_max_cu = Some(4.0);
        status.settings.suspend_timeout_duration = None;
        assert_eq!(
            differences(&spec, &status),
            ["spec.autoscaling_limit_max_cu", "spec.suspension"]
        );
    }

    #[test]
    fn a_branch_of_another_source_is_a_conflict() {
        let name: BranchName = "projects/shop/branches/dev".parse().unwrap();
        let spec = BranchSpec {
            source_branch: Some("projects/shop/branches/production".parse().unwrap()),
            no_expiry: Some(true),
            ..BranchSpec::default()
        };
        let mut now =
            BranchStatus { source_branch: spec.source_branch.clone(), ..BranchStatus::default() };
        assert_eq!(branch_differences(&name, &spec, &now).unwrap(), Vec::<String>::new());

        now.expire_time = Some("2026-11-20T12:00:00Z".parse().unwrap());
        assert_eq!(branch_differences(&name, &spec, &now).unwrap(), ["spec.expiration"]);

        now.source_branch = Some("projects/shop/branches/other".parse().unwrap());
        assert_eq!(branch_differences(&name, &spec, &now).unwrap_err().kind(), Kind::Conflict);
    }

    #[test]
    fn references_find_ids_fields_and_the_user() {
        let mut known = BTreeMap::new();
        let project = json!({"id": "projects/shop", "project_id": "shop", "tags": {"team": "a"}});
        known.insert("resources.postgres_projects.p".to_owned(), project);
        let find = |path: &str| look_up(&known, "me@example.test", path);

        assert_eq!(find("resources.postgres_projects.p.id"), Some(json!("projects/shop")));
        assert_eq!(find("resources.postgres_projects.p.tags.team"), Some(json!("a")));
        assert_eq!(find("workspace.current_user.short_name"), Some(json!("me")));
        assert_eq!(find("resources.postgres_projects.q.id"), None);
        assert_eq!(find("resources.postgres_projects.p"), None);
    }
}
