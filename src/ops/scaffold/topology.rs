//! What `gen` is asked for: projects, branches and endpoints, checked against what the platform refuses.

use std::collections::BTreeMap;
use std::fmt;

use super::Request;
use super::variables::{MAX_CU, MIN_CU, Variable};
use crate::bundle::{
    self, Attached, Compute, Config, Database, Endpoint, Expiry, Outline, Place, Role, WIDEST_CU,
};
use crate::error::{Error, Kind, Result};
use crate::wire::names::{PRIMARY_ENDPOINT, ROOT_BRANCH, check_id};

/// Endpoint for reading of a branch for which no endpoints are named.
const READ_ENDPOINT: &str = "readonly";
/// Branch of a project for which none is named.
const DEFAULT_BRANCH: &str = "dev";

/// Where a name comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A flag, or the variable that stands for it.
    Flag(&'static str),
    /// A file.
    File(Place),
    /// Nobody: it follows from something else.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "`{flag}`"),
            Origin::File(place) => place.fmt(f),
            Origin::Default => f.write_str("the defaults"),
        }
    }
}

impl Origin {
    fn error(&self, what: impl fmt::Display) -> Error {
        Error::new(Kind::Usage, format!("{self}: {what}"))
    }
}

/// A project with its branches.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) origin: Origin,
    pub(super) config: Option<bundle::Project>,
    pub(super) branches: Vec<Branch>,
}

/// A branch with its endpoints, `primary` first.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) id: String,
    pub(super) origin: Origin,
    pub(super) source: Option<String>,
    pub(super) expiry: Expiry,
    pub(super) protected: bool,
    pub(super) endpoints: Vec<BranchEndpoint>,
    pub(super) roles: Vec<Role>,
    pub(super) databases: Vec<Database>,
}

/// An endpoint with everything that is said about its compute.
#[derive(Debug, Clone)]
pub(super) struct BranchEndpoint {
    pub(super) id: String,
    pub(super) origin: Origin,
    pub(super) read_only: bool,
    pub(super) compute: Compute,
}

impl Project {
    /// Returns the key of the project in the bundle.
    pub(super) fn key(&self) -> String {
        project_key(&self.id)
    }

    /// Returns the key of one of its branches.
    pub(super) fn branch_key(&self, branch: &str) -> String {
        format!("lakebase_branch_{}_{}", sanitise(&self.id), sanitise(branch))
    }

    /// Returns the key of an endpoint of one of its branches.
    pub(super) fn endpoint_key(&self, branch: &str, endpoint: &str) -> String {
        self.key_below("endpoint", branch, endpoint)
    }

    /// Returns the key of a role of one of its branches.
    pub(super) fn role_key(&self, branch: &str, role: &str) -> String {
        self.key_below("role", branch, role)
    }

    /// Returns the key of a database of one of its branches.
    pub(super) fn database_key(&self, branch: &str, database: &str) -> String {
        self.key_below("database", branch, database)
    }

    fn key_below(&self, what: &str, branch: &str, id: &str) -> String {
        format!("lakebase_{what}_{}_{}_{}", sanitise(&self.id), sanitise(branch), sanitise(id))
    }
}

impl Project {
    /// Returns the keys of the project, its branches and what they hold, each with its full name.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let project = format!("projects/{}", self.id);
        let mut names = vec![(self.key(), project.clone())];
        for branch in &self.branches {
            let name = format!("{project}/branches/{}", branch.id);
            let endpoint = |endpoint: &BranchEndpoint| {
                let key = self.endpoint_key(&branch.id, &endpoint.id);
                (key, format!("{name}/endpoints/{}", endpoint.id))
            };
            names.extend(branch.endpoints.iter().map(endpoint));
            names.extend(branch.roles.iter().map(|role| {
                (self.role_key(&branch.id, &role.id), format!("{name}/roles/{}", role.id))
            }));
            names.extend(branch.databases.iter().map(|database| {
                let key = self.database_key(&branch.id, &database.id);
                (key, format!("{name}/databases/{}", database.id))
            }));
            names.push((self.branch_key(&branch.id), name));
        }
        names
    }
}

/// Returns the key that the project `id` has in the bundle.
pub(crate) fn project_key(id: &str) -> String {
    format!("lakebase_project_{}", sanitise(id))
}

/// Returns `id` as a part of a key, which takes no hyphens in `${…}` without care.
fn sanitise(id: &str) -> String {
    id.replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_ascii_lowercase()
}

/// Puts the topology together from the flags, from the bundle's apps, or from `lakeforge.yml`.
///
/// Fails for ids and combinations that the platform refuses, and for names that would share a
/// resource key with each other or with the rest of the bundle.
pub(super) fn topology(
    request: &Request,
    config: &Config,
    outline: &Outline,
) -> Result<Vec<Project>> {
    let Request { projects, branches, .. } = request;
    let topology = match (&projects[..], &config.projects[..]) {
        _ if request.from_apps => from_apps(branches, config, outline)?,
        ([], _) if !branches.is_empty() => {
            return Err(Error::new(Kind::Usage, "`--branches` needs `--project` or `--from-apps`")
                .why("without it, projects and branches are those of lakeforge.yml"));
        }
        ([], []) => {
            return Err(Error::new(Kind::Usage, "there is no project to generate")
                .hint("lakeforge gen --project NAME, or list `projects:` in lakeforge.yml"));
        }
        ([], listed) => listed.iter().map(from_config).collect(),
        (named, _) => from_flags(named, branches),
    };
    for project in &topology {
        check_project(project, outline)?;
    }
    check_keys(&topology, outline)?;
    Ok(topology)
}

fn from_flags(projects: &[String], branches: &[String]) -> Vec<Project> {
    let branches = match branches {
        [] => vec![plain_branch(DEFAULT_BRANCH, Origin::Default)],
        named => named.iter().map(|id| plain_branch(id, Origin::Flag("--branches"))).collect(),
    };
    let project = |id: &String| Project {
        id: id.clone(),
        origin: Origin::Flag("--project"),
        config: None,
        branches: branches.clone(),
    };
    projects.iter().map(project).collect()
}

/// Returns a project for each app that is given a database, with what lakeforge.yml says about it.
fn from_apps(branches: &[String], config: &Config, outline: &Outline) -> Result<Vec<Project>> {
    let mut projects: Vec<Project> = Vec::new();
    for app in &outline.apps {
        let Some(id) = project_of(app, outline) else { continue };
        if projects.iter().any(|project| project.id == id) {
            continue;
        }
        let said = config.projects.iter().find(|project| project.id == id);
        projects.push(match said {
            Some(project) if branches.is_empty() => from_config(project),
            _ => Project {
                origin: Origin::File(app.place.clone()),
                ..from_flags(&[id], branches).remove(0)
            },
        });
    }
    if projects.is_empty() {
        return Err(Error::new(Kind::Usage, "no app of the bundle is given a database")
            .why("`--from-apps` makes a project for each app with a `postgres` resource")
            .hint("lakeforge gen --project NAME"));
    }
    Ok(projects)
}

/// Returns the project whose branch an app uses: the one it names, else one called like the app;
/// nothing for a project that another file of the bundle declares.
fn project_of(app: &Attached, outline: &Outline) -> Option<String> {
    let key = [("${resources.postgres_projects.", '.'), ("${var.", '}')].into_iter().find_map(
        |(before, after)| app.branch.strip_prefix(before).and_then(|rest| rest.split(after).next()),
    );
    if let Some(key) = key {
        let id = key.strip_prefix(&project_key("")).map(|id| id.replace('_', "-"));
        return match id {
            _ if outline.keys.contains_key(key) => None,
            Some(id) => Some(id),
            None => Some(app.name.clone()),
        };
    }
    let named = app.branch.strip_prefix("projects/").and_then(|rest| rest.split('/').next());
    Some(named.filter(|id| check_id(id).is_ok()).unwrap_or(&app.name).to_owned())
}

fn plain_branch(id: &str, origin: Origin) -> Branch {
    Branch {
        id: id.to_owned(),
        origin,
        source: None,
        expiry: Expiry::Never,
        protected: false,
        endpoints: vec![
            primary(Compute::default(), Origin::Default),
            reader(Compute::default(), Origin::Default),
        ],
        roles: Vec::new(),
        databases: Vec::new(),
    }
}

fn primary(compute: Compute, origin: Origin) -> BranchEndpoint {
    BranchEndpoint { id: PRIMARY_ENDPOINT.to_owned(), origin, read_only: false, compute }
}

fn reader(compute: Compute, origin: Origin) -> BranchEndpoint {
    BranchEndpoint { id: READ_ENDPOINT.to_owned(), origin, read_only: true, compute }
}

/// Returns the endpoints of a branch, `said` being what its project and itself say about them: with
/// one for reading unless others are named, or none at all (`endpoints: []`).
fn endpoints(project: &bundle::Project, said: &[Option<&Vec<Endpoint>>]) -> Vec<BranchEndpoint> {
    let origin = || Origin::File(project.place.clone());
    let named = || said.iter().flatten().flat_map(|endpoints| endpoints.iter());
    let is_none = said.iter().flatten().any(|endpoints| endpoints.is_empty());
    let mut endpoints = vec![primary(project.compute, origin())];
    if !is_none && named().all(|endpoint| endpoint.id == PRIMARY_ENDPOINT) {
        endpoints.push(reader(project.compute, origin()));
    }
    for endpoint in named() {
        add_endpoint(&mut endpoints, endpoint, project.compute);
    }
    endpoints
}

fn from_config(project: &bundle::Project) -> Project {
    let branch = |branch: &bundle::Branch| {
        let endpoints =
            endpoints(project, &[project.endpoints.as_ref(), branch.endpoints.as_ref()]);
        Branch {
            id: branch.id.clone(),
            origin: Origin::File(branch.place.clone()),
            source: branch.source.clone(),
            expiry: branch.expiry,
            protected: branch.protected,
            endpoints,
            roles: laid_over(&project.roles, &branch.roles, |role| &role.id),
            databases: laid_over(&project.databases, &branch.databases, |database| &database.id),
        }
    };
    let mut branches: Vec<Branch> = project.branches.iter().map(branch).collect();
    if branches.is_empty() {
        let mut dev = plain_branch(DEFAULT_BRANCH, Origin::Default);
        dev.endpoints = endpoints(project, &[project.endpoints.as_ref()]);
        dev.roles.clone_from(&project.roles);
        dev.databases.clone_from(&project.databases);
        branches.push(dev);
    }
    let origin = Origin::File(project.place.clone());
    Project { id: project.id.clone(), origin, config: Some(project.clone()), branches }
}

/// Returns what `below` says, and of `above` what it says nothing about.
fn laid_over<T: Clone>(above: &[T], below: &[T], id: impl Fn(&T) -> &String) -> Vec<T> {
    let kept = above.iter().filter(|one| !below.iter().any(|other| id(other) == id(one)));
    kept.chain(below).cloned().collect()
}

/// Adds `endpoint`, or lays it over the one of the same id.
fn add_endpoint(endpoints: &mut Vec<BranchEndpoint>, endpoint: &Endpoint, further_up: Compute) {
    let before = endpoints.iter().position(|earlier| earlier.id == endpoint.id);
    let base = before.map_or(further_up, |at| endpoints[at].compute);
    let merged = BranchEndpoint {
        id: endpoint.id.clone(),
        origin: Origin::File(endpoint.place.clone()),
        read_only: endpoint.read_only,
        compute: Compute {
            min_cu: endpoint.compute.min_cu.or(base.min_cu),
            max_cu: endpoint.compute.max_cu.or(base.max_cu),
            suspend_after: endpoint.compute.suspend_after.or(base.suspend_after),
        },
    };
    match before {
        Some(at) => endpoints[at] = merged,
        None => endpoints.push(merged),
    }
}

/// Refuses what the platform would refuse of one project.
///
/// Source: Lakebase API notes on branches (expiry, protection, children), read 2026-08.
fn check_project(project: &Project, outline: &Outline) -> Result<()> {
    check_id(&project.id).map_err(|why| project.origin.error(why))?;
    for branch in &project.branches {
        check_id(&branch.id).map_err(|why| {
            let shares_key = |other: &&Branch| {
                other.id != branch.id && sanitise(&other.id) == sanitise(&branch.id)
            };
            match project.branches.iter().find(shares_key) {
                None => branch.origin.error(why),
                Some(Branch { id, origin, .. }) => branch
                    .origin
                    .error(format!("`{}` would have the resource key of `{id}`", branch.id))
                    .why(why)
                    .why(format!("`{id}` is from {origin}")),
            }
        })?;
        let refuse = |what: &str| Err(branch.origin.error(format!("`{}` {what}", branch.id)));
        let is_root = branch.id == ROOT_BRANCH;
        if is_root && branch.source.is_some() {
            return refuse("is where a project begins and has no source");
        }
        if is_root && branch.expiry != Expiry::Never {
            return refuse("is where a project begins and cannot expire");
        }
        if branch.protected && branch.expiry != Expiry::Never {
            return refuse("is protected and therefore cannot expire");
        }
        check_source(project, branch)?;
        for endpoint in &branch.endpoints {
            check_endpoint(endpoint, outline)?;
        }
    }
    Ok(())
}

fn check_endpoint(endpoint: &BranchEndpoint, outline: &Outline) -> Result<()> {
    check_id(&endpoint.id).map_err(|why| endpoint.origin.error(why))?;
    let is_primary = endpoint.id == PRIMARY_ENDPOINT;
    if is_primary == endpoint.read_only {
        return Err(endpoint
            .origin
            .error(format!("the endpoint `{}` has the wrong type", endpoint.id))
            .why("each branch has one read-write endpoint, `primary`; further ones only read"));
    }
    check_compute(endpoint, outline)
}

/// Refuses limits that do not go together; a variable that only the bundle declares is not looked into.
fn check_compute(endpoint: &BranchEndpoint, outline: &Outline) -> Result<()> {
    let Compute { min_cu, max_cu, .. } = endpoint.compute;
    let default = |variable: Variable| {
        (!outline.variables.contains(variable.name)).then_some(f64::from(variable.default))
    };
    let (Some(min), Some(max)) =
        (min_cu.or_else(|| default(MIN_CU)), max_cu.or_else(|| default(MAX_CU)))
    else {
        return Ok(());
    };
    if min <= max && max - min <= WIDEST_CU {
        return Ok(());
    }
    let min_name = if min_cu.is_some() { "min_cu" } else { MIN_CU.name };
    let max_name = if max_cu.is_some() { "max_cu" } else { MAX_CU.name };
    let (given, other) = match max_cu {
        Some(_) => (format!("`{max_name}` {max}"), format!("`{min_name}` {min}")),
        None => (format!("`{min_name}` {min}"), format!("`{max_name}` {max}")),
    };
    Err(endpoint
        .origin
        .error(format!("`{}`: {given} does not go with {other}", endpoint.id))
        .why(format!("the upper limit is at most {WIDEST_CU} CU above the lower one"))
        .hint("give both `min_cu` and `max_cu`"))
}

/// Follows the sources of `branch` among its siblings.
fn check_source(project: &Project, branch: &Branch) -> Result<()> {
    let mut way = vec![branch.id.as_str()];
    let mut last = branch;
    while let Some(source) = &last.source {
        check_id(source).map_err(|why| last.origin.error(why))?;
        if way.contains(&source.as_str()) {
            way.push(source);
            return Err(branch
                .origin
                .error("branches start from each other in a circle")
                .why(way.join(" ← ")));
        }
        let Some(sibling) = project.branches.iter().find(|sibling| sibling.id == *source) else {
            break;
        };
        if sibling.expiry != Expiry::Never {
            return Err(last
                .origin
                .error(format!("`{}` cannot start from `{source}`, which expires", last.id))
                .why(format!(
                    "a branch that expires has no branches below it ({})",
                    sibling.origin
                )));
        }
        way.push(source);
        last = sibling;
    }
    Ok(())
}

/// Refuses two names with one key.
fn check_keys(projects: &[Project], outline: &Outline) -> Result<()> {
    let mut taken: BTreeMap<String, (String, &Origin)> = BTreeMap::new();
    let mut take = |key: String, what: String, origin| match taken.get(&key) {
        Some((first, _)) if *first == what => {
            Err(Error::new(Kind::Usage, format!("{origin}: {what} is there twice")))
        }
        Some((first, first_origin)) => Err(Error::new(
            Kind::Usage,
            format!("{origin}: {what} has the same resource key as {first}"),
        )
        .why(format!("both would be `{key}`; {first} is from {first_origin}"))
        .hint("rename one of them")),
        None => {
            taken.insert(key, (what, origin));
            Ok(())
        }
    };
    for project in projects {
        let id = &project.id;
        take(project.key(), format!("project `{id}`"), &project.origin)?;
        for branch in &project.branches {
            let short = format!("{id}/{}", branch.id);
            take(project.branch_key(&branch.id), format!("branch `{short}`"), &branch.origin)?;
            for endpoint in &branch.endpoints {
                let key = project.endpoint_key(&branch.id, &endpoint.id);
                // What is given for a whole project belongs to its branch here.
                let origin = match endpoint.origin {
                    Origin::Default => &branch.origin,
                    _ => &endpoint.origin,
                };
                take(key, format!("endpoint `{short}/{}`", endpoint.id), origin)?;
            }
            // Given for a whole project, they are there once for each branch.
            for role in &branch.roles {
                let key = project.role_key(&branch.id, &role.id);
                take(key, format!("role `{short}/{}`", role.id), &branch.origin)?;
            }
            for database in &branch.databases {
                let key = project.database_key(&branch.id, &database.id);
                take(key, format!("database `{short}/{}`", database.id), &branch.origin)?;
            }
        }
    }
    for (key, (what, origin)) in &taken {
        if let Some(place) = outline.keys.get(key) {
            return Err(origin
                .error(format!("{what} needs the resource key `{key}`"))
                .why(format!("it is taken at {place}")));
        }
    }
    Ok(())
}
