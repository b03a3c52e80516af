//! Workspace files.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Body, By, Params, Raw};
use super::{Reply, Shared};
use crate::local::fault::{Answer, Fault};
use crate::local::files::Files;
use crate::local::paths::{TreePath, no_such_path};
use crate::local::workspace::Workspace;
use crate::local::world::{Caller, FileLevel, parse};
use crate::wire::workspace::{Delete, Mkdirs};

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route("/api/2.0/workspace/get-status", get(status))
        .route("/api/2.0/workspace/list", get(list))
        .route("/api/2.0/workspace/export", get(export))
        .route("/api/2.0/workspace/mkdirs", post(make_folder))
        .route("/api/2.0/workspace/delete", post(delete))
        .route("/api/2.0/workspace-files/import-file/{*path}", post(import))
}

#[derive(Deserialize)]
struct Named {
    path: String,
}

#[derive(Deserialize)]
struct Export {
    path: String,
    #[serde(default)]
    direct_download: bool,
}

#[derive(Deserialize)]
struct Import {
    #[serde(default)]
    overwrite: bool,
}

async fn status(
    State(workspace): Shared,
    By(caller): By,
    Params(Named { path }): Params<Named>,
) -> Reply {
    require_read(&workspace, &caller, &path)?;
    on_disk(&workspace, move |files| files.status(&path)).await.map(Json)
}

/// Lists what a folder holds, without what is not for the caller to see.
async fn list(
    State(workspace): Shared,
    By(caller): By,
    Params(Named { path }): Params<Named>,
) -> Reply {
    require_read(&workspace, &caller, &path)?;
    let mut found = on_disk(&workspace, move |files| files.list(&path)).await?;
    let seen = |object: &Value| {
        object["path"].as_str().is_some_and(|path| require_read(&workspace, &caller, path).is_ok())
    };
    if let Some(objects) = found["objects"].as_array_mut() {
        objects.retain(seen);
    }
    Ok(Json(found))
}

async fn export(
    State(workspace): Shared,
    By(caller): By,
    Params(query): Params<Export>,
) -> Answer<Response> {
    require_read(&workspace, &caller, &query.path)?;
    let content = on_disk(&workspace, move |files| files.read(&query.path)).await?;
    if query.direct_download {
        return Ok(content.into_response());
    }
    let document = json!({ "content": STANDARD.encode(content), "file_type": "file" });
    Ok(Json(document).into_response())
}

async fn make_folder(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    allow(&caller)?;
    let Mkdirs { path } = parse(&body)?;
    let place = TreePath::parse(&path)?;
    workspace.read(|world| world.require_file(&caller, &place, FileLevel::Manage))?;
    on_disk(&workspace, move |files| files.make_folder(&path)).await.map(nothing)
}

async fn delete(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    allow(&caller)?;
    let Delete { path, recursive } = parse(&body)?;
    let place = TreePath::parse(&path)?;
    workspace.read(|world| world.require_delete_file(&caller, &place))?;
    let removed = path.clone();
    on_disk(&workspace, move |files| files.check_removable(&path, recursive)).await?;
    // First, so that a server killed in between leaves no grant on what comes to be there later.
    workspace
        .change(|world| {
            world.revoke_below(&place);
            Ok(())
        })
        .await?;
    on_disk(&workspace, move |files| files.remove(&removed, recursive)).await.map(nothing)
}

/// Writes a file: a new one needs the right to create.
async fn import(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<String>,
    Params(Import { overwrite }): Params<Import>,
    Raw(content): Raw,
) -> Reply {
    allow(&caller)?;
    let path = format!("/{}", path.trim_start_matches('/'));
    let place = TreePath::parse(&path)?;
    let known = path.clone();
    let level = match on_disk(&workspace, move |files| files.status(&known)).await {
        Ok(_) => FileLevel::Edit,
        Err(_) => FileLevel::Manage,
    };
    workspace.read(|world| world.require_file(&caller, &place, level))?;
    on_disk(&workspace, move |files| files.write(&path, overwrite, &content)).await.map(nothing)
}

/// Refuses to show who may not see it what is at `path`, as if it were not there.
pub(super) fn require_read(workspace: &Workspace, caller: &Caller, path: &str) -> Answer<()> {
    let place = TreePath::parse(path)?;
    let seen = workspace.read(|world| world.require_read_file(caller, &place));
    seen.map_err(|_| no_such_path(path))
}

/// Apps read workspace files here; only people and their programs write them.
fn allow(caller: &Caller) -> Answer<()> {
    match &caller.app {
        None => Ok(()),
        Some(app) => Err(Fault::denied(format!("app {app} may not change workspace files"))),
    }
}

/// Does what waits for the disk on a thread for that.
pub(super) async fn on_disk<T: Send + 'static>(
    workspace: &Workspace,
    task: impl FnOnce(&Files) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let files = workspace.files.clone();
    match tokio::task::spawn_blocking(move || task(&files)).await {
        Ok(result) => result,
        Err(error) => Err(Fault::internal(error)),
    }
}

fn nothing((): ()) -> Json<Value> {
    Json(json!({}))
}
