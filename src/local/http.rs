//! The REST API: routes, authentication and the error envelope.

mod admin;
mod apps;
mod files;
mod identity;
mod instances;
mod permissions;
mod postgres;
mod request;
pub(crate) mod rights;
mod roles;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, RequestExt, Router};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::Value;

use super::door::Place;
use super::fault::{Answer, Fault};
use super::faults::{End, Refuse};
use super::files::LARGEST;
use super::ids;
use super::tokens::Holder;
use super::workspace::Workspace;
use super::world::Caller;
use crate::secret::Secret;
use rights::{Right, Scope};

/// What a handler gives back: a JSON document or a refusal.
type Reply = Answer<Json<Value>>;
type Shared = State<Arc<Workspace>>;

/// Returns the whole API of `workspace`.
pub(crate) fn router(workspace: &Arc<Workspace>) -> Router {
    serve(
        workspace,
        Router::new()
            .merge(postgres::routes())
            .merge(roles::routes())
            .merge(instances::routes())
            .merge(apps::routes())
            .merge(files::routes())
            .merge(permissions::routes())
            .merge(identity::routes())
            .merge(admin::routes()),
    )
}

/// Puts `routes` behind everything that a request meets before it is answered.
fn serve(workspace: &Arc<Workspace>, routes: Router<Arc<Workspace>>) -> Router {
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(workspace), authorize))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn_with_state(Arc::clone(workspace), disturb))
        .layer(middleware::from_fn_with_state(Arc::clone(workspace), mark))
        .with_state(Arc::clone(workspace))
}

impl Workspace {
    /// Returns who sends a request, by its bearer: an access token good at `now`, or a personal access token.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, now: Timestamp) -> Option<Caller> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let token = token.trim();
        match self.keys.holder(token, now) {
            Ok(Holder { user, scope, expires }) => {
                let known = self.read(|world| world.identity(&user).map(|known| known.caller()));
                known.map(|caller| Caller { scope, expires: Some(expires), ..caller })
            }
            Err(_) => {
                let token = Secret::new(token.to_owned());
                self.read(|world| world.token_holder(&token).map(|identity| identity.caller()))
            }
        }
    }
}

/// Lets a request through to its route when the route's row allows it.
async fn authorize(State(workspace): Shared, mut request: Request, next: Next) -> Response {
    let row = rights::of(&request);
    if row.is_some_and(|row| row.right == Right::Open) {
        return next.run(request).await;
    }
    let Some(caller) = caller_of(&workspace, &request) else {
        let text = match request.headers().contains_key(AUTHORIZATION) {
            true => "Invalid access token.",
            false => "Credential was not sent or was of an unsupported type for this API.",
        };
        return Fault::new(401, "UNAUTHENTICATED", text).into_response();
    };
    if let Some(place) = Place::of(&request) {
        place.keep();
    }
    // Without any there is nothing to take them from; a row that needs one then refuses.
    let parameters = request.extract_parts::<RawPathParams>().await.ok();
    let parameter = |name: &str| {
        let mut all = parameters.iter().flatten();
        all.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    let allowed = match row {
        Some(row) => workspace.read(|world| row.check(world, &caller, parameter)),
        None => Scope::All.check(&caller).and(Err(missing(&request))),
    };
    if let Err(fault) = allowed {
        return fault.into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Returns who sends a request. To a route of the workspace's own a token leads by the machine's clock too: what is
/// wrong with the other one must stay removable.
fn caller_of(workspace: &Workspace, request: &Request) -> Option<Caller> {
    let at = |now| workspace.authenticate(request.headers(), now);
    let own = is_own(request.uri().path());
    at(workspace.token_time()).or_else(|| own.then(|| at(Workspace::now())).flatten())
}

/// Marks every answer with a request id and the workspace's id, and traces it.
async fn mark(State(workspace): Shared, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let id = ids::uuid();
    let took = begun.elapsed();
    tracing::debug!(%method, path, status = response.status().as_u16(), ?took, id);
    let organisation = workspace.read(|world| world.settings.workspace_id).to_string();
    for (name, value) in [("x-request-id", id), ("x-databricks-org-id", organisation)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Lets go wrong what is to go wrong. The workspace's own routes are spared: faults must stay removable.
async fn disturb(State(workspace): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if is_own(path) {
        return next.run(request).await;
    }
    let troubles = workspace.faults.meet(request.method().as_str(), path);
    for blow in &troubles.blows {
        if let Err(fault) = workspace.strike(blow.clone()).await {
            tracing::warn!("{blow:?} failed: {}", fault.failure.message);
        }
    }
    let end = troubles.end.clone();
    let answer = troubles.delay(async {
        match end {
            Some(End::Refuse(refuse)) => refuse.into_response(),
            Some(End::Nothing) => {
                let lost = next.run(request).await;
                tracing::debug!(status = lost.status().as_u16(), "the answer is lost on demand");
                cut_off()
            }
            None => next.run(request).await,
        }
    });
    let mut answer = answer.await;
    if !troubles.skew.is_zero()
        && let Ok(now) = Timestamp::now().saturating_add(troubles.skew)
        && let Ok(text) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now)
        && let Ok(date) = HeaderValue::try_from(text)
    {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

/// Returns whether a path is one of the workspace's own routes, which nothing goes wrong with.
fn is_own(path: &str) -> bool {
    path.starts_with("/lakeforge/")
}

/// Returns an answer that breaks off before its first byte: the server closes the connection.
fn cut_off() -> Response {
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    Response::new(Body::from_stream(futures_util::stream::iter([Err::<&[u8], _>(broken)])))
}

impl IntoResponse for Refuse {
    fn into_response(self) -> Response {
        let mut response = self.fault().into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Says which route is missing.
fn missing(request: &Request) -> Fault {
    let (method, path) = (request.method(), request.uri().path());
    if path.starts_with("/api/") {
        let text = format!("{method} {path} is not served by the embedded workspace");
        return Fault::new(501, "NOT_IMPLEMENTED", text);
    }
    Fault::new(404, "ENDPOINT_NOT_FOUND", format!("No API found for '{method} {path}'"))
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.failure)).into_response()
    }
}

/// Wraps a document that goes over the wire.
fn reply<T: serde::Serialize>(document: &T) -> Reply {
    serde_json::to_value(document).map(Json).map_err(Fault::internal)
}
