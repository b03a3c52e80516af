//! Keeping the past within bounds: new bases where much was written, old bases and log dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::cluster::Cluster;
use super::copy::Blocks;
use super::session::Address;
use super::wal::{self, Lsn};
use super::{Engine, blocking, flushed, locked};
use crate::error::{Doing, Result};

/// When a new base is worth its copy, by the log that was written since the last one.
pub(super) struct Worth {
    /// Least bytes of log.
    log: u64,
    /// Replaying it takes at least as long as the copy of a base, by so many.
    cost_by: u32,
}

/// For a cluster that is seldom copied.
const SELDOM: Worth = Worth { log: 64 << 20, cost_by: 2 };
/// For a cluster that was copied lately: the less log there is, the sooner the next copy has replayed it.
const HOT: Worth = Worth { log: 16 << 20, cost_by: 2 };
/// For a copy that waits for the base.
pub(super) const WAITED_FOR: Worth = Worth { log: 256 << 20, cost_by: 1 };
/// Bytes of log that are replayed in a second, with what it changes written out.
const REPLAYED: u64 = 256 << 20;
/// Bytes that are copied in a second where blocks are not shared.
const COPIED: u64 = 512 << 20;
/// How long sharing the blocks of a cluster may take. Random writes break a file that shares its blocks into
/// ever more pieces, and sharing it again takes longer with each.
const TOO_LONG: Duration = Duration::from_millis(500);

impl Worth {
    /// Says whether a base of `size` bytes is worth it after `behind` bytes of log; `sharing` is how long it takes
    /// to share its blocks instead of copying them.
    fn is_given(&self, behind: u64, size: u64, sharing: Option<Duration>) -> bool {
        let cost = sharing.unwrap_or_else(|| time_for(size, COPIED));
        behind >= self.log && time_for(behind, REPLAYED) >= cost / self.cost_by
    }
}

/// How old a base must be before the one before it is of no more use to copies of the recent past.
const RECENT: SignedDuration = SignedDuration::from_secs(60);
/// Most bases a cluster keeps; beyond, those in between are thinned out.
const MOST_BASES: usize = 6;

/// Does the periodic work for all clusters; one that fails does not keep the others from theirs.
pub(super) async fn maintain(engine: &Engine) -> Result<()> {
    let clusters: Vec<Arc<Cluster>> = locked(&engine.clusters).values().cloned().collect();
    let mut result = Ok(());
    for cluster in clusters {
        let done = look_after(engine, &cluster).await;
        result =
            result.and(done.doing(|| format!("could not maintain the cluster `{}`", cluster.name)));
    }
    result
}

async fn look_after(engine: &Engine, cluster: &Cluster) -> Result<()> {
    if cluster.record().primary.is_some() {
        // A standby has no past of its own.
        return Ok(());
    }
    if let Some(address) = cluster.address() {
        let _pin = cluster.pins.read().await;
        let position = flushed(&address).await?;
        let worth = if cluster.is_hot() { &HOT } else { &SELDOM };
        renew_base(engine, cluster, &address, position, worth).await?;
    }
    forget(engine, cluster).await
}

/// Keeps what copies of hot clusters start from close behind them, in the background.
pub(super) fn keep_ready(engine: &Arc<Engine>) {
    let clusters: Vec<Arc<Cluster>> = locked(&engine.clusters).values().cloned().collect();
    for cluster in clusters.iter().filter(|cluster| cluster.is_hot()) {
        freshen(engine, cluster);
    }
}

/// Takes a new base of `cluster` if it is worth it, and has copies made ready of what the next copy is
/// likely to start from; all in the background.
pub(super) fn freshen(engine: &Arc<Engine>, cluster: &Arc<Cluster>) {
    let (engine, cluster) = (engine.clone(), cluster.clone());
    tokio::spawn(async move {
        if let Some(address) = cluster.address()
            && cluster.basing.try_lock().is_ok()
        {
            let _pin = cluster.pins.read().await;
            let renewed = async {
                let position = flushed(&address).await?;
                renew_base(&engine, &cluster, &address, position, &HOT).await
            };
            if let Err(error) = renewed.await {
                // It may have been suspended just now; there is another time.
                tracing::debug!("no new base of `{}`: {error}", cluster.name);
            }
        }
        if !engine.closing.load(Ordering::SeqCst) {
            engine.bases.spares.keep(likely(&engine, Timestamp::now()));
        }
    });
}

/// Returns the bases that the next copies are likely to start from, with their data directories: of each
/// hot cluster the newest, and while that is recent the one before; and where their blocks are to be.
fn likely(engine: &Engine, now: Timestamp) -> Vec<(String, PathBuf, Blocks)> {
    let clusters: Vec<Arc<Cluster>> = locked(&engine.clusters).values().cloned().collect();
    let mut likely = Vec::new();
    for cluster in clusters.iter().filter(|cluster| cluster.is_hot()) {
        for id in cluster.record().bases.iter().rev() {
            let Some((base, data)) = engine.bases.get(id).zip(engine.bases.data(id)) else { break };
            likely.push((id.clone(), data, blocks_of(engine, cluster)));
            if now.duration_since(base.end_time) > RECENT {
                break;
            }
        }
    }
    likely.sort();
    likely.dedup_by(|one, other| one.0 == other.0);
    likely
}

/// Takes a new base of the running `cluster`, which is at `position`, when its last one is far behind.
pub(super) async fn renew_base(
    engine: &Engine,
    cluster: &Cluster,
    address: &Address,
    position: Lsn,
    worth: &Worth,
) -> Result<()> {
    let _one_at_a_time = cluster.basing.lock().await;
    let last = cluster.record().bases.last().and_then(|id| engine.bases.get(id));
    let behind = last.map_or(u64::MAX, |base| position.0.saturating_sub(base.start.0));
    if behind < worth.log || engine.closing.load(Ordering::SeqCst) {
        return Ok(());
    }
    let data = cluster.data().join("base");
    let size = blocking(move || Ok(size_of(&data)?)).await?;
    let blocks = blocks_of(engine, cluster);
    let shares = engine.shares_blocks && blocks == Blocks::Shared;
    let sharing = shares.then(|| cluster.sharing_time());
    if !worth.is_given(behind, size, sharing) {
        return Ok(());
    }
    let taken = engine.bases.take(&engine.host, cluster, address, blocks).await?;
    if shares {
        cluster.note_sharing_time(taken);
    }
    Ok(())
}

/// Says where the blocks of copies of `cluster` are to be.
fn blocks_of(engine: &Engine, cluster: &Cluster) -> Blocks {
    let in_pieces = engine.shares_blocks && cluster.sharing_time() > TOO_LONG;
    if in_pieces { Blocks::Own } else { Blocks::Shared }
}

/// Returns how long `bytes` take at `speed`, in bytes a second.
fn time_for(bytes: u64, speed: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / speed)
}

/// Drops the bases and the log that the retention does not ask for.
async fn forget(engine: &Engine, cluster: &Cluster) -> Result<()> {
    let record = cluster.record();
    let retention = SignedDuration::try_from(record.retention).unwrap_or(SignedDuration::MAX);
    let horizon = Timestamp::now().saturating_sub(retention).unwrap_or(Timestamp::MIN);
    let bases: Vec<_> = record.bases.iter().filter_map(|id| engine.bases.get(id)).collect();
    if bases.len() != record.bases.len() {
        return Ok(());
    }
    let moments: Vec<_> = bases.iter().map(|base| (base.end_time, base.start)).collect();
    let keep = kept(&moments, horizon);
    if keep.len() == moments.len() {
        return Ok(());
    }
    // Whoever copies the cluster right now may need what is dropped; there is another time.
    let Ok(_alone) = cluster.pins.try_write() else { return Ok(()) };
    let _one_at_a_time = cluster.basing.lock().await;
    let (kept, dropped): (Vec<_>, Vec<_>) =
        record.bases.iter().cloned().enumerate().partition(|(index, _)| keep.contains(index));
    let names = |of: Vec<(usize, String)>| of.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let (kept, dropped) = (names(kept), names(dropped));
    cluster.change(|record| record.bases.retain(|id| !dropped.contains(id)))?;
    engine.bases.release(&dropped).await?;
    let Some(first) = kept.first().and_then(|id| engine.bases.get(id)) else { return Ok(()) };
    let folder = cluster.wal();
    blocking(move || Ok(wal::prune(&folder, first.start.segment())?)).await.map(drop)
}

/// Returns which bases to keep, given their ends and starts with the oldest first: the newest that
/// `horizon` can be reached from, all after it, and of too many not those whose neighbours are close for
/// how far back they are: the recent past is asked for most, and waits least.
fn kept(bases: &[(Timestamp, Lsn)], horizon: Timestamp) -> Vec<usize> {
    let first = bases.iter().rposition(|(end, _)| *end <= horizon).unwrap_or(0);
    let mut keep: Vec<usize> = (first..bases.len()).collect();
    while keep.len() > MOST_BASES {
        let position = |at: usize| bases[keep[at]].1.0;
        let newest = position(keep.len() - 1);
        let gap = |middle: usize| {
            let back = (newest - position(middle)).max(1);
            (position(middle + 1) - position(middle - 1)).saturating_mul(1000) / back
        };
        let Some(least) = (1..keep.len() - 1).min_by_key(|middle| gap(*middle)) else { break };
        keep.remove(least);
    }
    keep
}

/// Returns how many bytes the files under `folder` hold; files that vanish meanwhile count nothing.
pub(super) fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(facts) if facts.is_dir() => size += size_of(&entry.path()).unwrap_or(0),
            Ok(facts) => size += facts.len(),
            Err(_) => {}
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(positions: &[u64]) -> Vec<(Timestamp, Lsn)> {
        let at = |second: &u64| Timestamp::from_second((*second).cast_signed()).unwrap();
        positions.iter().map(|second| (at(second), Lsn(*second))).collect()
    }

    #[test]
    fn a_base_is_worth_what_it_costs() {
        let (mega, giga) = (1 << 20, 1 << 30);
        let (quick, slow) = (Some(Duration::from_millis(60)), Some(Duration::from_millis(500)));

        assert!(!HOT.is_given(15 * mega, 70 * mega, None));
        assert!(HOT.is_given(18 * mega, 70 * mega, None));
        assert!(!HOT.is_given(255 * mega, giga, None));
        assert!(HOT.is_given(256 * mega, giga, None));
        assert!(!WAITED_FOR.is_given(256 * mega, giga, None));
        assert!(HOT.is_given(16 * mega, giga, quick));
        assert!(!HOT.is_given(63 * mega, giga, slow));
        assert!(HOT.is_given(64 * mega, giga, slow));
    }

    #[test]
    fn the_base_that_reaches_the_horizon_is_kept() {
        let horizon = Timestamp::from_second(25).unwrap();

        assert_eq!(kept(&bases(&[10, 20, 30, 40]), horizon), [1, 2, 3]);
        assert_eq!(kept(&bases(&[30, 40]), horizon), [0, 1]);
        assert_eq!(kept(&bases(&[10]), horizon), [0]);
    }

    #[test]
    fn bases_are_closest_in_the_recent_past() {
        let mut taken: Vec<u64> = Vec::new();
        for position in 1..=1000 {
            taken.push(position);
            let kept = kept(&bases(&taken), Timestamp::from_second(0).unwrap());
            taken = kept.into_iter().map(|index| taken[index]).collect();
        }

        assert_eq!((taken.len(), taken[0], taken[MOST_BASES - 1]), (MOST_BASES, 1, 1000));
        let gaps: Vec<u64> = taken.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted_by(|older, newer| older >= newer), "{taken:?}");
        assert!(gaps[MOST_BASES - 2] <= 4, "{taken:?}");
    }

    #[test]
    fn too_many_bases_are_thinned_where_they_are_close() {
        let many = bases(&[10, 20, 21, 30, 40, 50, 60, 70]);

        let kept = kept(&many, Timestamp::from_second(0).unwrap());

        assert_eq!(kept.len(), MOST_BASES);
        assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&7)));
        assert!(!kept.contains(&2) || !kept.contains(&1), "{kept:?}");
    }
}
