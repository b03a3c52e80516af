//! Long-running operations: remembered, so that clients can poll them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::World;
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::store::Shelf;
use crate::wire::failure::Failure;
use crate::wire::postgres::Operation;

/// How long a finished operation is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// One change that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OperationRecord {
    /// Last part of its name.
    pub(crate) id: String,
    /// Full name of what it changes.
    pub(crate) resource: String,
    /// `Project`, `Branch` or `Endpoint`.
    pub(crate) kind: String,
    /// When it began.
    pub(crate) create_time: Timestamp,
    /// Whether it is finished.
    pub(crate) done: bool,
    /// The finished resource, or an `Empty`.
    pub(crate) response: Option<Value>,
    /// Why it failed.
    pub(crate) error: Option<Failure>,
}

impl World {
    /// Begins an operation on `resource`.
    pub(super) fn begin(
        &mut self,
        kind: &str,
        resource: impl std::fmt::Display,
        now: Timestamp,
    ) -> String {
        let record = OperationRecord {
            id: ids::uuid(),
            resource: resource.to_string(),
            kind: kind.to_owned(),
            create_time: now,
            done: false,
            response: None,
            error: None,
        };
        let id = record.id.clone();
        self.operations.insert(id.clone(), record);
        self.touch(Shelf::Operations, &id);
        id
    }

    /// Adds an operation that is finished already.
    pub(super) fn finished(
        &mut self,
        kind: &str,
        resource: impl std::fmt::Display,
        response: Value,
        now: Timestamp,
    ) -> String {
        let id = self.begin(kind, resource, now);
        self.finish(&id, Ok(response));
        id
    }

    /// Ends an operation.
    pub(super) fn finish(&mut self, id: &str, result: Result<Value, Failure>) {
        let Some(operation) = self.operations.get_mut(id) else { return };
        operation.done = true;
        match result {
            Ok(response) => operation.response = Some(response),
            Err(failure) => operation.error = Some(failure),
        }
        self.touch(Shelf::Operations, id);
    }

    /// Returns the operation `id` as it goes over the wire; `resource` is what the request's path names.
    pub(crate) fn operation(&self, id: &str, resource: Option<&str>) -> Answer<Operation> {
        self.operations
            .get(id)
            .filter(|operation| resource.is_none_or(|resource| operation.resource == resource))
            .map(OperationRecord::wire)
            .ok_or_else(|| Fault::missing("operation"))
    }

    /// Returns the newest time that was written down.
    pub(crate) fn latest_time(&self) -> Option<Timestamp> {
        let operations = self.operations.values().map(|operation| operation.create_time);
        let branches = self.branches.values().map(|branch| branch.update_time);
        operations.chain(branches).max()
    }

    /// Forgets finished operations that nobody will ask for any more.
    pub(crate) fn forget_operations(&mut self, now: Timestamp) {
        let old: Vec<String> = self
            .operations
            .values()
            .filter(|operation| {
                operation.done && now.duration_since(operation.create_time) > REMEMBERED
            })
            .map(|operation| operation.id.clone())
            .collect();
        for id in old {
            self.operations.remove(&id);
            self.touch(Shelf::Operations, id);
        }
    }
}

impl OperationRecord {
    fn wire(&self) -> Operation {
        let kind = &self.kind;
        Operation {
            name: format!("{}/operations/{}", self.resource, self.id),
            done: self.done,
            metadata: json!({
                "@type": format!("type.googleapis.com/databricks.postgres.v1.{kind}OperationMetadata"),
            }),
            response: self.response.clone(),
            error: self.error.clone(),
        }
    }
}

/// Returns the response of a finished deletion.
pub(super) fn empty() -> Value {
    json!({ "@type": "type.googleapis.com/google.protobuf.Empty" })
}

/// Returns the response of a finished creation or update.
pub(super) fn response<T: Serialize>(resource: &T) -> Value {
    serde_json::to_value(resource).expect("wire types hold nothing that JSON cannot")
}
