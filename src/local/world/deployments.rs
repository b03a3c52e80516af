//! Deployments of apps: what was asked to run, and how it went.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::apps::AppRecord;
use super::{Caller, PageRequest, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::paths::TreePath;
use crate::local::store::Shelf;
use crate::secret::Secret;
use crate::wire::apps::{AppState, ComputeState, Deployment, DeploymentState, DeploymentStatus};

/// Deployments that are remembered of one app.
const REMEMBERED: usize = 50;

/// A deployment as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeploymentRecord {
    pub(super) app: String,
    pub(super) deployment: Deployment,
}

/// Everything needed to start the process of an app.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The app.
    pub(crate) app: AppRecord,
    /// The deployment to run.
    pub(crate) deployment: Deployment,
    /// Secret of the app's own identity.
    pub(crate) client_secret: Secret<String>,
}

impl World {
    /// Begins a deployment of the source at `source_code_path`, or of the last source.
    pub(crate) fn begin_deployment(
        &mut self,
        name: &str,
        body: &Value,
        caller: &Caller,
        now: Timestamp,
    ) -> Answer<Deployment> {
        let wanted: Deployment = super::parse(body)?;
        let app = self.app(name)?;
        if app.pending.is_some() {
            return Err(Fault::new(
                409,
                "RESOURCE_CONFLICT",
                format!("Cannot deploy app {name} as there is an active deployment in progress."),
            ));
        }
        if app.compute != ComputeState::Active {
            return Err(Fault::bad_request(format!(
                "Cannot deploy app {name} as its compute is not active; start the app first."
            )));
        }
        let last = app.active.as_deref().and_then(|id| self.deployment(name, id).ok());
        let source_code_path = wanted
            .source_code_path
            .filter(|path| !path.is_empty())
            .or_else(|| last.and_then(|last| last.source_code_path.clone()))
            .ok_or_else(|| Fault::required("source_code_path"))?;
        self.require_read_file(caller, &TreePath::parse(&source_code_path)?)?;
        let attached = self.check_resources(&app.resources, &app.attached, caller)?;
        let deployment = Deployment {
            deployment_id: Some(ids::hex(16)),
            mode: Some(wanted.mode.unwrap_or_else(|| "SNAPSHOT".to_owned())),
            source_code_path: Some(source_code_path),
            command: wanted.command,
            env_vars: wanted.env_vars,
            status: Some(DeploymentStatus {
                state: DeploymentState::InProgress,
                message: "Preparing source code".to_owned(),
            }),
            creator: Some(caller.user_name.clone()),
            create_time: Some(now),
            update_time: Some(now),
        };
        let id = id_of(&deployment);
        self.with_app(name, |app| {
            app.pending = Some(id.clone());
            app.attached = attached;
            if app.state != AppState::Running {
                app.state = AppState::Deploying;
                app.message = "App is being deployed".to_owned();
            }
        });
        insert(self.deployments.entry(name.to_owned()).or_default(), deployment.clone());
        self.touch(Shelf::Deployments, deployment_uid(name, &id));
        self.forget_deployments(name);
        Ok(deployment)
    }

    /// Says how far a deployment is.
    pub(crate) fn describe_deployment(
        &mut self,
        name: &str,
        id: &str,
        message: &str,
        now: Timestamp,
    ) {
        self.set_deployment(name, id, DeploymentState::InProgress, message, now);
    }

    /// Ends the deployment that is on its way; it may have been cancelled meanwhile.
    pub(crate) fn finish_deployment(
        &mut self,
        name: &str,
        id: &str,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        if self.apps.get(name).is_none_or(|app| app.pending.as_deref() != Some(id)) {
            return;
        }
        match result {
            Ok(()) => {
                let text = "App started successfully";
                self.set_deployment(name, id, DeploymentState::Succeeded, text, now);
                self.with_app(name, |app| {
                    app.active = Some(id.to_owned());
                    app.pending = None;
                    app.update_time = now;
                });
            }
            Err(message) => {
                self.set_deployment(name, id, DeploymentState::Failed, &message, now);
                self.with_app(name, |app| app.pending = None);
            }
        }
    }

    pub(super) fn cancel_pending(&mut self, name: &str, now: Timestamp) {
        let pending = self.apps.get(name).and_then(|app| app.pending.clone());
        let Some(id) = pending else { return };
        self.set_deployment(name, &id, DeploymentState::Cancelled, "Deployment was cancelled", now);
        self.with_app(name, |app| app.pending = None);
    }

    /// Ends what a killed server left on its way.
    pub(super) fn fail_pending_deployments(&mut self, now: Timestamp) {
        let pending: Vec<(String, String)> = self
            .apps
            .values()
            .filter_map(|app| Some((app.name.clone(), app.pending.clone()?)))
            .collect();
        for (name, id) in pending {
            let text = "the workspace was stopped while this deployment was on its way";
            self.finish_deployment(&name, &id, Err(text.to_owned()), now);
        }
    }

    fn set_deployment(
        &mut self,
        name: &str,
        id: &str,
        state: DeploymentState,
        message: &str,
        now: Timestamp,
    ) {
        let deployments = self.deployments.get_mut(name);
        let found = deployments.and_then(|all| all.iter_mut().find(|one| id_of(one) == id));
        if let Some(deployment) = found {
            deployment.status = Some(DeploymentStatus { state, message: message.to_owned() });
            deployment.update_time = Some(now);
            self.touch(Shelf::Deployments, deployment_uid(name, id));
        }
    }

    fn forget_deployments(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let kept = [app.active.clone(), app.pending.clone()];
        let Some(all) = self.deployments.get_mut(name) else { return };
        let mut forgotten = Vec::new();
        while all.len() > REMEMBERED {
            let Some(oldest) =
                all.iter().position(|one| !kept.contains(&one.deployment_id.clone()))
            else {
                break;
            };
            forgotten.push(id_of(&all.remove(oldest)));
        }
        for id in forgotten {
            self.touch(Shelf::Deployments, deployment_uid(name, &id));
        }
    }

    /// Returns a deployment as it is kept, values of its environment included.
    pub(crate) fn deployment(&self, name: &str, id: &str) -> Answer<&Deployment> {
        self.app(name)?;
        let all = self.deployments.get(name).map_or(&[][..], Vec::as_slice);
        all.iter().find(|deployment| id_of(deployment) == id).ok_or_else(|| {
            let text = format!("Resource apps.AppDeployment not found: {id}");
            Fault::new(404, "RESOURCE_DOES_NOT_EXIST", text)
        })
    }

    /// Returns a page of the deployments of an app, newest first.
    pub(crate) fn list_deployments(
        &self,
        name: &str,
        request: &PageRequest,
    ) -> Answer<(Vec<Deployment>, Option<String>)> {
        self.app(name)?;
        let all = self.deployments.get(name).map_or(&[][..], Vec::as_slice);
        let last = all.len();
        let numbered = all.iter().rev().enumerate();
        let (page, next) =
            request.cut(numbered, |(position, _)| format!("{position:06}/{last}"))?;
        Ok((page.into_iter().map(|(_, deployment)| public(deployment)).collect(), next))
    }

    pub(super) fn deployment_record(&self, uid: &str) -> Option<DeploymentRecord> {
        let (app, id) = uid.rsplit_once('.')?;
        let deployment = self.deployments.get(app)?.iter().find(|one| id_of(one) == id)?;
        Some(DeploymentRecord { app: app.to_owned(), deployment: deployment.clone() })
    }

    /// Returns what is needed to run a deployment of an app.
    pub(crate) fn launch(&self, name: &str, id: &str) -> Answer<Launch> {
        let app = self.app(name)?.clone();
        let deployment = self.deployment(name, id)?.clone();
        let identity = self
            .identity(&app.client_id)
            .ok_or_else(|| Fault::internal(format!("app {name} has lost its identity")))?;
        Ok(Launch { client_secret: identity.secret.clone(), app, deployment })
    }
}

/// Returns a deployment as it is shown: the values of its environment are never read back.
pub(crate) fn public(deployment: &Deployment) -> Deployment {
    let mut shown = deployment.clone();
    for variable in &mut shown.env_vars {
        variable.value = None;
    }
    shown
}

/// Returns the id of a deployment of ours.
pub(crate) fn id_of(deployment: &Deployment) -> String {
    deployment.deployment_id.clone().unwrap_or_default()
}

/// Puts `deployment` among those of its app: by time, and by id where a clock stood still.
pub(super) fn insert(all: &mut Vec<Deployment>, deployment: Deployment) {
    let before = |other: &Deployment| {
        (other.create_time, &other.deployment_id)
            < (deployment.create_time, &deployment.deployment_id)
    };
    all.insert(all.partition_point(before), deployment);
}

/// Returns the name of a deployment's file; names of apps hold no dot.
pub(super) fn deployment_uid(app: &str, id: &str) -> String {
    format!("{app}.{id}")
}
