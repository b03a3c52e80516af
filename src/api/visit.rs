//! Visiting an app as a caller would, through its gateway.

use std::time::Duration;

use reqwest::Url;

use super::client::Client;
use super::error::{Error, Result};
use crate::auth::is_loopback;
use crate::error::{Error as OurError, Kind};

/// Longest part of an answer that is read.
const LONGEST_BODY: usize = 1 << 20;

/// What an address answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Status of the answer.
    pub(crate) status: u16,
    /// Where it points, when it is a redirect.
    pub(crate) location: Option<String>,
    /// What it says its body is.
    pub(crate) content_type: String,
    /// The body, at most 1 MB of it.
    pub(crate) body: String,
}

impl Client {
    /// Reads `url` of an app with the caller's token, without retries and redirects.
    ///
    /// Fails with `NoAnswer` when nobody answers within `limit`. The token goes over TLS or stays
    /// on this machine.
    pub(crate) async fn visit(&self, url: &str, limit: Duration) -> Result<Visit> {
        let refuse =
            |why: &str| Error::NotLoggedIn(OurError::new(Kind::Failed, format!("`{url}` {why}")));
        let url: Url = url.parse().map_err(|_| refuse("is not an address"))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(refuse("is not encrypted, so the token is not sent there"));
        }
        let login = self.login();
        let token = login.token().await.map_err(Error::NotLoggedIn)?;
        let lost = |error: reqwest::Error| Error::NoAnswer {
            reason: OurError::new(Kind::Unavailable, cause(&error)),
            may_have_arrived: !error.is_connect(),
        };
        let request = login.http().get(url).bearer_auth(token.expose()).timeout(limit);
        let mut response = request.send().await.map_err(lost)?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut visit = Visit {
            status: response.status().as_u16(),
            location: header(reqwest::header::LOCATION),
            content_type: header(reqwest::header::CONTENT_TYPE).unwrap_or_default(),
            body: String::new(),
        };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            body.extend_from_slice(&chunk);
            if body.len() >= LONGEST_BODY {
                body.truncate(LONGEST_BODY);
                break;
            }
        }
        // An app that shows what it was sent would have the token shown here.
        visit.body = login.mask().text(&String::from_utf8_lossy(&body)).into_owned();
        Ok(visit)
    }
}

fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
