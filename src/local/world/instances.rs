//! Provisioned instances: each is a project with one branch, seen through the older API.
//!
//! The platform creates new instances as projects too. Source: schema of the Databricks CLI 1.13, read 2026-11.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::branches::BranchRecord;
use super::lineage::Source;
use super::mask::{Fields, Mask};
use super::projects::{ProjectBody, ProjectRecord};
use super::{Caller, PageRequest, Started, Work, World};
use crate::local::fault::{Answer, Fault};
use crate::time::Ttl;
use crate::wire::instances::{
    Capacity, Instance, InstanceList, InstanceRef, InstanceSpec, InstanceState,
};
use crate::wire::names::ROOT_BRANCH;

const DAY: u64 = 86_400;
const DAYS_LEAST: u32 = 2;
const DAYS_MOST: u32 = 35;

/// What makes a project a provisioned instance, beside what every project has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    capacity: Capacity,
    /// The instance it started as a copy of.
    parent: Option<InstanceRef>,
    custom_tags: Vec<Value>,
    usage_policy_id: Option<String>,
}

const FIELDS: Fields = Fields {
    leaves: &[
        "capacity",
        "node_count",
        "enable_readable_secondaries",
        "enable_pg_native_login",
        "retention_window_in_days",
        "stopped",
        "custom_tags",
        "usage_policy_id",
    ],
    groups: &[],
    lists: &["custom_tags"],
};

impl World {
    /// Creates an instance: empty, or a copy of its parent at a moment.
    ///
    /// `oldest` is the earliest moment the parent can be copied at, when one was asked for.
    pub(crate) fn create_instance(
        &mut self,
        spec: InstanceSpec,
        oldest: Option<Timestamp>,
        caller: &Caller,
        now: Timestamp,
    ) -> Answer<Started> {
        let name = spec.name.clone().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Fault::required("database_instance.name"))?;
        if self.projects.contains_key(&name) {
            let text = format!("database instance name '{name}' is not unique");
            return Err(Fault::taken(text));
        }
        check(&spec)?;
        let copied = match &spec.parent_instance_ref {
            Some(parent) => Some(self.parent_of(parent, oldest, now)?),
            None => None,
        };
        let capacity = spec.capacity.unwrap_or(Capacity::One);
        let body = json!({ "spec": {
            "enable_pg_native_login": spec.enable_pg_native_login.unwrap_or(false),
            "default_endpoint_settings": {
                "autoscaling_limit_min_cu": capacity.units(),
                "autoscaling_limit_max_cu": capacity.units(),
                "no_suspension": true,
            },
        } });
        let started =
            self.create_project(Some(&name), super::parse::<ProjectBody>(&body)?, caller, now)?;
        let record = InstanceRecord {
            capacity,
            parent: copied.as_ref().map(|(parent, _)| parent.clone()),
            custom_tags: spec.custom_tags.unwrap_or_default(),
            usage_policy_id: spec.usage_policy_id,
        };
        let days = spec.retention_window_in_days;
        self.with_project(&name, |project| {
            project.instance = Some(record);
            keep_days(project, days);
        });
        let uid = self.uid(&name, ROOT_BRANCH).unwrap_or_default();
        let stopped = spec.stopped.unwrap_or(false);
        let source = copied.map(|(_, source)| {
            let parent = &self.branches[&source.uid];
            (parent.roles.clone(), parent.databases.clone(), source)
        });
        let Some((roles, databases, source)) = source else {
            self.with_branch(&uid, |branch| disable(branch, stopped));
            return Ok(started);
        };
        self.with_branch(&uid, |branch| {
            disable(branch, stopped);
            branch.roles = roles;
            branch.databases = databases;
            branch.source = Some(source);
        });
        Ok(Started { work: Work::CreateChild(uid), ..started })
    }

    /// Returns the uid of the branch that a creation copies, if it copies any.
    pub(crate) fn parent_uid(&self, parent: &InstanceRef) -> Answer<String> {
        Ok(self.root_of(self.parent_instance(parent)?)?.uid.clone())
    }

    fn parent_instance(&self, parent: &InstanceRef) -> Answer<&ProjectRecord> {
        match (&parent.name, &parent.uid) {
            (Some(name), _) => self.instance(name),
            (None, Some(uid)) => self.instance_by_uid(uid),
            (None, None) => Err(Fault::required("parent_instance_ref.name")),
        }
    }

    /// Returns the parent as it is kept, and where the branch of its copy comes from.
    fn parent_of(
        &self,
        wanted: &InstanceRef,
        oldest: Option<Timestamp>,
        now: Timestamp,
    ) -> Answer<(InstanceRef, Source)> {
        let parent = self.parent_instance(wanted)?;
        let root = self.root_of(parent)?;
        if root.operation.is_some() {
            return Err(Fault::busy(&parent.id));
        }
        let wanted_time = wanted.branch_time.filter(|_| wanted.lsn.is_none());
        if let Some(time) = wanted_time {
            self.check_moment(&parent.id, "branch_time", time, oldest, now)?;
        }
        let kept = InstanceRef {
            name: Some(parent.id.clone()),
            uid: Some(parent.uid.clone()),
            branch_time: wanted_time,
            lsn: wanted.lsn.clone(),
            effective_lsn: None,
        };
        let source = Source {
            uid: root.uid.clone(),
            id: root.id.clone(),
            wanted_time,
            wanted_lsn: wanted.lsn.clone(),
            time: None,
            lsn: None,
        };
        Ok((kept, source))
    }

    /// Returns an instance as it goes over the wire.
    pub(crate) fn get_instance(&self, name: &str) -> Answer<Instance> {
        self.wire_instance(self.instance(name)?)
    }

    /// Returns the instance with this uid as it goes over the wire.
    pub(crate) fn find_instance(&self, uid: &str) -> Answer<Instance> {
        self.wire_instance(self.instance_by_uid(uid)?)
    }

    /// Returns a page of instances.
    pub(crate) fn list_instances(&self, request: &PageRequest) -> Answer<InstanceList> {
        let (page, next_page_token) =
            request.cut(self.instances(), |instance| instance.id.clone())?;
        let instances: Answer<Vec<Instance>> =
            page.into_iter().map(|instance| self.wire_instance(instance)).collect();
        Ok(InstanceList { database_instances: instances?, next_page_token })
    }

    /// Changes the fields that `mask` names, or all that `body` holds; returns what is left to be done.
    pub(crate) fn update_instance(
        &mut self,
        name: &str,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Work> {
        let uid = self.root_of(self.instance(name)?)?.uid.clone();
        let mask = Mask::parse(Some(mask.unwrap_or("*")), &FIELDS, body)?;
        let spec: InstanceSpec = super::parse(body)?;
        check(&spec)?;
        let capacity = spec.capacity.filter(|_| mask.has("capacity"));
        let days = spec.retention_window_in_days.filter(|_| mask.has("retention_window_in_days"));
        let native = spec.enable_pg_native_login.filter(|_| mask.has("enable_pg_native_login"));
        self.with_project(name, |project| {
            project.update_time = now;
            project.enable_pg_native_login = native.unwrap_or(project.enable_pg_native_login);
            keep_days(project, days);
            let Some(instance) = &mut project.instance else { return };
            instance.capacity = capacity.unwrap_or(instance.capacity);
            if mask.has("custom_tags") {
                instance.custom_tags = spec.custom_tags.unwrap_or_default();
            }
            if mask.has("usage_policy_id") {
                instance.usage_policy_id = spec.usage_policy_id.filter(|policy| !policy.is_empty());
            }
        });
        let stopped = spec.stopped.filter(|_| mask.has("stopped"));
        self.with_branch(&uid, |branch| {
            branch.update_time = now;
            if let Some(stopped) = stopped {
                disable(branch, stopped);
            }
            if let Some(capacity) = capacity {
                for endpoint in &mut branch.endpoints {
                    endpoint.settings.autoscaling_limit_min_cu = Some(capacity.units());
                    endpoint.settings.autoscaling_limit_max_cu = Some(capacity.units());
                }
            }
        });
        Ok(Work::Adjust(uid))
    }

    /// Deletes an instance for good, and its copies too with `force`; returns what is left to be done.
    ///
    /// Source of the rules: Python SDK 0.156.0 `delete_database_instance` and the Databricks CLI's test
    /// server, read 2026-11.
    pub(crate) fn delete_instance(&mut self, name: &str, force: bool, purge: bool) -> Answer<Work> {
        self.instance(name)?;
        if !purge {
            return Err(Fault::bad_request("DELETE request must have purge=true parameter"));
        }
        let victims = self.descendants_of(name);
        if victims.len() > 1 && !force {
            return Err(Fault::bad_request(format!(
                "database instance '{name}' has child instances; use force to delete them too"
            )));
        }
        let gone: Vec<String> = victims.iter().flat_map(|victim| self.uids_of(victim)).collect();
        for uid in &gone {
            let branch = &self.branches[uid];
            if branch.operation.is_some() {
                return Err(Fault::busy(branch.name()));
            }
        }
        victims.iter().for_each(|victim| self.drop_project(victim));
        Ok(Work::Remove(gone))
    }

    /// Returns an instance with the instances copied from it, and from those.
    fn descendants_of(&self, name: &str) -> Vec<String> {
        let mut found = vec![name.to_owned()];
        let mut next = 0;
        while let Some(parent) = found.get(next).and_then(|name| self.instance(name).ok()) {
            found.extend(self.children_of(parent).map(|child| child.id.clone()));
            next += 1;
        }
        found
    }

    fn children_of(&self, parent: &ProjectRecord) -> impl Iterator<Item = &ProjectRecord> {
        let uid = Some(parent.uid.clone());
        self.instances().filter(move |child| {
            let instance = child.instance.as_ref();
            instance.and_then(|instance| instance.parent.as_ref()).is_some_and(|of| of.uid == uid)
        })
    }

    fn instances(&self) -> impl Iterator<Item = &ProjectRecord> {
        self.projects
            .values()
            .filter(|project| project.instance.is_some() && project.delete_time.is_none())
    }

    fn instance(&self, name: &str) -> Answer<&ProjectRecord> {
        let found = self.projects.get(name).filter(|project| project.delete_time.is_none());
        found.filter(|project| project.instance.is_some()).ok_or_else(|| missing(name))
    }

    fn instance_by_uid(&self, uid: &str) -> Answer<&ProjectRecord> {
        self.instances().find(|instance| instance.uid == uid).ok_or_else(|| missing(uid))
    }

    fn root_of(&self, instance: &ProjectRecord) -> Answer<&BranchRecord> {
        self.branch(&instance.id, ROOT_BRANCH)
    }

    fn wire_instance(&self, project: &ProjectRecord) -> Answer<Instance> {
        let record = project.instance.as_ref().ok_or_else(|| missing(&project.id))?;
        let root = self.root_of(project)?;
        let endpoint = root.endpoints.first().filter(|_| root.operation.is_none());
        let stopped = root.endpoints.iter().all(|endpoint| endpoint.disabled);
        let address = endpoint.and_then(|endpoint| endpoint.address);
        let reference = |parent: &InstanceRef| InstanceRef {
            effective_lsn: root.source.as_ref().and_then(|source| source.lsn.clone()),
            ..parent.clone()
        };
        let child = |child: &ProjectRecord| InstanceRef {
            name: Some(child.id.clone()),
            uid: Some(child.uid.clone()),
            ..InstanceRef::default()
        };
        Ok(Instance {
            name: project.id.clone(),
            uid: project.uid.clone(),
            creator: project.owner.clone(),
            creation_time: project.create_time,
            state: match root.operation {
                Some(_) => InstanceState::Starting,
                None if stopped => InstanceState::Stopped,
                None => InstanceState::Available,
            },
            pg_version: format!("PG_VERSION_{}", project.pg_version),
            capacity: record.capacity,
            effective_capacity: record.capacity,
            effective_node_count: 1,
            effective_enable_readable_secondaries: false,
            effective_enable_pg_native_login: project.enable_pg_native_login,
            effective_retention_window_in_days: days_of(project),
            effective_stopped: stopped,
            read_write_dns: address.map(|address| address.ip.to_string()),
            port: address.map(|address| address.port).filter(|port| *port != 5432),
            parent_instance_ref: record.parent.as_ref().map(reference),
            child_instance_refs: self.children_of(project).map(child).collect(),
            custom_tags: record.custom_tags.clone(),
            effective_custom_tags: record.custom_tags.clone(),
            usage_policy_id: record.usage_policy_id.clone(),
        })
    }
}

fn missing(name: &str) -> Fault {
    Fault::new(404, "NOT_FOUND", format!("DatabaseInstance not found: {name}"))
}

fn check(spec: &InstanceSpec) -> Answer<()> {
    if spec.node_count.is_some_and(|nodes| nodes != 1)
        || spec.enable_readable_secondaries == Some(true)
    {
        return Err(Fault::new(
            501,
            "NOT_IMPLEMENTED",
            "secondaries of database instances are not served by the embedded workspace",
        ));
    }
    if spec.retention_window_in_days.is_some_and(|days| !(DAYS_LEAST..=DAYS_MOST).contains(&days)) {
        return Err(Fault::invalid("retention_window_in_days must be between 2 and 35"));
    }
    Ok(())
}

fn disable(branch: &mut BranchRecord, stopped: bool) {
    for endpoint in &mut branch.endpoints {
        endpoint.disabled = stopped;
    }
}

fn keep_days(project: &mut ProjectRecord, days: Option<u32>) {
    if let Some(days) = days {
        project.history_retention_duration = Ttl::from_secs(u64::from(days) * DAY);
    }
}

fn days_of(project: &ProjectRecord) -> u32 {
    u32::try_from(project.history_retention_duration.0.as_secs() / DAY).unwrap_or(DAYS_MOST)
}
