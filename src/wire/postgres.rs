//! Autoscaling Postgres, `/api/2.0/postgres`: projects, branches, endpoints, operations, credentials.
//!
//! Requests carry the bare resource with `spec`; answers carry `status` and never echo `spec`.
//! Source of the shapes: Python SDK 0.156.0 `service/postgres.py` and the Databricks CLI's
//! acceptance recordings, read 2026-08.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::secret::Secret;
use crate::time::Ttl;
use crate::wire::failure::Failure;
use crate::wire::names::{BranchName, EndpointName, ProjectName};

/// A project: a tree of branches that share storage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Project {
    /// Full name.
    pub(crate) name: ProjectName,
    /// Last part of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project_id: Option<String>,
    /// Unique id (UUID), never accepted in paths.
    #[serde(default)]
    pub(crate) uid: String,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// When it was deleted; soft deletion keeps the id reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delete_time: Option<Timestamp>,
    /// When its data goes for good and its id is free again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purge_time: Option<Timestamp>,
    /// Effective settings.
    #[serde(default)]
    pub(crate) status: ProjectStatus,
}

/// Effective settings of a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ProjectStatus {
    /// Id of the project.
    #[serde(default)]
    pub(crate) project_id: String,
    /// Name for people.
    #[serde(default)]
    pub(crate) display_name: String,
    /// Major version of PostgreSQL.
    #[serde(default)]
    pub(crate) pg_version: u32,
    /// E-mail address or application id of the owner.
    #[serde(default)]
    pub(crate) owner: String,
    /// The branch that others start from by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_branch: Option<BranchName>,
    /// How far back `source_branch_time` may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history_retention_duration: Option<Ttl>,
    /// Whether password logins are allowed.
    #[serde(default)]
    pub(crate) enable_pg_native_login: bool,
    /// Largest logical size of one branch, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch_logical_size_limit_bytes: Option<u64>,
    /// Stored bytes as billed.
    #[serde(default)]
    pub(crate) synthetic_storage_size_bytes: u64,
    /// Settings that new endpoints start with.
    #[serde(default)]
    pub(crate) default_endpoint_settings: EndpointSettings,
    /// Whatever else there is.
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

/// What a request says of a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ProjectSpec {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// Major version of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pg_version: Option<u32>,
    /// How far back `source_branch_time` may reach: 2 to 35 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history_retention_duration: Option<Ttl>,
    /// Settings that new endpoints start with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_endpoint_settings: Option<EndpointSettings>,
    /// The branch that others start from by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_branch: Option<BranchName>,
    /// Whether password logins are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enable_pg_native_login: Option<bool>,
    /// Whatever else was sent.
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

/// Compute limits and suspension.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointSettings {
    /// Smallest compute, in CU (2 GB of memory each).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) autoscaling_limit_min_cu: Option<f64>,
    /// Largest compute, in CU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) autoscaling_limit_max_cu: Option<f64>,
    /// Idle time before the compute is suspended: 60 s to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suspend_timeout_duration: Option<Ttl>,
    /// `true` when the compute is never suspended; `false` is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_suspension: Option<bool>,
    /// Raw Postgres settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pg_settings: BTreeMap<String, String>,
    /// Computes behind one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<EndpointGroup>,
}

/// How many computes an endpoint has, one of which serves while the others stand by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointGroup {
    /// Least number of computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<u32>,
    /// Largest number of computes; has to equal `min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
    /// Whether those that stand by can be read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enable_readable_secondaries: Option<bool>,
}

/// A branch: a copy-on-write line of data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Branch {
    /// Full name.
    pub(crate) name: BranchName,
    /// Last part of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch_id: Option<String>,
    /// Unique id (`br-…`), never accepted in paths.
    #[serde(default)]
    pub(crate) uid: String,
    /// The project, not the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ProjectName>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// Effective state.
    #[serde(default)]
    pub(crate) status: BranchStatus,
}

/// Life cycle of a branch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum BranchState {
    /// Being created.
    #[default]
    Init,
    /// Usable.
    Ready,
    /// Moved to cheaper storage for inactivity.
    Archived,
    /// Being reset to its source.
    Resetting,
    /// Receiving imported data.
    Importing,
    /// Deleted.
    Deleted,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// Effective state of a branch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct BranchStatus {
    /// Id of the branch.
    #[serde(default)]
    pub(crate) branch_id: String,
    /// Where it is in its life cycle.
    #[serde(default)]
    pub(crate) current_state: BranchState,
    /// Where it is going, while it is on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_state: Option<BranchState>,
    /// When `current_state` began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state_change_time: Option<Timestamp>,
    /// Whether it is the project's default branch.
    #[serde(default)]
    pub(crate) default: bool,
    /// Whether it is protected from deletion and reset.
    #[serde(default)]
    pub(crate) is_protected: bool,
    /// Bytes a reader sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logical_size_bytes: Option<u64>,
    /// The branch it was copied from; absent on the root branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch: Option<BranchName>,
    /// Position on the source it really starts from, such as `16/B374D848`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch_lsn: Option<String>,
    /// Moment on the source it really starts from: at or before what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch_time: Option<Timestamp>,
    /// When it will be deleted; absent without expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expire_time: Option<Timestamp>,
    /// When it was deleted; its data stays for some days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delete_time: Option<Timestamp>,
    /// When its data goes for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purge_time: Option<Timestamp>,
}

/// What a request says of a branch.
///
/// On create exactly one of `ttl`, `expire_time` and `no_expiry` is needed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct BranchSpec {
    /// Branch to copy; the project's default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch: Option<BranchName>,
    /// Moment on the source to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch_time: Option<Timestamp>,
    /// Position on the source to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch_lsn: Option<String>,
    /// Life from creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<Ttl>,
    /// Moment of deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expire_time: Option<Timestamp>,
    /// `true` when the branch never expires; `false` is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_expiry: Option<bool>,
    /// Protects the branch from deletion and reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) is_protected: Option<bool>,
}

/// An endpoint: a compute that serves a branch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Full name.
    pub(crate) name: EndpointName,
    /// Last part of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_id: Option<String>,
    /// Unique id (`ep-…`), first label of the host name, never accepted in paths.
    #[serde(default)]
    pub(crate) uid: String,
    /// The branch it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<BranchName>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// Effective state.
    #[serde(default)]
    pub(crate) status: EndpointStatus,
}

/// What an endpoint may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndpointType {
    /// Reads and writes; at most one per branch.
    #[default]
    #[serde(rename = "ENDPOINT_TYPE_READ_WRITE")]
    ReadWrite,
    /// Reads alone.
    #[serde(rename = "ENDPOINT_TYPE_READ_ONLY")]
    ReadOnly,
}

/// Life cycle of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum EndpointState {
    /// Being provisioned.
    #[default]
    Init,
    /// Running.
    Active,
    /// Suspended; a connection wakes it.
    Idle,
    /// Running with a fault.
    Degraded,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// Effective state of an endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct EndpointStatus {
    /// Id of the endpoint.
    #[serde(default)]
    pub(crate) endpoint_id: String,
    /// What it may be used for.
    #[serde(default)]
    pub(crate) endpoint_type: EndpointType,
    /// Where it is in its life cycle.
    #[serde(default)]
    pub(crate) current_state: EndpointState,
    /// Where it is going, while it is on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_state: Option<EndpointState>,
    /// Whether it refuses connections.
    #[serde(default)]
    pub(crate) disabled: bool,
    /// Compute limits and suspension.
    #[serde(flatten)]
    pub(crate) settings: EndpointSettings,
    /// Settings of Postgres itself; the flattened ones hold none here.
    #[serde(default, rename = "settings", skip_serializing_if = "PostgresSettings::is_empty")]
    pub(crate) postgres: PostgresSettings,
    /// When it last served a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_active_time: Option<Timestamp>,
    /// Where to connect; absent until provisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hosts: Option<Hosts>,
}

/// Where to connect to an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hosts {
    /// Direct host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Host of readable secondaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_only_host: Option<String>,
    /// Host of the connection pooler of a read-write endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_write_pooled_host: Option<String>,
    /// Host of the connection pooler of readable secondaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_only_pooled_host: Option<String>,
    /// Port, on an embedded workspace whose system cannot give each endpoint an address of its own.
    /// The platform never sends it; absent means 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

/// What a request says of an endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct EndpointSpec {
    /// What it may be used for.
    #[serde(default)]
    pub(crate) endpoint_type: EndpointType,
    /// Compute limits and suspension.
    #[serde(flatten)]
    pub(crate) settings: EndpointSettings,
    /// Settings of Postgres itself.
    #[serde(default, rename = "settings", skip_serializing_if = "PostgresSettings::is_empty")]
    pub(crate) postgres: PostgresSettings,
    /// Whether it refuses connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disabled: Option<bool>,
}

/// Settings of Postgres itself, as an endpoint has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostgresSettings {
    /// Raw settings by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pg_settings: BTreeMap<String, String>,
}

impl PostgresSettings {
    fn is_empty(&self) -> bool {
        self.pg_settings.is_empty()
    }
}

/// Body of a create or update request: the bare resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Body<S> {
    /// What is wanted.
    #[serde(default)]
    pub(crate) spec: S,
}

/// A page of projects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ProjectList {
    /// The projects.
    #[serde(default)]
    pub(crate) projects: Vec<Project>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// A page of branches.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct BranchList {
    /// The branches.
    #[serde(default)]
    pub(crate) branches: Vec<Branch>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// A page of endpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct EndpointList {
    /// The endpoints.
    #[serde(default)]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// A long-running change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// `<resource name>/operations/<id>`.
    pub(crate) name: String,
    /// Whether it is finished; absent means it is running.
    #[serde(default)]
    pub(crate) done: bool,
    /// `{"@type": "type.googleapis.com/databricks.postgres.v1.BranchOperationMetadata"}` and the like.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) metadata: Value,
    /// The finished resource, or an `Empty` after deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
}

/// Body of `POST /api/2.0/postgres/credentials`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CredentialRequest {
    /// Endpoint the credential is for.
    pub(crate) endpoint: String,
    /// Life of the credential: 5 minutes to 1 hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<Ttl>,
    /// Moment the credential expires, instead of `ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expire_time: Option<Timestamp>,
}

/// A minted database password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// JWT, used as the Postgres password.
    pub(crate) token: Secret<String>,
    /// When it stops opening new connections.
    pub(crate) expire_time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shape: Databricks CLI acceptance recording of a branch creation, read 2026-08.
    #[test]
    fn a_finished_branch_operation_is_read() {
        let operation: Operation = serde_json::from_str(
            r#"{"name":"projects/shop/branches/dev/operations/0b1e","done":true,
                "metadata":{"@type":"type.googleapis.com/databricks.postgres.v1.BranchOperationMetadata"},
                "response":{"name":"projects/shop/branches/dev","branch_id":"dev","parent":"projects/shop","uid":"br-quiet-lake-1a2b3c4d",
                 "create_time":"2026-01-02T03:04:05Z","update_time":"2026-01-02T03:04:05Z",
                 "status":{"branch_id":"dev","current_state":"READY","state_change_time":"2026-01-02T03:04:05Z","default":false,"is_protected":false,
                  "source_branch":"projects/shop/branches/production","source_branch_lsn":"0/1A2B3C4","source_branch_time":"2026-01-02T03:04:04Z","expire_time":"2026-01-02T04:04:05Z"}}}"#,
        )
        .unwrap();
        let branch: Branch = serde_json::from_value(operation.response.unwrap()).unwrap();

        assert!(operation.done);
        assert_eq!(branch.status.current_state, BranchState::Ready);
        assert_eq!(branch.status.source_branch.unwrap().short(), "shop/production");
    }

    /// Shape: the documented body of "Create a branch", read 2026-08.
    #[test]
    fn a_branch_body_is_bare_and_leaves_out_what_is_unset() {
        let body = Body {
            spec: BranchSpec {
                source_branch: Some("projects/shop/branches/production".parse().unwrap()),
                ttl: Some(Ttl::from_secs(3600)),
                ..BranchSpec::default()
            },
        };

        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"spec":{"source_branch":"projects/shop/branches/production","ttl":"3600s"}}"#
        );
    }

    #[test]
    fn a_state_of_a_later_version_is_not_an_error() {
        let status: BranchStatus =
            serde_json::from_str(r#"{"branch_id":"dev","current_state":"HIBERNATED"}"#).unwrap();

        assert_eq!(status.current_state, BranchState::Unknown);
    }
}
