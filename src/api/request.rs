//! One call as data: method, path, query, body.

use std::fmt::Display;

use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;

/// A call that is not sent yet.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Its method.
    pub(super) method: Method,
    /// Segments of its path, not encoded.
    pub(super) path: Vec<String>,
    /// Its query, not encoded.
    pub(super) query: Vec<(&'static str, String)>,
    /// What it carries.
    pub(super) body: Body,
}

/// What a call carries.
#[derive(Debug, Clone, Default)]
pub(super) enum Body {
    /// Nothing.
    #[default]
    Nothing,
    /// A JSON document.
    Json(Value),
    /// A file.
    Bytes(Vec<u8>),
}

impl Request {
    /// Creates a call below `/api/2.0`.
    pub(super) fn api(method: Method, path: &[&str]) -> Self {
        let path = ["api", "2.0"].iter().chain(path).map(|&part| part.to_owned()).collect();
        Request { method, path, query: Vec::new(), body: Body::Nothing }
    }

    /// Creates a call on the Postgres resource `name`, or on `rest` below it.
    pub(super) fn postgres(method: Method, name: &impl Display, rest: &[&str]) -> Self {
        let name = name.to_string();
        let path: Vec<&str> =
            ["postgres"].into_iter().chain(name.split('/')).chain(rest.iter().copied()).collect();
        Request::api(method, &path)
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a query parameter that is either there or not.
    pub(super) fn flag(self, name: &'static str, value: bool) -> Self {
        if value { self.query(name, "true") } else { self }
    }

    /// Sets a JSON body.
    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("wire types are plain data");
        self.body = Body::Json(body);
        self
    }

    /// Sets the content of a file as body.
    pub(super) fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Body::Bytes(body);
        self
    }

    /// Returns whether sending the call twice does what sending it once does.
    pub(super) fn is_idempotent(&self) -> bool {
        self.method != Method::POST
    }

    /// Returns the address of the call at `host`; each segment is encoded, slashes included.
    pub(super) fn url(&self, host: &Url) -> Url {
        let mut url = host.clone();
        url.path_segments_mut().expect("a host has a path").clear().extend(&self.path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }

    /// Returns method and path, as people and logs read them.
    pub(super) fn title(&self) -> String {
        format!("{} /{}", self.method, self.path.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::names::ProjectName;

    #[test]
    fn paths_and_queries_are_encoded() {
        let host: Url = "https://a.test/".parse().unwrap();
        let name = ProjectName::new("shop");
        let request = Request::postgres(Method::POST, &name, &["branches"])
            .query("branch_id", "a&b")
            .flag("replace_existing", true)
            .flag("purge", false);
        assert_eq!(
            request.url(&host).as_str(),
            "https://a.test/api/2.0/postgres/projects/shop/branches?branch_id=a%26b&replace_existing=true"
        );

        let file = "Workspace/Users/me@a.test/ä b?.txt";
        let request = Request::api(Method::POST, &["workspace-files", "import-file", file]);
        assert_eq!(
            request.url(&host).as_str(),
            "https://a.test/api/2.0/workspace-files/import-file/Workspace%2FUsers%2Fme@a.test%2F%C3%A4%20b%3F.txt"
        );
    }
}
