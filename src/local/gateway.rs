//! In front of each app: lets only authenticated callers through, and shows the others a login page.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;

use super::apps::log::{Line, Log};
use super::door;
use super::http::rights;
use super::ids;
use super::workspace::Workspace;
use super::world::Caller;
use crate::error::{Doing, Result};
use crate::secret::Secret;

/// Lines of the past a follower of the log gets first.
const TAIL: usize = 200;
/// What an unauthenticated caller sees, with status 200 as on the platform.
const LOGIN_PAGE: &str = "<!doctype html>\n<html><head><title>Databricks - Sign In</title></head>\n\
    <body><h1>Sign In</h1><p>This app is served by an embedded workspace: send a bearer token of it.</p></body></html>\n";
/// Headers that mean one connection and are not passed on.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "proxy-connection",
];

#[derive(Clone)]
struct Gateway {
    workspace: Arc<Workspace>,
    app: String,
}

impl Workspace {
    /// Opens the gateway of an app: on the port it had, or on a new one that is written down.
    pub(crate) async fn open_gateway(self: &Arc<Self>, name: &str) -> Result<()> {
        let what = || format!("could not open the gateway of app `{name}`");
        let known = self.read(|world| world.app(name).ok().and_then(|app| app.port));
        let listener = match known {
            Some(port) => match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind(("127.0.0.1", 0)).await.doing(what)?,
            },
            None => TcpListener::bind(("127.0.0.1", 0)).await.doing(what)?,
        };
        let port = listener.local_addr().doing(what)?.port();
        if known != Some(port) {
            self.note(|world| world.with_app(name, |app| app.port = Some(port))).await;
        }
        let slot = self.apps.slot(name);
        slot.gateway.send_replace(false);
        let mut closed = slot.gateway.subscribe();
        let gateway = Gateway { workspace: Arc::clone(self), app: name.to_owned() };
        let workspace = Arc::clone(self);
        let router = Router::new().fallback(enter).with_state(gateway);
        tokio::spawn(async move {
            let serve = door::serve(listener, router, door::HEAD_LIMIT, workspace.stop.subscribe());
            // Ends with its connections: nobody waits for a closed gateway.
            tokio::select! {
                () = serve => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        });
        Ok(())
    }
}

async fn enter(State(gateway): State<Gateway>, request: Request) -> Response {
    let workspace = &gateway.workspace;
    let logs = request.uri().path() == rights::APP_LOG.path;
    let Some(caller) = workspace.authenticate(request.headers(), workspace.token_time()) else {
        if logs {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        return ([(CONTENT_TYPE, html)], LOGIN_PAGE).into_response();
    };
    let row = if logs { &rights::APP_LOG } else { &rights::APP };
    let allowed = workspace.read(|world| row.check(world, &caller, |_| Some(&gateway.app)));
    if let Err(fault) = allowed {
        return fault.into_response();
    }
    if logs {
        return follow(&gateway, request).await;
    }
    pass_on(&gateway, &caller, request).await.unwrap_or_else(|why| {
        let text = format!("App Not Available: {why}\n");
        (StatusCode::BAD_GATEWAY, text).into_response()
    })
}

/// Sends a request to the app's process and its answer back, both as they come.
async fn pass_on(
    gateway: &Gateway,
    caller: &Caller,
    mut request: Request,
) -> Result<Response, String> {
    let slot = gateway.workspace.apps.slot(&gateway.app);
    let port = slot.port().ok_or("the app is not running")?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    let connected = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());

    let upgrade = request.headers().contains_key(UPGRADE);
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    rewrite(request.headers_mut(), gateway, caller, upgrade);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let mut answer = answer.map(Body::new);
    if let Some(client) = client
        && answer.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        let app = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(app)) = (client.await, app.await) else { return };
            let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
            // Either side may simply go away.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
        });
    }
    Ok(answer)
}

/// Replaces what a client says of itself by what the workspace knows.
fn rewrite(headers: &mut HeaderMap, gateway: &Gateway, caller: &Caller, upgrade: bool) {
    let dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            **name == AUTHORIZATION
                || name.as_str().starts_with("x-forwarded-")
                || HOP_BY_HOP.contains(&name.as_str())
                || (!upgrade && **name == CONNECTION)
        })
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
    let token = gateway.forwarded_token(caller);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let known = [
        ("x-forwarded-email", caller.user_name.clone()),
        ("x-forwarded-user", caller.user_name.clone()),
        ("x-forwarded-preferred-username", caller.user_name.clone()),
        ("x-forwarded-access-token", token.expose().clone()),
        ("x-forwarded-host", host),
        ("x-request-id", ids::uuid()),
    ];
    for (name, value) in known {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Gateway {
    /// Mints the token that an app gets of its user: good for what the app asked for and the user's own token is
    /// good for, and no longer than that.
    fn forwarded_token(&self, caller: &Caller) -> Secret<String> {
        let mut scopes = self.workspace.read(|world| world.user_scopes(&self.app));
        scopes.retain(|scope| caller.may_use(scope));
        let (keys, now) = (&self.workspace.keys, self.workspace.token_time());
        keys.forwarded_token(&caller.user_name, &scopes.join(" "), now, caller.expires)
    }
}

/// Answers the WebSocket that shows an app's log.
async fn follow(gateway: &Gateway, request: Request) -> Response {
    let log = Arc::clone(&gateway.workspace.apps.slot(&gateway.app).log);
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.on_upgrade(move |socket| stream_log(socket, log)),
        Err(refused) => refused.into_response(),
    }
}

/// Sends the last lines that hold the search term, then each new one, until the client goes.
async fn stream_log(mut socket: WebSocket, log: Arc<Log>) {
    let Some(Ok(Message::Text(term))) = socket.recv().await else { return };
    let mut lines = log.follow();
    let wanted = |line: &Line| line.message.contains(term.as_str());
    let past = log.tail(TAIL);
    let mut overlap: Vec<Line> = Vec::new();
    for line in past.into_iter().filter(wanted) {
        if send(&mut socket, &line).await.is_err() {
            return;
        }
        overlap.push(line);
    }
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                // Written between subscribing and reading the past: sent already.
                Ok(line) if overlap.contains(&line) => {}
                Ok(line) => {
                    if wanted(&line) && send(&mut socket, &line).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
            },
        }
    }
}

async fn send(socket: &mut WebSocket, line: &Line) -> Result<(), axum::Error> {
    let text = serde_json::to_string(line).map_err(axum::Error::new)?;
    socket.send(Message::text(text)).await
}
