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
use crate::local::workspace::Workspace;
use crate::local::world::{Caller, parse};
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

async fn status(State(workspace): Shared, Params(Named { path }): Params<Named>) -> Reply {
    on_disk(&workspace, move |files| files.status(&path)).await.map(Json)
}

async fn list(State(workspace): Shared, Params(Named { path }): Params<Named>) -> Reply {
    on_disk(&workspace, move |files| files.list(&path)).await.map(Json)
}

async fn export(State(workspace): Shared, Params(query): Params<Export>) -> Answer<Response> {
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
    on_disk(&workspace, move |files| files.make_folder(&path)).await.map(nothing)
}

async fn delete(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    allow(&caller)?;
    let Delete { path, recursive } = parse(&body)?;
    on_disk(&workspace, move |files| files.remove(&path, recursive)).await.map(nothing)
}

async fn import(
    State(workspace): Shared,
    By(caller): By,
    Path(path): Path<String>,
    Params(Import { overwrite }): Params<Import>,
    Raw(content): Raw,
) -> Reply {
    allow(&caller)?;
    let path = format!("/{}", path.trim_start_matches('/'));
    on_disk(&workspace, move |files| files.write(&path, overwrite, &content)).await.map(nothing)
}

/// Apps read workspace files here; only people and their programs write them.
fn allow(caller: &Caller) -> Answer<()> {
    match &caller.app {
        None => Ok(()),
        Some(app) => Err(Fault::denied(format!("app {app} may not change workspace files"))),
    }
}

async fn on_disk<T: Send + 'static>(
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
