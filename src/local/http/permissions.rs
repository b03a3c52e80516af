//! Access control lists of projects, apps, folders and files; those of other objects are kept as given.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::on_disk;
use super::request::{Body, By};
use super::{Reply, Shared};
use crate::local::fault::{Answer, Fault};
use crate::local::paths::TreePath;
use crate::local::workspace::Workspace;
use crate::local::world::{AccessControl, Caller, FILE_KINDS, FileLevel, World, levels_of, parse};
use crate::wire::workspace::ObjectType;

const OBJECT: &str = "/api/2.0/permissions/{kind}/{id}";

pub(super) fn routes() -> Router<Arc<Workspace>> {
    Router::new()
        .route(OBJECT, get(show).put(replace).patch(add))
        .route("/api/2.0/permissions/{kind}/{id}/permissionLevels", get(levels))
}

#[derive(Deserialize)]
struct Grants {
    #[serde(default)]
    access_control_list: Vec<AccessControl>,
}

async fn show(
    State(workspace): Shared,
    By(caller): By,
    Path((kind, id)): Path<(String, String)>,
) -> Reply {
    let object = Object::find(&workspace, kind, id).await?;
    let access = workspace.read(|world| {
        object.require_see(world, &caller)?;
        Ok::<_, Fault>(object.access(world))
    });
    Ok(Json(access?))
}

async fn replace(
    State(workspace): Shared,
    By(caller): By,
    Path((kind, id)): Path<(String, String)>,
    Body(body): Body,
) -> Reply {
    let grants: Grants = parse(&body)?;
    set(&workspace, &caller, Object::find(&workspace, kind, id).await?, grants, true).await
}

async fn add(
    State(workspace): Shared,
    By(caller): By,
    Path((kind, id)): Path<(String, String)>,
    Body(body): Body,
) -> Reply {
    let grants: Grants = parse(&body)?;
    set(&workspace, &caller, Object::find(&workspace, kind, id).await?, grants, false).await
}

async fn set(
    workspace: &Workspace,
    caller: &Caller,
    object: Object,
    grants: Grants,
    replace: bool,
) -> Reply {
    let list = workspace.change(|world| {
        object.require_manage(world, caller)?;
        let grants = grants.access_control_list;
        match &object.path {
            Some(path) => world.grant_file(&object.name(), path, grants, replace)?,
            None => world.grant(&object.name(), grants, replace)?,
        }
        Ok(object.access(world))
    });
    Ok(Json(list.await?))
}

async fn levels(Path((kind, _)): Path<(String, String)>) -> Reply {
    let known = levels_of(&kind).unwrap_or(&["CAN_USE", "CAN_MANAGE"]);
    let shown: Vec<Value> = known
        .iter()
        .map(|level| {
            let words = level.to_lowercase().replace('_', " ");
            json!({ "permission_level": level, "description": words })
        })
        .collect();
    Ok(Json(json!({ "permission_levels": shown })))
}

/// What rights are granted on.
struct Object {
    kind: String,
    id: String,
    /// Where it is, when it is a workspace file or folder.
    path: Option<TreePath>,
}

impl Object {
    /// Finds the object of a path: files and folders must be there.
    async fn find(workspace: &Workspace, kind: String, id: String) -> Answer<Self> {
        let mut object = Object { kind, id, path: None };
        if FILE_KINDS.contains(&object.kind.as_str()) {
            let number: u64 = object.id.parse().map_err(|_| object.missing())?;
            let found = on_disk(workspace, move |files| Ok(files.find_id(number))).await?;
            let place = found.filter(|(_, kind)| plural(*kind) == object.kind);
            object.path = Some(place.ok_or_else(|| object.missing())?.0);
        }
        Ok(object)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }

    fn access(&self, world: &World) -> Value {
        match &self.path {
            Some(path) => world.file_access(&self.name(), path),
            None => world.access(&self.name()),
        }
    }

    /// Refuses projects, apps and files that are not there, and files that `caller` may not see; of other kinds
    /// nothing is known.
    fn require_see(&self, world: &World, caller: &Caller) -> Answer<()> {
        match (&self.path, self.kind.as_str()) {
            (Some(path), _) => match world.require_read_file(caller, path) {
                Ok(()) => Ok(()),
                Err(_) => Err(self.missing()),
            },
            (None, "database-projects") => world.project(&self.id).map(drop),
            (None, "apps") => world.app(&self.id).map(drop),
            _ => Ok(()),
        }
    }

    fn require_manage(&self, world: &World, caller: &Caller) -> Answer<()> {
        self.require_see(world, caller)?;
        match (&self.path, self.kind.as_str()) {
            (Some(path), _) => world.require_file(caller, path, FileLevel::Manage),
            (None, "database-projects") => world.require_manage(caller, &self.id),
            (None, "apps") => world.require_manage_app(caller, &self.id),
            _ => world.require_admin(caller),
        }
    }

    fn missing(&self) -> Fault {
        let text = format!("'{}' is not the id of any of the {} here.", self.id, self.kind);
        Fault::new(404, "RESOURCE_DOES_NOT_EXIST", text)
    }
}

/// Returns what the route of permissions calls objects of this kind.
fn plural(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::Directory => "directories",
        ObjectType::File => "files",
        ObjectType::Notebook => "notebooks",
    }
}
