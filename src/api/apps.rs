//! Apps and their deployments.
//!
//! Source of the calls: Python SDK 0.156.0 `service/apps.py`, read 2026-08.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::error::Result;
use super::request::Request;
use crate::wire::apps::{App, AppList, Deployment, EnvVar};

/// What a deployment is asked to do.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct DeploymentRequest {
    /// Always `SNAPSHOT`: the code is copied when the deployment starts.
    pub(crate) mode: &'static str,
    /// Workspace folder of the source.
    pub(crate) source_code_path: String,
    /// Command instead of the one in `app.yaml`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    /// Environment instead of the one in `app.yaml`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_vars: Vec<EnvVar>,
}

impl Client {
    /// Creates an app; its machine starts unless `no_compute`.
    ///
    /// Fails with 409 `RESOURCE_ALREADY_EXISTS` when the name is taken, also while it is deleted.
    pub(crate) async fn create_app(&self, app: &App, no_compute: bool) -> Result<App> {
        let request =
            Request::api(Method::POST, &["apps"]).flag("no_compute", no_compute).json(app);
        self.json(request).await
    }

    /// Reads an app.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn get_app(&self, name: &str) -> Result<App> {
        self.get(&["apps", name]).await
    }

    /// Reads all apps.
    pub(crate) async fn list_apps(&self) -> Result<Vec<App>> {
        let request = Request::api(Method::GET, &["apps"]);
        self.pages(request, |page: AppList| (page.apps, page.next_page_token)).await
    }

    /// Replaces description, resources and scopes of an app.
    pub(crate) async fn update_app(&self, app: &App) -> Result<App> {
        self.json(Request::api(Method::PATCH, &["apps", &app.name]).json(app)).await
    }

    /// Starts the machine of an app.
    pub(crate) async fn start_app(&self, name: &str) -> Result<App> {
        self.post(&["apps", name, "start"], &json!({})).await
    }

    /// Stops the machine of an app.
    pub(crate) async fn stop_app(&self, name: &str) -> Result<App> {
        self.post(&["apps", name, "stop"], &json!({})).await
    }

    /// Starts deleting an app; its name is free when it can no longer be read.
    pub(crate) async fn delete_app(&self, name: &str) -> Result<()> {
        self.done(Request::api(Method::DELETE, &["apps", name])).await
    }

    /// Starts a deployment.
    ///
    /// Fails with a conflict while another deployment of the app is on its way.
    pub(crate) async fn create_deployment(
        &self,
        app: &str,
        deployment: &DeploymentRequest,
    ) -> Result<Deployment> {
        self.post(&["apps", app, "deployments"], deployment).await
    }

    /// Reads a deployment.
    pub(crate) async fn get_deployment(&self, app: &str, id: &str) -> Result<Deployment> {
        self.get(&["apps", app, "deployments", id]).await
    }

    /// Reads the last `lines` lines an app of the embedded workspace said.
    ///
    /// Fails with 404 on a real workspace, which shows logs only as a stream.
    pub(crate) async fn app_log(&self, name: &str, lines: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Log {
            lines: Vec<String>,
        }
        let mut request = Request::api(Method::GET, &[]).query("lines", lines.to_string());
        request.path = ["lakeforge", "apps", name, "log"].map(str::to_owned).to_vec();
        self.json::<Log>(request).await.map(|log| log.lines)
    }
}
