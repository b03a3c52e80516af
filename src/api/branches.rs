//! Branches of a project.
//!
//! Source of the calls: Python SDK 0.156.0 `service/postgres.py`, read 2026-08.

use reqwest::Method;

use super::client::Client;
use super::deletion::DeletableBranch;
use super::error::{Error, Result};
use super::operations::{Deleted, Pending};
use super::request::Request;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Body, Branch, BranchList, BranchSpec};

impl Client {
    /// Starts creating a branch with its endpoint `primary`.
    ///
    /// `replace_existing` takes over a branch that is there already. Fails with 404 when the
    /// project or the source does not exist, and with a conflict when the name is taken.
    pub(crate) async fn create_branch(
        &self,
        name: &BranchName,
        spec: &Body<BranchSpec>,
        replace_existing: bool,
    ) -> Result<Pending<Branch>> {
        let request = Request::postgres(Method::POST, &name.parent(), &["branches"])
            .query("branch_id", &name.branch)
            .flag("replace_existing", replace_existing)
            .json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Reads a branch.
    ///
    /// Fails with 404 when the project or the branch does not exist.
    pub(crate) async fn get_branch(&self, name: &BranchName) -> Result<Branch> {
        self.json(Request::postgres(Method::GET, name, &[])).await
    }

    /// Reads all branches of a project.
    ///
    /// Fails with 404 when the project does not exist.
    pub(crate) async fn list_branches(&self, project: &ProjectName) -> Result<Vec<Branch>> {
        let request = Request::postgres(Method::GET, project, &["branches"]);
        self.pages(request, |page: BranchList| (page.branches, page.next_page_token)).await
    }

    /// Reads the branches of a project that are deleted and can still be brought back.
    pub(crate) async fn list_deleted_branches(&self, project: &ProjectName) -> Result<Vec<Branch>> {
        let request =
            Request::postgres(Method::GET, project, &["branches"]).flag("show_deleted", true);
        let all = self.pages(request, |page: BranchList| (page.branches, page.next_page_token));
        Ok(all.await?.into_iter().filter(|branch| branch.status.delete_time.is_some()).collect())
    }

    /// Starts changing the fields of a branch that `mask` names: `spec.expiration`, `spec.is_protected`.
    pub(crate) async fn update_branch(
        &self,
        name: &BranchName,
        spec: &Body<BranchSpec>,
        mask: &str,
    ) -> Result<Pending<Branch>> {
        let request =
            Request::postgres(Method::PATCH, name, &[]).query("update_mask", mask).json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Starts deleting a branch with its endpoints; it can be brought back unless `purge`.
    ///
    /// It is looked at again just before: the call takes a name, and that may be another branch's by
    /// now. Fails with `Changed` then, and with 400 for a protected branch, the root branch, and one
    /// with children.
    pub(crate) async fn delete_branch(
        &self,
        branch: &DeletableBranch,
        purge: bool,
    ) -> Result<Pending<Deleted>> {
        let request = Request::postgres(Method::DELETE, branch.name(), &[]).flag("purge", purge);
        self.delete_checked(request, || self.recheck_branch(branch)).await
    }

    /// Looks whether `branch` is still what may be deleted.
    ///
    /// Fails with `Changed` when it is not, and with 404 when it is gone.
    pub(crate) async fn recheck_branch(&self, branch: &DeletableBranch) -> Result<()> {
        let now = self.get_branch(branch.name()).await?;
        branch.recheck(&now).map_err(Error::Changed)
    }
}
