//! Roles and databases of a branch, and the passwords of roles.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::request::{Body, By, Params};
use super::{Reply, Shared, reply};
use crate::local::fault::Answer;
use crate::local::ids;
use crate::local::sql::Verifier;
use crate::local::workspace::Workspace;
use crate::local::world::{Caller, PageRequest, Started, World, parse};
use crate::wire::names::BranchName;
use crate::wire::roles::{DatabaseSpec, RoleSpec};

const ROLES: &str = "/api/2.0/postgres/projects/{project}/branches/{branch}/roles";
const DATABASES: &str = "/api/2.0/postgres/projects/{project}/branches/{branch}/databases";

pub(super) fn routes() -> Router<Arc<Workspace>> {
    let role = format!("{ROLES}/{{role}}");
    let database = format!("{DATABASES}/{{database}}");
    Router::new()
        .route(ROLES, get(list_roles).post(create_role))
        .route(&role, get(get_role).patch(update_role).delete(delete_role))
        .route(&format!("{role}/password"), post(reset_password))
        .route(&format!("{role}/operations/{{id}}"), get(role_operation))
        .route(DATABASES, get(list_databases).post(create_database))
        .route(&database, get(get_database).patch(update_database).delete(delete_database))
        .route(&format!("{database}/operations/{{id}}"), get(database_operation))
}

/// A branch in a path, and one of its roles or databases.
type Below = (String, String, String);

#[derive(Deserialize)]
struct Options {
    role_id: Option<String>,
    database_id: Option<String>,
    update_mask: Option<String>,
    reassign_owned_to: Option<String>,
    #[serde(default)]
    replace_existing: bool,
}

/// Starts a change by somebody who may make it, of what the cluster has at this moment.
async fn start(
    workspace: &Arc<Workspace>,
    caller: Caller,
    name: BranchName,
    change: impl FnOnce(&mut World, &BranchName, Timestamp) -> Answer<Started> + Send + 'static,
) -> Reply {
    workspace.refresh_catalog(&name).await?;
    let operation = workspace.start(move |world| {
        world.require_manage(&caller, &name.project)?;
        change(world, &name, Workspace::now())
    });
    reply(&operation.await?)
}

async fn list_roles(
    State(workspace): Shared,
    Path(path): Path<(String, String)>,
    Params(page): Params<PageRequest>,
) -> Reply {
    let name = branch(path);
    workspace.refresh_catalog(&name).await?;
    reply(&workspace.read(|world| world.list_roles(&name, &page))?)
}

async fn get_role(State(workspace): Shared, Path(path): Path<Below>) -> Reply {
    let (name, id) = below(path);
    workspace.refresh_catalog(&name).await?;
    reply(&workspace.read(|world| world.get_role(&name, &id))?)
}

async fn create_role(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let spec: RoleSpec = parse(body.get("spec").unwrap_or(&json!({})))?;
    start(&workspace, caller, branch(path), move |world, name, now| {
        let id = options.role_id.as_deref();
        world.create_role(name, id, &spec, options.replace_existing, now)
    })
    .await
}

async fn update_role(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<Below>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let (name, id) = below(path);
    start(&workspace, caller, name, move |world, name, now| {
        world.update_role(name, &id, options.update_mask.as_deref(), &body, now)
    })
    .await
}

async fn delete_role(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<Below>,
    Params(options): Params<Options>,
) -> Reply {
    let (name, id) = below(path);
    start(&workspace, caller, name, move |world, name, now| {
        world.delete_role(name, &id, options.reassign_owned_to.as_deref(), now)
    })
    .await
}

/// Draws a new password for a role; the old one is good for nothing from then on.
async fn reset_password(State(workspace): Shared, Path(path): Path<Below>) -> Reply {
    let (name, id) = below(path);
    workspace.refresh_catalog(&name).await?;
    let (uid, role) = workspace.read(|world| world.password_role(&name, &id))?;
    let password = ids::hex(20);
    let verifier = Verifier::of(&password).to_secret();
    let _turn = workspace.catalog_turn(&uid).await;
    workspace.postgres.set_password(&uid, &role, &verifier).await?;
    workspace
        .change(|world| {
            world.note_password(&uid, &role, &verifier);
            Ok(())
        })
        .await?;
    Ok(Json(json!({ "password": password })))
}

async fn list_databases(
    State(workspace): Shared,
    Path(path): Path<(String, String)>,
    Params(page): Params<PageRequest>,
) -> Reply {
    let name = branch(path);
    workspace.refresh_catalog(&name).await?;
    reply(&workspace.read(|world| world.list_databases(&name, &page))?)
}

async fn get_database(State(workspace): Shared, Path(path): Path<Below>) -> Reply {
    let (name, id) = below(path);
    workspace.refresh_catalog(&name).await?;
    reply(&workspace.read(|world| world.get_database(&name, &id))?)
}

async fn create_database(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<(String, String)>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let spec: DatabaseSpec = parse(body.get("spec").unwrap_or(&json!({})))?;
    start(&workspace, caller, branch(path), move |world, name, now| {
        let id = options.database_id.as_deref();
        world.create_database(name, id, &spec, options.replace_existing, now)
    })
    .await
}

async fn update_database(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<Below>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let (name, id) = below(path);
    start(&workspace, caller, name, move |world, name, now| {
        world.update_database(name, &id, options.update_mask.as_deref(), &body, now)
    })
    .await
}

async fn delete_database(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<Below>,
) -> Reply {
    let (name, id) = below(path);
    start(&workspace, caller, name, move |world, name, now| world.delete_database(name, &id, now))
        .await
}

async fn role_operation(
    State(workspace): Shared,
    Path((project, branch, id, operation)): Path<(String, String, String, String)>,
) -> Reply {
    let resource = format!("{}/roles/{id}", BranchName { project, branch });
    reply(&workspace.operation(&operation, Some(&resource))?)
}

async fn database_operation(
    State(workspace): Shared,
    Path((project, branch, id, operation)): Path<(String, String, String, String)>,
) -> Reply {
    let resource = format!("{}/databases/{id}", BranchName { project, branch });
    reply(&workspace.operation(&operation, Some(&resource))?)
}

fn branch((project, branch): (String, String)) -> BranchName {
    BranchName { project, branch }
}

fn below((project, branch, id): Below) -> (BranchName, String) {
    (BranchName { project, branch }, id)
}
