//! The state of the embedded workspace: a plain state machine without I/O; the time is passed in.
//!
//! A request is checked and applied here at once; what takes time (copying a cluster, starting a process) is
//! named in the [`Work`] that comes back, done by others, and reported through the `finish_…` methods.

mod apps;
mod branches;
mod catalog;
mod databases;
mod deployments;
mod endpoints;
mod folders;
mod identities;
mod instances;
mod lineage;
mod load;
mod mask;
mod operations;
mod page;
mod permissions;
mod projects;
mod roles;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

pub(crate) use apps::{AppRecord, Attachment};
pub(crate) use branches::BranchRecord;
pub(crate) use catalog::CatalogWork;
pub(crate) use deployments::{Launch, id_of, public};
pub(crate) use endpoints::{Address, EndpointRecord};
pub(crate) use folders::{FILE_KINDS, FileLevel};
pub(crate) use identities::{Caller, IdentityRecord};
pub(crate) use operations::OperationRecord;
pub(crate) use page::PageRequest;
pub(crate) use permissions::{AccessControl, AccessList, levels_of};
pub(crate) use projects::{ProjectBody, ProjectRecord};
pub(crate) use roles::Challenge;

use super::fault::{Answer, Fault};
use super::store::{Change, Shelf};
use crate::wire::apps::Deployment;

/// Facts of the workspace itself, drawn once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Numeric id of the workspace.
    pub(crate) workspace_id: u64,
    /// Second and third number of the loopback addresses its endpoints get.
    pub(crate) network: u16,
    /// Port of the REST API; kept so that hosts stay valid over a restart.
    pub(crate) port: u16,
}

/// What is left to be done after a change was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing: the operation is finished.
    Nothing,
    /// Make the first cluster of a project: the uid of its branch.
    CreateRoot(String),
    /// Make the cluster of a branch from its source: the uid of the branch.
    CreateChild(String),
    /// Close the endpoints and stop the computes of these branches, whose data stays.
    Retire(Vec<String>),
    /// Close the endpoints and remove the clusters of these branches.
    Remove(Vec<String>),
    /// Open the endpoints of these branches again.
    Revive(Vec<String>),
    /// Make the cluster of a read-only endpoint: the uids of its branch and its own.
    CreateStandby { branch: String, endpoint: String },
    /// Close this read-only endpoint, by its uid, and remove its cluster.
    RemoveStandby(String),
    /// Let the computes of this branch follow the settings of their endpoints.
    Adjust(String),
    /// Change the roles or databases of a branch.
    Catalog(Box<CatalogWork>),
}

/// An accepted change.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    /// Id of the operation that tells how it ends.
    pub(crate) operation: String,
    /// What is left to be done.
    pub(crate) work: Work,
}

/// Everything the workspace knows.
#[derive(Debug)]
pub(crate) struct World {
    /// Facts of the workspace itself.
    pub(crate) settings: Settings,
    /// Major version of the PostgreSQL server that is installed.
    postgres_major: u32,
    identities: BTreeMap<String, IdentityRecord>,
    projects: BTreeMap<String, ProjectRecord>,
    /// Branches by uid, deleted ones included.
    branches: HashMap<String, BranchRecord>,
    /// Uids of the branches that are not deleted, by project and id.
    live: BTreeMap<(String, String), String>,
    operations: HashMap<String, OperationRecord>,
    apps: BTreeMap<String, AppRecord>,
    /// Deployments by app, newest last.
    deployments: BTreeMap<String, Vec<Deployment>>,
    permissions: BTreeMap<String, AccessList>,
    touched: Vec<(Shelf, String)>,
}

impl World {
    /// Creates a world without objects.
    pub(crate) fn new(settings: Settings, postgres_major: u32) -> Self {
        World {
            settings,
            postgres_major,
            identities: BTreeMap::new(),
            projects: BTreeMap::new(),
            branches: HashMap::new(),
            live: BTreeMap::new(),
            operations: HashMap::new(),
            apps: BTreeMap::new(),
            deployments: BTreeMap::new(),
            permissions: BTreeMap::new(),
            touched: Vec::new(),
        }
    }

    /// Notes that an object changed; its state at [`World::take_changes`] is what is written.
    fn touch(&mut self, shelf: Shelf, uid: impl Into<String>) {
        let key = (shelf, uid.into());
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }

    /// Marks the workspace's own facts as changed.
    pub(crate) fn touch_settings(&mut self) {
        self.touch(Shelf::Settings, "workspace");
    }

    /// Returns what changed since the last call, in the order it was first touched.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        touched
            .into_iter()
            .map(|(shelf, uid)| Change { content: self.content(shelf, &uid), shelf, uid })
            .collect()
    }

    fn content(&self, shelf: Shelf, uid: &str) -> Option<Box<RawValue>> {
        match shelf {
            Shelf::Settings => json(Some(&self.settings)),
            Shelf::Identities => json(self.identities.get(uid)),
            Shelf::Projects => json(self.projects.values().find(|project| project.uid == uid)),
            Shelf::Branches => json(self.branches.get(uid)),
            Shelf::Operations => json(self.operations.get(uid)),
            Shelf::Apps => json(self.apps.get(uid)),
            Shelf::Deployments => json(self.deployment_record(uid).as_ref()),
            Shelf::Permissions => json(self.permissions.get(uid)),
        }
    }
}

fn json<T: Serialize>(object: Option<&T>) -> Option<Box<RawValue>> {
    object.map(|object| to_raw_value(object).expect("records hold nothing that JSON cannot"))
}

/// Reads a request body that was parsed as JSON already; says which field is wrong.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(body: &serde_json::Value) -> Answer<T> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        Fault::new(400, "MALFORMED_REQUEST", format!("Could not parse request object: {error}"))
    })
}

/// Cuts `time` to whole milliseconds, which every client's timestamp type keeps.
pub(crate) fn whole_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
