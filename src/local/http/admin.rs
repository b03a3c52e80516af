//! The workspace itself: what `lakeforge local` asks from outside.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::request::{Body, Params};
use super::{Reply, Shared};
use crate::local::fault::Fault;
use crate::local::faults::Rule;
use crate::local::workspace::Workspace;
use crate::local::world::parse;

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route("/lakeforge/status", get(status))
        .route("/lakeforge/stop", post(stop))
        .route("/lakeforge/apps/{name}/log", get(app_log))
        .route("/lakeforge/faults", get(list_faults).post(add_faults).delete(clear_faults))
}

/// How much of an app's log is asked for.
#[derive(Deserialize)]
struct Tail {
    #[serde(default = "Tail::usual")]
    lines: usize,
}

impl Tail {
    fn usual() -> usize {
        100
    }
}

async fn app_log(
    State(workspace): Shared,
    Path(name): Path<String>,
    Params(tail): Params<Tail>,
) -> Reply {
    let lines = workspace.apps.slot(&name).log.tail(tail.lines.min(10_000));
    let lines: Vec<String> = lines.into_iter().map(|line| line.message).collect();
    Ok(Json(json!({ "lines": lines })))
}

async fn status(State(workspace): Shared) -> Reply {
    let (projects, branches, apps) = workspace
        .read(|world| (world.count_projects(), world.count_branches(), world.apps().count()));
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "postgres_version": workspace.postgres_version,
        "host": workspace.host,
        "pid": std::process::id(),
        "data_folder": workspace.data,
        "certificate_file": workspace.authority.certificate(),
        "projects": projects,
        "branches": branches,
        "awake": workspace.postgres.count_awake(),
        "apps": apps,
    })))
}

async fn list_faults(State(workspace): Shared) -> Reply {
    Ok(Json(json!({ "faults": workspace.faults.list() })))
}

/// Adds a rule, several as `{"faults": […]}`, or strikes a compute at once.
async fn add_faults(State(workspace): Shared, Body(body): Body) -> Reply {
    if let Some(blow) = body.get("compute") {
        workspace.strike(parse(blow)?).await?;
        return Ok(Json(json!({ "faults": workspace.faults.list() })));
    }
    let rules: Vec<Rule> = match body.get("faults") {
        Some(rules) => parse(rules)?,
        None => vec![parse(&body)?],
    };
    for rule in &rules {
        rule.check().map_err(Fault::invalid)?;
    }
    workspace.faults.add(rules);
    Ok(Json(json!({ "faults": workspace.faults.list() })))
}

async fn clear_faults(State(workspace): Shared) -> Reply {
    workspace.faults.clear();
    Ok(Json(json!({ "faults": [] })))
}

async fn stop(State(workspace): Shared) -> Reply {
    workspace.stop.send_replace(true);
    Ok(Json(json!({})))
}
