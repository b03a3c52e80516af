//! Access control lists: kept as given, for any object.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::request::{Body, By};
use super::{Reply, Shared};
use crate::local::fault::{Answer, Fault};
use crate::local::workspace::Workspace;
use crate::local::world::{AccessControl, Caller, World, parse};

const OBJECT: &str = "/api/2.0/permissions/{kind}/{id}";

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route(OBJECT, get(show).put(replace).patch(add))
        .route("/api/2.0/permissions/{kind}/{id}/permissionLevels", get(levels))
}

#[derive(Deserialize)]
struct Grants {
    #[serde(default)]
    access_control_list: Vec<AccessControl>,
}

async fn show(State(workspace): Shared, Path((kind, id)): Path<(String, String)>) -> Reply {
    let access = workspace.read(|world| {
        check(world, &kind, &id)?;
        Ok::<_, Fault>(world.access(&format!("{kind}/{id}")))
    });
    Ok(Json(access?))
}

async fn replace(
    State(workspace): Shared,
    By(caller): By,
    Path((kind, id)): Path<(String, String)>,
    Body(body): Body,
) -> Reply {
    let grants: Grants = parse(&body)?;
    set(&workspace, &caller, &kind, &id, grants, true).await
}

async fn add(
    State(workspace): Shared,
    By(caller): By,
    Path((kind, id)): Path<(String, String)>,
    Body(body): Body,
) -> Reply {
    let grants: Grants = parse(&body)?;
    set(&workspace, &caller, &kind, &id, grants, false).await
}

async fn set(
    workspace: &Workspace,
    caller: &Caller,
    kind: &str,
    id: &str,
    grants: Grants,
    replace: bool,
) -> Reply {
    let object = format!("{kind}/{id}");
    let allowed = |world: &World| match kind {
        "database-projects" => world.require_manage(caller, id),
        "apps" => world.require_manage_app(caller, id),
        _ => world.require_admin(caller),
    };
    let list = workspace.change(|world| {
        check(world, kind, id)?;
        allowed(world)?;
        world.grant(&object, grants.access_control_list, replace)?;
        Ok(world.access(&object))
    });
    Ok(Json(list.await?))
}

/// Refuses projects and apps that are not there; of other kinds nothing is known.
fn check(world: &World, kind: &str, id: &str) -> Answer<()> {
    match kind {
        "database-projects" => world.project(id).map(drop),
        "apps" => world.app(id).map(drop),
        _ => Ok(()),
    }
}

async fn levels() -> Reply {
    Ok(Json(json!({ "permission_levels": [
        { "permission_level": "CAN_USE", "description": "Can use" },
        { "permission_level": "CAN_MANAGE", "description": "Can manage" },
    ] })))
}
