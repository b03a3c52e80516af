//! Database passwords that live for minutes.
//!
//! Source of the call: Python SDK 0.156.0 `service/postgres.py`, read 2026-08.

use reqwest::Method;

use super::client::Client;
use super::error::Result;
use super::request::Request;
use crate::time::Ttl;
use crate::wire::names::EndpointName;
use crate::wire::postgres::{Credential, CredentialRequest};

impl Client {
    /// Mints a database password for `endpoint`, good for an hour or for `ttl` (5 minutes to 1 hour).
    ///
    /// Fails with 404 when the endpoint does not exist.
    pub(crate) async fn mint_credential(
        &self,
        endpoint: &EndpointName,
        ttl: Option<Ttl>,
    ) -> Result<Credential> {
        let body = CredentialRequest { endpoint: endpoint.to_string(), ttl, expire_time: None };
        let request = Request::api(Method::POST, &["postgres", "credentials"]).json(&body);
        let credential: Credential = self.json(request).await?;
        self.login().mask().hide(&credential.token);
        Ok(credential)
    }
}
