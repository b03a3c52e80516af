//! Deletion of what was deployed to the embedded workspace: the built-in engine's other half.

use std::time::Duration;

use super::record::Entry;
use crate::api::{self, Client, Poll, there};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::ResourceKind;
use crate::ops::confirm::Permits;
use crate::ops::parallel;
use crate::ui::Steps;
use crate::wire::names::{BranchName, EndpointName, PRIMARY_ENDPOINT, ProjectName, ROOT_BRANCH};

/// A thing in the workspace that can be deleted.
#[derive(Debug)]
pub(super) enum Thing {
    Project(ProjectName),
    Branch(BranchName),
    Endpoint(EndpointName),
    Below(String, Part),
    App(String),
}

/// What of a branch is deleted by itself.
#[derive(Debug)]
pub(super) enum Part {
    Role,
    Database,
}

/// Returns those of `entries` that are there and can be deleted, in the order in which they go.
pub(super) async fn present(api: &Client, entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let look = |entry: Entry| async move {
        let Some(thing) = Thing::named(entry.kind(), &entry.name) else { return Ok(None) };
        match exists(api, &thing).await {
            Ok(there) => Ok(there.then_some(entry)),
            Err(error) => Err(error).doing(|| format!("could not read `{}`", entry.name)),
        }
    };
    let found = parallel::all(entries, look).await?;
    Ok(found.into_iter().rev().flatten().collect())
}

impl Thing {
    /// Reads what `name` names; what only goes with something above it is nothing to delete.
    pub(super) fn named(kind: ResourceKind, name: &str) -> Option<Self> {
        match kind {
            ResourceKind::Project => name.parse().ok().map(Thing::Project),
            ResourceKind::Branch => name
                .parse()
                .ok()
                .filter(|name: &BranchName| name.branch != ROOT_BRANCH)
                .map(Thing::Branch),
            ResourceKind::Endpoint => name
                .parse()
                .ok()
                .filter(|name: &EndpointName| name.endpoint != PRIMARY_ENDPOINT)
                .map(Thing::Endpoint),
            _ if name.is_empty() => None,
            ResourceKind::Role => Some(Thing::Below(name.to_owned(), Part::Role)),
            ResourceKind::Database => Some(Thing::Below(name.to_owned(), Part::Database)),
            ResourceKind::App => Some(Thing::App(name.to_owned())),
            ResourceKind::Instance | ResourceKind::Other => None,
        }
    }
}

/// Returns whether a thing is there.
pub(super) async fn exists(api: &Client, thing: &Thing) -> api::Result<bool> {
    let answer = match thing {
        Thing::Project(name) => api.get_project(name).await.map(drop),
        Thing::Branch(name) => api.get_branch(name).await.map(drop),
        Thing::Endpoint(name) => api.get_endpoint(name).await.map(drop),
        Thing::Below(name, Part::Role) => api.get_role(name).await.map(drop),
        Thing::Below(name, Part::Database) => api.get_database(name).await.map(drop),
        Thing::App(name) => api.get_app(name).await.map(drop),
    };
    Ok(there(answer)?.is_some())
}

/// Deletes `entries`: apps at the same time, then the rest one after the other. What is a part of
/// another entry goes with it.
///
/// Stops at the first failure; the same call again goes on from there.
pub(super) async fn apply(
    api: &Client,
    steps: &Steps,
    entries: &[Entry],
    permits: &Permits,
    limit: Duration,
) -> Result<()> {
    let (apps, others): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.kind() == ResourceKind::App);
    let one = |entry: &'_ Entry| remove(api, steps, entry.clone(), permits, limit);
    for done in parallel::each(apps, one).await {
        done?;
    }
    for entry in others {
        if !entries.iter().any(|other| entry.is_part_of(other)) {
            remove(api, steps, entry.clone(), permits, limit).await?;
        }
    }
    Ok(())
}

async fn remove(
    api: &Client,
    steps: &Steps,
    entry: Entry,
    permits: &Permits,
    limit: Duration,
) -> Result<()> {
    let Some(thing) = Thing::named(entry.kind(), &entry.name) else { return Ok(()) };
    let _step = steps.start(format!("Deleting {} `{}`", entry.resource, entry.name));
    match delete(api, &thing, entry.purge, permits, limit).await {
        Err(error) if error.is_not_found() => Ok(()),
        done => done.doing(|| format!("could not delete {} `{}`", entry.resource, entry.name)),
    }
}

async fn delete(
    api: &Client,
    thing: &Thing,
    purge: bool,
    permits: &Permits,
    limit: Duration,
) -> api::Result<()> {
    let pending = match thing {
        Thing::Project(name) => match permits.project(name) {
            Some(project) => api.delete_project(project, purge).await?,
            None => return refuse_unseen(api, thing).await,
        },
        Thing::Branch(name) => match permits.branch(name) {
            Some(branch) => api.delete_branch(branch, purge).await?,
            None => return refuse_unseen(api, thing).await,
        },
        Thing::Endpoint(name) => api.delete_endpoint(name).await?,
        Thing::Below(name, _) => api.delete_below_branch(name).await?,
        Thing::App(name) => {
            api.delete_app(name).await?;
            return gone(api, thing, limit).await;
        }
    };
    api.wait(pending, "its deletion", limit).await.map(drop)
}

/// Refuses what was not there when the deletion was agreed to; what is still not there is as good.
async fn refuse_unseen(api: &Client, thing: &Thing) -> api::Result<()> {
    if !exists(api, thing).await? {
        return Ok(());
    }
    let what = "it was not there when its deletion was agreed to";
    Err(api::Error::Changed(Error::new(Kind::Refused, what).code("NEEDS_CONFIRMATION")))
}

/// Waits until an app can no longer be read: until then nobody can take its name.
async fn gone(api: &Client, thing: &Thing, limit: Duration) -> api::Result<()> {
    let mut poll = Poll::new(limit);
    while exists(api, thing).await? {
        if !poll.pause().await {
            return Err(api::Error::TimedOut { awaited: "its deletion".to_owned(), limit });
        }
    }
    Ok(())
}
