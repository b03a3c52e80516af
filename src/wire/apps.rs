//! Databricks Apps, `/api/2.0/apps`.
//!
//! Source of the shapes: Python SDK 0.156.0 `service/apps.py`, read 2026-08.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::names::BranchName;

/// An app: a process beside the data, behind an authenticating gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct App {
    /// 2 to 30 characters of `[a-z0-9-]`, unique in the workspace.
    pub(crate) name: String,
    /// Sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Unique id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Canonical address; only the API knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Who created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) creator: Option<String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
    /// State of the machine under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compute_status: Option<ComputeStatus>,
    /// State of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app_status: Option<AppStatus>,
    /// The deployment that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) active_deployment: Option<Deployment>,
    /// The deployment that is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_deployment: Option<Deployment>,
    /// Source of the last active deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_source_code_path: Option<String>,
    /// What the app may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<AppResource>,
    /// Scopes of the user's token that the gateway forwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) user_api_scopes: Vec<String>,
    /// Application id (UUID) of the app's own identity: its login in Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_principal_client_id: Option<String>,
    /// Numeric id of that identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_principal_id: Option<u64>,
    /// Name of that identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_principal_name: Option<String>,
}

/// State of the machine under an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComputeStatus {
    /// The state.
    pub(crate) state: ComputeState,
    /// Sentence for people.
    #[serde(default)]
    pub(crate) message: String,
}

/// States of the machine under an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ComputeState {
    /// Running.
    Active,
    /// On its way to running.
    Starting,
    /// Not running.
    Stopped,
    /// On its way to stopping.
    Stopping,
    /// Being changed.
    Updating,
    /// Being deleted.
    Deleting,
    /// Broken.
    Error,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// State of an app's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppStatus {
    /// The state.
    pub(crate) state: AppState,
    /// Sentence for people.
    #[serde(default)]
    pub(crate) message: String,
}

/// States of an app's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AppState {
    /// Serving.
    Running,
    /// Being deployed.
    Deploying,
    /// Ended by itself.
    Crashed,
    /// Not there.
    Unavailable,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// One deployment of code to an app.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// Id within the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deployment_id: Option<String>,
    /// `SNAPSHOT` or `AUTO_SYNC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// Workspace folder of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_code_path: Option<String>,
    /// Command instead of the one in `app.yaml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    /// Environment instead of the one in `app.yaml`; values are never read back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_vars: Vec<EnvVar>,
    /// State of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<DeploymentStatus>,
    /// Who deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) creator: Option<String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create_time: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_time: Option<Timestamp>,
}

/// One variable of an app's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvVar {
    /// Name of the variable.
    pub(crate) name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// Name of the app resource that supplies the value. Spelt `valueFrom` in `app.yaml`.
    #[serde(default, alias = "valueFrom", skip_serializing_if = "Option::is_none")]
    pub(crate) value_from: Option<String>,
}

/// State of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeploymentStatus {
    /// The state.
    pub(crate) state: DeploymentState,
    /// Sentence for people.
    #[serde(default)]
    pub(crate) message: String,
}

/// States of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum DeploymentState {
    /// On its way.
    InProgress,
    /// The app listens.
    Succeeded,
    /// It did not come up.
    Failed,
    /// Stopped on the way.
    Cancelled,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// Something an app may reach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppResource {
    /// Name within the app, for `valueFrom`.
    pub(crate) name: String,
    /// Sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// A Lakebase database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postgres: Option<PostgresResource>,
    /// Another app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<SiblingApp>,
    /// Kinds this crate does not act on (`secret`, `sql_warehouse`, `job`, …).
    #[serde(flatten)]
    pub(crate) other: serde_json::Map<String, Value>,
}

/// A Lakebase database that an app may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostgresResource {
    /// The branch.
    pub(crate) branch: BranchName,
    /// Full name of the database: `projects/p/branches/b/databases/databricks-postgres`.
    pub(crate) database: String,
    /// Always `CAN_CONNECT_AND_CREATE`.
    pub(crate) permission: String,
}

/// Another app that an app may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiblingApp {
    /// Name of that app.
    pub(crate) name: String,
    /// Always `CAN_USE`.
    #[serde(default)]
    pub(crate) permission: String,
}

/// A page of apps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AppList {
    /// The apps.
    #[serde(default)]
    pub(crate) apps: Vec<App>,
    /// Token of the next page; absent or empty on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_page_token: Option<String>,
}

/// Checks the name of an app: 2 to 30 characters of `[a-z0-9-]`.
///
/// Fails with a sentence that says what is wrong with it.
///
/// Source: Python SDK 0.156.0 `service/apps.py`; length from live refusals, read 2026-08.
pub(crate) fn check_app_name(name: &str) -> Result<(), String> {
    if !(2..=30).contains(&name.len()) {
        return Err("App name must be between 2 and 30 characters".to_owned());
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err("App name may hold only lower-case letters, digits and hyphens".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shape: `databricks apps get -o json` of CLI 1.13.0, read 2026-08.
    #[test]
    fn an_app_with_a_database_is_read() {
        let app: App = serde_json::from_str(
            r#"{"name":"patient","url":"https://patient-123.cloud.databricksapps.com","service_principal_id":42,
                "compute_status":{"state":"ACTIVE","message":"App compute is active."},
                "app_status":{"state":"RUNNING","message":"App has status: App is running"},
                "active_deployment":{"deployment_id":"01f0","mode":"SNAPSHOT","status":{"state":"SUCCEEDED","message":"Deployment succeeded"}},
                "resources":[{"name":"db","postgres":{"branch":"projects/patient/branches/production",
                  "database":"projects/patient/branches/production/databases/databricks-postgres","permission":"CAN_CONNECT_AND_CREATE"}},
                 {"name":"wh","sql_warehouse":{"id":"1","permission":"CAN_USE"}}]}"#,
        )
        .unwrap();

        assert_eq!(app.app_status.unwrap().state, AppState::Running);
        assert_eq!(
            app.resources[0].postgres.as_ref().unwrap().branch.short(),
            "patient/production"
        );
        assert!(app.resources[1].other.contains_key("sql_warehouse"));
    }
}
