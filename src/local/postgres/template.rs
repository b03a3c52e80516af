//! The template: a fresh cluster made once per major version, which every first branch is a copy of.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;

use super::base::Base;
use super::blocking;
use super::cluster::{data_of, log_of};
use super::compute::{Host, Stop};
use super::copy::remove_folder;
use super::roles::{AUTH_SQL, TEMPLATE_SQL};
use super::session::{OWN_DATABASE, SUPERUSER, told};
use super::wal::{Lsn, SEGMENT_BYTES};
use crate::error::{Doing, Error, Kind, Result};

/// How long the fresh cluster may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Only the owner of the private socket's folder gets this far; standbys are fed to the superuser alone.
const ACCESS: &str = "local all all trust\nlocal replication lakeforge trust\n";

/// Returns the name of the template of `major`, which is also its name as a base.
pub(super) fn name(major: u32) -> String {
    format!("template-{major}")
}

/// Returns the template under `folder`, made first when it is missing.
pub(super) async fn ensure(host: &Host, folder: &Path) -> Result<(Base, PathBuf)> {
    let finished = folder.join(name(host.install.major));
    if !finished.is_dir() {
        let unfinished = folder.join(format!(".new-{}", name(host.install.major)));
        make(host, &unfinished)
            .await
            .doing(|| "could not make a fresh Postgres cluster".to_owned())?;
        std::fs::rename(&unfinished, &finished)?;
    }
    Ok((Base::load(&finished)?, finished))
}

async fn make(host: &Host, folder: &Path) -> Result<()> {
    let (account, unfinished) = (host.account.clone(), folder.to_owned());
    blocking(move || {
        remove_folder(&unfinished)?;
        Ok(account.create_folder(&unfinished)?)
    })
    .await?;
    let data = data_of(folder);
    initdb(host, &data).await?;
    let access = data.join("pg_hba.conf");
    std::fs::write(&access, ACCESS)?;

    let compute = host.start(&data, &log_of(folder), &[], START_LIMIT).await?;
    let client = compute.address().connect("template1").await?;
    client.batch_execute(AUTH_SQL).await.map_err(told)?;
    drop(client);
    let client = compute.address().connect(OWN_DATABASE).await?;
    for statement in TEMPLATE_SQL {
        client.batch_execute(statement).await.map_err(told)?;
    }
    drop(client);
    compute.stop(Stop::Clean).await;

    let (timeline, position) = last_checkpoint(&data)?;
    let end_time = Timestamp::now();
    Base { timeline, start: position, stop: position, end_time }.save(folder)
}

async fn initdb(host: &Host, data: &Path) -> Result<()> {
    let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
    let mut command = host.account.command(&host.install.program("initdb"));
    command.arg("-D").arg(data).args(["--no-sync", "--no-instructions", "--encoding=UTF8"]);
    command.args(["--auth=trust", "--username", SUPERUSER, "--locale", locale]);
    command.arg(format!("--wal-segsize={}", SEGMENT_BYTES >> 20));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::Failed, "initdb failed").why(said.trim()))
}

/// Returns timeline and position of the checkpoint a cleanly stopped cluster ended with.
///
/// They are read here because not every package of Postgres has `pg_controldata`. The checkpoint of a shutdown
/// begins where it is itself: with another layout of the file that would not be so.
///
/// Source: PostgreSQL 15 to 18 `src/include/catalog/pg_control.h`; numbers are as the machine keeps them.
fn last_checkpoint(data: &Path) -> Result<(u32, Lsn)> {
    const CLEANLY_STOPPED: u32 = 1;
    let control = std::fs::read(data.join("global").join("pg_control"))?;
    let number = |at: usize| Some(u32::from_ne_bytes(*control.get(at..)?.first_chunk()?));
    let position = |at: usize| Some(Lsn(u64::from_ne_bytes(*control.get(at..)?.first_chunk()?)));
    let [state, timeline] = [16, 48].map(number);
    let [checkpoint, redo] = [32, 40].map(position);
    match (timeline, redo) {
        (Some(timeline), Some(redo))
            if state == Some(CLEANLY_STOPPED) && checkpoint == Some(redo) =>
        {
            Ok((timeline, redo))
        }
        _ => Err(Error::new(Kind::Failed, "the fresh cluster did not stop cleanly")),
    }
}
