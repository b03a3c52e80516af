//! Postgres projects.
//!
//! Source of the calls: Python SDK 0.156.0 `service/postgres.py`, read 2026-08.

use reqwest::Method;

use super::client::Client;
use super::deletion::DeletableProject;
use super::error::{Error, Result};
use super::operations::{Deleted, Pending};
use super::request::Request;
use crate::wire::names::ProjectName;
use crate::wire::postgres::{Body, Project, ProjectList, ProjectSpec};

impl Client {
    /// Starts creating a project with its branch `production` and that branch's endpoint `primary`.
    ///
    /// Fails with 409 `ALREADY_EXISTS` when the name is taken, also by a project that is deleted
    /// and not purged.
    pub(crate) async fn create_project(
        &self,
        name: &ProjectName,
        spec: &Body<ProjectSpec>,
    ) -> Result<Pending<Project>> {
        let request = Request::api(Method::POST, &["postgres", "projects"])
            .query("project_id", &name.project)
            .json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Reads a project.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn get_project(&self, name: &ProjectName) -> Result<Project> {
        self.json(Request::postgres(Method::GET, name, &[])).await
    }

    /// Reads all projects.
    pub(crate) async fn list_projects(&self) -> Result<Vec<Project>> {
        let request =
            Request::api(Method::GET, &["postgres", "projects"]).query("page_size", "100");
        self.pages(request, |page: ProjectList| (page.projects, page.next_page_token)).await
    }

    /// Starts changing the fields of a project that `mask` names, such as `spec.display_name`.
    pub(crate) async fn update_project(
        &self,
        name: &ProjectName,
        spec: &Body<ProjectSpec>,
        mask: &str,
    ) -> Result<Pending<Project>> {
        let request =
            Request::postgres(Method::PATCH, name, &[]).query("update_mask", mask).json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Starts deleting a project with its branches; it can be brought back, and its id stays taken, unless `purge`.
    ///
    /// It is looked at again just before. Fails with `Changed` when the name is another project's by
    /// now, and with 400 while one of its branches is protected.
    pub(crate) async fn delete_project(
        &self,
        project: &DeletableProject,
        purge: bool,
    ) -> Result<Pending<Deleted>> {
        let request = Request::postgres(Method::DELETE, project.name(), &[]).flag("purge", purge);
        self.delete_checked(request, || self.recheck_project(project)).await
    }

    /// Looks whether `project` is still what may be deleted.
    ///
    /// Fails with `Changed` when it is not, and with 404 when it is gone.
    pub(crate) async fn recheck_project(&self, project: &DeletableProject) -> Result<()> {
        let now = self.get_project(project.name()).await?;
        project.recheck(&now).map_err(Error::Changed)
    }
}
