//! Projects: creation with the implicit branch and endpoint, update, soft deletion and its undoing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branches::BranchRecord;
use super::databases::DatabaseRecord;
use super::endpoints::{EndpointRecord, check_settings, effective_settings, merge_settings};
use super::instances::InstanceRecord;
use super::mask::{Fields, Mask};
use super::operations::{empty, response};
use super::roles::RoleRecord;
use super::{Caller, PageRequest, Started, Work, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::store::Shelf;
use crate::time::Ttl;
use crate::wire::names::{PRIMARY_ENDPOINT, ProjectName, ROOT_BRANCH, check_id};
use crate::wire::postgres::{EndpointSettings, Project, ProjectList, ProjectSpec, ProjectStatus};

/// How long the data of something deleted stays, and its id is reserved.
pub(super) const KEPT_AFTER_DELETION: SignedDuration = SignedDuration::from_hours(7 * 24);
/// History a project keeps unless asked otherwise.
const RETENTION: Ttl = Ttl::from_secs(7 * 86_400);
const RETENTION_LEAST: Duration = Duration::from_secs(172_800);
const RETENTION_MOST: Duration = Duration::from_secs(3_024_000);
/// Largest logical size of a branch: 8 TiB.
const BRANCH_SIZE_LIMIT: u64 = 8_796_093_022_208;
const MOST_PROJECTS: usize = 1000;

/// A project as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProjectRecord {
    /// Id in paths.
    pub(crate) id: String,
    /// Unique id.
    pub(crate) uid: String,
    /// Login name of who created it.
    pub(crate) owner: String,
    /// When it was created.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// When it was deleted.
    pub(crate) delete_time: Option<Timestamp>,
    /// When its data goes for good.
    pub(crate) purge_time: Option<Timestamp>,
    /// Name for people.
    pub(crate) display_name: String,
    /// Major version of its PostgreSQL server.
    pub(crate) pg_version: u32,
    /// How far back a branch may start.
    pub(crate) history_retention_duration: Ttl,
    /// Settings that new endpoints start with.
    pub(crate) default_endpoint_settings: EndpointSettings,
    /// Id of the default branch.
    pub(crate) default_branch: String,
    /// Whether password logins are allowed.
    pub(crate) enable_pg_native_login: bool,
    /// What makes it a provisioned instance, for one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<InstanceRecord>,
    /// Fields that are kept and given back without meaning here.
    pub(crate) other: BTreeMap<String, Value>,
}

/// Body of a request about a project.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ProjectBody {
    /// What is wanted.
    #[serde(default)]
    pub(crate) spec: ProjectSpec,
    /// What is wanted of the implicit branch; creation only.
    initial_branch_spec: Option<InitialBranch>,
    /// What is wanted of the implicit endpoint; creation only.
    initial_endpoint_spec: Option<EndpointSettings>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct InitialBranch {
    #[serde(default)]
    is_protected: bool,
}

const FIELDS: Fields = Fields {
    leaves: &[
        "spec.display_name",
        "spec.history_retention_duration",
        "spec.default_endpoint_settings.autoscaling_limit_min_cu",
        "spec.default_endpoint_settings.autoscaling_limit_max_cu",
        "spec.default_endpoint_settings.suspend_timeout_duration",
        "spec.default_endpoint_settings.no_suspension",
        "spec.default_endpoint_settings.pg_settings",
        "spec.default_branch",
        "spec.enable_pg_native_login",
        "spec.budget_policy_id",
        "spec.custom_tags",
    ],
    groups: &[
        (
            "spec.default_endpoint_settings",
            &[
                "spec.default_endpoint_settings.autoscaling_limit_min_cu",
                "spec.default_endpoint_settings.autoscaling_limit_max_cu",
                "spec.default_endpoint_settings.suspend_timeout_duration",
                "spec.default_endpoint_settings.no_suspension",
                "spec.default_endpoint_settings.pg_settings",
            ],
        ),
        (
            "spec.project_default_settings.suspension",
            &[
                "spec.default_endpoint_settings.suspend_timeout_duration",
                "spec.default_endpoint_settings.no_suspension",
            ],
        ),
        (
            "spec.default_endpoint_settings.suspension",
            &[
                "spec.default_endpoint_settings.suspend_timeout_duration",
                "spec.default_endpoint_settings.no_suspension",
            ],
        ),
    ],
    lists: &["spec.default_endpoint_settings.pg_settings", "spec.custom_tags"],
};

/// Fields of a spec that are kept and given back without meaning here.
const PASSED_ON: [&str; 2] = ["budget_policy_id", "custom_tags"];

impl World {
    /// Creates the project `id` with its branch `production` and that branch's endpoint `primary`.
    pub(crate) fn create_project(
        &mut self,
        id: Option<&str>,
        body: ProjectBody,
        caller: &Caller,
        now: Timestamp,
    ) -> Answer<Started> {
        let id = checked_id("project_id", id)?;
        if self.projects.contains_key(id) {
            let text = "project with such id already exists in the workspace";
            return Err(Fault::taken(text));
        }
        if self.projects.len() >= MOST_PROJECTS {
            let text = format!("the workspace has {MOST_PROJECTS} projects, the most there may be");
            return Err(Fault::exhausted(text));
        }
        let ProjectBody { spec, initial_branch_spec, initial_endpoint_spec } = body;
        self.check_version(spec.pg_version)?;
        check_spec(&spec)?;
        let settings =
            effective_settings(&spec.default_endpoint_settings.clone().unwrap_or_default());
        let initial = initial_endpoint_spec.unwrap_or_default();
        check_settings(&initial)?;
        let mut endpoint_settings = settings.clone();
        merge_settings(&mut endpoint_settings, &initial, |field| field != "pg_settings")?;

        let mut branch = BranchRecord::new(id, ROOT_BRANCH, now);
        branch.protected = initial_branch_spec.unwrap_or_default().is_protected;
        branch.roles = vec![RoleRecord::owner(&branch, &caller.user_name, caller.kind)];
        branch.databases = vec![DatabaseRecord::default_of(&caller.user_name, now)];
        branch.endpoints = vec![EndpointRecord::new(PRIMARY_ENDPOINT, endpoint_settings, now)];
        let name = ProjectName::new(id);
        let operation = self.begin("Project", &name, now);
        branch.operation = Some(operation.clone());
        let project = ProjectRecord {
            id: id.to_owned(),
            uid: ids::uuid(),
            owner: caller.user_name.clone(),
            create_time: now,
            update_time: now,
            delete_time: None,
            purge_time: None,
            display_name: spec.display_name.unwrap_or_else(|| id.to_owned()),
            pg_version: self.postgres_major,
            history_retention_duration: spec.history_retention_duration.unwrap_or(RETENTION),
            default_endpoint_settings: settings,
            default_branch: ROOT_BRANCH.to_owned(),
            enable_pg_native_login: spec.enable_pg_native_login.unwrap_or(false),
            instance: None,
            other: spec
                .other
                .into_iter()
                .filter(|(key, _)| PASSED_ON.contains(&key.as_str()))
                .collect(),
        };
        let work = Work::CreateRoot(branch.uid.clone());
        self.insert_branch(branch);
        // Last, because a project on disk is one whose branch is on disk too.
        self.touch(Shelf::Projects, &project.uid);
        self.projects.insert(id.to_owned(), project);
        Ok(Started { operation, work })
    }

    /// Refuses a version the platform does not know. Whatever is asked for, the installed server serves.
    fn check_version(&self, wanted: Option<u32>) -> Answer<()> {
        match wanted {
            None | Some(16 | 17) => Ok(()),
            Some(wanted) if wanted == self.postgres_major => Ok(()),
            Some(wanted) => Err(Fault::invalid(format!(
                "pg_version {wanted} is not supported; supported versions are 16 and 17"
            ))),
        }
    }

    /// Returns the project `id` as it goes over the wire.
    pub(crate) fn get_project(&self, id: &str) -> Answer<Project> {
        Ok(self.project(id)?.wire())
    }

    /// Returns a page of projects.
    pub(crate) fn list_projects(&self, request: &PageRequest) -> Answer<ProjectList> {
        let shown = self
            .projects
            .values()
            .filter(|project| request.show_deleted || project.delete_time.is_none());
        let (page, next_page_token) = request.cut(shown, |project| project.id.clone())?;
        let projects = page.into_iter().map(ProjectRecord::wire).collect();
        Ok(ProjectList { projects, next_page_token })
    }

    /// Changes the fields that `mask` names.
    pub(crate) fn update_project(
        &mut self,
        id: &str,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Started> {
        let mut project = self.project(id)?.clone();
        if body.pointer("/spec/pg_version").is_some()
            && mask.is_some_and(|mask| mask.split(',').any(|path| path.trim() == "spec.pg_version"))
        {
            return Err(Fault::invalid("pg_version cannot be changed"));
        }
        let mask = Mask::parse(mask, &FIELDS, body)?;
        let spec = super::parse::<ProjectBody>(body)?.spec;
        check_spec(&spec)?;
        if let Some(name) = spec.display_name.filter(|_| mask.has("spec.display_name")) {
            project.display_name = name;
        }
        if let Some(retention) =
            spec.history_retention_duration.filter(|_| mask.has("spec.history_retention_duration"))
        {
            project.history_retention_duration = retention;
        }
        if let Some(native) =
            spec.enable_pg_native_login.filter(|_| mask.has("spec.enable_pg_native_login"))
        {
            project.enable_pg_native_login = native;
        }
        let settings = spec.default_endpoint_settings.unwrap_or_default();
        merge_settings(&mut project.default_endpoint_settings, &settings, |field| {
            mask.has(&format!("spec.default_endpoint_settings.{field}"))
        })?;
        if let Some(branch) = spec.default_branch.filter(|_| mask.has("spec.default_branch")) {
            if branch.project != id {
                return Err(Fault::invalid("default_branch must be a branch of the same project"));
            }
            if self.branch(id, &branch.branch)?.expire_time.is_some() {
                return Err(Fault::bad_request(
                    "The default branch cannot have an expiration date",
                ));
            }
            project.default_branch = branch.branch;
        }
        for key in PASSED_ON.into_iter().filter(|key| mask.has(&format!("spec.{key}"))) {
            match spec.other.get(key) {
                Some(value) => project.other.insert(key.to_owned(), value.clone()),
                None => project.other.remove(key),
            };
        }
        project.update_time = now;
        let answer = response(&project.wire());
        self.put_project(project);
        let operation = self.finished("Project", ProjectName::new(id), answer, now);
        Ok(Started { operation, work: Work::Nothing })
    }

    /// Deletes the project `id` with its branches: for good with `purge`, else so that it can be undeleted.
    pub(crate) fn delete_project(
        &mut self,
        id: &str,
        purge: bool,
        now: Timestamp,
    ) -> Answer<Started> {
        let project = match self.projects.get(id) {
            // What is deleted already may still be purged.
            Some(project) if project.delete_time.is_none() || purge => project.clone(),
            _ => return Err(Fault::missing("project")),
        };
        let branches = self.uids_of(id);
        for uid in &branches {
            let branch = &self.branches[uid];
            if branch.protected && branch.delete_time.is_none() {
                return Err(Fault::bad_request("cannot delete project with protected branches"));
            }
            if branch.busy() {
                return Err(Fault::busy(branch.name()));
            }
        }
        let work = if purge {
            self.drop_project(id);
            Work::Remove(branches)
        } else {
            let mut project = project;
            project.delete_time = Some(now);
            project.purge_time = Some(now + KEPT_AFTER_DELETION);
            project.update_time = now;
            self.put_project(project);
            Work::Retire(branches)
        };
        let operation = self.finished("Project", ProjectName::new(id), empty(), now);
        Ok(Started { operation, work })
    }

    /// Brings a deleted project back.
    pub(crate) fn undelete_project(&mut self, id: &str, now: Timestamp) -> Answer<Started> {
        let project = self.projects.get(id).ok_or_else(|| Fault::missing("project"))?;
        if project.delete_time.is_none() {
            return Err(Fault::bad_request("project is not deleted"));
        }
        let mut project = project.clone();
        project.delete_time = None;
        project.purge_time = None;
        project.update_time = now;
        let answer = response(&project.wire());
        self.put_project(project);
        let live = self.live_of(id).map(|branch| branch.uid.clone()).collect();
        let operation = self.finished("Project", ProjectName::new(id), answer, now);
        Ok(Started { operation, work: Work::Revive(live) })
    }

    /// Purges the projects whose time is up; returns the uids of the branches that went with them.
    pub(super) fn purge_projects(&mut self, now: Timestamp) -> Vec<String> {
        let due: Vec<String> = self
            .projects
            .values()
            .filter(|project| project.purge_time.is_some_and(|time| time <= now))
            .map(|project| project.id.clone())
            .collect();
        let mut gone = Vec::new();
        for id in due {
            gone.extend(self.uids_of(&id));
            self.drop_project(&id);
        }
        gone
    }

    /// Removes a project and its branches. The project goes first: a branch without one is cleared at start.
    pub(super) fn drop_project(&mut self, id: &str) {
        if let Some(project) = self.projects.remove(id) {
            self.touch(Shelf::Projects, project.uid);
        }
        self.revoke(&format!("database-projects/{id}"));
        for uid in self.uids_of(id) {
            self.drop_branch(&uid);
        }
    }

    /// Returns the project `id` unless it is deleted.
    pub(crate) fn project(&self, id: &str) -> Answer<&ProjectRecord> {
        self.projects
            .get(id)
            .filter(|project| project.delete_time.is_none())
            .ok_or_else(|| Fault::missing("project"))
    }

    /// Changes a project in place.
    pub(super) fn with_project(&mut self, id: &str, change: impl FnOnce(&mut ProjectRecord)) {
        if let Some(uid) = self.projects.get(id).map(|project| project.uid.clone()) {
            self.touch(Shelf::Projects, uid);
        }
        self.projects.get_mut(id).map(change);
    }

    fn put_project(&mut self, project: ProjectRecord) {
        self.touch(Shelf::Projects, &project.uid);
        self.projects.insert(project.id.clone(), project);
    }

    /// Returns how many projects there are.
    pub(crate) fn count_projects(&self) -> usize {
        self.projects.values().filter(|project| project.delete_time.is_none()).count()
    }
}

impl ProjectRecord {
    /// Returns the project as it goes over the wire.
    pub(super) fn wire(&self) -> Project {
        let name = ProjectName::new(&self.id);
        Project {
            project_id: Some(self.id.clone()),
            uid: self.uid.clone(),
            create_time: Some(self.create_time),
            update_time: Some(self.update_time),
            delete_time: self.delete_time,
            purge_time: self.purge_time,
            status: ProjectStatus {
                project_id: self.id.clone(),
                display_name: self.display_name.clone(),
                pg_version: self.pg_version,
                owner: self.owner.clone(),
                default_branch: Some(name.branch(&self.default_branch)),
                history_retention_duration: Some(self.history_retention_duration),
                enable_pg_native_login: self.enable_pg_native_login,
                branch_logical_size_limit_bytes: Some(BRANCH_SIZE_LIMIT),
                synthetic_storage_size_bytes: 0,
                default_endpoint_settings: self.default_endpoint_settings.clone(),
                other: self.other.clone(),
            },
            name,
        }
    }
}

/// Returns the id a create request names, in the platform's words when it is missing or wrong.
pub(super) fn checked_id<'a>(parameter: &str, id: Option<&'a str>) -> Answer<&'a str> {
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| Fault::required(parameter))?;
    check_id(id).map_err(|wrong| Fault::invalid(format!("Invalid {parameter}: {wrong}")))?;
    Ok(id)
}

fn check_spec(spec: &ProjectSpec) -> Answer<()> {
    if let Some(name) = &spec.display_name
        && !(1..=256).contains(&name.chars().count())
    {
        return Err(Fault::invalid("display_name must have 1 to 256 characters"));
    }
    if let Some(Ttl(retention)) = spec.history_retention_duration
        && !(RETENTION_LEAST..=RETENTION_MOST).contains(&retention)
    {
        return Err(Fault::invalid(
            "history_retention_duration must be between 172800s and 3024000s",
        ));
    }
    match &spec.default_endpoint_settings {
        Some(settings) => check_settings(settings),
        None => Ok(()),
    }
}
