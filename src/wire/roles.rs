//! Roles and databases of a branch, `/api/2.0/postgres/projects/…/branches/…/roles` and `…/databases`.
//!
//! Source of the shapes: Python SDK 0.156.0 `service/postgres.py` and the Databricks CLI's
//! acceptance recordings, read 2026-08.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wire::names::BranchName;

/// What a role stands for outside Postgres.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum IdentityType {
    /// A person.
    User,
    /// A program.
    ServicePrincipal,
    /// Several identities.
    Group,
    /// Nothing: a plain role of Postgres.
    #[default]
    #[serde(rename = "IDENTITY_TYPE_UNSPECIFIED", alias = "")]
    Plain,
}

/// How a role logs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AuthMethod {
    /// With a token of its identity.
    #[serde(rename = "LAKEBASE_OAUTH_V1")]
    Oauth,
    /// With a password of its own.
    #[serde(rename = "PG_PASSWORD_SCRAM_SHA_256")]
    Password,
    /// Not at all.
    #[serde(rename = "NO_LOGIN")]
    NoLogin,
    /// Left to the service.
    #[default]
    #[serde(rename = "AUTH_METHOD_UNSPECIFIED", alias = "")]
    Unspecified,
}

/// A role that other roles are members of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Membership {
    /// The platform's administrator of a branch, short of Postgres' own superuser.
    #[serde(rename = "DATABRICKS_SUPERUSER")]
    Superuser,
}

/// What a role may do besides its grants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// Reads and writes past row-level security.
    #[serde(default)]
    pub(crate) bypassrls: bool,
    /// Creates databases.
    #[serde(default)]
    pub(crate) createdb: bool,
    /// Creates roles.
    #[serde(default)]
    pub(crate) createrole: bool,
}

/// A role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Full name: `projects/…/branches/…/roles/{role_id}`.
    pub(crate) name: String,
    /// Id in paths.
    #[serde(default)]
    pub(crate) role_id: String,
    /// The branch it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<BranchName>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// Effective state.
    pub(crate) status: RoleStatus,
}

/// Effective state of a role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RoleStatus {
    /// Id in paths.
    #[serde(default)]
    pub(crate) role_id: String,
    /// Name in Postgres.
    #[serde(default)]
    pub(crate) postgres_role: String,
    /// What it stands for.
    #[serde(default)]
    pub(crate) identity_type: IdentityType,
    /// How it logs in.
    #[serde(default)]
    pub(crate) auth_method: AuthMethod,
    /// What it is a member of.
    #[serde(default)]
    pub(crate) membership_roles: Vec<Membership>,
    /// What it may do.
    #[serde(default)]
    pub(crate) attributes: Attributes,
}

/// What a request says of a role.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RoleSpec {
    /// Name in Postgres: e-mail address, application id or group name of an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_role: Option<String>,
    /// What it stands for.
    #[serde(default)]
    pub(crate) identity_type: IdentityType,
    /// How it logs in; follows from `identity_type` when unspecified.
    #[serde(default)]
    pub(crate) auth_method: AuthMethod,
    /// What it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) membership_roles: Option<Vec<Membership>>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attributes: Option<Attributes>,
}

/// A database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Database {
    /// Full name: `projects/…/branches/…/databases/{database_id}`.
    pub(crate) name: String,
    /// Id in paths.
    #[serde(default)]
    pub(crate) database_id: String,
    /// The branch it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<BranchName>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// Effective state.
    pub(crate) status: DatabaseStatus,
}

/// Effective state of a database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatabaseStatus {
    /// Id in paths.
    #[serde(default)]
    pub(crate) database_id: String,
    /// Name in Postgres.
    #[serde(default)]
    pub(crate) postgres_database: String,
    /// Full name of the role that owns it; absent when the platform itself does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
}

/// What a request says of a database.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DatabaseSpec {
    /// Name in Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_database: Option<String>,
    /// Full name of the role that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
}

/// A page of roles.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RoleList {
    /// The roles.
    #[serde(default)]
    pub(crate) roles: Vec<Role>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// A page of databases.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DatabaseList {
    /// The databases.
    #[serde(default)]
    pub(crate) databases: Vec<Database>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}
