//! How the workspace says no: the error envelope of every API.

use serde::{Deserialize, Serialize};

/// Body of an answer that is not a success.
///
/// Source: Go SDK 0.175.0 `apierr`, Python SDK 0.156.0 `errors`, read 2026-08.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Stable word, such as `NOT_FOUND` or `INVALID_PARAMETER_VALUE`.
    #[serde(default)]
    pub(crate) error_code: String,
    /// Sentence for people.
    #[serde(default)]
    pub(crate) message: String,
    /// Typed details (`google.rpc.ErrorInfo`, `RequestInfo`, `RetryInfo`, …), each with an `@type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) details: Vec<serde_json::Value>,
}

impl Failure {
    /// Returns whether this is the refusal to delete something that lives and dies with its parent.
    pub(crate) fn is_managed_by_parent(&self) -> bool {
        self.details
            .iter()
            .any(|detail| detail["metadata"]["declarative_context"] == "MANAGED_BY_PARENT")
    }

    /// Returns the id under which the service logged the request, when the answer names it.
    pub(crate) fn request_id(&self) -> Option<String> {
        self.details.iter().find_map(|detail| detail["request_id"].as_str()).map(str::to_owned)
    }
}
