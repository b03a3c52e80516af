//! The record of a deployment: what it holds, kept beside it in the workspace's files, so that every
//! machine and every CI run knows it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::expand;
use crate::api::Client;
use crate::bundle::Bundle;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Change, ResourceKind};
use crate::ops::drift::Drift;

/// The file, below the deployment's folder in the workspace; `bundle destroy` deletes that folder.
const FILE: &str = "lakeforge/deployed.json";
/// Shape of the file.
const VERSION: u32 = 1;

/// What a deployment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// Name of the bundle.
    pub(crate) bundle: String,
    /// Target of the bundle.
    pub(crate) target: String,
    /// When it was deployed last.
    pub(crate) deployed_at: Timestamp,
    /// Who deployed it last.
    pub(crate) deployed_by: String,
    /// What it holds, each after what it depends on.
    pub(crate) resources: Vec<Entry>,
}

/// A resource of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Type and key in the bundle: `postgres_projects.shop`.
    pub(crate) resource: String,
    /// Name in the workspace, when it is known.
    pub(crate) name: String,
    /// Whether the bundle guards it with `prevent_destroy`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) guarded: bool,
    /// Whether it is deleted for good.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) purge: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Entry {
    /// Returns what `change` is about, as a record would name it.
    pub(crate) fn of(change: &Change) -> Self {
        let (resource, name) = (change.resource.clone(), change.name.clone());
        Entry { resource, name, guarded: false, purge: false }
    }

    /// Returns its kind.
    pub(crate) fn kind(&self) -> ResourceKind {
        ResourceKind::of(&self.resource)
    }

    /// Returns the name by which two descriptions of a deployment are compared.
    pub(crate) fn shown(&self) -> String {
        match self.name.is_empty() {
            true => self.resource.clone(),
            false if self.name.starts_with("projects/") => self.name.clone(),
            false => {
                let kind = self.resource.split('.').next().unwrap_or_default();
                format!("{kind}/{}", self.name)
            }
        }
    }

    /// Returns whether this goes when `other` does, because it is a part of it.
    pub(super) fn is_part_of(&self, other: &Entry) -> bool {
        !other.name.is_empty()
            && self.name.strip_prefix(&other.name).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Record {
    /// Describes what `bundle` deploys, for `user`.
    pub(crate) fn of(bundle: &Bundle, user: &str) -> Self {
        let entry = |resource: &crate::bundle::Resource| Entry {
            resource: resource.label(),
            name: resource
                .name
                .as_ref()
                .and_then(|name| expand(name, user).ok())
                .unwrap_or_default(),
            guarded: resource.is_guarded(),
            purge: resource.body.get("purge_on_delete") == Some(&true.into()),
        };
        Record {
            version: VERSION,
            bundle: bundle.name.clone(),
            target: bundle.target.name.clone(),
            deployed_at: Timestamp::now(),
            deployed_by: user.to_owned(),
            resources: bundle.resources().iter().map(entry).collect(),
        }
    }

    /// Returns the names of everything it holds.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.resources.iter().map(Entry::shown).collect()
    }

    /// Returns what this one holds and `now` does not.
    pub(super) fn lost(&self, now: &Record) -> Vec<Entry> {
        let names = now.names();
        let is_lost = |entry: &&Entry| !names.contains(&entry.shown());
        self.resources.iter().filter(is_lost).cloned().collect()
    }

    /// Returns what to keep while a deployment is on its way: what is there and what comes.
    pub(super) fn with(&self, lost: &[Entry]) -> Record {
        let resources = [lost, &self.resources].concat();
        Record { resources, ..self.clone() }
    }

    /// Compares what the bundle says now with what was deployed.
    pub(crate) fn drift(&self, now: &Record) -> Option<Drift> {
        let last = format!("the last deployment ({} by {})", self.deployed_at, self.deployed_by);
        Drift::between(("the bundle", now.names()), (&last, self.names()))
    }
}

/// Where the record of a deployment is.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    /// Folder of the deployment in the workspace.
    pub(crate) folder: String,
}

impl Shelf {
    /// Finds the place of the record of `bundle`, deployed by `user`.
    pub(crate) fn of(bundle: &Bundle, user: &str) -> Result<Self> {
        Ok(Shelf { folder: expand(&bundle.root_path, user)? })
    }

    fn file(&self) -> String {
        format!("{}/{FILE}", self.folder)
    }

    /// Reads the record; nothing comes back where nothing was deployed.
    ///
    /// Fails with `Conflict` for a record of a later version of the program.
    pub(crate) async fn read(&self, api: &Client) -> Result<Option<Record>> {
        let doing = || format!("could not read the record of the deployment, `{}`", self.file());
        let bytes = match api.export_file(&self.file()).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error).doing(doing),
        };
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let wrong =
            |error: serde_json::Error| Error::new(Kind::Failed, doing()).why(error.to_string());
        let head: Head = serde_json::from_slice(&bytes).map_err(wrong)?;
        if head.version > VERSION {
            return Err(Error::new(Kind::Conflict, doing())
                .why(format!("it has version {}, this program knows {VERSION}", head.version))
                .hint("use a lakeforge at least as new as the one that deployed"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Writes the record.
    pub(super) async fn write(&self, api: &Client, record: &Record) -> Result<()> {
        let doing = || format!("could not write the record of the deployment, `{}`", self.file());
        let file = self.file();
        let folder = file.rsplit_once('/').map_or("/", |(folder, _)| folder);
        api.make_folder(folder).await.doing(doing)?;
        let text = serde_json::to_vec_pretty(record).expect("a record is plain data");
        api.import_file(&file, text, true).await.doing(doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(resource: &str, name: &str) -> Entry {
        Entry { resource: resource.into(), name: name.into(), guarded: false, purge: false }
    }

    fn record(resources: Vec<Entry>) -> Record {
        Record {
            version: VERSION,
            bundle: "shop".into(),
            target: "dev".into(),
            deployed_at: "2026-11-20T12:00:00Z".parse().unwrap(),
            deployed_by: "me@a.test".into(),
            resources,
        }
    }

    #[test]
    fn a_new_key_for_the_same_thing_is_no_loss() {
        let then = record(vec![
            entry("postgres_projects.old", "projects/shop"),
            entry("postgres_branches.dev", "projects/shop/branches/dev"),
            entry("jobs.nightly", ""),
        ]);
        let now = record(vec![
            entry("postgres_projects.new", "projects/shop"),
            entry("apps.web", "web"),
            entry("jobs.nightly", ""),
        ]);

        let lost = then.lost(&now);

        assert_eq!(lost, [entry("postgres_branches.dev", "projects/shop/branches/dev")]);
        assert!(lost[0].is_part_of(&then.resources[0]));
        assert!(!entry("", "projects/shopper").is_part_of(&then.resources[0]));
        assert_eq!(now.with(&lost).resources.len(), 4);
        assert_eq!(
            then.drift(&now).unwrap().lists(),
            [
                "only the bundle: apps/web",
                "only the last deployment (2026-11-20T12:00:00Z by me@a.test): projects/shop/branches/dev"
            ]
        );
        assert_eq!(then.drift(&then), None);
    }
}
