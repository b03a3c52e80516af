//! What must hold after every round, and after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::load::Commit;
use super::victim::Outside;
use crate::forge::Forge;
use crate::own::within;
use crate::processes::{self, Memory};

/// How long a compute may take to recover, and an interrupted operation to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The sums that pgbench keeps equal, then of every writer how many rows there are and the last of them.
const STATE: &str = "select (select sum(abalance) from pgbench_accounts), \
    (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers), \
    (select coalesce(sum(delta), 0) from pgbench_history), \
    (select string_agg(concat_ws(':', writer, count, last), ' ') from \
    (select writer, count(*), max(id) as last from commit group by writer) as tally)";

/// The rows of one writer in a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    pub(crate) last: u64,
}

/// The rows of all writers in a branch.
pub(crate) type Tally = BTreeMap<String, Rows>;

/// Checks that each transaction of pgbench is in `branch` as a whole or not at all.
pub(crate) fn sums_agree(forge: &Forge, branch: &str) -> Tally {
    let line = sql(forge, branch, STATE);
    let (sums, tally) = line.rsplit_once('|').unwrap();
    let sums: BTreeSet<&str> = sums.split('|').collect();
    assert_eq!(sums.len(), 1, "the sums of {branch} do not agree: {line}");
    let rows = |entry: &str| {
        let mut parts = entry.rsplitn(3, ':');
        let mut number = || parts.next().unwrap().parse().unwrap();
        let (last, count) = (number(), number());
        (parts.next().unwrap().to_owned(), Rows { count, last })
    };
    tally.split_whitespace().map(rows).collect()
}

/// Checks that every row that was confirmed on `branch` can be read at `place`: the branch, or one of its
/// endpoints.
pub(crate) fn nothing_is_lost(forge: &Forge, place: &str, branch: &str, commits: &[Commit]) {
    let Some((first, last)) = commits.first().zip(commits.last()) else { return };
    let query = format!(
        "select id from commit where writer = '{branch}' and id between {} and {}",
        first.id, last.id
    );
    let there: BTreeSet<u64> =
        sql(forge, place, &query).lines().map(|id| id.parse().unwrap()).collect();
    let lost: Vec<u64> =
        commits.iter().map(|commit| commit.id).filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "confirmed on {branch} and lost at {place}: {lost:?}");
}

/// Checks that what `copy` did not write itself is what `source` once held. Each writer writes one row after
/// the other, so there are no gaps; what others than `source` wrote there was there from the beginning.
pub(crate) fn is_a_past_of(forge: &Forge, copy: (&str, &Tally), source: (&str, &Tally)) {
    let ((copy, has), (source, had)) = (copy, source);
    for (writer, rows) in has.iter().filter(|(writer, _)| *writer != copy) {
        if had.get(writer) == Some(rows) {
            continue;
        }
        assert_eq!(writer, source, "{copy} has {rows:?} of {writer}, and {source} {had:?}");
        let query = format!(
            "select count(*) from commit where writer = '{writer}' and id <= {}",
            rows.last
        );
        let there = sql(forge, source, &query);
        assert_eq!(there, rows.count.to_string(), "{copy} is not what {source} was: {rows:?}");
    }
    for writer in had.keys().filter(|writer| *writer != source) {
        assert!(
            has.contains_key(writer),
            "{copy} lacks what {writer} wrote before {source} was made"
        );
    }
}

/// Runs SQL as soon as the compute takes sessions again. `place` is a branch, or one with `--endpoint`.
fn sql(forge: &Forge, place: &str, statement: &str) -> String {
    let mut answer = Err(String::new());
    within(PATIENCE, || {
        let output = forge
            .command(&format!("-q creds exec {place} -- psql -XAtqc"))
            .arg(statement)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let recovers = ["recovery mode", "starting up", "not yet accepting", "shutting down"];
        answer = match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(said),
        };
        !matches!(&answer, Err(said) if recovers.iter().any(|words| said.contains(words)))
    });
    answer.unwrap_or_else(|said| panic!("{statement} on {place}: {said}"))
}

/// Waits until no operation is under way, and checks that each has come to one end.
pub(crate) fn operations_are_done(forge: &Forge) {
    let folder = forge.data().join("objects").join("operations");
    let mut all = Vec::new();
    let done = within(PATIENCE, || {
        all = objects(&folder);
        all.iter().all(|operation| operation["done"] == true)
    });
    let pending: Vec<&Value> = all.iter().filter(|operation| operation["done"] != true).collect();
    assert!(done, "operations without end: {pending:?}");
    for operation in all {
        let ends = ["response", "error"].map(|end| !operation[end].is_null());
        assert_ne!(ends[0], ends[1], "an operation has one end: {operation}");
    }
}

fn objects(folder: &Path) -> Vec<Value> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        // A file may go between listing and reading.
        .filter_map(|path| fs::read(path).ok())
        .map(|text| serde_json::from_slice(&text).unwrap())
        .collect()
}

/// Checks that a stopped workspace left nothing behind: processes, sockets, unfinished or unused folders.
pub(crate) fn nothing_is_left(forge: &Forge, outside: &Outside) {
    let data = forge.data();
    let mut running = Vec::new();
    let ended = within(PATIENCE, || {
        running = processes::working_in(data);
        running.is_empty()
    });
    assert!(ended, "processes outlived the workspace: {running:?}");
    let log = fs::read_to_string(data.join("server.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    for folder in &outside.sockets {
        assert!(!folder.exists(), "{} was left", folder.display());
    }
    let kept: Vec<&Memory> = outside.memory.iter().filter(|memory| memory.is_there()).collect();
    assert!(kept.is_empty(), "shared memory is left: {kept:?}");
    let branches: BTreeSet<String> = names(&data.join("objects/branches"))
        .into_iter()
        .map(|name| name.trim_end_matches(".json").to_owned())
        .collect();
    let clusters = names(&data.join("postgres/clusters"));
    let standbys: BTreeSet<String> = objects(&data.join("objects/branches"))
        .iter()
        .flat_map(|branch| branch["endpoints"].as_array().unwrap())
        .filter(|endpoint| endpoint["kind"] == "ENDPOINT_TYPE_READ_ONLY")
        .map(|endpoint| endpoint["uid"].as_str().unwrap().to_owned())
        .collect();
    let wanted: BTreeSet<String> = branches.union(&standbys).cloned().collect();
    assert_eq!(clusters, wanted, "clusters are not those of branches and read-only endpoints");
    let used: BTreeSet<String> = clusters
        .iter()
        .map(|name| fs::read(data.join("postgres/clusters").join(name).join("cluster.json")))
        .flat_map(|text| {
            let record: Value = serde_json::from_slice(&text.unwrap()).unwrap();
            record["bases"].as_array().unwrap().clone()
        })
        .map(|base| base.as_str().unwrap().to_owned())
        .collect();
    let unused: Vec<String> = names(&data.join("postgres/bases"))
        .into_iter()
        .filter(|base| !used.contains(base))
        .collect();
    assert!(unused.is_empty(), "bases that nobody uses: {unused:?}");
    let unfinished = unfinished(data);
    assert!(unfinished.is_empty(), "unfinished: {unfinished:?}");
    for app in names(&data.join("apps")) {
        let process = data.join("apps").join(&app).join("process");
        assert!(!process.exists(), "the process of {app} is still written down");
    }
    assert_eq!(fs::read_to_string(data.join("lock")).unwrap(), "", "the lock names a process");
    assert!(!data.join("server.json").exists());
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns what bears the name of unfinished work, outside the data of databases.
fn unfinished(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if name.starts_with(".new-") || name.starts_with(".gone-") || name.starts_with(".tmp") {
            found.push(path.display().to_string());
        } else if name != "data" && entry.file_type().unwrap().is_dir() {
            found.extend(unfinished(&path));
        }
    }
    found
}
