//! The one HTTP client of the process: TLS, proxies, limits.

use std::sync::Once;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{Certificate, Client, RequestBuilder, Response, redirect};

use super::host::{Host, without_secrets};
use crate::error::{Error, Kind, Result};

/// How long one request may take, from connecting to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an idle connection is kept; load balancers drop them after 20 to 60 s.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Chooses the cryptography of TLS for the whole process; calling it again changes nothing.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    // The first to come wins; a provider that is there already serves as well.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// The client of one workspace; its connections are shared by all that ask it.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    /// Whether the workspace is the embedded one.
    embedded: bool,
}

impl Http {
    /// Creates the client that talks to `host`.
    pub(super) fn new(host: &Host, embedded: bool) -> Result<Self> {
        Ok(Http { client: client(host)?, embedded })
    }

    /// Returns the client itself.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request that may be sent again, while the endpoint is busy or unreachable.
    ///
    /// Fails with `Unavailable` when that does not end.
    pub(super) async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response> {
        let attempt = || async {
            let response = request().send().await.map_err(|error| self.no_answer(&error))?;
            match response.status().as_u16() {
                429 | 502 | 503 | 504 => Err(Error::new(
                    Kind::Unavailable,
                    format!("`{}` is busy", without_secrets(response.url())),
                )
                .why(response.status().to_string())),
                _ => Ok(response),
            }
        };
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_times(4)
            .with_jitter();
        attempt.retry(policy).when(Error::is_retryable).await
    }

    /// Says that nobody answered; for the embedded workspace, that it does not run.
    pub(super) fn no_answer(&self, error: &reqwest::Error) -> Error {
        if self.embedded && error.is_connect() {
            return not_running();
        }
        let url = error.url().map(without_secrets).unwrap_or_default();
        let reason = if error.is_timeout() {
            format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())
        } else {
            root_cause(error)
        };
        Error::new(Kind::Unavailable, format!("no answer from `{url}`")).why(reason)
    }
}

/// Why the body of an answer could not be had.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It ended too soon.
    Lost(reqwest::Error),
    /// It is longer than this many bytes.
    TooLong(usize),
}

/// Reads the body of `response`, at most `most` bytes of it after decompression.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Lost)? {
        if body.len() + chunk.len() > most {
            return Err(BodyError::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Says that the embedded workspace does not run.
pub(super) fn not_running() -> Error {
    Error::new(Kind::Unavailable, "the embedded workspace is not running")
        .code("LOCAL_NOT_RUNNING")
        .retryable(false)
        .hint("lakeforge local start")
}

/// Returns the innermost cause of an error, the one that says something.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Redirects are never followed: the API does not use them, and a token must not travel.
/// `HTTP_PROXY` would catch 127.0.0.1 too, so a host on this machine goes without proxies.
fn client(host: &Host) -> Result<Client> {
    install_provider();
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("lakeforge/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT);
        if host.is_loopback() { builder.no_proxy() } else { builder }
    };
    // Images without CA certificates refuse the first attempt, even for plain HTTP.
    builder().build().or_else(|_| builder().tls_certs_only(bundled_roots()).build()).map_err(
        |error| {
            Error::new(Kind::Failed, "the HTTP client cannot be created").why(error.to_string())
        },
    )
}

fn bundled_roots() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|root| Certificate::from_der(root).ok())
}
