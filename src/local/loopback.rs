//! Requests to this machine itself: one connection each, no proxy, no TLS.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::error::{Doing, Error, Kind, Result};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LARGEST: usize = 1024 * 1024;

/// Sends `request`, whose URI is absolute (`http://127.0.0.1:8765/…`), and reads a JSON answer.
///
/// Returns the status with the document; one that is no JSON comes back as null.
pub(crate) async fn send(request: Request<Body>) -> Result<(u16, Value)> {
    let what = || "the embedded workspace did not answer".to_owned();
    match tokio::time::timeout(LIMIT, exchange(request)).await {
        Ok(answer) => answer.doing(what),
        Err(_) => Err(Error::new(Kind::TimedOut, what())),
    }
}

async fn exchange(mut request: Request<Body>) -> Result<(u16, Value)> {
    let authority = request.uri().authority().map(ToString::to_string);
    let authority = authority
        .ok_or_else(|| Error::new(Kind::Failed, "the address of the workspace has no host"))?;
    let stream = TcpStream::connect(&authority)
        .await
        .map_err(|error| Error::new(Kind::Unavailable, error.to_string()))?;
    if let Ok(host) = authority.parse() {
        request.headers_mut().insert("host", host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Into::into).unwrap_or_default();
    let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(unanswered)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(unanswered)?;
    let status = answer.status().as_u16();
    let body = to_bytes(Body::new(answer.into_body()), LARGEST)
        .await
        .map_err(|error| Error::new(Kind::Unavailable, error.to_string()))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn unanswered(error: hyper::Error) -> Error {
    Error::new(Kind::Unavailable, error.to_string())
}
