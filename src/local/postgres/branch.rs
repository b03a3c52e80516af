//! Making a cluster out of any moment of another: a base, the log since then, and recovery up to it.

use std::time::Duration;

use jiff::Timestamp;

use super::base::{Base, Reach};
use super::cluster::{Cluster, Record, data_of, log_of};
use super::compute::Compute;
use super::copy::remove_folder;
use super::session::{Address, OWN_DATABASE, flush_position, told};
use super::wal::Lsn;
use super::{Engine, Moment, Origin, Size, blocking, flushed, upkeep};
use crate::error::{Doing, Error, Kind, Result};

/// How long recovery may take; it reads about half a gigabyte of log a second.
const RECOVERY_LIMIT: Duration = Duration::from_secs(1800);

/// Makes `child` a copy of `source` at `at` and starts it; see `Postgres::create_child`.
pub(super) async fn create_child(
    engine: &Engine,
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
    let made = {
        let _pin = source.pins.read().await;
        make(engine, &source, child, at).await
    };
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
        upkeep::renew_base(engine, source, &address, position).await?;
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
            blocking(move || Ok(remove_folder(&leave)?)).await?;
            return Err(error);
        }
    };
    let birth = if matches!(at, Moment::Now) { asked } else { Timestamp::now() };
    let mut record = Record::new(engine.host.install.major, birth, origin.0, base_id);
    record.origin_time = origin.1;
    record.retention = source.record().retention;
    record.most_connections = source.record().most_connections;
    engine.complete(child, folder, record, compute)?;
    Ok(Origin { lsn: origin.0.to_string(), time: origin.1 })
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

/// Builds the data directory, lets Postgres recover it and returns the running compute with the
/// position and time it came to.
async fn recover(
    engine: &Engine,
    source: &Cluster,
    child: &str,
    base_id: &str,
    base: &Base,
    reach: Reach,
    end: Lsn,
) -> Result<(Compute, (Lsn, Timestamp))> {
    let folder = engine.folder_of(child);
    let data = data_of(&folder);
    engine.lay_out(base_id, base, &source.wal(), end, &data).await?;
    let signal = data.join("recovery.signal");
    std::fs::write(&signal, "")?;
    engine.host.account.own(&signal)?;
    let mut settings = settings(reach);
    settings.extend(engine.host.size_of(child).map_or_else(Vec::new, Size::settings));
    let compute = engine.host.start(&data, &log_of(&folder), &settings, RECOVERY_LIMIT).await?;
    let reached = reached(compute.address(), base).await?;
    Ok((compute, reached))
}

/// Returns the settings of the recovery. Postgres wants a restore command even though all of the log
/// is in place already; it takes the failing one as "not in the archive".
fn settings(reach: Reach) -> Vec<(&'static str, String)> {
    let mut settings = vec![("restore_command", "exit 1".to_owned())];
    let target = match reach {
        Reach::Now => None,
        Reach::Time(time) => {
            // Cut to the microseconds Postgres counts in: rounding up would let in what came later. The
            // zone is a number, since names of zones are not known yet when arguments are read.
            Some(("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()))
        }
        Reach::Lsn(position) => {
            settings.push(("recovery_target_inclusive", "off".to_owned()));
            Some(("recovery_target_lsn", position.to_string()))
        }
    };
    if let Some(target) = target {
        settings.push(target);
        settings.push(("recovery_target_action", "promote".to_owned()));
    }
    settings
}

/// Asks a freshly recovered compute how far it came.
async fn reached(address: &Address, base: &Base) -> Result<(Lsn, Timestamp)> {
    let client = address.connect(OWN_DATABASE).await?;
    let row = client
        .query_one(
            "SELECT pg_last_wal_replay_lsn()::text, \
             (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint",
            &[],
        )
        .await
        .map_err(told)?;
    let position = row.get::<_, Option<&str>>(0).and_then(|text| text.parse().ok());
    let time =
        row.get::<_, Option<i64>>(1).and_then(|micros| Timestamp::from_microsecond(micros).ok());
    Ok((position.unwrap_or(base.stop), time.unwrap_or(base.end_time)))
}
