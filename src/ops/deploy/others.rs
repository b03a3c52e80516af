//! What other deployments in the workspace hold, as their records say.
//!
//! Records are workspace files of whoever deployed. Those are read that are below the home of the
//! caller, of the owners of what is looked for, and the shared folder; what may not be read is passed
//! over, and said with `-v`.

use std::collections::BTreeSet;

use super::record::{Entry, Record, Shelf};
use crate::api::{Client, there};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::ResourceKind;
use crate::ops::parallel;
use crate::wire::names::{BranchName, ProjectName};

/// How deep below a home's `.bundle` a deployment may be: bundle, target, project.
const DEPTH: usize = 4;
/// Folders of a deployment that hold no other one.
const INSIDE: [&str; 4] = ["files", "artifacts", "state", "resources"];

/// The deployments of others.
#[derive(Debug, Default)]
pub(crate) struct Others(Vec<(String, Record)>);

impl Others {
    /// Reads the records that may name one of `entries`; not the one in the folder `own`.
    pub(crate) async fn find(api: &Client, entries: &[Entry], own: Option<&str>) -> Result<Self> {
        if entries.is_empty() {
            return Ok(Others::default());
        }
        let doing = || "could not look for other deployments".to_owned();
        let me = api.me().await.doing(doing)?.user_name.clone();
        let owners = parallel::all(entries, |entry| owner(api, entry)).await.doing(doing)?;
        let users: BTreeSet<String> = owners.into_iter().flatten().chain([me]).collect();
        let homes = users.iter().map(|user| format!("/Workspace/Users/{user}/.bundle"));
        let mut bases: Vec<String> = homes.collect();
        bases.push("/Workspace/Shared/.bundle".to_owned());
        let mut folders = deployments_below(api, bases).await.doing(doing)?;
        folders.retain(|folder| own.is_none_or(|own| plain(own) != plain(folder)));
        let read = |folder: String| async move {
            match (Shelf { folder: folder.clone() }).read(api).await {
                Ok(record) => Ok(record.map(|record| (folder, record))),
                Err(error) if error.kind() == Kind::Denied => {
                    tracing::debug!(folder, %error, "passed over a deployment");
                    Ok(None)
                }
                // Somebody else's file that cannot be read must not stop everybody.
                Err(error) if matches!(error.kind(), Kind::Failed | Kind::Conflict) => {
                    tracing::warn!(folder, %error, "passed over a deployment");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let records = parallel::all(folders, read).await?;
        Ok(Others(records.into_iter().flatten().collect()))
    }

    /// Returns who else holds `entry`: one sentence for each deployment.
    pub(crate) fn holders(&self, entry: &Entry) -> Vec<String> {
        let shown = entry.shown();
        let holds = |(_, record): &&(String, Record)| {
            record.resources.iter().any(|other| other.shown() == shown)
        };
        let say = |(folder, record): &(String, Record)| {
            format!(
                "`{shown}` is managed by bundle `{}`, target `{}`, deployed by {} in `{folder}`",
                record.bundle, record.target, record.deployed_by
            )
        };
        self.0.iter().filter(holds).map(say).collect()
    }
}

/// Returns the deployments among which those of `users` are: folders that hold a record.
async fn deployments_below(api: &Client, bases: Vec<String>) -> Result<Vec<String>> {
    let (mut found, mut level) = (Vec::new(), bases);
    for _ in 0..DEPTH {
        let list = |folder: String| async move {
            match there(api.list_folders(&folder).await).map_err(Error::from) {
                Ok(inside) => Ok((folder, inside.unwrap_or_default())),
                Err(error) if error.kind() == Kind::Denied => {
                    tracing::debug!(folder, %error, "passed over a folder");
                    Ok((folder, Vec::new()))
                }
                Err(error) => Err(error),
            }
        };
        let mut next = Vec::new();
        for (folder, inside) in parallel::all(level, list).await? {
            let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
            if inside.iter().any(|path| name(path) == "lakeforge") {
                found.push(folder);
            } else {
                next.extend(inside.into_iter().filter(|path| !INSIDE.contains(&&*name(path))));
            }
        }
        level = next;
    }
    Ok(found)
}

/// Returns whose home may hold the deployment of `entry`: its owner's, where there is one.
async fn owner(api: &Client, entry: &Entry) -> Result<Option<String>> {
    let project: Option<ProjectName> = match entry.kind() {
        ResourceKind::App => {
            return Ok(there(api.get_app(&entry.name).await)?.and_then(|app| app.creator));
        }
        ResourceKind::Branch => entry.name.parse().ok().map(|name: BranchName| name.parent()),
        _ => entry.name.parse().ok(),
    };
    let Some(project) = project else { return Ok(None) };
    let owner = there(api.get_project(&project).await)?.map(|project| project.status.owner);
    Ok(owner.filter(|owner| !owner.is_empty()))
}

/// `/Workspace/Users/me` and `/Users/me` are one folder.
fn plain(folder: &str) -> &str {
    folder.strip_prefix("/Workspace").unwrap_or(folder).trim_end_matches('/')
}
