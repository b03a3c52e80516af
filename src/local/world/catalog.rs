//! Roles and databases of a branch as its cluster has them: taken over, and changed.

use jiff::Timestamp;
use serde_json::Value;

use super::databases::DatabaseRecord;
use super::operations::{empty, response};
use super::roles::{RoleRecord, draw_id};
use super::{BranchRecord, Started, Work, World};
use crate::local::fault::{Answer, Fault};
use crate::local::postgres::{Catalog, CatalogChange};
use crate::wire::failure::Failure;
use crate::wire::names::{BranchName, check_id};
use crate::wire::roles::IdentityType;

/// Shortest id of a role or database.
const SHORTEST_ID: usize = 4;
const LONGEST_ID: usize = 63;

/// Which object of a branch a change is about, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A role.
    Role(String),
    /// A database.
    Database(String),
}

/// A change of a cluster's roles or databases that is left to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogWork {
    /// Uid of the branch.
    pub(crate) uid: String,
    /// What is to be done.
    pub(crate) change: CatalogChange,
    target: Target,
    operation: String,
}

impl World {
    /// Takes over what the cluster of a branch has: roles and databases that are gone go here too, and
    /// new ones, made with SQL, get an id.
    pub(crate) fn note_catalog(&mut self, uid: &str, catalog: &Catalog, now: Timestamp) {
        let Some(branch) = self.branches.get(uid) else { return };
        let mut ids = Ids(branch.roles.iter().map(|role| role.id.clone()).collect());
        let mut roles: Vec<RoleRecord> = catalog
            .roles
            .iter()
            .map(|found| match branch.roles.iter().find(|role| role.role == found.name) {
                Some(known) => known.seen(found),
                None => {
                    let id = draw_id(&mut ids, &found.name, found.identity);
                    RoleRecord::new(id, &found.name, IdentityType::Plain, now).seen(found)
                }
            })
            .collect();
        let begun = |role: &&RoleRecord| {
            role.operation.is_some() && catalog.roles.iter().all(|found| found.name != role.role)
        };
        roles.extend(branch.roles.iter().filter(begun).cloned());

        let mut ids = Ids(branch.databases.iter().map(|database| database.id.clone()).collect());
        let mut databases: Vec<DatabaseRecord> = catalog
            .databases
            .iter()
            .map(|found| {
                let mut known = branch.databases.iter();
                match known.find(|database| database.database == found.name) {
                    Some(known) => DatabaseRecord { owner: found.owner.clone(), ..known.clone() },
                    None => DatabaseRecord::new(ids.draw("db", &found.name), found, now),
                }
            })
            .collect();
        let begun = |database: &&DatabaseRecord| {
            let mut found = catalog.databases.iter();
            database.operation.is_some() && found.all(|found| found.name != database.database)
        };
        databases.extend(branch.databases.iter().filter(begun).cloned());

        if roles != branch.roles || databases != branch.databases {
            self.with_branch(uid, |branch| {
                branch.roles = roles;
                branch.databases = databases;
            });
        }
    }

    /// Reports that a change was made, or why not; `catalog` is what the cluster has since.
    pub(crate) fn finish_catalog(
        &mut self,
        work: &CatalogWork,
        result: Result<Catalog, Failure>,
        now: Timestamp,
    ) {
        let (uid, done) = (&work.uid, result.is_ok());
        self.with_branch(uid, |branch| match &work.target {
            Target::Role(id) => {
                let ours = |role: &RoleRecord| role.operation.as_ref() == Some(&work.operation);
                branch.roles.retain(|role| done || !ours(role));
                if let Some(role) = branch.roles.iter_mut().find(|role| role.id == *id && done) {
                    role.update_time = now;
                    role.operation = None;
                }
            }
            Target::Database(id) => {
                let ours = |database: &DatabaseRecord| {
                    database.operation.as_ref() == Some(&work.operation)
                };
                branch.databases.retain(|database| done || !ours(database));
                let mut all = branch.databases.iter_mut();
                if let Some(database) = all.find(|database| database.id == *id && done) {
                    database.update_time = now;
                    database.operation = None;
                    if let CatalogChange::AlterDatabase { name: Some(name), .. } = &work.change {
                        database.database.clone_from(name);
                    }
                }
            }
        });
        let catalog = match result {
            Ok(catalog) => catalog,
            Err(failure) => return self.finish(&work.operation, Err(failure)),
        };
        self.note_catalog(uid, &catalog, now);
        let found = self.branches.get(uid).and_then(|branch| match &work.target {
            Target::Role(id) => branch.role(id).ok().map(|role| response(&branch.wire_role(role))),
            Target::Database(id) => {
                let database = branch.database(id).ok();
                database.map(|database| response(&branch.wire_database(database)))
            }
        });
        self.finish(&work.operation, Ok(found.unwrap_or_else(empty)));
    }

    /// Returns the role or database with this full name as it goes over the wire.
    pub(super) fn catalog_object(&self, name: &str) -> Option<Value> {
        let parts: Vec<&str> = name.split('/').collect();
        let ["projects", project, "branches", branch, kind, id] = parts[..] else { return None };
        let name = BranchName { project: project.to_owned(), branch: branch.to_owned() };
        match kind {
            "roles" => self.get_role(&name, id).ok().map(|role| response(&role)),
            "databases" => self.get_database(&name, id).ok().map(|database| response(&database)),
            _ => None,
        }
    }

    /// Ends what a killed server had begun with roles and databases: what the cluster has counts.
    pub(super) fn settle_catalogs(&mut self) {
        let begun = |branch: &&BranchRecord| {
            branch.roles.iter().any(|role| role.operation.is_some())
                || branch.databases.iter().any(|database| database.operation.is_some())
        };
        let uids: Vec<String> =
            self.branches.values().filter(begun).map(|branch| branch.uid.clone()).collect();
        for uid in uids {
            self.with_branch(&uid, |branch| {
                branch.roles.iter_mut().for_each(|role| role.operation = None);
                branch.databases.iter_mut().for_each(|database| database.operation = None);
            });
        }
    }

    /// Returns a branch whose cluster is there.
    pub(super) fn settled(&self, name: &BranchName) -> Answer<&BranchRecord> {
        let branch = self.branch(&name.project, &name.branch)?;
        match branch.operation {
            Some(_) => Err(Fault::busy(name)),
            None => Ok(branch),
        }
    }

    pub(super) fn begin_catalog(
        &mut self,
        name: &BranchName,
        target: Target,
        change: CatalogChange,
        now: Timestamp,
    ) -> Started {
        let (kind, resource) = match &target {
            Target::Role(id) => ("Role", format!("{name}/roles/{id}")),
            Target::Database(id) => ("Database", format!("{name}/databases/{id}")),
        };
        let uid = self.uid(&name.project, &name.branch).unwrap_or_default();
        let operation = self.begin(kind, resource, now);
        let work = CatalogWork { uid, change, target, operation: operation.clone() };
        Started { operation, work: Work::Catalog(Box::new(work)) }
    }
}

/// Ids in use, and new ones made of names.
pub(super) struct Ids(pub(super) Vec<String>);

impl Ids {
    /// Returns a free id that is like `name`; `kind` goes before what would not be an id by itself.
    pub(super) fn draw(&mut self, kind: &str, name: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let mut id: String = name.chars().map(plain).collect();
        id = id.trim_matches('-').to_owned();
        if id.len() < SHORTEST_ID || !id.starts_with(|first: char| first.is_ascii_lowercase()) {
            id = format!("{kind}-{id}");
        }
        let numbered = |number: usize| {
            let ending = if number == 1 { String::new() } else { format!("-{number}") };
            let kept = id.len().min(LONGEST_ID - ending.len());
            format!("{}{ending}", id[..kept].trim_end_matches('-'))
        };
        let mut numbers = (1..).map(numbered);
        let free = numbers.find(|id| !self.0.contains(id)).expect("numbers do not end");
        self.0.push(free.clone());
        free
    }
}

/// Checks an id that a request gives: 4 to 63 characters, otherwise as every id.
pub(super) fn checked<'a>(id: Option<&'a str>, parameter: &str) -> Answer<Option<&'a str>> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    let wrong = match check_id(id) {
        Ok(()) if id.len() < SHORTEST_ID => format!("the id `{id}` is shorter than 4 characters"),
        Ok(()) => return Ok(Some(id)),
        Err(wrong) => wrong,
    };
    Err(Fault::invalid(format!("Invalid {parameter}: {wrong}")))
}
