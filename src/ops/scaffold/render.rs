//! The text of `resources/lakebase.yml`: a topology and a template, nothing else goes in.

use serde::Serialize;
use serde_json::Value;

use super::scope::{self, Scope};
use super::seal;
use super::templates::Source;
use super::topology::{Branch, BranchEndpoint, Project};
use super::variables::{self, MAX_CU, MIN_CU, PG_VERSION, Variable};
use crate::bundle::{Compute, Database, Expiry, Outline, Role};
use crate::error::Result;
use crate::time::Ttl;
use crate::wire::names::{PRIMARY_ENDPOINT, ROOT_BRANCH};
use crate::wire::roles::{AuthMethod, IdentityType};

/// What the template sees.
#[derive(Debug, Serialize)]
struct Context {
    project_name: Option<String>,
    root_path: Option<&'static str>,
    targets: Vec<String>,
    paths: Vec<PathContext>,
    variables: Vec<Variable>,
    projects: Vec<ProjectContext>,
    branches: Vec<BranchContext>,
    endpoints: Vec<EndpointContext>,
    roles: Vec<RoleContext>,
    databases: Vec<DatabaseContext>,
}

/// A variable that stands for a project: its resource, or in a preview only its name.
#[derive(Debug, Serialize)]
struct PathContext {
    name: String,
    description: String,
    default: String,
    reference: String,
}

#[derive(Debug, Serialize)]
struct ProjectContext {
    key: String,
    id: String,
    display_name: Option<String>,
    pg_version: Value,
    retention: Option<Ttl>,
    compute: Vec<Setting>,
    prevent_destroy: bool,
}

#[derive(Debug, Serialize)]
struct BranchContext {
    key: String,
    id: String,
    parent: String,
    source: Option<String>,
    ttl: Option<Ttl>,
    expire_time: Option<jiff::Timestamp>,
    protected: bool,
    is_root: bool,
}

#[derive(Debug, Serialize)]
struct EndpointContext {
    key: String,
    id: String,
    parent: String,
    kind: &'static str,
    compute: Vec<Setting>,
    is_primary: bool,
}

#[derive(Debug, Serialize)]
struct RoleContext {
    key: String,
    id: String,
    parent: String,
    name: String,
    identity: Option<IdentityType>,
    login: Option<AuthMethod>,
    superuser: bool,
    attributes: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct DatabaseContext {
    key: String,
    id: String,
    parent: String,
    name: String,
    owner: String,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    value: Value,
}

/// What the template sees beside the context: the head of the file.
#[derive(Debug, Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    context: &'a Context,
    command: &'a str,
    digest: &'a str,
}

/// Renders `projects` with `template`; `command` is what makes the same again.
///
/// Fails when the template does.
pub(super) fn render(
    projects: &[Project],
    outline: &Outline,
    template: &Source,
    scope: &Scope,
    command: &str,
) -> Result<String> {
    let context = context(projects, outline, scope);
    let digest = digest(&context, &template.text);
    template.render(&Page { context: &context, command, digest: &digest })
}

/// Returns a digest of everything the text depends on but the command.
fn digest(context: &Context, template: &str) -> String {
    let mut inputs = serde_json::to_vec(context).expect("the context is plain data");
    inputs.push(0);
    inputs.extend(template.as_bytes());
    seal::digest(inputs)
}

fn context(projects: &[Project], outline: &Outline, scope: &Scope) -> Context {
    let is_open = |_: &String| !outline.variables.contains(scope::VARIABLE);
    let mut context = Context {
        project_name: scope.name.clone().filter(is_open),
        root_path: scope.root_path,
        targets: scope.targets.clone(),
        paths: match scope.targets.is_empty() {
            true => Vec::new(),
            false => projects.iter().map(path_context).collect(),
        },
        variables: Vec::new(),
        projects: projects.iter().map(project_context).collect(),
        branches: Vec::new(),
        endpoints: Vec::new(),
        roles: Vec::new(),
        databases: Vec::new(),
    };
    for project in projects {
        for branch in &project.branches {
            context.branches.push(branch_context(project, branch));
            let endpoints = &branch.endpoints;
            context.endpoints.extend(
                endpoints.iter().map(|endpoint| endpoint_context(project, branch, endpoint)),
            );
            context
                .roles
                .extend(branch.roles.iter().map(|role| role_context(project, branch, role)));
            let databases = branch.databases.iter();
            context
                .databases
                .extend(databases.map(|database| database_context(project, branch, database)));
        }
    }
    let used = serde_json::to_string(&context).expect("the context is plain data");
    context.variables = variables::ALL
        .into_iter()
        .filter(|variable| used.contains(&reference("var", variable.name)))
        .filter(|variable| !outline.variables.contains(variable.name))
        .collect();
    context
}

fn reference(kind: &str, name: &str) -> String {
    format!("${{{kind}.{name}}}")
}

fn project_path(project: &Project) -> String {
    reference("resources.postgres_projects", &format!("{}.id", project.key()))
}

fn branch_path(project: &Project, branch: &str) -> String {
    reference("resources.postgres_branches", &format!("{}.id", project.branch_key(branch)))
}

fn path_context(project: &Project) -> PathContext {
    PathContext {
        name: project.key(),
        description: format!("Full name of the project {}", project.id),
        default: format!("projects/{}", project.id),
        reference: project_path(project),
    }
}

fn project_context(project: &Project) -> ProjectContext {
    let config = project.config.as_ref();
    ProjectContext {
        key: project.key(),
        id: project.id.clone(),
        display_name: config.and_then(|config| config.display_name.clone()),
        pg_version: config
            .and_then(|config| config.pg_version)
            .map_or_else(|| reference("var", PG_VERSION.name).into(), Value::from),
        retention: config.and_then(|config| config.retention),
        compute: settings(&config.map(|config| config.compute).unwrap_or_default()),
        prevent_destroy: config.is_none_or(|config| config.prevent_destroy),
    }
}

fn branch_context(project: &Project, branch: &Branch) -> BranchContext {
    let is_root = branch.id == ROOT_BRANCH;
    let source = branch.source.as_deref().unwrap_or(ROOT_BRANCH);
    let is_declared = project.branches.iter().any(|sibling| sibling.id == source);
    let source = match is_declared {
        true => branch_path(project, source),
        false => format!("{}/branches/{source}", project_path(project)),
    };
    let (ttl, expire_time) = match branch.expiry {
        Expiry::Never => (None, None),
        Expiry::After(length) => (Some(length), None),
        Expiry::At(moment) => (None, Some(moment)),
    };
    BranchContext {
        key: project.branch_key(&branch.id),
        id: branch.id.clone(),
        parent: project_path(project),
        source: (!is_root).then_some(source),
        ttl,
        expire_time,
        protected: branch.protected,
        is_root,
    }
}

fn endpoint_context(
    project: &Project,
    branch: &Branch,
    endpoint: &BranchEndpoint,
) -> EndpointContext {
    EndpointContext {
        key: project.endpoint_key(&branch.id, &endpoint.id),
        id: endpoint.id.clone(),
        parent: branch_path(project, &branch.id),
        kind: match endpoint.read_only {
            true => "ENDPOINT_TYPE_READ_ONLY",
            false => "ENDPOINT_TYPE_READ_WRITE",
        },
        compute: settings(&endpoint.compute),
        is_primary: endpoint.id == PRIMARY_ENDPOINT,
    }
}

fn role_context(project: &Project, branch: &Branch, role: &Role) -> RoleContext {
    let attributes = [
        ("bypassrls", role.bypassrls),
        ("createdb", role.createdb),
        ("createrole", role.createrole),
    ];
    RoleContext {
        key: project.role_key(&branch.id, &role.id),
        id: role.id.clone(),
        parent: branch_path(project, &branch.id),
        name: role.name.clone().unwrap_or_else(|| role.id.clone()),
        identity: Some(role.identity).filter(|identity| *identity != IdentityType::Plain),
        login: role.login,
        superuser: role.superuser,
        attributes: attributes.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect(),
    }
}

fn database_context(project: &Project, branch: &Branch, database: &Database) -> DatabaseContext {
    let owner = &database.owner;
    let parent = branch_path(project, &branch.id);
    let is_declared = branch.roles.iter().any(|role| role.id == *owner);
    DatabaseContext {
        key: project.database_key(&branch.id, &database.id),
        id: database.id.clone(),
        name: database.name.clone().unwrap_or_else(|| database.id.clone()),
        owner: match is_declared {
            true => {
                let key = project.role_key(&branch.id, owner);
                reference("resources.postgres_roles", &format!("{key}.id"))
            }
            false => format!("{parent}/roles/{owner}"),
        },
        parent,
    }
}

/// Returns the compute settings; limits nobody gave come from the bundle's variables.
fn settings(compute: &Compute) -> Vec<Setting> {
    let limit = |given: Option<f64>, variable: Variable| match given {
        Some(number) => units(number),
        None => reference("var", variable.name).into(),
    };
    let mut settings = vec![
        Setting { name: "autoscaling_limit_min_cu", value: limit(compute.min_cu, MIN_CU) },
        Setting { name: "autoscaling_limit_max_cu", value: limit(compute.max_cu, MAX_CU) },
    ];
    if let Some(length) = compute.suspend_after {
        let value = format!("{}s", length.0.as_secs()).into();
        settings.push(Setting { name: "suspend_timeout_duration", value });
    }
    settings
}

/// Writes whole units without a fraction.
fn units(number: f64) -> Value {
    if number.fract() == 0.0 { Value::from(number as u64) } else { Value::from(number) }
}
