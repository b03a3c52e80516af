//! A workspace in place of the network, for tests of what is done with its answers.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::client::Client;
use super::error::Result;
use super::request::{Body, Request};
use super::retry::BUDGET;
use crate::auth::{Login, Origin, Setting, Settings};

/// A call as the workspace sees it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Its method.
    pub(crate) method: String,
    /// Its path below `/api/2.0/postgres/`.
    pub(crate) path: String,
    /// Its query.
    pub(crate) query: Vec<(&'static str, String)>,
    /// Its JSON body.
    pub(crate) body: Value,
}

impl Call {
    /// Returns the query parameter `name`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

type Answer = dyn Fn(Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// What answers the calls.
#[derive(Clone)]
pub(super) struct StandIn(Arc<Answer>);

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StandIn")
    }
}

impl StandIn {
    /// Answers `request`.
    pub(super) async fn answer(&self, request: &Request) -> Result<Vec<u8>> {
        let path = request.path.join("/");
        (self.0)(Call {
            method: request.method.to_string(),
            path: path.trim_start_matches("api/2.0/postgres/").to_owned(),
            query: request.query.clone(),
            body: match &request.body {
                Body::Json(body) => body.clone(),
                Body::Nothing | Body::Bytes(_) => Value::Null,
            },
        })
        .await
    }
}

impl Client {
    /// Creates a client whose calls `answer` answers.
    pub(crate) fn answered_by(
        answer: impl Fn(Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        let origin = || Origin::Variable("DATABRICKS_X");
        let settings = Settings {
            host: Some(Setting::new("https://stand-in.test".to_owned(), origin())),
            token: Some(Setting::new("dapi-nobody".to_owned().into(), origin())),
            ..Settings::default()
        };
        let login = Login::resolve(settings).expect("a host and a token are a login");
        Client::with_budget(login, BUDGET, None).with_stand_in(StandIn(Arc::new(answer)))
    }
}
