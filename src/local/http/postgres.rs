//! Postgres projects, branches, endpoints, operations, credentials.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::request::{Body, By, Params};
use super::{Reply, Shared, reply};
use crate::local::fault::{Answer, Fault};
use crate::local::workspace::Workspace;
use crate::local::world::{Caller, PageRequest, ProjectBody, Started, World, parse};
use crate::time::Ttl;
use crate::wire::names::{BranchName, EndpointName, ProjectName};
use crate::wire::postgres::{BranchSpec, Credential, CredentialRequest, EndpointSpec};

const BASE: &str = "/api/2.0/postgres";
const PROJECT: &str = "/projects/{project}";
const BRANCH: &str = "/projects/{project}/branches/{branch}";
const ENDPOINT: &str = "/projects/{project}/branches/{branch}/endpoints/{endpoint}";
const SHORTEST_CREDENTIAL: Duration = Duration::from_secs(300);
const LONGEST_CREDENTIAL: Duration = Duration::from_secs(3600);

pub(super) fn routes() -> Router<Arc<Workspace>> {
    let at = |path: &str| format!("{BASE}{path}");
    let below = |path: &str, rest: &str| format!("{BASE}{path}{rest}");
    Router::new()
        .route(&at("/projects"), get(list_projects).post(create_project))
        .route(&at(PROJECT), get(get_project).patch(update_project).delete(delete_project))
        .route(&below(PROJECT, "/undelete"), post(undelete_project))
        .route(&below(PROJECT, "/branches"), get(list_branches).post(create_branch))
        .route(&at(BRANCH), get(get_branch).patch(update_branch).delete(delete_branch))
        .route(&below(BRANCH, "/undelete"), post(undelete_branch))
        .route(&below(BRANCH, "/endpoints"), get(list_endpoints).post(create_endpoint))
        .route(&at(ENDPOINT), get(get_endpoint).patch(update_endpoint).delete(delete_endpoint))
        .route(&at("/operations/{id}"), get(any_operation))
        .route(&below(PROJECT, "/operations/{id}"), get(project_operation))
        .route(&below(BRANCH, "/operations/{id}"), get(branch_operation))
        .route(&below(ENDPOINT, "/operations/{id}"), get(endpoint_operation))
        .route(&at("/credentials"), post(create_credential))
}

#[derive(Deserialize)]
struct Options {
    project_id: Option<String>,
    branch_id: Option<String>,
    endpoint_id: Option<String>,
    update_mask: Option<String>,
    #[serde(default)]
    replace_existing: bool,
    #[serde(default)]
    purge: bool,
}

/// Starts a change of a project by somebody who may change it.
async fn start(
    workspace: &Arc<Workspace>,
    caller: Caller,
    project: String,
    change: impl FnOnce(&mut World, &str, Timestamp) -> Answer<Started> + Send + 'static,
) -> Reply {
    let operation = workspace.start(move |world| {
        world.require_manage(&caller, &project)?;
        change(world, &project, Workspace::now())
    });
    reply(&operation.await?)
}

async fn create_project(
    State(workspace): Shared,
    By(caller): By,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let body: ProjectBody = parse(&body)?;
    let operation = workspace.start(move |world| {
        world.require_person(&caller)?;
        world.create_project(options.project_id.as_deref(), body, &caller, Workspace::now())
    });
    reply(&operation.await?)
}

async fn get_project(State(workspace): Shared, Path(project): Path<String>) -> Reply {
    reply(&workspace.read(|world| world.get_project(&project))?)
}

async fn list_projects(State(workspace): Shared, Params(page): Params<PageRequest>) -> Reply {
    reply(&workspace.read(|world| world.list_projects(&page))?)
}

async fn update_project(
    State(workspace): Shared,
    By(caller): By,
    Path(project): Path<String>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    start(&workspace, caller, project, move |world, project, now| {
        world.update_project(project, options.update_mask.as_deref(), &body, now)
    })
    .await
}

async fn delete_project(
    State(workspace): Shared,
    By(caller): By,
    Path(project): Path<String>,
    Params(options): Params<Options>,
) -> Reply {
    start(&workspace, caller, project, move |world, project, now| {
        world.delete_project(project, options.purge, now)
    })
    .await
}

async fn undelete_project(
    State(workspace): Shared,
    By(caller): By,
    Path(project): Path<String>,
) -> Reply {
    start(&workspace, caller, project, |world, project, now| world.undelete_project(project, now))
        .await
}

async fn create_branch(
    State(workspace): Shared,
    By(caller): By,
    Path(project): Path<String>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    if body.pointer("/spec/source_snapshot").is_some_and(|snapshot| !snapshot.is_null()) {
        let text = "snapshots are not served by the embedded workspace";
        return Err(Fault::new(501, "NOT_IMPLEMENTED", text));
    }
    let spec: BranchSpec = parse(body.get("spec").unwrap_or(&json!({})))?;
    let oldest = match spec.source_branch_time {
        Some(_) => {
            let source = workspace.read(|world| world.source_uid(&project, &spec))?;
            // A source that cannot say is asked again by the copy itself.
            workspace.postgres.oldest_moment(&source).await.ok()
        }
        None => None,
    };
    start(&workspace, caller, project, move |world, project, now| {
        let id = options.branch_id.as_deref();
        world.create_branch(project, id, &spec, options.replace_existing, oldest, now)
    })
    .await
}

async fn get_branch(State(workspace): Shared, Path(path): Path<(String, String)>) -> Reply {
    reply(&workspace.read(|world| world.get_branch(&branch(path)))?)
}

async fn list_branches(
    State(workspace): Shared,
    Path(project): Path<String>,
    Params(page): Params<PageRequest>,
) -> Reply {
    reply(&workspace.read(|world| world.list_branches(&project, &page))?)
}

async fn update_branch(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let name = branch(path);
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        world.update_branch(&name, options.update_mask.as_deref(), &body, now)
    })
    .await
}

async fn delete_branch(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
    Params(options): Params<Options>,
) -> Reply {
    let name = branch(path);
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        world.delete_branch(&name, options.purge, now)
    })
    .await
}

async fn undelete_branch(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
) -> Reply {
    let name = branch(path);
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        world.undelete_branch(&name, now)
    })
    .await
}

async fn create_endpoint(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let name = branch(path);
    let spec: EndpointSpec = parse(body.get("spec").unwrap_or(&json!({})))?;
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        let id = options.endpoint_id.as_deref();
        world.create_endpoint(&name, id, &spec, options.replace_existing, now)
    })
    .await
}

async fn get_endpoint(
    State(workspace): Shared,
    Path(path): Path<(String, String, String)>,
) -> Reply {
    reply(&workspace.read(|world| world.get_endpoint(&endpoint(path)))?)
}

async fn list_endpoints(
    State(workspace): Shared,
    Path(path): Path<(String, String)>,
    Params(page): Params<PageRequest>,
) -> Reply {
    reply(&workspace.read(|world| world.list_endpoints(&branch(path), &page))?)
}

async fn update_endpoint(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String, String)>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let name = endpoint(path);
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        world.update_endpoint(&name, options.update_mask.as_deref(), &body, now)
    })
    .await
}

async fn delete_endpoint(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String, String)>,
) -> Reply {
    let name = endpoint(path);
    start(&workspace, caller, name.project.clone(), move |world, _, now| {
        world.delete_endpoint(&name, now)
    })
    .await
}

async fn any_operation(State(workspace): Shared, Path(id): Path<String>) -> Reply {
    reply(&workspace.operation(&id, None)?)
}

async fn project_operation(
    State(workspace): Shared,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    operation(&workspace, &ProjectName::new(project).to_string(), &id)
}

async fn branch_operation(
    State(workspace): Shared,
    Path((project, name, id)): Path<(String, String, String)>,
) -> Reply {
    operation(&workspace, &branch((project, name)).to_string(), &id)
}

async fn endpoint_operation(
    State(workspace): Shared,
    Path((project, branch, name, id)): Path<(String, String, String, String)>,
) -> Reply {
    operation(&workspace, &endpoint((project, branch, name)).to_string(), &id)
}

fn operation(workspace: &Workspace, resource: &str, id: &str) -> Reply {
    reply(&workspace.operation(id, Some(resource))?)
}

async fn create_credential(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    if body["claims"].as_array().is_some_and(|claims| !claims.is_empty()) {
        let text = "credentials with claims are not served by the embedded workspace";
        return Err(Fault::new(501, "NOT_IMPLEMENTED", text));
    }
    if body["endpoint"].as_str().is_none_or(str::is_empty) {
        return Err(Fault::required("endpoint"));
    }
    let request: CredentialRequest = parse(&body)?;
    let name: EndpointName = request.endpoint.parse().map_err(|_| Fault::missing("endpoint"))?;
    let uid = workspace.read(|world| {
        let (_, endpoint) = world.endpoint(&name)?;
        world.require_use(&caller, &name.project)?;
        Ok::<_, Fault>(endpoint.uid.clone())
    })?;
    let now = workspace.token_time();
    let expire_time = expiry(&request, now)?;
    let token = workspace.keys.credential(&caller.user_name, &[(name, uid)], now, expire_time);
    reply(&Credential { token, expire_time })
}

/// Returns when a credential ends: after an hour, or earlier if asked for.
fn expiry(request: &CredentialRequest, now: Timestamp) -> Answer<Timestamp> {
    let life = match (request.ttl, request.expire_time) {
        (Some(_), Some(_)) => {
            return Err(Fault::invalid("only one of ttl and expire_time can be set"));
        }
        (Some(Ttl(life)), None) => life,
        (None, Some(time)) if time <= now => Duration::ZERO,
        (None, Some(time)) => time.duration_since(now).unsigned_abs(),
        (None, None) => LONGEST_CREDENTIAL,
    };
    // Clocks and the way here differ a little from the client's.
    let slack = Duration::from_secs(5);
    if life + slack < SHORTEST_CREDENTIAL || life > LONGEST_CREDENTIAL + slack {
        return Err(Fault::invalid("expire_time must be between 5 minutes and 1 hour from now"));
    }
    Ok(now + life)
}

fn branch((project, branch): (String, String)) -> BranchName {
    BranchName { project, branch }
}

fn endpoint((project, branch, endpoint): (String, String, String)) -> EndpointName {
    EndpointName { project, branch, endpoint }
}
