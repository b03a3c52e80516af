//! Which projects of a workspace belong to a bundle.

use std::collections::BTreeSet;

use crate::api::Client;
use crate::bundle::Bundle;
use crate::error::{Doing, Result};
use crate::ops::change::ResourceKind;
use crate::ops::deploy::{Record, Shelf};
use crate::ops::parallel;
use crate::wire::names::ProjectName;

/// The projects of a workspace.
#[derive(Debug)]
pub(crate) struct Found {
    /// Those that deployments of the bundle hold.
    pub(crate) ours: Vec<ProjectName>,
    /// All others.
    pub(crate) others: Vec<ProjectName>,
}

/// Finds the projects that belong to a bundle, which `targets` are as each of its targets sees it.
///
/// The proof is the record that `deploy` keeps in the workspace: it is at the place of a target's
/// deployment, is of this bundle and this target, and names the project. Fails when a record
/// cannot be read.
pub(crate) async fn of_bundle(api: &Client, targets: &[Bundle]) -> Result<Found> {
    let me = api.me().await.doing(|| "could not ask who is asking".to_owned())?;
    let user = &me.user_name;
    let record = |target| async move { Shelf::of(target, user)?.read(api).await };
    let records = parallel::all(targets, record).await?;
    let ours: BTreeSet<ProjectName> = targets
        .iter()
        .zip(&records)
        .filter_map(|(target, record)| Some((target, record.as_ref()?)))
        .filter(|(target, record)| is_of(record, target))
        .flat_map(|(_, record)| projects(record))
        .collect();
    let all = api.list_projects().await.doing(|| "could not list projects".to_owned())?;
    let names = all.into_iter().map(|project| project.name);
    let (ours, others) = names.partition(|name| ours.contains(name));
    Ok(Found { ours, others })
}

fn is_of(record: &Record, target: &Bundle) -> bool {
    record.bundle == target.name && record.target == target.target.name
}

/// Returns the projects that a deployment holds.
fn projects(record: &Record) -> impl Iterator<Item = ProjectName> {
    let held = record.resources.iter().filter(|entry| entry.kind() == ResourceKind::Project);
    held.filter_map(|entry| entry.name.parse().ok())
}
