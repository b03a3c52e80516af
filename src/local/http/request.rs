//! What handlers take: query and body, refused in the platform's envelope.

use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::local::fault::{Answer, Fault};
use crate::local::world::Caller;

/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(60);

/// The query of a request.
pub(super) struct Params<T>(pub(super) T);

/// The JSON body of a request; nothing at all is an empty object.
pub(super) struct Body(pub(super) Value);

/// The raw body of a request.
pub(super) struct Raw(pub(super) Bytes);

/// Who sends the request.
pub(super) struct By(pub(super) Caller);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(query)| Params(query))
            .map_err(|error| Fault::invalid(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(By).ok_or_else(|| Fault::new(401, "UNAUTHENTICATED", "Invalid access token."))
    }
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        within(BODY_LIMIT, Bytes::from_request(request, state))
            .await?
            .map(Raw)
            .map_err(|refused| refuse(&refused))
    }
}

/// Reads what a client sends, unless it takes longer than `limit`.
pub(super) async fn within<T>(limit: Duration, read: impl Future<Output = T>) -> Answer<T> {
    let late =
        |_| Fault::new(408, "REQUEST_TIMEOUT", "The body of the request did not come in time.");
    tokio::time::timeout(limit, read).await.map_err(late)
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let Raw(bytes) = Raw::from_request(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Body(json!({})));
        }
        let malformed = |why: String| {
            Fault::new(400, "MALFORMED_REQUEST", format!("Could not parse request object: {why}"))
        };
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Body(value)),
            Ok(_) => Err(malformed("expected an object".to_owned())),
            Err(error) => Err(malformed(error.to_string())),
        }
    }
}

fn refuse(refused: &BytesRejection) -> Fault {
    let status = refused.status().as_u16();
    let code = if status == 413 { "MAX_REQUEST_SIZE_EXCEEDED" } else { "MALFORMED_REQUEST" };
    Fault::new(status, code, refused.body_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_waited_for_until_its_limit() {
        let never = std::future::pending::<()>();
        let late = within(Duration::from_millis(10), never).await.unwrap_err();
        assert_eq!((late.status, late.failure.error_code.as_str()), (408, "REQUEST_TIMEOUT"));
        assert_eq!(within(Duration::from_secs(60), async { 7 }).await, Ok(7));
    }
}
