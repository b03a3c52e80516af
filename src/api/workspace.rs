//! Workspace files.
//!
//! Source of the calls: Databricks CLI 1.13.0 `libs/filer`, read 2026-08.

use reqwest::Method;
use serde::Deserialize;

use super::client::Client;
use super::error::Result;
use super::request::Request;
use crate::wire::workspace::{Delete, Mkdirs};

impl Client {
    /// Writes the file `path`, such as `/Workspace/Users/me/app.py`.
    ///
    /// Fails with 404 when the parent folder does not exist, and with 409 when the file does and
    /// `overwrite` is not set.
    pub(crate) async fn import_file(
        &self,
        path: &str,
        content: Vec<u8>,
        overwrite: bool,
    ) -> Result<()> {
        let path = path.trim_start_matches('/');
        let request = Request::api(Method::POST, &["workspace-files", "import-file", path])
            .query("overwrite", overwrite.to_string())
            .bytes(content);
        self.done(request).await
    }

    /// Reads the file `path`.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn export_file(&self, path: &str) -> Result<Vec<u8>> {
        let request = Request::api(Method::GET, &["workspace", "export"])
            .query("path", path)
            .query("direct_download", "true");
        self.bytes(request).await
    }

    /// Returns the paths of the folders in the folder `path`.
    ///
    /// Fails with 404 when it does not exist.
    pub(crate) async fn list_folders(&self, path: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            objects: Vec<Object>,
        }
        // A workspace holds more types of objects than `wire` knows.
        #[derive(Deserialize)]
        struct Object {
            path: String,
            object_type: String,
        }
        let request = Request::api(Method::GET, &["workspace", "list"]).query("path", path);
        let list: List = self.json(request).await?;
        let folders = list.objects.into_iter().filter(|object| object.object_type == "DIRECTORY");
        Ok(folders.map(|object| object.path).collect())
    }

    /// Creates the folder `path` with its parents; one that is there already stays.
    pub(crate) async fn make_folder(&self, path: &str) -> Result<()> {
        let body = Mkdirs { path: path.to_owned() };
        self.done(Request::api(Method::POST, &["workspace", "mkdirs"]).json(&body)).await
    }

    /// Deletes `path`; a folder with what it holds only when `recursive`.
    pub(crate) async fn delete_object(&self, path: &str, recursive: bool) -> Result<()> {
        let body = Delete { path: path.to_owned(), recursive };
        self.done(Request::api(Method::POST, &["workspace", "delete"]).json(&body)).await
    }
}
