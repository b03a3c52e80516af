//! `destroy`: deletes what was deployed, from the record of the deployment rather than from the files.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::Client;
use crate::bundle::Bundle;
use crate::error::{Doing, Result};
use crate::ops::change::Change;
use crate::ops::confirm::{Confirmed, Deletes, Losses};
use crate::ops::deploy::{self, Engine, Entry, Record, Shelf};
use crate::ops::drift::Drift;
use crate::ops::protection;
use crate::ui::Steps;

/// What is to be destroyed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is deleted, in order.
    pub(crate) entries: Vec<Entry>,
    /// How the bundle differs from what was deployed.
    pub(crate) drift: Option<Drift>,
    /// Folder of the deployment in the workspace, which goes too.
    pub(crate) folder: String,
    losses: Losses,
    guarded: Vec<String>,
}

impl Plan {
    /// Returns the deletions.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.entries.iter().map(Entry::deletion).collect()
    }

    /// Takes the plan as agreed to when `names` confirms what has to be; needs no workspace.
    ///
    /// Fails as `Refused` when it does not, and when something is guarded.
    pub(crate) fn confirm(self, names: &[String]) -> Result<Confirmed<Plan>> {
        let headline = "the deployment holds what must not be destroyed";
        deploy::refuse_guarded(headline, &self.guarded)?;
        Confirmed::new(self, names)
    }
}

impl Deletes for Plan {
    fn losses(&self) -> &Losses {
        &self.losses
    }
}

/// Works out what a destruction would delete; changes nothing.
///
/// Nothing comes back where nothing is deployed.
pub(crate) async fn plan(api: &Client, engine: &Engine, bundle: &Bundle) -> Result<Option<Plan>> {
    let me = api.me().await.doing(|| "could not ask who is destroying".to_owned())?;
    let shelf = Shelf::of(bundle, &me.user_name)?;
    let now = Record::of(bundle, &me.user_name);
    let last = shelf.read(api).await?;
    let known = last.as_ref().map(|last| last.resources.clone()).unwrap_or_default();
    let entries = deploy::deployed(api, engine, &known).await?;
    if entries.is_empty() && last.is_none() {
        return Ok(None);
    }
    let drift = match &last {
        Some(last) => last.drift(&now),
        None => {
            let names: BTreeSet<String> = entries.iter().map(Entry::shown).collect();
            Drift::between(("the bundle", now.names()), ("the deployment's state", names))
        }
    };
    // What the bundle says now decides; for what it no longer has, what it said when it was deployed.
    let is_guarded = |entry: &&Entry| {
        let said = now.resources.iter().find(|other| other.shown() == entry.shown());
        said.unwrap_or(entry).guarded
    };
    let guarded = entries.iter().filter(is_guarded).map(Entry::shown).collect();
    let changes: Vec<Change> = entries.iter().map(Entry::deletion).collect();
    let losses = Losses::look(api, &changes, &shelf.folder).await?;
    Ok(Some(Plan { entries, drift, folder: shelf.folder, losses, guarded }))
}

/// Deletes what the plan holds.
///
/// Interrupted, what is deleted stays deleted and is said, protection that was taken off is put back,
/// and the same call again deletes the rest.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    confirmed: &Confirmed<Plan>,
    limit: Duration,
) -> Result<()> {
    let (plan, permits) = (confirmed.plan(), confirmed.permits());
    let work = deploy::destroy(api, steps, engine, &plan.entries, permits, &plan.folder, limit);
    match protection::without(api, steps, permits.protected(), limit, work).await {
        Ok(()) => Ok(()),
        Err(error) => Err(deploy::explain(api, steps, &plan.changes(), error).await),
    }
}
