//! Workspace files, as far as `databricks bundle` and an app deployment need them.

use serde::{Deserialize, Serialize};

/// What a workspace path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ObjectType {
    /// A folder.
    Directory,
    /// Any file that is not a notebook.
    File,
    /// A notebook; its path has no extension.
    Notebook,
}

/// Answer of `GET /api/2.0/workspace/get-status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectStatus {
    /// Id of the object, unique in the workspace.
    pub(crate) object_id: u64,
    /// Folder, file or notebook.
    pub(crate) object_type: ObjectType,
    /// Absolute path, such as `/Workspace/Users/me/.bundle`.
    pub(crate) path: String,
    /// Size of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// Milliseconds since 1970, of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified_at: Option<i64>,
}

/// Answer of `GET /api/2.0/workspace/list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ObjectList {
    /// What the folder holds.
    #[serde(default)]
    pub(crate) objects: Vec<ObjectStatus>,
}

/// Body of `POST /api/2.0/workspace/mkdirs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mkdirs {
    /// Folder to create, with its parents.
    pub(crate) path: String,
}

/// Body of `POST /api/2.0/workspace/delete`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delete {
    /// What to delete.
    pub(crate) path: String,
    /// Whether a folder goes with what it holds.
    #[serde(default)]
    pub(crate) recursive: bool,
}
