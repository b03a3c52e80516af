//! Standbys: clusters that follow another, their primary, and answer queries that only read.
//!
//! A standby is made of a base and the log since then, like a branch; from there on it streams the log
//! from its primary, which therefore runs as long as it does. Nothing of it is ever missed: a standby that
//! cannot go on is made again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::base::Reach;
use super::cluster::{self, Cluster, Record, data_of};
use super::compute::Stop;
use super::session::{Address, OWN_DATABASE, SUPERUSER, told};
use super::wal::{self, Lsn};
use super::{Engine, Size, blocking, durable, flushed, locked, upkeep};
use crate::error::{Doing, Error, Kind, Result};

/// How long a standby may stay where it is, behind its primary, until it is given up. Postgres itself
/// lets a query hold it up for half of that.
const STALL: Duration = Duration::from_secs(60);
/// How long a new session waits for a standby that is at work already to catch up.
const MOMENT: Duration = Duration::from_secs(2);

/// Starts the standby `name` of `primary`; see `Postgres::wake_standby`.
pub(super) async fn wake(engine: &Arc<Engine>, primary: &str, name: &str) -> Result<Address> {
    let primary = engine.cluster(primary)?;
    let awake = engine.cluster(name).ok().filter(|standby| standby.wanted());
    if let (Some(source), Some(address)) =
        (primary.address(), awake.and_then(|standby| standby.address()))
    {
        // A query may hold it up for longer; others need not wait for that.
        let _ = tokio::time::timeout(MOMENT, catch_up(&source, &address)).await;
        return Ok(address);
    }
    let _gate = engine.gate(name).await;
    primary.feed(name, true);
    let woken = {
        // What it still needs of the log stays meanwhile.
        let _pin = primary.pins.read().await;
        bring_up(engine, &primary, name).await
    };
    if woken.is_err() {
        if let Ok(standby) = engine.cluster(name) {
            standby.stop(Stop::Clean).await;
        }
        primary.feed(name, false);
        engine.let_rest(&primary);
    }
    woken.doing(|| format!("could not start the standby `{name}` of `{}`", primary.name))
}

async fn bring_up(engine: &Engine, primary: &Arc<Cluster>, name: &str) -> Result<Address> {
    let source = primary.start(&engine.host).await?;
    let standby = match engine.cluster(name) {
        Ok(standby) if standby.address().is_some() || can_follow(&standby, primary).await => {
            standby
        }
        _ => make(engine, primary, &source, name).await?,
    };
    let stopped = match follow(engine, &standby, primary, &source).await {
        Ok(address) => return Ok(address),
        Err(error) => error,
    };
    tracing::warn!("the standby `{name}` is made again: {stopped}");
    standby.stop(Stop::Discard).await;
    let standby = make(engine, primary, &source, name).await?;
    follow(engine, &standby, primary, &source).await
}

/// Says whether the primary still has the log from where the standby's ends.
async fn can_follow(standby: &Cluster, primary: &Cluster) -> bool {
    let (own, theirs) = (standby.wal(), primary.wal());
    let found = blocking(move || {
        let last = wal::segments(&own)?.last().copied();
        let all = wal::segments(&theirs)?;
        Ok(last.is_some_and(|last| all.contains(&last)))
    });
    found.await.unwrap_or(false)
}

/// Makes the files of the standby, in place of those that are there.
async fn make(
    engine: &Engine,
    primary: &Cluster,
    source: &Address,
    name: &str,
) -> Result<Arc<Cluster>> {
    let position = flushed(source).await?;
    upkeep::renew_base(engine, primary, source, position, &upkeep::WAITED_FOR).await?;
    let record = primary.record();
    let (id, base) = engine
        .bases
        .choose(&record.bases, Reach::Now)
        .ok_or_else(|| Error::new(Kind::Failed, "its primary has no base"))?;
    // After the choice, so that the log up to here holds all that the base needs.
    let end = flushed(source).await?;
    let folder = engine.fresh_folder(name).await?;
    let data = data_of(&folder);
    let laid = engine.lay_out(&id, &base, &primary.wal(), end, &data).await?;
    let signal = data.join("standby.signal");
    std::fs::write(&signal, "")?;
    engine.host.account.own(&signal)?;
    let unsynced = laid.sync(&folder).await?;
    let fresh = folder.clone();
    blocking(move || Ok(durable::sync_changed(&fresh, unsynced)?)).await?;
    let record = Record { bases: Vec::new(), primary: Some(primary.name.clone()), ..record };
    cluster::save(&folder, &record)?;
    let mut clusters = locked(&engine.clusters);
    let made = || Arc::new(Cluster::new(name, folder, record, None));
    Ok(clusters.entry(name.to_owned()).or_insert_with(made).clone())
}

/// Starts the standby and waits until it has what its primary had at this moment.
async fn follow(
    engine: &Engine,
    standby: &Cluster,
    primary: &Cluster,
    source: &Address,
) -> Result<Address> {
    standby.want(true);
    let mut settings = settings(source, &standby.name);
    let own = engine.host.size_of(&standby.name).map_or(0, Size::connections);
    let connections = primary.record().most_connections.max(own);
    settings.push(("max_connections", connections.to_string()));
    let address = standby.start_with(&engine.host, &settings).await?;
    catch_up(source, &address).await?;
    Ok(address)
}

/// Returns the settings that make a compute follow the one at `source`.
fn settings(source: &Address, name: &str) -> Vec<(&'static str, String)> {
    let folder = source.folder.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    let port = source.port;
    vec![
        ("hot_standby", "on".to_owned()),
        (
            "primary_conninfo",
            format!("host='{folder}' port={port} user={SUPERUSER} application_name={name}"),
        ),
        ("wal_retrieve_retry_interval", "200ms".to_owned()),
        // Its log is nobody's archive.
        ("wal_keep_size", "0".to_owned()),
        ("max_locks_per_transaction", "64".to_owned()),
    ]
}

/// Waits until the standby has replayed what is on the disk of its primary.
///
/// Fails with `TimedOut` when it stays where it is.
async fn catch_up(source: &Address, standby: &Address) -> Result<()> {
    let goal = flushed(source).await?;
    let client = standby.connect(OWN_DATABASE).await?;
    let query = "SELECT pg_last_wal_replay_lsn()::text";
    let (mut best, mut since) = (Lsn(0), Instant::now());
    let mut pause = Duration::from_millis(1);
    loop {
        let row = client.query_one(query, &[]).await.map_err(told)?;
        let reached = row.get::<_, Option<&str>>(0).and_then(|text| text.parse().ok());
        match reached {
            Some(reached) if reached >= goal => return Ok(()),
            Some(reached) if reached > best => (best, since) = (reached, Instant::now()),
            _ if since.elapsed() > STALL => {
                return Err(Error::new(Kind::TimedOut, "the standby does not follow its primary")
                    .why(format!("it stays at {best}, and its primary is at {goal}")));
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Ends the compute of a standby.
pub(super) async fn end(engine: &Engine, standby: &Arc<Cluster>, how: Stop) {
    let _gate = engine.gate(&standby.name).await;
    standby.stop(how).await;
    part(engine, standby);
}

/// Lets the primary of a standby, if it is one, run no longer for it.
pub(super) fn part(engine: &Engine, standby: &Cluster) {
    let Some(primary) = standby.record().primary else { return };
    if let Ok(primary) = engine.cluster(&primary) {
        primary.feed(&standby.name, false);
        engine.let_rest(&primary);
    }
}

/// Looks after standbys and primaries that died, unless somebody does already; see `Postgres::tend_standbys`.
pub(super) fn tend(engine: &Arc<Engine>) {
    let clusters: Vec<_> = locked(&engine.clusters).values().cloned().collect();
    let dead = clusters.into_iter().filter(|cluster| cluster.address().is_none());
    for cluster in dead.filter(|cluster| cluster.wanted() || cluster.feeds()) {
        let Ok(gate) = engine.gate_of(&cluster.name).try_lock_owned() else { continue };
        if cluster.address().is_some() {
            continue;
        }
        if cluster.record().primary.is_some() {
            cluster.want(false);
            part(engine, &cluster);
        } else if cluster.feeds() {
            let engine = engine.clone();
            tokio::spawn(async move {
                if let Err(error) = cluster.start(&engine.host).await {
                    tracing::warn!("{error}");
                }
                drop(gate);
            });
        }
    }
}
