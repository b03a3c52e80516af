//! Who is who: discovery, tokens, the current user.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Form, FromRequest, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Body, By, within};
use super::{Reply, Shared};
use crate::local::fault::Fault;
use crate::local::tokens::{ACCESS_LIFE, EVERYTHING};
use crate::local::workspace::Workspace;
use crate::secret::Secret;
use crate::wire::identity::{AuthorizationServer, Discovery, Token};

/// Most bytes, and most time, that somebody may take for a login who is not known yet.
const LARGEST_FORM: usize = 16 << 10;
const FORM_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route("/.well-known/databricks-config", get(discovery))
        .route("/oidc/.well-known/oauth-authorization-server", get(authorization_server))
        .route("/oidc/.well-known/openid-configuration", get(authorization_server))
        .route("/oidc/v1/token", post(token).layer(DefaultBodyLimit::max(LARGEST_FORM)))
        .route("/oidc/jwks.json", get(key_set))
        .route("/api/2.0/preview/scim/v2/Me", get(me))
        .route("/telemetry-ext", post(telemetry))
}

async fn discovery(State(workspace): Shared) -> Reply {
    let id = workspace.read(|world| world.settings.workspace_id);
    super::reply(&Discovery {
        oidc_endpoint: format!("{}/oidc", workspace.host),
        workspace_id: Some(id.to_string()),
        lakeforge_local: Some(env!("CARGO_PKG_VERSION").to_owned()),
    })
}

async fn authorization_server(State(workspace): Shared) -> Reply {
    let host = &workspace.host;
    let mut document = serde_json::to_value(AuthorizationServer {
        authorization_endpoint: format!("{host}/oidc/v1/authorize"),
        token_endpoint: format!("{host}/oidc/v1/token"),
    })
    .map_err(Fault::internal)?;
    document["issuer"] = json!(format!("{host}/oidc"));
    document["jwks_uri"] = json!(format!("{host}/oidc/jwks.json"));
    document["grant_types_supported"] = json!(["client_credentials"]);
    Ok(Json(document))
}

async fn key_set(State(workspace): Shared) -> Json<Value> {
    Json(workspace.keys.key_set())
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret<String>>,
    scope: Option<String>,
}

async fn token(State(workspace): Shared, headers: HeaderMap, request: Request) -> Response {
    let form = within(FORM_LIMIT, Form::<TokenRequest>::from_request(request, &())).await;
    let Ok(Ok(Form(request))) = form else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", "The form cannot be read");
    };
    if request.grant_type.as_deref() != Some("client_credentials") {
        let text = "The embedded workspace grants client_credentials alone";
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", text);
    }
    let sent = basic(&headers).or_else(|| request.client_id.zip(request.client_secret));
    let known = sent.and_then(|(id, secret)| {
        workspace.read(|world| {
            world.service_principal(&id, &secret).map(|identity| identity.user_name.clone())
        })
    });
    let Some(user) = known else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed");
    };
    let scope = request.scope.unwrap_or_else(|| EVERYTHING.to_owned());
    Json(Token {
        access_token: workspace.keys.access_token(&user, &scope, workspace.token_time()),
        token_type: "Bearer".to_owned(),
        expires_in: ACCESS_LIFE.as_secs(),
        scope,
    })
    .into_response()
}

fn basic(headers: &HeaderMap) -> Option<(String, Secret<String>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| (id.to_owned(), Secret::new(secret.to_owned())))
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": description }))).into_response()
}

async fn me(State(workspace): Shared, By(caller): By) -> Reply {
    let scim =
        workspace.read(|world| world.identity(&caller.user_name).map(|identity| identity.scim()));
    scim.map(Json).ok_or_else(|| Fault::new(404, "RESOURCE_DOES_NOT_EXIST", "identity not found"))
}

/// Takes the official CLI's telemetry and throws it away, so that it is not sent again and again.
async fn telemetry(Body(body): Body) -> Json<Value> {
    let count = |field: &str| body[field].as_array().map_or(0, Vec::len);
    Json(json!({
        "errors": [],
        "numSuccess": count("items"),
        "numProtoSuccess": count("protoLogs"),
    }))
}
