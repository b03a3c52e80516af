//! Bases: copies of data directories that recovery can start from, shared by the clusters made of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::cluster::{Cluster, data_of};
use super::compute::Host;
use super::copy::{Blocks, copy_data, remove_folder, write_whole};
use super::durable::{sync_each, sync_name};
use super::session::{Address, OWN_DATABASE, told};
use super::spare::Spares;
use super::wal::Lsn;
use super::{blocking, locked};
use crate::error::{Doing, Error, Kind, Result};

/// File that describes a base, beside its data.
const RECORD: &str = "base.json";

/// What is known about a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Timeline it was taken on.
    pub(super) timeline: u32,
    /// Position recovery starts reading the log at.
    pub(super) start: Lsn,
    /// Position up to which recovery must come at least.
    pub(super) stop: Lsn,
    /// Moment it was complete; recovery can reach every later one.
    pub(super) end_time: Timestamp,
}

/// The moment a copy is wanted of, as far as it decides which base will do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    /// The newest base will do.
    Now,
    /// The base must have ended by then.
    Time(Timestamp),
    /// The base must have ended at or before this position.
    Lsn(Lsn),
}

impl Base {
    fn reaches(&self, reach: Reach) -> bool {
        match reach {
            Reach::Now => true,
            Reach::Time(time) => self.end_time <= time,
            Reach::Lsn(lsn) => self.stop <= lsn,
        }
    }

    /// Reads the description in the folder of a base or template.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let unreadable = || format!("could not read `{}`", path.display());
        serde_json::from_slice(&std::fs::read(&path).doing(unreadable)?)
            .map_err(|error| Error::new(Kind::Failed, unreadable()).why(error.to_string()))
    }

    /// Writes the description into `folder`.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a base is plain data");
        Ok(write_whole(&folder.join(RECORD), &text)?)
    }
}

/// A base in the store, with how many clusters could start from it.
struct Entry {
    base: Base,
    folder: PathBuf,
    users: usize,
    /// The template stays even when no cluster uses it.
    kept: bool,
}

/// All bases of an engine.
pub(super) struct Bases {
    folder: PathBuf,
    /// Copies of some of them that are ready to be taken.
    pub(super) spares: Spares,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Bases {
    /// Reads the bases in `folder`.
    pub(super) fn open(folder: PathBuf, spares: Spares) -> Result<Self> {
        let mut entries = HashMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().into_owned();
            let folder = entry.path();
            let base = Base::load(&folder)?;
            entries.insert(id, Entry { base, folder, users: 0, kept: false });
        }
        Ok(Bases { folder, spares, entries: Mutex::new(entries) })
    }

    /// Adds the template in `folder`, from which clusters start as from any base.
    pub(super) fn add_template(&self, id: String, base: Base, folder: PathBuf) {
        locked(&self.entries).insert(id, Entry { base, folder, users: 0, kept: true });
    }

    /// Returns the base `id`.
    pub(super) fn get(&self, id: &str) -> Option<Base> {
        locked(&self.entries).get(id).map(|entry| entry.base.clone())
    }

    /// Returns the data directory of the base `id`.
    pub(super) fn data(&self, id: &str) -> Option<PathBuf> {
        locked(&self.entries).get(id).map(|entry| data_of(&entry.folder))
    }

    /// Returns the newest of the bases `ids` that recovery to `reach` can start from.
    pub(super) fn choose(&self, ids: &[String], reach: Reach) -> Option<(String, Base)> {
        let entries = locked(&self.entries);
        let mut newest_first = ids.iter().rev().filter_map(|id| Some((id, entries.get(id)?)));
        let (id, entry) = newest_first.find(|(_, entry)| entry.base.reaches(reach))?;
        Some((id.clone(), entry.base.clone()))
    }

    /// Notes that one more cluster could start from the base `id`.
    pub(super) fn hold(&self, id: &str) {
        if let Some(entry) = locked(&self.entries).get_mut(id) {
            entry.users += 1;
        }
    }

    /// Notes that one cluster less could start from the bases `ids`; deletes those nobody needs.
    pub(super) async fn release(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            if let Some(entry) = locked(&self.entries).get_mut(id) {
                entry.users = entry.users.saturating_sub(1);
            }
        }
        self.remove_unused().await
    }

    /// Deletes the bases that no cluster could start from.
    pub(super) async fn remove_unused(&self) -> Result<()> {
        let (ids, folders): (Vec<String>, Vec<PathBuf>) = locked(&self.entries)
            .extract_if(|_, entry| entry.users == 0 && !entry.kept)
            .map(|(id, entry)| (id, entry.folder))
            .unzip();
        // First, so that no copy of half a base counts as one.
        self.spares.forget(&ids);
        for folder in folders {
            blocking(move || Ok(remove_folder(&folder)?)).await?;
        }
        Ok(())
    }

    /// Takes a base of the running `cluster` and makes it one that the cluster can start from; returns
    /// how long the copy took.
    pub(super) async fn take(
        &self,
        host: &Host,
        cluster: &Cluster,
        address: &Address,
        blocks: Blocks,
    ) -> Result<Duration> {
        let client = address.connect(OWN_DATABASE).await?;
        let begin = "SELECT s::text, pg_walfile_name(s) FROM pg_backup_start('lakeforge', true) s";
        let row = client.query_one(begin, &[]).await.map_err(told)?;
        let start = position(row.get(0))?;
        let timeline = u32::from_str_radix(&row.get::<_, &str>(1)[..8], 16)
            .map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
        let id = format!("{}-{timeline:08X}{:016X}", cluster.name, start.0);

        let unfinished = self.folder.join(format!(".new-{id}"));
        let copied = copy_base(host, cluster, &client, &unfinished, blocks).await;
        let (stop, taken) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                blocking(move || Ok(remove_folder(&unfinished)?)).await?;
                return Err(error);
            }
        };
        let base = Base { timeline, start, stop, end_time: Timestamp::now() };
        base.save(&unfinished)?;
        let written = unfinished.clone();
        blocking(move || Ok(sync_each(&written)?)).await?;
        let folder = self.folder.join(&id);
        std::fs::rename(&unfinished, &folder)?;
        sync_name(&folder)?;
        locked(&self.entries).insert(id.clone(), Entry { base, folder, users: 1, kept: false });
        let noted = cluster.change(|record| record.bases.push(id.clone()));
        if noted.is_err() {
            self.release(&[id]).await?;
        }
        noted.map(|()| taken)
    }
}

/// Copies the data of `cluster`, for which `client` has begun a backup, into `folder`; returns the
/// position from which on the copy is consistent, and how long it took.
async fn copy_base(
    host: &Host,
    cluster: &Cluster,
    client: &Client,
    folder: &Path,
    blocks: Blocks,
) -> Result<(Lsn, Duration)> {
    let (source, target) = (cluster.data(), data_of(folder));
    let (account, fresh) = (host.account.clone(), folder.to_owned());
    let taken = blocking(move || {
        remove_folder(&fresh)?;
        account.create_folder(&fresh)?;
        let begun = Instant::now();
        Ok(copy_data(&source, &target, &account, blocks).map(|()| begun.elapsed())?)
    })
    .await?;
    let end = "SELECT lsn::text, labelfile FROM pg_backup_stop(false)";
    let row = client.query_one(end, &[]).await.map_err(told)?;
    let label = data_of(folder).join("backup_label");
    std::fs::write(&label, row.get::<_, &str>(1))?;
    host.account.own(&label)?;
    Ok((position(row.get(0))?, taken))
}

fn position(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error: String| Error::new(Kind::Failed, error))
}
