//! Apps and their deployments.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{on_disk, require_read};
use super::request::{Body, By, Params};
use super::{Reply, Shared};
use crate::local::fault::Fault;
use crate::local::workspace::Workspace;
use crate::local::world::{PageRequest, World, public};

const APP: &str = "/api/2.0/apps/{name}";

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route("/api/2.0/apps", get(list).post(create))
        .route(APP, get(show).patch(change).delete(delete))
        .route("/api/2.0/apps/{name}/update", get(updated).post(update))
        .route("/api/2.0/apps/{name}/start", post(start))
        .route("/api/2.0/apps/{name}/stop", post(stop))
        .route("/api/2.0/apps/{name}/deployments", get(deployments).post(deploy))
        .route("/api/2.0/apps/{name}/deployments/{id}", get(deployment))
}

#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    no_compute: bool,
}

async fn create(
    State(workspace): Shared,
    By(caller): By,
    Params(Create { no_compute }): Params<Create>,
    Body(body): Body,
) -> Reply {
    let shared = Arc::clone(&workspace);
    let created = workspace.detached(async move {
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        shared
            .change(|world| {
                world.require_admin(&caller)?;
                world.create_app(&body, no_compute, &caller, Workspace::now())
            })
            .await?;
        if let Err(error) = shared.open_gateway(&name).await {
            shared.note(|world| world.remove_app(&name)).await;
            return Err(error.into());
        }
        shared.read(|world| world.get_app(&name))
    });
    Ok(Json(created.await?))
}

async fn show(State(workspace): Shared, Path(name): Path<String>) -> Reply {
    Ok(Json(workspace.read(|world| world.get_app(&name))?))
}

async fn list(State(workspace): Shared, Params(page): Params<PageRequest>) -> Reply {
    let (apps, next) = workspace.read(|world| world.list_apps(&page))?;
    Ok(Json(paged("apps", apps.into(), next)))
}

async fn change(
    State(workspace): Shared,
    By(caller): By,
    Path(name): Path<String>,
    Body(body): Body,
) -> Reply {
    let changed = workspace.change(|world| {
        world.require_manage_app(&caller, &name)?;
        world.update_app(&name, &body, None, &caller, Workspace::now())?;
        world.get_app(&name)
    });
    Ok(Json(changed.await?))
}

#[derive(Deserialize)]
struct Update {
    #[serde(default)]
    app: Value,
    update_mask: Option<String>,
}

async fn update(
    State(workspace): Shared,
    By(caller): By,
    Path(name): Path<String>,
    Body(body): Body,
) -> Reply {
    let Update { mut app, update_mask } = crate::local::world::parse(&body)?;
    if app.is_null() {
        app = json!({});
    }
    let mask = update_mask.ok_or_else(|| Fault::required("update_mask"))?;
    let changed = workspace.change(|world| {
        world.require_manage_app(&caller, &name)?;
        world.update_app(&name, &app, Some(&mask), &caller, Workspace::now())?;
        update_of(world, &name)
    });
    Ok(Json(changed.await?))
}

/// Updates take effect at once, so the last one is always finished.
async fn updated(State(workspace): Shared, Path(name): Path<String>) -> Reply {
    Ok(Json(workspace.read(|world| update_of(world, &name))?))
}

fn update_of(world: &World, name: &str) -> crate::local::fault::Answer<Value> {
    let mut app = world.get_app(name)?;
    app["status"] = json!({ "state": "SUCCEEDED", "message": "App update succeeded" });
    Ok(app)
}

async fn delete(State(workspace): Shared, By(caller): By, Path(name): Path<String>) -> Reply {
    let shared = Arc::clone(&workspace);
    let deleted = workspace.detached(async move {
        let app = shared
            .change(|world| {
                world.app(&name)?;
                world.require_manage_app(&caller, &name)?;
                world.delete_app(&name, Workspace::now())?;
                world.get_app(&name)
            })
            .await?;
        tokio::spawn(Arc::clone(&shared).clear_app(name));
        Ok(app)
    });
    Ok(Json(deleted.await?))
}

async fn start(State(workspace): Shared, By(caller): By, Path(name): Path<String>) -> Reply {
    let shared = Arc::clone(&workspace);
    let started = workspace.detached(async move {
        let app = shared
            .change(|world| {
                world.app(&name)?;
                world.require_manage_app(&caller, &name)?;
                world.start_app(&name, Workspace::now())?;
                world.get_app(&name)
            })
            .await?;
        tokio::spawn(Arc::clone(&shared).relaunch(name));
        Ok(app)
    });
    Ok(Json(started.await?))
}

async fn stop(State(workspace): Shared, By(caller): By, Path(name): Path<String>) -> Reply {
    let shared = Arc::clone(&workspace);
    let stopped = workspace.detached(async move {
        let app = shared
            .change(|world| {
                world.app(&name)?;
                world.require_manage_app(&caller, &name)?;
                world.stop_app(&name, Workspace::now())?;
                world.get_app(&name)
            })
            .await?;
        tokio::spawn(Arc::clone(&shared).stop_compute(name));
        Ok(app)
    });
    Ok(Json(stopped.await?))
}

async fn deploy(
    State(workspace): Shared,
    By(caller): By,
    Path(name): Path<String>,
    Body(body): Body,
) -> Reply {
    if let Some(path) = body["source_code_path"].as_str().filter(|path| !path.is_empty()) {
        let path = path.to_owned();
        require_read(&workspace, &caller, &path)?;
        on_disk(&workspace, move |files| files.status(&path)).await?;
    }
    let app = name.clone();
    let deployment = workspace.begin_deployment(name, move |world| {
        world.app(&app)?;
        world.require_manage_app(&caller, &app)?;
        world.begin_deployment(&app, &body, &caller, Workspace::now())
    });
    super::reply(&deployment.await?)
}

async fn deployments(
    State(workspace): Shared,
    Path(name): Path<String>,
    Params(page): Params<PageRequest>,
) -> Reply {
    let (all, next) = workspace.read(|world| world.list_deployments(&name, &page))?;
    let all = serde_json::to_value(all).map_err(Fault::internal)?;
    Ok(Json(paged("app_deployments", all, next)))
}

async fn deployment(State(workspace): Shared, Path((name, id)): Path<(String, String)>) -> Reply {
    let found = workspace.read(|world| world.deployment(&name, &id).map(public))?;
    super::reply(&found)
}

fn paged(key: &str, items: Value, next: Option<String>) -> Value {
    let mut page = json!({ key: items });
    if let Some(next) = next {
        page["next_page_token"] = json!(next);
    }
    page
}
