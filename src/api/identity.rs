//! Who asks, and whom.

use reqwest::Method;

use super::client::Client;
use super::error::Result;
use super::request::Request;
use crate::wire::identity::{Discovery, Me};

impl Client {
    /// Returns the identity behind the token; asks once.
    pub(crate) async fn me(&self) -> Result<&Me> {
        let ask = || self.get(&["preview", "scim", "v2", "Me"]);
        self.known_me().get_or_try_init(ask).await
    }

    /// Reads what the workspace says of itself.
    pub(crate) async fn discovery(&self) -> Result<Discovery> {
        let path = vec![".well-known".to_owned(), "databricks-config".to_owned()];
        let mut request = Request::api(Method::GET, &[]);
        request.path = path;
        self.json(request).await
    }

    /// Returns whether this is an embedded workspace, whatever the profile is called.
    ///
    /// A workspace without a description of itself is a real one.
    pub(crate) async fn is_embedded(&self) -> Result<bool> {
        match self.discovery().await {
            Ok(discovery) => Ok(discovery.lakeforge_local.is_some()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
