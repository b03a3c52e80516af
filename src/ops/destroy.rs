//! `destroy`: deletes what was deployed, from the record of the deployment rather than from the files.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::Client;
use crate::bundle::Bundle;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::branch;
use crate::ops::confirm::{self, Confirmed};
use crate::ops::deploy::{self, Change, Engine, Entry, Record, Shelf};
use crate::ops::drift::Drift;
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
    guarded: Vec<String>,
}

impl Plan {
    /// Returns the deletions.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.entries.iter().map(Entry::deletion).collect()
    }

    /// Fails as `Refused` when something is guarded against it.
    pub(crate) fn refuse_guarded(&self) -> Result<()> {
        if self.guarded.is_empty() {
            return Ok(());
        }
        let what = "the deployment holds what must not be destroyed";
        Err(Error::new(Kind::Refused, what)
            .code("PREVENT_DESTROY")
            .why(format!("guarded by `lifecycle.prevent_destroy`: {}", self.guarded.join(", ")))
            .hint("deploy once with `prevent_destroy: false` for it in lakeforge.yml"))
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
    Ok(Some(Plan { entries, drift, folder: shelf.folder, guarded }))
}

/// Refuses to destroy projects and default, protected or production branches that `names` does not
/// confirm.
pub(crate) async fn confirm(api: &Client, plan: &Plan, names: &[String]) -> Result<Confirmed> {
    let targets: Vec<&str> = plan.entries.iter().map(|entry| entry.name.as_str()).collect();
    confirm::confirm(api, &targets, names).await
}

/// Deletes what `plan` holds.
///
/// Interrupted, what is deleted stays deleted, and the same call again deletes the rest.
pub(crate) async fn apply(
    api: &Client,
    steps: &Steps,
    engine: &Engine,
    plan: &Plan,
    confirmed: &Confirmed,
    limit: Duration,
) -> Result<()> {
    for name in confirmed.protected() {
        branch::unprotect(api, &name, limit)
            .await
            .doing(|| format!("could not take the protection off `{}`", name.short()))?;
    }
    deploy::destroy(api, steps, engine, &plan.entries, confirmed, &plan.folder, limit).await
}
