//! Databases of a branch: what Postgres has, and what it does not know of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog::{Ids, Target, checked};
use super::mask::{Fields, Mask};
use super::{BranchRecord, PageRequest, Started, World};
use crate::local::fault::{Answer, Fault};
use crate::local::postgres::{CatalogChange, FoundDatabase, check_database_name};
use crate::wire::names::{BranchName, DEFAULT_DATABASE, DEFAULT_DATABASE_ID};
use crate::wire::postgres::Body;
use crate::wire::roles::{Database, DatabaseList, DatabaseSpec, DatabaseStatus};

const MOST_DATABASES: usize = 500;

const DATABASE_FIELDS: Fields =
    Fields { leaves: &["spec.postgres_database", "spec.role"], groups: &[], lists: &[] };

/// A database as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseRecord {
    /// Id in paths.
    pub(crate) id: String,
    /// Name in Postgres.
    pub(crate) database: String,
    /// Name in Postgres of the role that owns it, when last seen.
    pub(crate) owner: String,
    /// When it was created, or first seen.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// The operation that creates it, while that runs.
    pub(crate) operation: Option<String>,
}

impl World {
    /// Returns a page of the databases of a branch.
    pub(crate) fn list_databases(
        &self,
        name: &BranchName,
        request: &PageRequest,
    ) -> Answer<DatabaseList> {
        let branch = self.branch(&name.project, &name.branch)?;
        let mut databases: Vec<&DatabaseRecord> = branch.databases.iter().collect();
        databases.sort_by(|one, other| one.id.cmp(&other.id));
        let (page, next_page_token) =
            request.cut(databases.into_iter(), |database| database.id.clone())?;
        let databases = page.into_iter().map(|database| branch.wire_database(database)).collect();
        Ok(DatabaseList { databases, next_page_token })
    }

    /// Returns a database of a branch.
    pub(crate) fn get_database(&self, name: &BranchName, id: &str) -> Answer<Database> {
        let branch = self.branch(&name.project, &name.branch)?;
        Ok(branch.wire_database(branch.database(id)?))
    }

    /// Creates a database, or changes it when it is there and `replace` is set.
    pub(crate) fn create_database(
        &mut self,
        name: &BranchName,
        id: Option<&str>,
        spec: &DatabaseSpec,
        replace: bool,
        now: Timestamp,
    ) -> Answer<Started> {
        let branch = self.settled(name)?;
        let id = checked(id, "database_id")?;
        let owner = spec.role.as_deref().filter(|role| !role.is_empty());
        let owner = owner.ok_or_else(|| Fault::required("database.spec.role"))?;
        let owner = branch.role_named(owner)?.role.clone();
        let database = spec.postgres_database.clone().filter(|name| !name.is_empty());
        let database =
            database.ok_or_else(|| Fault::required("database.spec.postgres_database"))?;
        check_database_name(&database)?;
        let by_id = branch.databases.iter().find(|known| id == Some(known.id.as_str()));
        let by_name = branch.databases.iter().find(|known| known.database == database);
        if let Some(known) = by_id.or(by_name) {
            let another = by_name.is_some_and(|other| other.id != known.id);
            if !replace || another || id.is_some_and(|id| id != known.id) {
                return Err(Fault::bad_request("database with that name already exists"));
            }
            let (target, change) =
                (Target::Database(known.id.clone()), known.change(Some(database), Some(owner)));
            return Ok(self.begin_catalog(name, target, change, now));
        }
        if branch.databases.len() >= MOST_DATABASES {
            let text = format!("the branch has {MOST_DATABASES} databases, the most there may be");
            return Err(Fault::exhausted(text));
        }
        let mut ids = Ids(branch.databases.iter().map(|database| database.id.clone()).collect());
        let id = id.map_or_else(|| ids.draw("db", &database), str::to_owned);
        let found = FoundDatabase { name: database.clone(), owner: owner.clone() };
        let mut record = DatabaseRecord::new(id.clone(), &found, now);
        let uid = branch.uid.clone();
        let change = CatalogChange::CreateDatabase { database, owner };
        let started = self.begin_catalog(name, Target::Database(id), change, now);
        record.operation = Some(started.operation.clone());
        self.with_branch(&uid, |branch| branch.databases.push(record));
        Ok(started)
    }

    /// Changes the fields of a database that `mask` names.
    pub(crate) fn update_database(
        &mut self,
        name: &BranchName,
        id: &str,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Started> {
        let branch = self.settled(name)?;
        let known = branch.database(id)?;
        let mask = Mask::parse(mask, &DATABASE_FIELDS, body)?;
        let spec = super::parse::<Body<DatabaseSpec>>(body)?.spec;
        let database = spec.postgres_database.filter(|_| mask.has("spec.postgres_database"));
        if let Some(database) = &database {
            check_database_name(database)?;
            let mut others = branch.databases.iter().filter(|other| other.id != id);
            if others.any(|other| &other.database == database) {
                return Err(Fault::bad_request("database with that name already exists"));
            }
        }
        let owner = match spec.role.filter(|_| mask.has("spec.role")) {
            Some(owner) => Some(branch.role_named(&owner)?.role.clone()),
            None => None,
        };
        let change = known.change(database, owner);
        Ok(self.begin_catalog(name, Target::Database(id.to_owned()), change, now))
    }

    /// Deletes a database.
    pub(crate) fn delete_database(
        &mut self,
        name: &BranchName,
        id: &str,
        now: Timestamp,
    ) -> Answer<Started> {
        let database = self.settled(name)?.database(id)?.database.clone();
        let change = CatalogChange::DropDatabase { database };
        Ok(self.begin_catalog(name, Target::Database(id.to_owned()), change, now))
    }
}

impl BranchRecord {
    pub(super) fn database(&self, id: &str) -> Answer<&DatabaseRecord> {
        let mut all = self.databases.iter();
        all.find(|database| database.id == id).ok_or_else(|| Fault::missing("database"))
    }

    pub(super) fn wire_database(&self, database: &DatabaseRecord) -> Database {
        let name = self.name();
        let owner = self.roles.iter().find(|role| role.role == database.owner);
        Database {
            name: format!("{name}/databases/{}", database.id),
            database_id: database.id.clone(),
            create_time: Some(database.create_time),
            update_time: Some(database.update_time),
            status: DatabaseStatus {
                database_id: database.id.clone(),
                postgres_database: database.database.clone(),
                role: owner.map(|role| format!("{name}/roles/{}", role.id)),
            },
            parent: Some(name),
        }
    }
}

impl DatabaseRecord {
    pub(super) fn new(id: String, found: &FoundDatabase, now: Timestamp) -> Self {
        DatabaseRecord {
            id,
            database: found.name.clone(),
            owner: found.owner.clone(),
            create_time: now,
            update_time: now,
            operation: None,
        }
    }

    /// Creates the record of the database every branch starts with.
    pub(super) fn default_of(owner: &str, now: Timestamp) -> Self {
        let found = FoundDatabase { name: DEFAULT_DATABASE.to_owned(), owner: owner.to_owned() };
        DatabaseRecord::new(DEFAULT_DATABASE_ID.to_owned(), &found, now)
    }

    /// Returns the change that gives it another name and owner, as far as they are others.
    fn change(&self, name: Option<String>, owner: Option<String>) -> CatalogChange {
        CatalogChange::AlterDatabase {
            database: self.database.clone(),
            name: name.filter(|name| *name != self.database),
            owner: owner.filter(|owner| *owner != self.owner),
        }
    }
}
