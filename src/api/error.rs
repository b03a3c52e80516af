//! What can go wrong with a call, and what that means for the user.

use std::time::Duration;

use crate::error::{self, Kind};
use crate::time::human;
use crate::wire::failure::Failure;

/// Result of a call.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, Clone)]
pub(crate) enum Error {
    /// There is no token, or no client to send it with.
    NotLoggedIn(error::Error),
    /// Nobody answered.
    NoAnswer {
        /// What is known about it.
        reason: error::Error,
        /// Whether the request may have arrived all the same.
        may_have_arrived: bool,
    },
    /// The workspace said no.
    Refused {
        /// Status of the answer.
        status: u16,
        /// Its body.
        failure: Box<Failure>,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
        /// Id under which the workspace logged the request.
        request_id: Option<String>,
        /// What to type when the reason is the login.
        login_hint: String,
    },
    /// The answer is not what the API promises.
    NotUnderstood {
        /// The call.
        call: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What was to be deleted is not what was looked at any more.
    Changed(error::Error),
    /// The change was accepted and failed later.
    Operation {
        /// Name of the operation.
        name: String,
        /// Why it failed.
        failure: Box<Failure>,
    },
    /// The change was accepted and did not finish in time; it may still be going on.
    TimedOut {
        /// What was waited for.
        awaited: String,
        /// How long.
        limit: Duration,
    },
}

impl Error {
    /// Returns whether the workspace said that something named does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind() == Kind::NotFound
    }

    /// Returns whether the workspace said that the name is taken, or that it is busy with it.
    pub(crate) fn is_conflict(&self) -> bool {
        !matches!(self, Error::Changed(_)) && self.kind() == Kind::Conflict
    }

    /// Returns whether a change may have happened although its answer never arrived.
    pub(crate) fn is_reply_lost(&self) -> bool {
        match self {
            Error::NoAnswer { may_have_arrived, .. } => *may_have_arrived,
            Error::NotUnderstood { .. } => true,
            _ => false,
        }
    }

    /// Returns whether a change may have happened although its answer does not say so.
    pub(crate) fn may_have_happened(&self) -> bool {
        // 503 says that the request was turned away.
        let failed = matches!(self, Error::Refused { status: 500 | 502 | 504, .. });
        failed || self.is_reply_lost()
    }

    /// Returns whether the service failed inside, with a plain 500.
    pub(crate) fn is_internal(&self) -> bool {
        match self {
            Error::Refused { status, .. } => *status == 500,
            Error::Operation { failure, .. } => failure.error_code == "INTERNAL_ERROR",
            _ => false,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Error::NotLoggedIn(error)
            | Error::Changed(error)
            | Error::NoAnswer { reason: error, .. } => error.kind(),
            Error::Refused { status, failure, .. } => kind_of(*status, failure),
            Error::Operation { failure, .. } => kind_of(0, failure),
            Error::NotUnderstood { .. } => Kind::Failed,
            Error::TimedOut { .. } => Kind::TimedOut,
        }
    }
}

/// Returns the class of a refusal: by its status, else by its code.
///
/// Live workspaces answer 400 `BAD_REQUEST` for some taken names, hence the look at the sentence.
///
/// Source: Go SDK 0.175.0 `apierr`; issue reports on taken branch names, read 2026-08.
fn kind_of(status: u16, failure: &Failure) -> Kind {
    match (status, failure.error_code.as_str()) {
        _ if failure.is_managed_by_parent() => Kind::Refused,
        (401, _) | (_, "UNAUTHENTICATED") => Kind::Auth,
        (403, _) | (_, "PERMISSION_DENIED") => Kind::Denied,
        (404, _) | (_, "NOT_FOUND" | "RESOURCE_DOES_NOT_EXIST" | "ENDPOINT_NOT_FOUND") => {
            Kind::NotFound
        }
        (409, _)
        | (_, "ALREADY_EXISTS" | "RESOURCE_ALREADY_EXISTS" | "RESOURCE_CONFLICT" | "ABORTED") => {
            Kind::Conflict
        }
        (400, _) if failure.message.contains("already exists") => Kind::Conflict,
        (429 | 502 | 503 | 504, _)
        | (
            _,
            "TEMPORARILY_UNAVAILABLE"
            | "UNAVAILABLE"
            | "RESOURCE_EXHAUSTED"
            | "REQUEST_LIMIT_EXCEEDED",
        ) => Kind::Unavailable,
        (_, "INVALID_PARAMETER_VALUE" | "MALFORMED_REQUEST") => Kind::Usage,
        _ => Kind::Failed,
    }
}

/// Turns "not found" into `None`.
pub(crate) fn there<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match error {
            Error::NotLoggedIn(error)
            | Error::Changed(error)
            | Error::NoAnswer { reason: error, .. } => error,
            Error::Refused { status, failure, request_id, login_hint, .. } => {
                let code = failure.error_code.as_str();
                let code = if code.is_empty() { String::new() } else { format!(" {code}") };
                let message = sentence(&failure, kind);
                let error = error::Error::new(kind, format!("{message} ({status}{code})"))
                    .retryable(matches!(status, 429 | 500 | 502..=504))
                    .request_id(request_id);
                if kind == Kind::Auth { error.hint(login_hint) } else { error }
            }
            Error::NotUnderstood { call, reason } => {
                error::Error::new(kind, format!("the answer to {call} is not understood"))
                    .why(reason)
            }
            Error::Operation { name, failure } => {
                let message = sentence(&failure, kind);
                error::Error::new(kind, format!("{message} ({})", failure.error_code))
                    .why(format!("operation `{name}`"))
                    .request_id(failure.request_id())
            }
            Error::TimedOut { awaited, limit } => {
                // What is left of a wait may be nothing: the user gave more.
                let within = match limit.as_secs() {
                    0 => "time".to_owned(),
                    _ => human(limit),
                };
                error::Error::new(kind, format!("{awaited} did not finish in {within}"))
                    .why("it may still be going on")
                    .hint("run the same command again, or give it more time with --wait-timeout")
            }
        }
    }
}

/// Returns the workspace's own sentence, or one of ours when it has none.
fn sentence(failure: &Failure, kind: Kind) -> &str {
    match (failure.message.trim(), kind) {
        ("", Kind::Auth) => "the workspace does not take the token",
        ("", Kind::Denied) => "the workspace does not allow this",
        ("", Kind::NotFound) => "the workspace does not know this",
        ("", _) => "the workspace refused without a reason",
        (message, _) => message.trim_end_matches('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_ran_out_names_its_length_where_it_had_one() {
        let timed_out = |limit| {
            let awaited = "branch `dev`".to_owned();
            error::Error::from(Error::TimedOut { awaited, limit }).message().to_owned()
        };
        assert_eq!(timed_out(Duration::from_secs(90)), "branch `dev` did not finish in 1m 30s");
        assert_eq!(timed_out(Duration::ZERO), "branch `dev` did not finish in time");
        assert_eq!(timed_out(Duration::from_micros(3)), "branch `dev` did not finish in time");
    }

    fn refused(status: u16, code: &str, message: &str) -> Error {
        Error::Refused {
            status,
            failure: Box::new(Failure {
                error_code: code.to_owned(),
                message: message.to_owned(),
                details: Vec::new(),
            }),
            retry_after: None,
            request_id: Some("r-1".to_owned()),
            login_hint: "databricks auth login".to_owned(),
        }
    }

    #[test]
    fn the_class_follows_from_status_and_code() {
        for (status, code, message, kind) in [
            (401, "UNAUTHENTICATED", "", Kind::Auth),
            (403, "PERMISSION_DENIED", "", Kind::Denied),
            (404, "", "", Kind::NotFound),
            (404, "NOT_FOUND", "branch id not found", Kind::NotFound),
            (409, "ALREADY_EXISTS", "", Kind::Conflict),
            (400, "ALREADY_EXISTS", "", Kind::Conflict),
            (400, "BAD_REQUEST", "branch already exists; branch_name:\"x\"", Kind::Conflict),
            (400, "BAD_REQUEST", "read_write endpoint already exists", Kind::Conflict),
            (400, "BAD_REQUEST", "cannot delete protected branch", Kind::Failed),
            (400, "INVALID_PARAMETER_VALUE", "Field 'branch_id' is required", Kind::Usage),
            (429, "", "", Kind::Unavailable),
            (503, "TEMPORARILY_UNAVAILABLE", "", Kind::Unavailable),
            (500, "INTERNAL_ERROR", "", Kind::Failed),
            (501, "NOT_IMPLEMENTED", "", Kind::Failed),
        ] {
            assert_eq!(refused(status, code, message).kind(), kind, "{status} {code} {message}");
        }
    }

    #[test]
    fn the_request_id_and_the_workspace_s_sentence_are_kept() {
        let error = error::Error::from(refused(404, "NOT_FOUND", "branch id not found"));

        assert_eq!(error.to_string(), "branch id not found (404 NOT_FOUND)");
        assert_eq!(error.to_json()["error"]["request_id"], "r-1");
        assert_eq!(error.hint_text(), None);
    }

    #[test]
    fn only_a_missing_login_hints_at_logging_in() {
        let hint = |status| {
            let error = error::Error::from(refused(status, "", ""));
            error.hint_text().map(str::to_owned)
        };

        assert_eq!(hint(401).as_deref(), Some("databricks auth login"));
        assert_eq!(hint(403), None);
    }
}
