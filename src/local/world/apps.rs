//! Apps: what is wanted of them and how they are.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::deployments::{deployment_uid, id_of, public};
use super::{Caller, PageRequest, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::store::Shelf;
use crate::wire::apps::{
    App, AppResource, AppState, AppStatus, ComputeState, ComputeStatus, PostgresResource,
    check_app_name,
};
use crate::wire::names::{BranchName, DEFAULT_DATABASE, DEFAULT_DATABASE_ID, EndpointName};

/// Fields of an app that are kept and given back without meaning here.
const PASSED_ON: [&str; 11] = [
    "budget_policy_id",
    "compute_max_instances",
    "compute_min_instances",
    "compute_size",
    "forward_user_access_token",
    "git_repository",
    "git_source",
    "source_code_path",
    "space",
    "telemetry_export_destinations",
    "usage_policy_id",
];

/// An app as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    /// Name, unique in the workspace.
    pub(crate) name: String,
    /// Unique id.
    pub(crate) id: String,
    /// Sentence for people.
    pub(crate) description: Option<String>,
    /// Login name of who created it.
    pub(crate) creator: String,
    /// When it was created.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// What it may reach.
    pub(crate) resources: Vec<AppResource>,
    /// Unique ids of the projects and apps among its resources that somebody attached who had the right to: what
    /// is made anew under the same name is none of them.
    #[serde(default)]
    pub(crate) attached: Vec<String>,
    /// Scopes of the user's token that the gateway forwards.
    pub(crate) user_api_scopes: Vec<String>,
    /// Fields that are kept and given back without meaning here.
    pub(crate) other: Map<String, Value>,
    /// Application id of its own identity.
    pub(crate) client_id: String,
    /// Port of its gateway; kept, so that its address stays valid over a restart.
    pub(crate) port: Option<u16>,
    /// Whether it is wanted to run.
    pub(crate) compute: ComputeState,
    /// State of its process.
    pub(crate) state: AppState,
    /// Sentence about that state.
    pub(crate) message: String,
    /// The deployment that runs, or would run if the app were started.
    pub(crate) active: Option<String>,
    /// The deployment that is on its way.
    pub(crate) pending: Option<String>,
}

/// A database an app's process connects to.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    /// Name of the resource within the app.
    pub(crate) resource: String,
    /// Endpoint to connect to.
    pub(crate) endpoint: EndpointName,
    /// Unique id of the branch.
    pub(crate) branch_uid: String,
    /// Host of the endpoint.
    pub(crate) host: String,
    /// Port of the endpoint.
    pub(crate) port: u16,
    /// Name of the database in Postgres.
    pub(crate) database: String,
}

impl World {
    /// Creates an app with its own identity; its compute runs unless `no_compute` is set.
    pub(crate) fn create_app(
        &mut self,
        body: &Value,
        no_compute: bool,
        caller: &Caller,
        now: Timestamp,
    ) -> Answer<()> {
        let wanted: App = super::parse(body)?;
        check_app_name(&wanted.name).map_err(Fault::invalid)?;
        let name = wanted.name.as_str();
        if self.apps.contains_key(name) {
            let text = format!("An app with the same name already exists: {name}");
            return Err(Fault::new(409, "RESOURCE_ALREADY_EXISTS", text));
        }
        let attached = self.check_resources(&wanted.resources, &[], caller)?;
        let identity = self.add_service_principal(&format!("app-{name}"), Some(name), false);
        let app = AppRecord {
            name: wanted.name.clone(),
            id: ids::uuid(),
            description: wanted.description,
            creator: caller.user_name.clone(),
            create_time: now,
            update_time: now,
            resources: wanted.resources,
            attached,
            user_api_scopes: wanted.user_api_scopes,
            other: passed_on(body),
            client_id: identity.user_name,
            port: None,
            compute: if no_compute { ComputeState::Stopped } else { ComputeState::Active },
            state: AppState::Unavailable,
            message: String::new(),
            active: None,
            pending: None,
        };
        self.touch(Shelf::Apps, &app.name);
        self.apps.insert(app.name.clone(), app);
        Ok(())
    }

    /// Refuses resources that point at nothing, and those that are not among `attached` and that `caller` may not
    /// give away; returns the unique ids of all of them.
    ///
    /// A login in a database is made with the right to manage its project, and so is an app's; whether somebody may
    /// enter an app is for who manages that app. An app that is not there yet is attached when it is, at the next
    /// deployment.
    pub(super) fn check_resources(
        &self,
        resources: &[AppResource],
        attached: &[String],
        caller: &Caller,
    ) -> Answer<Vec<String>> {
        let mut all = Vec::new();
        for resource in resources {
            if let Some(postgres) = &resource.postgres {
                let project = &postgres.branch.project;
                self.branch(project, &postgres.branch.branch)?;
                database_name(postgres)?;
                let uid = &self.project(project)?.uid;
                if !attached.contains(uid) {
                    self.require_manage(caller, project)?;
                }
                all.push(uid.clone());
            }
            let sibling = resource.app.as_ref().and_then(|sibling| self.apps.get(&sibling.name));
            if let Some(sibling) = sibling {
                if !attached.contains(&sibling.id) {
                    self.require_manage_app(caller, &sibling.name)?;
                }
                all.push(sibling.id.clone());
            }
        }
        Ok(all)
    }

    /// Returns an app as it is kept.
    pub(crate) fn app(&self, name: &str) -> Answer<&AppRecord> {
        self.apps.get(name).ok_or_else(|| {
            Fault::new(
                404,
                "RESOURCE_DOES_NOT_EXIST",
                format!("Resource apps.App not found: {name}"),
            )
        })
    }

    /// Returns what the token is good for that the gateway of an app forwards for its user.
    ///
    /// Source of the scopes every app has: product documentation, "Configure authorization in a
    /// Databricks app", read 2026-08.
    pub(crate) fn user_scopes(&self, name: &str) -> Vec<String> {
        let asked = self.apps.get(name).map_or(&[][..], |app| &app.user_api_scopes);
        let always = ["iam.access-control:read", "iam.current-user:read"].map(str::to_owned);
        [&always, asked].concat()
    }

    /// Returns an app as it goes over the wire.
    pub(crate) fn get_app(&self, name: &str) -> Answer<Value> {
        Ok(self.wire_app(self.app(name)?))
    }

    /// Returns a page of apps and the token of the next one.
    pub(crate) fn list_apps(&self, request: &PageRequest) -> Answer<(Vec<Value>, Option<String>)> {
        let (page, next) = request.cut(self.apps.values(), |app| app.name.clone())?;
        Ok((page.into_iter().map(|app| self.wire_app(app)).collect(), next))
    }

    /// Returns every app as it is kept.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &AppRecord> {
        self.apps.values()
    }

    /// Changes an app: the fields of `mask`, for `*` all that the body holds. Without a mask the body is
    /// the whole app, and what it leaves out is cleared.
    ///
    /// Source: Python SDK 0.156.0, `AppsAPI.update`, read 2026-11.
    pub(crate) fn update_app(
        &mut self,
        name: &str,
        body: &Value,
        mask: Option<&str>,
        caller: &Caller,
        now: Timestamp,
    ) -> Answer<()> {
        self.app(name)?;
        let mut body = body.clone();
        body["name"] = Value::from(name);
        let wanted: App = super::parse(&body)?;
        let chosen = |field: &str| match mask {
            None => true,
            Some("*") => body.get(field).is_some(),
            Some(mask) => mask.split(',').any(|named| named.trim() == field),
        };
        let before = &self.app(name)?.attached;
        let attached = match chosen("resources") {
            true => Some(self.check_resources(&wanted.resources, before, caller)?),
            false => None,
        };
        let mut other = self.app(name)?.other.clone();
        for field in PASSED_ON.into_iter().filter(|field| chosen(field)) {
            match body.get(field) {
                Some(value) if !value.is_null() => other.insert(field.to_owned(), value.clone()),
                _ => other.shift_remove(field),
            };
        }
        let (description, scopes) = (chosen("description"), chosen("user_api_scopes"));
        self.with_app(name, |app| {
            if description {
                app.description = wanted.description;
            }
            if let Some(attached) = attached {
                (app.resources, app.attached) = (wanted.resources, attached);
            }
            if scopes {
                app.user_api_scopes = wanted.user_api_scopes;
            }
            app.other = other;
            app.update_time = now;
        });
        Ok(())
    }

    /// Marks an app as being deleted.
    pub(crate) fn delete_app(&mut self, name: &str, now: Timestamp) -> Answer<()> {
        let app = self.app(name)?;
        if app.compute == ComputeState::Deleting {
            return Err(Fault::bad_request(format!(
                "Cannot delete app {name} as it is not terminal with state DELETING, and was updated less than 20 minutes ago. Please try again later."
            )));
        }
        self.cancel_pending(name, now);
        self.with_app(name, |app| {
            app.compute = ComputeState::Deleting;
            app.state = AppState::Unavailable;
            app.update_time = now;
        });
        Ok(())
    }

    /// Removes an app that was being deleted, with its identity and deployments.
    pub(crate) fn remove_app(&mut self, name: &str) {
        let Some(app) = self.apps.remove(name) else { return };
        self.touch(Shelf::Apps, name);
        for deployment in self.deployments.remove(name).unwrap_or_default() {
            self.touch(Shelf::Deployments, deployment_uid(name, &id_of(&deployment)));
        }
        self.remove_identity(&app.client_id);
        self.revoke(&format!("apps/{name}"));
    }

    /// Turns the compute of an app on.
    pub(crate) fn start_app(&mut self, name: &str, now: Timestamp) -> Answer<()> {
        if self.app(name)?.compute == ComputeState::Deleting {
            return Err(Fault::bad_request(format!("App {name} is being deleted")));
        }
        self.with_app(name, |app| {
            if app.compute != ComputeState::Active {
                app.compute = ComputeState::Active;
                app.update_time = now;
                if app.active.is_some() {
                    app.state = AppState::Deploying;
                    app.message = "App is starting".to_owned();
                }
            }
        });
        Ok(())
    }

    /// Turns the compute of an app off; a deployment on its way is cancelled.
    pub(crate) fn stop_app(&mut self, name: &str, now: Timestamp) -> Answer<()> {
        if self.app(name)?.compute == ComputeState::Deleting {
            return Err(Fault::bad_request(format!("App {name} is being deleted")));
        }
        self.cancel_pending(name, now);
        self.with_app(name, |app| {
            if app.compute == ComputeState::Stopped {
                return;
            }
            app.compute = ComputeState::Stopping;
            app.state = AppState::Unavailable;
            app.update_time = now;
        });
        Ok(())
    }

    /// Reports that the process of an app has ended whose compute was to be; it may have been started again meanwhile.
    pub(crate) fn finish_stop(&mut self, name: &str) {
        self.with_app(name, |app| {
            if app.compute == ComputeState::Stopping {
                app.compute = ComputeState::Stopped;
            }
        });
    }

    /// Returns the databases an app is attached to, in the order of its resources.
    ///
    /// Fails for a project that was made anew since it was attached.
    pub(crate) fn attachments(&self, name: &str) -> Answer<Vec<Attachment>> {
        let mut attachments = Vec::new();
        let app = self.app(name)?;
        for resource in &app.resources {
            let Some(postgres) = &resource.postgres else { continue };
            let BranchName { project, branch } = &postgres.branch;
            if !app.is_attached_to(&self.project(project)?.uid) {
                return Err(Fault::denied(format!(
                    "App {name} is not attached to this database project {project}: who manages both deploys it again."
                )));
            }
            let branch = self.branch(project, branch)?;
            let endpoint = branch.endpoints.first().ok_or_else(|| Fault::missing("endpoint"))?;
            let Some(address) = endpoint.address else { return Err(Fault::busy(branch.name())) };
            attachments.push(Attachment {
                resource: resource.name.clone(),
                endpoint: branch.name().endpoint(&endpoint.id),
                branch_uid: branch.uid.clone(),
                host: address.ip.to_string(),
                port: address.port,
                database: database_name(postgres)?.to_owned(),
            });
        }
        Ok(attachments)
    }

    /// Changes an app in place.
    pub(crate) fn with_app(&mut self, name: &str, change: impl FnOnce(&mut AppRecord)) {
        if self.apps.contains_key(name) {
            self.touch(Shelf::Apps, name);
        }
        self.apps.get_mut(name).map(change);
    }

    fn wire_app(&self, app: &AppRecord) -> Value {
        let identity = self.identity(&app.client_id);
        let running = app.compute == ComputeState::Active;
        let active =
            app.active.as_deref().and_then(|id| self.deployment(&app.name, id).ok()).map(public);
        let pending =
            app.pending.as_deref().and_then(|id| self.deployment(&app.name, id).ok()).map(public);
        let wire = App {
            name: app.name.clone(),
            description: app.description.clone(),
            id: Some(app.id.clone()),
            url: app.port.map(|port| format!("http://127.0.0.1:{port}")),
            creator: Some(app.creator.clone()),
            create_time: Some(app.create_time),
            update_time: Some(app.update_time),
            compute_status: Some(ComputeStatus {
                state: app.compute,
                message: compute_message(app.compute).to_owned(),
            }),
            app_status: Some(app.status()),
            default_source_code_path: active
                .as_ref()
                .and_then(|deployment| deployment.source_code_path.clone()),
            active_deployment: active.filter(|_| running),
            pending_deployment: pending,
            resources: app.resources.clone(),
            user_api_scopes: app.user_api_scopes.clone(),
            service_principal_client_id: Some(app.client_id.clone()),
            service_principal_id: identity.map(|identity| identity.id),
            service_principal_name: identity.map(|identity| identity.display_name.clone()),
        };
        let mut value = super::operations::response(&wire);
        if let Value::Object(fields) = &mut value {
            let size = Value::from("MEDIUM");
            fields.insert("compute_size".to_owned(), size);
            fields.extend(app.other.clone());
        }
        value
    }
}

impl AppRecord {
    fn status(&self) -> AppStatus {
        let message = match (self.compute, self.active.is_some() || self.pending.is_some()) {
            (ComputeState::Active, true) => self.message.clone(),
            (ComputeState::Active, false) => {
                "App has not been deployed yet. Deploy source code to run it.".to_owned()
            }
            _ => "App status is unavailable.".to_owned(),
        };
        AppStatus { state: self.state, message }
    }

    /// Returns whether the project or app with the unique id `uid` is attached to it.
    pub(crate) fn is_attached_to(&self, uid: &str) -> bool {
        self.attached.iter().any(|attached| attached == uid)
    }
}

fn compute_message(state: ComputeState) -> &'static str {
    match state {
        ComputeState::Active => "App compute is active.",
        ComputeState::Deleting => "App compute is being deleted.",
        ComputeState::Stopping => "App compute is stopping.",
        _ => "App compute is stopped.",
    }
}

fn passed_on(body: &Value) -> Map<String, Value> {
    PASSED_ON
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), body.get(field)?.clone())))
        .filter(|(_, value)| !value.is_null())
        .collect()
}

/// Returns the name in Postgres of the database a resource names.
fn database_name(resource: &PostgresResource) -> Answer<&'static str> {
    let expected = format!("{}/databases/{DEFAULT_DATABASE_ID}", resource.branch);
    if resource.database != expected {
        return Err(Fault::new(
            404,
            "NOT_FOUND",
            format!("database id not found: {} [TraceId: {}]", resource.database, ids::hex(16)),
        ));
    }
    Ok(DEFAULT_DATABASE)
}
