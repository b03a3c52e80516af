//! Making a cluster out of any moment of another: a base, the log since then, and recovery up to it.

use std::sync::Arc;

use jiff::Timestamp;

use super::base::{Base, Reach};
use super::cluster::{Cluster, Record, data_of, log_of};
use super::compute::Compute;
use super::leftover;
use super::recovery::Reached;
use super::session::{Address, OWN_DATABASE, flush_position, told};
use super::wal::Lsn;
use super::{
    Engine, Moment, Origin, START_LIMIT, Size, blocking, durable, flushed, server_roles, upkeep,
};
use crate::error::{Doing, Error, Kind, Result};

/// Makes `child` a copy of `source` at `at` and starts it; see `Postgres::create_child`.
pub(super) async fn create_child(
    engine: &Arc<Engine>,
    source: &str,
    child: &str,
    at: Moment,
) -> Result<Origin> {
    let _gate = engine.gate(child).await;
    if let Ok(there) = engine.cluster(child) {
        there.want(true);
        there.start(&engine.host).await?;
        let Record { birth_lsn, origin_time, .. } = there.record();
        return Ok(Origin { lsn: birth_lsn.to_string(), time: origin_time });
    }
    let source = engine.cluster(source)?;
    source.note_copied();
    let made = {
        let _pin = source.pins.read().await;
        make(engine, &source, child, at).await
    };
    upkeep::freshen(engine, &source);
    engine.let_rest(&source);
    made.doing(|| format!("could not copy the cluster `{}`", source.name))
}

async fn make(engine: &Engine, source: &Cluster, child: &str, at: Moment) -> Result<Origin> {
    let asked = Timestamp::now();
    let record = source.record();
    let reach = reach(engine, &record, &at, asked)?;
    let address = source.start(&engine.host).await?;
    if matches!(reach, Reach::Now) {
        let position = flushed(&address).await?;
        upkeep::renew_base(engine, source, &address, position, &upkeep::WAITED_FOR).await?;
    }
    let Some((base_id, base)) = engine.bases.choose(&source.record().bases, reach) else {
        return Err(outside("no base reaches back that far".to_owned(), engine, &record));
    };
    // After the choice, so that the log up to here holds all that the base needs.
    let end = fence(&address).await?;
    if let Reach::Lsn(position) = reach
        && position > end
    {
        return Err(outside(format!("`{position}` is not written yet"), engine, &record));
    }
    let folder = engine.fresh_folder(child).await?;
    let recovered = recover(engine, source, child, &base_id, &base, reach, end).await;
    let (compute, origin) = match recovered {
        Ok(recovered) => recovered,
        Err(error) => {
            let leave = folder.clone();
            blocking(move || Ok(leftover::discard(&leave)?)).await?;
            return Err(error);
        }
    };
    let birth = if matches!(at, Moment::Now) { asked } else { Timestamp::now() };
    let mut record = Record::new(engine.host.install.major, birth, origin.position, base_id);
    record.origin_time = origin.time;
    record.retention = source.record().retention;
    record.most_connections = source.record().most_connections;
    record.restricted = true;
    engine.complete(child, folder, record, compute)?;
    Ok(Origin { lsn: origin.position.to_string(), time: origin.time })
}

/// Turns the moment asked for into what recovery is to reach.
///
/// Fails with `Usage` when it is in the future or before what is kept of the source.
fn reach(engine: &Engine, record: &Record, at: &Moment, now: Timestamp) -> Result<Reach> {
    match at {
        Moment::Now => Ok(Reach::Now),
        Moment::Time(time) if *time > now => {
            Err(outside(format!("{time} is in the future"), engine, record))
        }
        Moment::Time(time) if *time < engine.oldest_moment(record) => {
            Err(outside(format!("{time} is before the past that is kept"), engine, record))
        }
        Moment::Time(time) => Ok(Reach::Time(*time)),
        Moment::Lsn(text) => {
            let position = text.parse().map_err(|error: String| Error::new(Kind::Usage, error))?;
            if position < record.birth_lsn {
                return Err(outside(format!("`{position}` is before its birth"), engine, record));
            }
            Ok(Reach::Lsn(position))
        }
    }
}

fn outside(why: String, engine: &Engine, record: &Record) -> Error {
    let oldest = engine.oldest_moment(record);
    Error::new(Kind::Usage, "the moment asked for is outside the retention window")
        .code("OUTSIDE_RETENTION")
        .why(why)
        .hint(format!("ask for a moment between {oldest} and now"))
}

/// Commits something on the source and returns the position after it: all that was committed before is
/// on disk, and recovery to any moment up to now finds a later commit to stop at.
async fn fence(address: &Address) -> Result<Lsn> {
    let client = address.connect(OWN_DATABASE).await?;
    let commit = "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_current_xact_id(), \
                  pg_logical_emit_message(true, 'lakeforge', 'fence'); COMMIT";
    client.batch_execute(commit).await.map_err(told)?;
    flush_position(&client).await
}

/// Builds the data directory, lets Postgres recover it and returns the running compute with how far the
/// recovery came. All of it is on disk by then.
async fn recover(
    engine: &Engine,
    source: &Cluster,
    child: &str,
    base_id: &str,
    base: &Base,
    reach: Reach,
    end: Lsn,
) -> Result<(Compute, Reached)> {
    let folder = engine.folder_of(child);
    let (data, log) = (data_of(&folder), log_of(&folder));
    let laid = engine.lay_out(base_id, base, &source.wal(), end, &data).await?;
    let (reached, synced) =
        tokio::join!(engine.host.recover(&data, &log, base, reach), laid.sync(&folder));
    let (reached, unsynced) = (reached?, synced?);
    let settings = engine.host.size_of(child).map_or_else(Vec::new, Size::settings);
    // The compute syncs what it writes itself, so it need not wait for what the recovery wrote.
    let (compute, synced) = tokio::join!(
        engine.host.start(&data, &log, &settings, START_LIMIT),
        blocking(move || Ok(durable::sync_changed(&folder, unsynced)?))
    );
    let compute = synced.and(compute)?;
    if !matches!(reach, Reach::Now) {
        // That may have been before the source was restricted.
        server_roles::restrict(compute.address(), engine.host.install.major).await?;
    }
    Ok((compute, reached))
}
