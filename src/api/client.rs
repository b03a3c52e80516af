//! Sending calls: token, retries, log, errors.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::Retryable;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::delays::Delays;
use super::error::{Error, Result};
use super::request::{Body, Request};
use super::retry::{self, Judge};
use crate::auth::{self, BodyError, Host, Login};
use crate::secret::Secret;
use crate::wire::failure::Failure;
use crate::wire::identity::Me;

/// Largest part of an answer that is not JSON which is kept as the reason of a failure.
const EXCERPT: usize = 300;
/// Longest answer that is read. The longest real ones are files, of which the apps of a workspace
/// have 10 MB at most.
const LONGEST_ANSWER: usize = 64 << 20;
/// Most pages of one list; with a hundred entries each, more than a workspace can hold.
const MOST_PAGES: usize = 1000;
/// Most bytes of one list over all its pages.
const LONGEST_LIST: usize = 256 << 20;

/// A workspace to talk to; cheap to clone, all clones share connections and token.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    login: Login,
    budget: Duration,
    delays: Option<Delays>,
    /// The identity behind the token, once somebody asked.
    me: OnceCell<Me>,
    #[cfg(test)]
    stand_in: Option<super::stand_in::StandIn>,
}

impl Client {
    /// Creates the client of the workspace that `login` is for; connects on first use. `delays`
    /// tells whoever waits that the workspace lets them wait.
    pub(crate) fn new(login: Login, delays: Delays) -> Self {
        Client::with_budget(login, retry::BUDGET, Some(delays))
    }

    /// Creates the client with another limit for one call and its repetitions.
    pub(super) fn with_budget(login: Login, budget: Duration, delays: Option<Delays>) -> Self {
        Client(Arc::new(Inner {
            login,
            budget,
            delays,
            me: OnceCell::new(),
            #[cfg(test)]
            stand_in: None,
        }))
    }

    /// Returns a client that asks `stand_in` instead of the network.
    #[cfg(test)]
    pub(super) fn with_stand_in(self, stand_in: super::stand_in::StandIn) -> Self {
        let inner = Arc::into_inner(self.0).expect("nobody else has it yet");
        Client(Arc::new(Inner { stand_in: Some(stand_in), ..inner }))
    }

    /// Returns the address of the workspace.
    pub(crate) fn host(&self) -> &Host {
        self.0.login.host()
    }

    /// Returns where the identity behind the token is kept.
    pub(super) fn known_me(&self) -> &OnceCell<Me> {
        &self.0.me
    }

    /// Returns the login, for other things that want the same token.
    pub(crate) fn login(&self) -> &Login {
        &self.0.login
    }

    /// Sends `request` and reads the JSON answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let title = request.title();
        let bytes = self.bytes(request).await?;
        self.read(&title, &bytes)
    }

    /// Reads the JSON answer to the call `title`.
    pub(super) fn read<T: DeserializeOwned>(&self, title: &str, bytes: &[u8]) -> Result<T> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            // The place and the kind of mistake, never the text: it may hold a token.
            let place = error.path().to_string();
            let inner = error.into_inner();
            let reason = match inner.classify() {
                serde_json::error::Category::Data => format!("field `{place}`: {inner}"),
                _ => "it is not JSON; is this the address of a workspace?".to_owned(),
            };
            Error::NotUnderstood { call: title.to_owned(), reason }
        })
    }

    /// Sends `request`; the answer says nothing but that it worked.
    pub(super) async fn done(&self, request: Request) -> Result<()> {
        self.bytes(request).await.map(drop)
    }

    /// Sends `request`, again where that helps, and returns the body of the answer.
    pub(super) async fn bytes(&self, request: Request) -> Result<Vec<u8>> {
        self.repeated(&request, || self.attempt(&request)).await
    }

    /// Makes attempts at `request` for as long as that helps.
    pub(super) async fn repeated<F: Future<Output = Result<Vec<u8>>>>(
        &self,
        request: &Request,
        attempt: impl Fn() -> F,
    ) -> Result<Vec<u8>> {
        let judge = Mutex::new(Judge::new(request.is_idempotent(), self.0.budget));
        attempt
            .retry(retry::waits())
            .when(|error| !matches!(error, Error::NotLoggedIn(_)))
            .adjust(|error, planned| {
                judge.lock().unwrap_or_else(PoisonError::into_inner).wait(error, planned)
            })
            .notify(|error, wait| {
                tracing::debug!(call = request.title(), ?wait, "sending again");
                self.0.delays.iter().for_each(|delays| delays.tell(error, wait));
            })
            .await
    }

    /// Sends `request` once; a token that has become invalid is replaced once.
    pub(super) async fn attempt(&self, request: &Request) -> Result<Vec<u8>> {
        let token = self.token().await?;
        match self.send(request, &token).await {
            Err(Error::Refused { status: 401, .. }) if self.0.login.forget(&token).await => {
                self.send(request, &self.token().await?).await
            }
            answer => answer,
        }
    }

    async fn token(&self) -> Result<Secret<String>> {
        self.0.login.token().await.map_err(Error::NotLoggedIn)
    }

    async fn send(&self, request: &Request, token: &Secret<String>) -> Result<Vec<u8>> {
        #[cfg(test)]
        if let Some(stand_in) = &self.0.stand_in {
            return stand_in.answer(request).await;
        }
        let start = Instant::now();
        let answer = self.prepare(request, token).send().await;
        let ms = start.elapsed().as_millis();
        let response = answer.map_err(|error| self.lost(request, &error, ms))?;
        let (status, id) = (response.status(), request_id(&response));
        let retry_after = retry_after(&response);
        tracing::debug!(
            method = %request.method,
            path = format!("/{}", request.path.join("/")),
            status = status.as_u16(),
            ms,
            request_id = id,
            "call"
        );
        let body = auth::body(response, LONGEST_ANSWER).await.map_err(|error| match error {
            BodyError::Lost(error) => self.lost(request, &error, ms),
            BodyError::TooLong(most) => too_long(request, most),
        })?;
        if status.is_success() {
            return Ok(body);
        }
        let failure = read_failure(status, &body);
        Err(Error::Refused {
            status: status.as_u16(),
            request_id: failure.request_id().or(id),
            failure: Box::new(failure),
            retry_after,
            login_hint: self.0.login.hint(),
        })
    }

    fn prepare(&self, request: &Request, token: &Secret<String>) -> RequestBuilder {
        let host = self.host();
        let mut builder = self
            .0
            .login
            .http()
            .request(request.method.clone(), request.url(host.url()))
            .header(reqwest::header::ACCEPT, "application/json")
            .bearer_auth(token.expose());
        if let Some(id) = host.workspace_id() {
            builder = builder.header("X-Databricks-Workspace-Id", id);
        }
        match &request.body {
            Body::Nothing => builder,
            Body::Json(body) => builder.json(body),
            Body::Bytes(body) => builder
                .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
                .body(body.clone()),
        }
    }

    fn lost(&self, request: &Request, error: &reqwest::Error, ms: u128) -> Error {
        let reason = self.0.login.no_answer(error);
        tracing::debug!(call = request.title(), ms, %reason, "no answer");
        Error::NoAnswer { reason, may_have_arrived: !error.is_connect() }
    }

    /// Reads `path` and everything on its further pages.
    ///
    /// `take` moves the entries of a page out of it and names the next page.
    pub(super) async fn pages<P: DeserializeOwned, T>(
        &self,
        request: Request,
        take: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>> {
        let not_understood = |reason: &str| Error::NotUnderstood {
            call: request.title(),
            reason: reason.to_owned(),
        };
        let (mut all, mut seen, mut read) = (Vec::new(), BTreeSet::new(), 0);
        let mut page = request.clone();
        loop {
            let bytes = self.bytes(page).await?;
            read += bytes.len();
            let (entries, next) = take(self.read(&request.title(), &bytes)?);
            all.extend(entries);
            let Some(token) = next.filter(|token| !token.is_empty()) else { return Ok(all) };
            // A server that hands out pages for ever must not keep us for ever.
            if seen.len() + 1 >= MOST_PAGES || read > LONGEST_LIST {
                return Err(not_understood("the list does not end"));
            }
            if !seen.insert(token.clone()) {
                return Err(not_understood("the next page is a page that was read already"));
            }
            page = request.clone().query("page_token", token);
        }
    }

    /// Posts `body` to `path` below `/api/2.0` and reads the answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        self.json(Request::api(Method::POST, path).json(body)).await
    }

    /// Reads `path` below `/api/2.0`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        self.json(Request::api(Method::GET, path)).await
    }
}

fn too_long(request: &Request, most: usize) -> Error {
    let reason = format!("it is longer than {} MB", most >> 20);
    Error::NotUnderstood { call: request.title(), reason }
}

fn request_id(response: &Response) -> Option<String> {
    response.headers().get("x-request-id")?.to_str().ok().map(str::to_owned)
}

/// Reads `Retry-After` in seconds; the workspace never sends the form with a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Reads the body of a refusal, also where it is not the envelope of the API.
pub(super) fn read_failure(status: StatusCode, body: &[u8]) -> Failure {
    if let Ok(failure) = serde_json::from_slice::<Failure>(body)
        && (!failure.error_code.is_empty() || !failure.message.is_empty())
    {
        return failure;
    }
    let message = if status.is_redirection() {
        "the answer is a redirect; is this the address of a workspace?".to_owned()
    } else {
        plain_text(&String::from_utf8_lossy(body))
    };
    Failure { message, ..Failure::default() }
}

/// Returns the beginning of `body` on one line, or nothing when it is a web page.
fn plain_text(body: &str) -> String {
    if body.trim_start().starts_with('<') {
        return String::new();
    }
    let line: Vec<&str> = body.split_whitespace().collect();
    line.join(" ").chars().filter(|c| !c.is_control()).take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_every_shape() {
        let read = |status, body: &str| {
            read_failure(StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };

        assert_eq!(
            read(404, r#"{"error_code":"NOT_FOUND","message":"branch id not found"}"#).error_code,
            "NOT_FOUND"
        );
        assert_eq!(read(502, "Bad\n gateway").message, "Bad gateway");
        assert_eq!(read(503, "<html><pre>busy").message, "");
        assert!(read(303, "").message.contains("redirect"));
        assert_eq!(read(400, r#"{"detail":"no"}"#).message, r#"{"detail":"no"}"#);
        assert_eq!(read(500, &"x".repeat(10_000)).message.len(), EXCERPT);
    }
}
