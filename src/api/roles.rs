//! Roles and databases of a branch, named by full path.
//!
//! Source of the calls: Python SDK 0.156.0 `service/postgres.py`, read 2026-08.

use reqwest::Method;

use super::client::Client;
use super::error::Result;
use super::operations::{Deleted, Pending};
use super::request::Request;
use crate::wire::names::BranchName;
use crate::wire::postgres::Body;
use crate::wire::roles::{Database, DatabaseSpec, Role, RoleSpec};

impl Client {
    /// Starts creating the role `id`; `replace_existing` takes over one that is there already, such
    /// as one that came from the branch's source.
    pub(crate) async fn create_role(
        &self,
        branch: &BranchName,
        id: &str,
        spec: &Body<RoleSpec>,
        replace_existing: bool,
    ) -> Result<Pending<Role>> {
        let request = Request::postgres(Method::POST, branch, &["roles"])
            .query("role_id", id)
            .flag("replace_existing", replace_existing)
            .json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Reads a role.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn get_role(&self, name: &str) -> Result<Role> {
        self.json(Request::postgres(Method::GET, &name, &[])).await
    }

    /// Starts changing the fields of a role that `mask` names, such as `spec.membership_roles`.
    pub(crate) async fn update_role(
        &self,
        name: &str,
        spec: &Body<RoleSpec>,
        mask: &str,
    ) -> Result<Pending<Role>> {
        let request =
            Request::postgres(Method::PATCH, &name, &[]).query("update_mask", mask).json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Starts deleting a role or database.
    ///
    /// Fails with 400 for a role that owns something.
    pub(crate) async fn delete_below_branch(&self, name: &str) -> Result<Pending<Deleted>> {
        self.json(Request::postgres(Method::DELETE, &name, &[])).await.map(Pending::new)
    }

    /// Starts creating the database `id`; `replace_existing` takes over one that is there already,
    /// with what it holds.
    pub(crate) async fn create_database(
        &self,
        branch: &BranchName,
        id: &str,
        spec: &Body<DatabaseSpec>,
        replace_existing: bool,
    ) -> Result<Pending<Database>> {
        let request = Request::postgres(Method::POST, branch, &["databases"])
            .query("database_id", id)
            .flag("replace_existing", replace_existing)
            .json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Reads a database.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn get_database(&self, name: &str) -> Result<Database> {
        self.json(Request::postgres(Method::GET, &name, &[])).await
    }

    /// Starts changing the fields of a database that `mask` names: `spec.role`, `spec.postgres_database`.
    pub(crate) async fn update_database(
        &self,
        name: &str,
        spec: &Body<DatabaseSpec>,
        mask: &str,
    ) -> Result<Pending<Database>> {
        let request =
            Request::postgres(Method::PATCH, &name, &[]).query("update_mask", mask).json(spec);
        self.json(request).await.map(Pending::new)
    }
}
