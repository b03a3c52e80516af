//! Endpoints of a branch.
//!
//! Source of the calls: Python SDK 0.156.0 `service/postgres.py`, read 2026-08.

use reqwest::Method;

use super::client::Client;
use super::error::Result;
use super::operations::{Deleted, Pending};
use super::request::Request;
use crate::wire::names::{BranchName, EndpointName};
use crate::wire::postgres::{Body, Endpoint, EndpointList, EndpointSpec};

impl Client {
    /// Starts creating an endpoint.
    ///
    /// `replace_existing` takes over one that is there already, such as the implicit `primary`.
    /// Fails with a conflict when the name is taken or the branch has a read-write endpoint.
    pub(crate) async fn create_endpoint(
        &self,
        name: &EndpointName,
        spec: &Body<EndpointSpec>,
        replace_existing: bool,
    ) -> Result<Pending<Endpoint>> {
        let request = Request::postgres(Method::POST, &name.parent(), &["endpoints"])
            .query("endpoint_id", &name.endpoint)
            .flag("replace_existing", replace_existing)
            .json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Reads an endpoint.
    pub(crate) async fn get_endpoint(&self, name: &EndpointName) -> Result<Endpoint> {
        self.json(Request::postgres(Method::GET, name, &[])).await
    }

    /// Reads all endpoints of a branch.
    pub(crate) async fn list_endpoints(&self, branch: &BranchName) -> Result<Vec<Endpoint>> {
        let request = Request::postgres(Method::GET, branch, &["endpoints"]);
        self.pages(request, |page: EndpointList| (page.endpoints, page.next_page_token)).await
    }

    /// Starts changing the fields of an endpoint that `mask` names, such as `spec.suspension`.
    pub(crate) async fn update_endpoint(
        &self,
        name: &EndpointName,
        spec: &Body<EndpointSpec>,
        mask: &str,
    ) -> Result<Pending<Endpoint>> {
        let request =
            Request::postgres(Method::PATCH, name, &[]).query("update_mask", mask).json(spec);
        self.json(request).await.map(Pending::new)
    }

    /// Starts deleting an endpoint.
    ///
    /// Fails with 400 for the read-write endpoint, which goes with its branch.
    pub(crate) async fn delete_endpoint(&self, name: &EndpointName) -> Result<Pending<Deleted>> {
        self.json(Request::postgres(Method::DELETE, name, &[])).await.map(Pending::new)
    }
}
