//! Provisioned database instances and their credentials.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::request::{Body, By, Params};
use super::{Reply, Shared, reply};
use crate::local::fault::{Answer, Fault};
use crate::local::workspace::Workspace;
use crate::local::world::{PageRequest, Work, World, parse};
use crate::wire::instances::{InstanceCredential, InstanceCredentialRequest, InstanceSpec};
use crate::wire::names::{EndpointName, PRIMARY_ENDPOINT, ProjectName, ROOT_BRANCH};

const BASE: &str = "/api/2.0/database/instances";
const CREDENTIAL_LIFE: Duration = Duration::from_secs(3600);

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route(BASE, get(list).post(create))
        .route(&format!("{BASE}/{{name}}"), get(show).patch(update).delete(delete))
        .route(&format!("{BASE}:findByUid"), get(find))
        .route("/api/2.0/database/credentials", post(create_credential))
}

#[derive(Deserialize)]
struct Options {
    uid: Option<String>,
    update_mask: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    purge: bool,
}

async fn create(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    let spec: InstanceSpec = parse(&body)?;
    let name = spec.name.clone().unwrap_or_default();
    let oldest = match &spec.parent_instance_ref {
        Some(parent) if parent.branch_time.is_some() => {
            let source = workspace.read(|world| world.parent_uid(parent))?;
            // A parent that cannot say is asked again by the copy itself.
            workspace.postgres.oldest_moment(&source).await.ok()
        }
        _ => None,
    };
    let started = workspace.start(move |world| {
        world.require_admin(&caller)?;
        world.create_instance(spec, oldest, &caller, Workspace::now())
    });
    if let Some(failure) = started.await?.error {
        return Err(Fault { status: 400, failure });
    }
    reply(&workspace.read(|world| world.get_instance(&name))?)
}

async fn show(State(workspace): Shared, Path(name): Path<String>) -> Reply {
    reply(&workspace.read(|world| world.get_instance(&name))?)
}

async fn find(State(workspace): Shared, Params(options): Params<Options>) -> Reply {
    let uid = options.uid.filter(|uid| !uid.is_empty()).ok_or_else(|| Fault::required("uid"))?;
    reply(&workspace.read(|world| world.find_instance(&uid))?)
}

async fn list(State(workspace): Shared, Params(page): Params<PageRequest>) -> Reply {
    reply(&workspace.read(|world| world.list_instances(&page))?)
}

async fn update(
    State(workspace): Shared,
    By(caller): By,
    Path(name): Path<String>,
    Params(options): Params<Options>,
    Body(body): Body,
) -> Reply {
    let instance = name.clone();
    change(&workspace, move |world| {
        world.get_instance(&name)?;
        world.require_manage(&caller, &name)?;
        world.update_instance(&name, options.update_mask.as_deref(), &body, Workspace::now())
    })
    .await?;
    reply(&workspace.read(|world| world.get_instance(&instance))?)
}

async fn delete(
    State(workspace): Shared,
    By(caller): By,
    Path(name): Path<String>,
    Params(options): Params<Options>,
) -> Reply {
    change(&workspace, move |world| {
        world.get_instance(&name)?;
        world.require_manage(&caller, &name)?;
        world.delete_instance(&name, options.force, options.purge)
    })
    .await?;
    reply(&json!({}))
}

/// Makes a change and waits until what is left of it is done; a caller that goes away stops nothing.
async fn change(
    workspace: &Arc<Workspace>,
    change: impl FnOnce(&mut World) -> Answer<Work> + Send + 'static,
) -> Answer<()> {
    let doer = Arc::clone(workspace);
    workspace
        .detached(async move {
            let work = doer.change(change).await?;
            doer.carry_out(work).await;
            Ok(())
        })
        .await
}

async fn create_credential(State(workspace): Shared, By(caller): By, Body(body): Body) -> Reply {
    let request: InstanceCredentialRequest = parse(&body)?;
    if !request.claims.is_empty() {
        let text = "credentials with claims are not served by the embedded workspace";
        return Err(Fault::new(501, "NOT_IMPLEMENTED", text));
    }
    if request.instance_names.is_empty() {
        return Err(Fault::required("instance_names"));
    }
    let endpoints = workspace.read(|world| {
        let endpoint_of = |instance: &String| {
            world.get_instance(instance)?;
            world.require_use(&caller, instance)?;
            let name: EndpointName =
                ProjectName::new(instance).branch(ROOT_BRANCH).endpoint(PRIMARY_ENDPOINT);
            let uid = world.endpoint(&name)?.1.uid.clone();
            Ok((name, uid))
        };
        request.instance_names.iter().map(endpoint_of).collect::<Answer<Vec<_>>>()
    })?;
    let now = workspace.token_time();
    let expiration_time = now + CREDENTIAL_LIFE;
    let token = workspace.keys.credential(&caller.user_name, &endpoints, now, expiration_time);
    reply(&InstanceCredential { token, expiration_time })
}
