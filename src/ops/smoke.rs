//! Strict health assertions on the canonical address of every app, all at once.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::parallel;
use crate::api::{Client, Poll, Visit};
use crate::error::{Error, Kind, Result, nearest};
use crate::ui::Steps;
use crate::wire::apps::ComputeState;

/// Longest time one request may take.
const ONE_TRY: Duration = Duration::from_secs(20);
/// How many apps are asked at once.
const APPS_AT_ONCE: usize = 32;
/// Longest part of a body that a failure shows.
const EXCERPT: usize = 300;

/// What to ask one app, and what it must answer.
#[derive(Debug, Clone)]
pub(crate) struct Assertion {
    /// Name of the app in the workspace.
    pub(crate) app: String,
    /// Path to read.
    pub(crate) path: String,
    /// Status it must answer with.
    pub(crate) status: u16,
    /// JSON it must answer with; nothing when any body will do.
    pub(crate) body: Option<Value>,
}

impl Assertion {
    /// Asks `path` of `app` for status 200 and `{"ok":true}`.
    pub(crate) fn new(app: impl Into<String>, path: impl Into<String>) -> Self {
        Assertion {
            app: app.into(),
            path: path.into(),
            status: 200,
            body: Some(json!({ "ok": true })),
        }
    }
}

/// How one app did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Health {
    /// Name of the app.
    pub(crate) app: String,
    /// Whether the assertion holds.
    pub(crate) healthy: bool,
    /// Address that was read.
    pub(crate) url: Option<String>,
    /// Status it answered with.
    pub(crate) status: Option<u16>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    /// How often it was asked.
    pub(crate) attempts: u32,
    /// Time until the answer, in milliseconds.
    pub(crate) elapsed_ms: u64,
}

/// What is wrong with an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// Which kind of wrong.
    pub(crate) problem: Problem,
    /// What was seen, as a sentence.
    pub(crate) detail: String,
}

/// Kinds of wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Problem {
    /// The app does not exist, or the workspace does not say where it is.
    NoApp,
    /// Somebody stopped the app.
    Stopped,
    /// Nobody answered in time.
    NoAnswer,
    /// The gateway showed its login page.
    LoginPage,
    /// The answer points elsewhere.
    Redirect,
    /// The caller may not use the app.
    Denied,
    /// The app or the gateway failed.
    ServerError,
    /// Another status than the one that was expected.
    WrongStatus,
    /// Another body than the one that was expected.
    WrongBody,
}

impl Problem {
    /// Returns whether an app that is just starting looks like this.
    fn may_pass(self, status: Option<u16>) -> bool {
        self == Problem::NoAnswer || matches!(status, Some(502 | 503))
    }
}

/// Asks every app at the same time; each until it answers or `wait` is over.
///
/// Fails only when the workspace cannot be asked at all; an unhealthy app is an answer.
pub(crate) async fn smoke(
    api: &Client,
    steps: &Steps,
    assertions: Vec<Assertion>,
    wait: Duration,
) -> Result<Vec<Health>> {
    let one = |assertion: Assertion| async move { check(api, steps, &assertion, wait).await };
    parallel::each_up_to(APPS_AT_ONCE, assertions, one).await.into_iter().collect()
}

async fn check(
    api: &Client,
    steps: &Steps,
    assertion: &Assertion,
    wait: Duration,
) -> Result<Health> {
    let start = Instant::now();
    let step = steps.lane(&assertion.app, "asking");
    let mut health = Health {
        app: assertion.app.clone(),
        healthy: false,
        url: None,
        status: None,
        failure: None,
        attempts: 0,
        elapsed_ms: 0,
    };
    match address(api, assertion).await? {
        Err(failure) => health.failure = Some(failure),
        Ok(url) => {
            ask(api, assertion, &url, wait, &mut health).await;
            health.url = Some(url);
        }
    }
    health.healthy = health.failure.is_none();
    health.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    drop(step);
    Ok(health)
}

/// Returns the canonical address of the app, which only the workspace knows, with the path.
async fn address(api: &Client, assertion: &Assertion) -> Result<Result<String, Failure>> {
    let no_app = |detail: String| Ok(Err(Failure { problem: Problem::NoApp, detail }));
    let app = match api.get_app(&assertion.app).await {
        Ok(app) => app,
        Err(error) if error.is_not_found() => {
            let known = api.list_apps().await.unwrap_or_default();
            let near = nearest(&assertion.app, known.iter().map(|app| app.name.as_str()));
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return no_app(format!("the workspace has no app `{}`{near}", assertion.app));
        }
        Err(error) => return Err(error.into()),
    };
    if app.compute_status.is_some_and(|compute| compute.state == ComputeState::Stopped) {
        let detail = "the app is stopped".to_owned();
        return Ok(Err(Failure { problem: Problem::Stopped, detail }));
    }
    match app.url.as_deref() {
        None | Some("") => no_app("the workspace does not say where it is".to_owned()),
        Some(url) => {
            let scheme = if url.contains("://") { "" } else { "https://" };
            let path = assertion.path.trim_start_matches('/');
            Ok(Ok(format!("{scheme}{}/{path}", url.trim_end_matches('/'))))
        }
    }
}

async fn ask(api: &Client, assertion: &Assertion, url: &str, wait: Duration, health: &mut Health) {
    let mut poll = Poll::new(wait);
    loop {
        health.attempts += 1;
        let limit = poll.left().clamp(Duration::from_secs(1), ONE_TRY);
        (health.status, health.failure) = match api.visit(url, limit).await {
            Ok(visit) => (Some(visit.status), judge(assertion, &visit).err()),
            Err(error) => {
                let detail = Error::from(error).to_string();
                (None, Some(Failure { problem: Problem::NoAnswer, detail }))
            }
        };
        let passes = health.failure.as_ref().is_some_and(|f| f.problem.may_pass(health.status));
        if !passes || !poll.pause().await {
            return;
        }
    }
}

/// Compares an answer with what was expected.
fn judge(assertion: &Assertion, visit: &Visit) -> Result<(), Failure> {
    let fail = |problem, detail: String| Err(Failure { problem, detail });
    if is_login_page(visit, assertion.body.is_some()) {
        let detail = format!(
            "the gateway answered with its login page (status {}); the app was not reached",
            visit.status
        );
        return fail(Problem::LoginPage, detail);
    }
    if visit.status != assertion.status {
        let expected = assertion.status;
        return match visit.status {
            300..=399 => {
                let target = visit.location.as_deref().unwrap_or("nowhere");
                fail(Problem::Redirect, format!("redirect ({}) to {target}", visit.status))
            }
            401 | 403 => fail(
                Problem::Denied,
                format!("status {}: the caller may not use the app", visit.status),
            ),
            500.. => {
                fail(Problem::ServerError, with_body(format!("status {}", visit.status), visit))
            }
            status => fail(
                Problem::WrongStatus,
                with_body(format!("status {status}, expected {expected}"), visit),
            ),
        };
    }
    let Some(expected) = &assertion.body else { return Ok(()) };
    match serde_json::from_str::<Value>(&visit.body) {
        Ok(body) if body == *expected => Ok(()),
        _ => fail(Problem::WrongBody, with_body(format!("expected {expected}"), visit)),
    }
}

/// Returns whether a gateway asks the caller to log in, which it does with status 200 or a redirect.
///
/// Where JSON is expected any page that asks for a login is one; where any body will do, an app's
/// own page may speak of logins too, so the page must name the platform.
fn is_login_page(visit: &Visit, wants_json: bool) -> bool {
    let page = visit.content_type.contains("html") || visit.body.trim_start().starts_with('<');
    let text = visit.body.to_lowercase();
    let platform = wants_json || text.contains("databricks");
    let asks = ["sign in", "log in", "login", "oauth2/authorize", "oidc"];
    let redirected = matches!(visit.status, 300..=399)
        && visit.location.as_deref().is_some_and(|target| {
            let target = target.to_lowercase();
            ["/oidc/", "/login", "oauth2", "/.auth/"].iter().any(|part| target.contains(part))
        });
    redirected
        || (visit.status == 200 && page && platform && asks.iter().any(|ask| text.contains(ask)))
}

/// Adds the beginning of the body, on one line.
fn with_body(what: String, visit: &Visit) -> String {
    let line: Vec<&str> = visit.body.split_whitespace().collect();
    let body: String = line.join(" ").chars().filter(|c| !c.is_control()).take(EXCERPT).collect();
    if body.is_empty() { format!("{what}; empty body") } else { format!("{what}; got {body}") }
}

/// Says that some apps are unhealthy.
pub(crate) fn unhealthy(health: &[Health]) -> Option<Error> {
    let bad: Vec<&Health> = health.iter().filter(|health| !health.healthy).collect();
    if bad.is_empty() {
        return None;
    }
    let error = Error::new(
        Kind::Unhealthy,
        format!("{} of {} apps are unhealthy", bad.len(), health.len()),
    );
    Some(bad.iter().fold(error, |error, health| {
        let detail = health.failure.as_ref().map_or("", |failure| &failure.detail);
        error.why(format!("{}: {detail}", health.app))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(status: u16, content_type: &str, body: &str) -> Visit {
        Visit {
            status,
            location: None,
            content_type: content_type.to_owned(),
            body: body.to_owned(),
        }
    }

    fn problem(visit: &Visit) -> Option<Problem> {
        judge(&Assertion::new("portal", "/healthz"), visit).err().map(|failure| failure.problem)
    }

    #[test]
    fn only_the_exact_answer_is_healthy() {
        let json = "application/json";
        for (visit, expected) in [
            (visit(200, json, r#"{"ok":true}"#), None),
            (visit(200, "text/plain", " { \"ok\" : true }\n"), None),
            (visit(200, json, r#"{"ok":true,"db":"down"}"#), Some(Problem::WrongBody)),
            (visit(200, json, r#"{"ok":"true"}"#), Some(Problem::WrongBody)),
            (visit(200, json, "ok"), Some(Problem::WrongBody)),
            (visit(200, json, ""), Some(Problem::WrongBody)),
            (visit(204, json, ""), Some(Problem::WrongStatus)),
            (visit(404, json, r#"{"ok":true}"#), Some(Problem::WrongStatus)),
            (visit(401, json, ""), Some(Problem::Denied)),
            (visit(403, json, ""), Some(Problem::Denied)),
            (visit(500, json, ""), Some(Problem::ServerError)),
            (visit(503, json, ""), Some(Problem::ServerError)),
            (
                visit(200, "text/html", "<html><title>Databricks - Sign In</title>"),
                Some(Problem::LoginPage),
            ),
            (visit(200, "text/html", "<html>Welcome</html>"), Some(Problem::WrongBody)),
        ] {
            assert_eq!(problem(&visit), expected, "{visit:?}");
        }
    }

    #[test]
    fn a_redirect_is_never_followed_and_says_where_it_points() {
        let mut answer = visit(302, "", "");
        answer.location = Some("https://a.test/elsewhere".to_owned());
        let failure = judge(&Assertion::new("portal", "/"), &answer).unwrap_err();
        assert_eq!(failure.problem, Problem::Redirect);
        assert!(failure.detail.contains("https://a.test/elsewhere"));

        answer.location = Some("https://a.test/oidc/oauth2/v2.0/authorize".to_owned());
        assert_eq!(problem(&answer), Some(Problem::LoginPage));
    }

    #[test]
    fn a_starting_app_is_asked_again_and_a_wrong_one_is_not() {
        for (problem, status, again) in [
            (Problem::NoAnswer, None, true),
            (Problem::ServerError, Some(502), true),
            (Problem::ServerError, Some(503), true),
            (Problem::ServerError, Some(500), false),
            (Problem::WrongStatus, Some(404), false),
            (Problem::Denied, Some(401), false),
            (Problem::LoginPage, Some(200), false),
            (Problem::Redirect, Some(302), false),
            (Problem::WrongBody, Some(200), false),
        ] {
            assert_eq!(problem.may_pass(status), again, "{problem:?} {status:?}");
        }
    }

    #[test]
    fn a_long_body_is_shown_in_part() {
        let body = "x".repeat(5000);
        let failure = judge(&Assertion::new("portal", "/"), &visit(200, "", &body)).unwrap_err();

        assert!(failure.detail.len() < 400, "{}", failure.detail.len());
    }
}
