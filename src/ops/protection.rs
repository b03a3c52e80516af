//! Protection of branches: taken off for a deletion, and put back when the deletion does not take place.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::api::{self, Client, there};
use crate::error::{Doing, Error, Result};
use crate::ops::parallel;
use crate::ui::Steps;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Body, Branch, BranchSpec};

/// How long putting the protection back may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Does `work` while the protection of `branches` is off.
///
/// When it fails, or a signal comes first, the protection is put back on those that are still there,
/// and the error says of each that was left without it what to type.
pub(crate) async fn without<T>(
    api: &Client,
    steps: &Steps,
    branches: impl IntoIterator<Item = BranchName>,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let off: Mutex<Vec<Branch>> = Mutex::default();
    let all = async {
        for name in branches {
            take_off(api, &name, limit, &off)
                .await
                .doing(|| format!("could not take the protection off `{}`", name.short()))?;
        }
        work.await
    };
    match steps.unless_interrupted(all).await.flatten() {
        Ok(done) => Ok(done),
        Err(error) => {
            let off = off.into_inner().unwrap_or_else(PoisonError::into_inner);
            Err(put_back(api, steps, off, error).await)
        }
    }
}

async fn take_off(
    api: &Client,
    name: &BranchName,
    limit: Duration,
    off: &Mutex<Vec<Branch>>,
) -> api::Result<()> {
    let Some(branch) = there(api.get_branch(name).await)?.filter(is_protected) else {
        return Ok(());
    };
    // Before the request leaves: interrupted from here on, the protection may be off.
    off.lock().unwrap_or_else(PoisonError::into_inner).push(branch);
    set(api, name, false, limit).await
}

fn is_protected(branch: &Branch) -> bool {
    branch.status.is_protected
}

async fn set(api: &Client, name: &BranchName, on: bool, limit: Duration) -> api::Result<()> {
    let spec = BranchSpec { is_protected: Some(on), ..BranchSpec::default() };
    let pending = api.update_branch(name, &Body { spec }, "spec.is_protected").await?;
    api.wait(pending, "the change of its protection", limit).await.map(drop)
}

/// Protects `off` again after `error`, and adds to the error what became of it.
async fn put_back(api: &Client, steps: &Steps, off: Vec<Branch>, error: Error) -> Error {
    if off.is_empty() {
        return error;
    }
    let names: Vec<String> = off.iter().map(|branch| branch.name.short()).collect();
    let names = names.join(", ");
    steps.note(format!("putting the protection back on {names}"));
    let unknown = format!("without its protection, unless it is deleted: {names}");
    steps.would_leave(error.clone().why(unknown));
    let results = parallel::each(&off, |branch| protect_again(api, branch)).await;
    off.iter().zip(results).fold(error, |error, (branch, result)| match result {
        Ok(true) => error.why(format!("protected again: {}", branch.name.short())),
        Ok(false) => error,
        Err(reason) => error
            .why(format!("LEFT WITHOUT ITS PROTECTION: {}: {reason}", branch.name.short()))
            .hint(format!(
                "databricks postgres update-branch {} spec.is_protected --json '{{\"spec\":{{\"is_protected\":true}}}}'",
                branch.name
            )),
    })
}

/// Returns whether `branch` is there and protected again.
async fn protect_again(api: &Client, branch: &Branch) -> Result<bool> {
    let now = there(api.get_branch(&branch.name).await)?;
    match now.filter(|now| now.uid == branch.uid && now.status.delete_time.is_none()) {
        None => Ok(false),
        Some(now) if now.status.is_protected => Ok(true),
        Some(_) => Ok(set(api, &branch.name, true, LIMIT).await.map(|()| true)?),
    }
}
