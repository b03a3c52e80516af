//! Provisioned database instances, `/api/2.0/database`: the generation before projects.
//!
//! Requests and answers carry the same flat resource: what is wanted goes in under plain names, what
//! is so comes out under `effective_…`. Source of the shapes: Python SDK 0.156.0 `service/database.py`
//! and the Databricks CLI's test server, read 2026-11.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::secret::Secret;

/// Size of an instance; a unit is about 16 GB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Capacity {
    /// One unit.
    #[serde(rename = "CU_1")]
    One,
    /// Two units.
    #[serde(rename = "CU_2")]
    Two,
    /// Four units.
    #[serde(rename = "CU_4")]
    Four,
    /// Eight units.
    #[serde(rename = "CU_8")]
    Eight,
}

impl Capacity {
    /// Returns the number of compute units.
    pub(crate) fn units(self) -> f64 {
        match self {
            Capacity::One => 1.0,
            Capacity::Two => 2.0,
            Capacity::Four => 4.0,
            Capacity::Eight => 8.0,
        }
    }
}

/// Where an instance is in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum InstanceState {
    /// Being made.
    Starting,
    /// Takes connections.
    Available,
    /// Takes none, keeps its data.
    Stopped,
}

/// What is wanted of an instance; in an update, nothing where nothing is said.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct InstanceSpec {
    /// Name in paths and for people.
    pub(crate) name: Option<String>,
    /// Size.
    pub(crate) capacity: Option<Capacity>,
    /// The primary and its secondaries together.
    pub(crate) node_count: Option<u32>,
    /// Whether secondaries serve readers.
    pub(crate) enable_readable_secondaries: Option<bool>,
    /// Whether roles log in with passwords of their own.
    pub(crate) enable_pg_native_login: Option<bool>,
    /// Days of history, 2 to 35.
    pub(crate) retention_window_in_days: Option<u32>,
    /// Whether it takes no connections.
    pub(crate) stopped: Option<bool>,
    /// The instance it starts as a copy of.
    pub(crate) parent_instance_ref: Option<InstanceRef>,
    /// Labels.
    pub(crate) custom_tags: Option<Vec<Value>>,
    /// Policy that pays for it.
    pub(crate) usage_policy_id: Option<String>,
}

/// Another instance, and the moment of it that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceRef {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Its unique id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// Moment that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch_time: Option<Timestamp>,
    /// Log position that was asked for; wins over `branch_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lsn: Option<String>,
    /// Log position it really started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) effective_lsn: Option<String>,
}

/// An instance as it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Instance {
    /// Name in paths and for people.
    pub(crate) name: String,
    /// Unique id (UUID).
    pub(crate) uid: String,
    /// Login name of who created it.
    pub(crate) creator: String,
    /// When it was created.
    pub(crate) creation_time: Timestamp,
    /// Where it is in its life cycle.
    pub(crate) state: InstanceState,
    /// Version of PostgreSQL, such as `PG_VERSION_16`.
    pub(crate) pg_version: String,
    /// Size that was asked for.
    pub(crate) capacity: Capacity,
    /// Size it has.
    pub(crate) effective_capacity: Capacity,
    /// The primary and its secondaries together.
    pub(crate) effective_node_count: u32,
    /// Whether secondaries serve readers.
    pub(crate) effective_enable_readable_secondaries: bool,
    /// Whether roles log in with passwords of their own.
    pub(crate) effective_enable_pg_native_login: bool,
    /// Days of history.
    pub(crate) effective_retention_window_in_days: u32,
    /// Whether it takes no connections.
    pub(crate) effective_stopped: bool,
    /// Host for readers and writers, on port 5432 unless `port` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_write_dns: Option<String>,
    /// Port of that host where it is not 5432; a field of the embedded workspace alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The instance it is a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_instance_ref: Option<InstanceRef>,
    /// The instances that are copies of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) child_instance_refs: Vec<InstanceRef>,
    /// Labels that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) custom_tags: Vec<Value>,
    /// Labels it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) effective_custom_tags: Vec<Value>,
    /// Policy that pays for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage_policy_id: Option<String>,
}

/// A page of instances.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InstanceList {
    /// The instances.
    pub(crate) database_instances: Vec<Instance>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// Request for a database credential, good for several instances.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InstanceCredentialRequest {
    /// Names of the instances.
    #[serde(default)]
    pub(crate) instance_names: Vec<String>,
    /// Narrower rights.
    #[serde(default)]
    pub(crate) claims: Vec<Value>,
}

/// A database credential: the Postgres password.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InstanceCredential {
    /// The password.
    pub(crate) token: Secret<String>,
    /// When it ends.
    pub(crate) expiration_time: Timestamp,
}
