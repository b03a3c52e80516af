//! How the embedded workspace says no: a status and the documented error envelope.

use serde_json::json;

use super::ids;
use crate::error::Error;
use crate::wire::failure::Failure;

/// Result of a request to the embedded workspace.
pub(crate) type Answer<T> = std::result::Result<T, Fault>;

/// A refusal as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body of the answer.
    pub(crate) failure: Failure,
}

impl Fault {
    /// Creates a refusal with `status`, the stable word `code` and a sentence.
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let failure =
            Failure { error_code: code.to_owned(), message: message.into(), details: Vec::new() };
        Fault { status, failure }
    }

    /// Refuses a value: 400 `INVALID_PARAMETER_VALUE`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Fault::new(400, "INVALID_PARAMETER_VALUE", message)
    }

    /// Refuses a request that does not fit the state of things: 400 `BAD_REQUEST`.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Fault::new(400, "BAD_REQUEST", message)
    }

    /// Refuses a missing query parameter in the platform's words.
    pub(crate) fn required(field: &str) -> Self {
        Fault::invalid(format!(
            "Field '{field}' is required, expected non-default value (not \"\")!"
        ))
    }

    /// Says that a `project`, `branch`, … does not exist: 404 `NOT_FOUND`.
    pub(crate) fn missing(kind: &str) -> Self {
        Fault::new(404, "NOT_FOUND", format!("{kind} id not found [TraceId: {}]", ids::hex(16)))
    }

    /// Says that an id is taken: 409 `ALREADY_EXISTS`.
    pub(crate) fn taken(message: impl Into<String>) -> Self {
        Fault::new(409, "ALREADY_EXISTS", message)
    }

    /// Refuses what would be more than there may be: 400 `QUOTA_EXCEEDED`. The platform's own code is not known.
    pub(crate) fn exhausted(message: impl Into<String>) -> Self {
        Fault::new(400, "QUOTA_EXCEEDED", message)
    }

    /// Says that other work on the same object has to finish first: 409, worded so that clients retry.
    pub(crate) fn busy(name: impl std::fmt::Display) -> Self {
        Fault::new(409, "ABORTED", format!("`{name}` is under reconciliation, try again later"))
    }

    /// Refuses a known caller: 403 `PERMISSION_DENIED`.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Fault::new(403, "PERMISSION_DENIED", message)
    }

    /// Refuses to delete what lives and dies with its parent; declarative clients take it as done.
    pub(crate) fn managed_by_parent(message: impl Into<String>) -> Self {
        let mut fault = Fault::bad_request(message);
        fault.failure.details = vec![
            json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "RESOURCE_CONFLICT",
                "domain": "databricks.com",
                "metadata": { "declarative_context": "MANAGED_BY_PARENT" },
            }),
            json!({
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "request_id": ids::uuid(),
                "serving_data": "",
            }),
        ];
        fault
    }

    /// Reports a failure of the embedded workspace itself: 500 `INTERNAL_ERROR`.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Fault::new(500, "INTERNAL_ERROR", error.to_string())
    }
}

impl From<Error> for Fault {
    /// Turns a failure of the engine into an answer: what the caller got wrong is a 400.
    fn from(error: Error) -> Self {
        use crate::error::Kind;
        match error.kind() {
            Kind::Usage => Fault::invalid(error.to_string()),
            Kind::NotFound => Fault::new(404, "NOT_FOUND", error.to_string()),
            Kind::Conflict => Fault::new(409, "ABORTED", error.to_string()),
            _ => Fault::internal(error),
        }
    }
}
