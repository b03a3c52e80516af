//! In front of each app: lets only authenticated callers through, and shows the others a login page.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;

use super::apps::log::{Line, Log};
use super::door::{self, Place};
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
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];
/// Headers by which a client could claim to be somebody, or to come from somewhere.
const CLAIMS: [&str; 4] = ["authorization", "forwarded", "x-real-ip", "x-request-id"];
/// Headers that a client cannot take away by listing them in `Connection`.
const FRAMING: [&str; 3] = ["content-length", "host", "transfer-encoding"];

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
            Some(port) => door::listen(port).or_else(|_| door::listen(0)).doing(what)?,
            None => door::listen(0).doing(what)?,
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
            let serve =
                door::serve(listener, router, door::Limits::GATEWAY, workspace.stop.subscribe());
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
    let place = Place::of(&request);
    if let Some(place) = &place {
        place.keep();
    }
    let row = if logs { &rights::APP_LOG } else { &rights::APP };
    let allowed = workspace.read(|world| row.check(world, &caller, |_| Some(&gateway.app)));
    if let Err(fault) = allowed {
        return fault.into_response();
    }
    if logs {
        return follow(&gateway, request, place).await;
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

    let upgrade = asks_for_websocket(request.headers());
    let client = upgrade.then(|| (hyper::upgrade::on(&mut request), Place::of(&request)));
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    rewrite(request.headers_mut(), gateway, caller, upgrade);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let mut answer = answer.map(Body::new);
    if let Some((client, place)) = client
        && answer.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        let app = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(app)) = (client.await, app.await) else { return };
            let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
            // Either side may simply go away.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut app).await;
            // Held until here: the connection goes on after the request.
            drop(place);
        });
    }
    Ok(answer)
}

/// Returns whether a client asks for a WebSocket. Nothing else is upgraded to: HTTP/2 in clear text would carry
/// requests past this gateway.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut wanted = headers.get_all(UPGRADE).iter();
    wanted.next().is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && wanted.next().is_none()
        && listed(headers, &CONNECTION).any(|name| name == "upgrade")
}

/// Returns the names in a header that is a list of names, in lower case.
fn listed<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = String> + 'a {
    let lists = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase())
}

/// Returns whether a header of a client is not passed on: it says who the client is, or means this connection.
///
/// Applications read `X_Forwarded_Email` and `X-Forwarded-Email` as one.
fn is_dropped(name: &HeaderName, connection: &[String]) -> bool {
    let name = name.as_str();
    let spelled = name.replace('_', "-");
    spelled.starts_with("x-forwarded-")
        || CLAIMS.contains(&spelled.as_str())
        || HOP_BY_HOP.contains(&name)
        || (connection.iter().any(|listed| listed == name) && !FRAMING.contains(&name))
}

/// Removes what a client says of itself and of its connection.
fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let connection: Vec<String> = listed(headers, &CONNECTION).collect();
    let names = headers.keys().filter(|name| is_dropped(name, &connection));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Replaces what a client says of itself by what the workspace knows.
fn rewrite(headers: &mut HeaderMap, gateway: &Gateway, caller: &Caller, upgrade: bool) {
    strip(headers, upgrade);
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
async fn follow(gateway: &Gateway, request: Request, place: Option<Place>) -> Response {
    let log = Arc::clone(&gateway.workspace.apps.slot(&gateway.app).log);
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.on_upgrade(async move |socket| {
            stream_log(socket, log).await;
            // Held until here: the connection goes on after the request.
            drop(place);
        }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn no_spelling_of_a_claim_is_passed_on() {
        let mut sent = headers(&[
            ("X-Forwarded-Email", "chief@evil.test"),
            ("X_Forwarded_Email", "chief@evil.test"),
            ("x_forwarded-email", "chief@evil.test"),
            ("X-Forwarded_For", "192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
            ("X-Real-IP", "192.0.2.1"),
            ("X_Real_IP", "192.0.2.1"),
            ("X_Request_Id", "1"),
            ("Authorization", "Bearer x"),
            ("Proxy-Authorization", "Basic x"),
            ("X-Own", "kept"),
            ("Host", "app.test"),
        ]);
        strip(&mut sent, false);
        assert_eq!(sent, headers(&[("x-own", "kept"), ("host", "app.test")]));
    }

    #[test]
    fn what_a_client_lists_for_its_connection_ends_here() {
        let mut sent = headers(&[
            ("Connection", "Upgrade, x-forwarded-email, X-Hop"),
            ("Connection", "host, content-length"),
            ("Upgrade", "websocket"),
            ("X-Hop", "1"),
            ("Host", "app.test"),
            ("Content-Length", "3"),
        ]);
        assert!(asks_for_websocket(&sent));
        strip(&mut sent, true);
        let expected = [
            ("host", "app.test"),
            ("content-length", "3"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert_eq!(sent, headers(&expected));
    }

    #[test]
    fn only_a_websocket_is_upgraded_to() {
        for (list, expected) in [
            (&[("Upgrade", "WebSocket"), ("Connection", "keep-alive, Upgrade")][..], true),
            (&[("Upgrade", "h2c"), ("Connection", "Upgrade")], false),
            (&[("Upgrade", "websocket, h2c"), ("Connection", "Upgrade")], false),
            (&[("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Connection", "Upgrade")], false),
            (&[("Upgrade", "websocket")], false),
            (&[("Connection", "Upgrade")], false),
        ] {
            assert_eq!(asks_for_websocket(&headers(list)), expected, "{list:?}");
        }
    }
}
