//! Opening the engine: what a killed server left is stopped and cleared, what is complete is read.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::account::Account;
use super::base::Bases;
use super::cluster::{Cluster, data_of};
use super::compute::Host;
use super::sockets::Sockets;
use super::spare::Spares;
use super::{Engine, Install, blocking, copy, leftover, template};
use crate::error::Result;
use crate::local::folder::OwnedFolder;

impl Engine {
    /// Opens the engine in `folder`; see `Postgres::open`.
    pub(super) async fn open(folder: &OwnedFolder, install: Install) -> Result<Self> {
        let account = Account::detect()?;
        std::fs::create_dir_all(&**folder)?;
        let folder = folder.canonicalize()?;
        account.check_reaches(folder.parent().unwrap_or(&folder))?;
        for part in [folder.clone(), folder.join("clusters"), folder.join("bases")] {
            account.create_folder(&part)?;
        }
        let sockets = Sockets::of(&account, &folder);
        sockets.claim(&account)?;
        sockets.sweep(&account);
        let host = Host {
            install,
            account,
            sockets,
            ports: Arc::new(Mutex::new(BTreeSet::new())),
            sizes: Mutex::default(),
        };

        stop_leftovers(&folder).await?;
        let clusters = load_clusters(&folder.join("clusters"))?;
        for part in [folder.clone(), folder.join("clusters"), folder.join("bases")] {
            blocking(move || remove_unfinished(&part)).await?;
        }
        let (template, template_folder) = template::ensure(&host, &folder).await?;
        let major = host.install.major;
        let spares = Spares::open(
            folder.join(format!("spares-{major}")),
            template::name(major),
            data_of(&template_folder),
            host.account.clone(),
        )?;
        let bases = Bases::open(folder.join("bases"), spares)?;
        bases.add_template(template::name(major), template, template_folder);
        for cluster in clusters.values() {
            cluster.record().bases.iter().for_each(|id| bases.hold(id));
        }
        bases.remove_unused().await?;
        let shares_blocks = copy::shares_blocks(&folder);
        Ok(Engine {
            folder,
            shares_blocks,
            host,
            bases,
            clusters: Mutex::new(clusters),
            gates: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }
}

/// Ends what a killed server left running in the engine's folder `folder`, which nobody else uses.
pub(crate) async fn end_leftovers(folder: &OwnedFolder) -> Result<()> {
    let folder = folder.canonicalize()?;
    stop_leftovers(&folder).await?;
    Sockets::of(&Account::detect()?, &folder).remove();
    Ok(())
}

/// Stops the computes that a killed server left running.
async fn stop_leftovers(folder: &Path) -> Result<()> {
    let mut stops = JoinSet::new();
    for part in [folder.to_owned(), folder.join("clusters")].iter().filter(|part| part.exists()) {
        for entry in std::fs::read_dir(part)? {
            let data = data_of(&entry?.path());
            if data.join("postmaster.pid").exists() {
                stops.spawn(async move {
                    leftover::stop(&data).await;
                    leftover::release_memory(&data);
                });
            }
        }
    }
    stops.join_all().await;
    Ok(())
}

/// Reads all complete clusters in `folder`; what is not complete is removed.
fn load_clusters(folder: &Path) -> Result<HashMap<String, Arc<Cluster>>> {
    let mut clusters = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        match Cluster::load(&name, entry.path())? {
            Some(cluster) => {
                clusters.insert(name, Arc::new(cluster));
            }
            None => leftover::discard(&entry.path())?,
        }
    }
    Ok(clusters)
}

/// Deletes the unfinished folders in `folder`.
fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".new-")
            || name.to_string_lossy().starts_with(".gone-")
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
