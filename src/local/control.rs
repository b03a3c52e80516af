//! The embedded workspace from outside: start, stop, look, reset. Also when the server is dead.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folder::{FOLDER_TAKEN, WorkspaceFolder};
use super::layout::{Holder, Layout, Serving};
use super::pid::ProcessId;
use super::serve::Options;
use super::{apps, loopback, postgres};
use crate::error::{Doing, Error, Kind, Result};
use crate::secret::Secret;

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a server may take until it has stopped, and how long after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// How often a server is asked whether it is there or gone.
const BEAT: Duration = Duration::from_millis(20);
/// Lines of the log that a failed start shows.
const SHOWN: usize = 12;

/// What is known of an embedded workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Whether it serves.
    pub(crate) running: bool,
    /// Base address of the REST API.
    pub(crate) host: Option<String>,
    /// Process id of the server.
    pub(crate) pid: Option<u32>,
    /// Data folder.
    pub(crate) data_folder: PathBuf,
    /// File of Databricks profiles, when there is one.
    pub(crate) config_file: Option<PathBuf>,
    /// Certificate of the authority behind the endpoints, for clients that verify (`sslrootcert`).
    pub(crate) certificate_file: Option<PathBuf>,
    /// Version of the server.
    pub(crate) version: Option<String>,
    /// Version of PostgreSQL behind it.
    pub(crate) postgres_version: Option<String>,
    /// Postgres projects.
    pub(crate) projects: Option<u64>,
    /// Branches in all projects.
    pub(crate) branches: Option<u64>,
    /// Apps.
    pub(crate) apps: Option<u64>,
    /// Computes that run; a suspended one is no process.
    pub(crate) awake: Option<u64>,
    /// Bytes on disk; not counted by a start, which has better things to do.
    pub(crate) disk_bytes: Option<u64>,
}

/// Starts a server in the background, unless one runs, and waits until it answers.
///
/// `executable` is this program. Returns whether the server that answers is the one that was started here.
/// Fails with `Refused` when the data folder holds something that is no workspace.
pub(crate) async fn start(options: &Options, executable: &Path) -> Result<(Status, bool)> {
    let folder = WorkspaceFolder::claim(&options.data)?;
    let limit = Instant::now() + START_LIMIT;
    loop {
        let mut started = match folder.holder()? {
            Holder::Nobody => Some(spawn(&folder, options, executable)?),
            _ => None,
        };
        match await_answer(&folder, started.as_mut(), limit).await? {
            Answering::Ours => return Ok((describe(&folder).await?, true)),
            Answering::Another => {
                if let Some(started) = &mut started {
                    // Else it would begin to serve when the other one stops.
                    started.give_up().await;
                }
                return Ok((describe(&folder).await?, false));
            }
            // It was killed or stopping, and let go of the folder only now.
            Answering::Nobody => {}
        }
    }
}

/// Who answers.
enum Answering {
    /// The server that was started here.
    Ours,
    /// A server that somebody else started.
    Another,
    /// None any more.
    Nobody,
}

/// A server that was started.
struct Started {
    child: Child,
    /// Where in the log its own lines begin.
    log_start: u64,
}

impl Started {
    /// Ends a server that only waits for the data folder.
    async fn give_up(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        while matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(BEAT).await;
        }
    }
}

fn spawn(folder: &WorkspaceFolder, options: &Options, executable: &Path) -> Result<Started> {
    let path = folder.server_log();
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .doing(|| format!("could not open `{}`", path.display()))?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let errors = log.try_clone().doing(|| format!("could not open `{}`", path.display()))?;
    let mut command = Command::new(executable);
    // In JSON its failure is one document at the end of the log.
    command.args(["local", "serve", "--output", "json", "--data-dir"]).arg(&options.data);
    if let Some(port) = options.port {
        command.arg("--port").arg(port.to_string());
    }
    if let Some(folder) = &options.postgres {
        command.arg("--postgres-bin").arg(folder);
    }
    if let Some(python) = &options.python {
        command.arg("--python").arg(python);
    }
    if let Some(file) = &options.faults {
        command.arg("--faults").arg(file);
    }
    for rule in &options.fault {
        command.arg("--fault").arg(rule);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .doing(|| format!("could not start `{}`", executable.display()))?;
    Ok(Started { child, log_start })
}

/// Waits until a server of this data folder answers; `started` is the one that was started here.
async fn await_answer(
    folder: &WorkspaceFolder,
    mut started: Option<&mut Started>,
    limit: Instant,
) -> Result<Answering> {
    loop {
        let holder = folder.holder()?;
        let ended = match started.as_deref_mut() {
            Some(started) => started.child.try_wait().ok().flatten(),
            None => None,
        };
        if let Some(process) = holder.process()
            && let Some(serving) = folder.serving(process)
            && answers(&serving).await
        {
            let ours = started.as_ref().is_some_and(|started| started.child.id() == serving.pid);
            return Ok(if ours { Answering::Ours } else { Answering::Another });
        }
        match (&started, ended) {
            // Another start was quicker, or somebody clears up after a killed server.
            (Some(started), Some(status)) if !lost_the_race(folder, status, started) => {
                return Err(died(folder, status, started.log_start));
            }
            (Some(_), Some(_)) => started = None,
            (Some(_), None) => {}
            (None, _) if holder == Holder::Nobody => return Ok(Answering::Nobody),
            (None, _) => {}
        }
        if Instant::now() > limit {
            return Err(Error::new(Kind::TimedOut, "the embedded workspace does not answer")
                .hint(format!("its log: {}", folder.server_log().display())));
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Returns whether a server that ended only found the data folder taken.
fn lost_the_race(
    folder: &WorkspaceFolder,
    status: std::process::ExitStatus,
    started: &Started,
) -> bool {
    status.code() == Some(Kind::Conflict.exit_code().into())
        && told_failure(folder, started.log_start)
            .is_some_and(|failure| failure.code == FOLDER_TAKEN)
}

/// Says why a server could not start, in its own words as far as it found any.
fn died(folder: &WorkspaceFolder, status: std::process::ExitStatus, log_start: u64) -> Error {
    let path = folder.server_log();
    let its_log = format!("its log: {}", path.display());
    let terminated = status.code() == Some(Kind::Terminated.exit_code().into())
        || status.signal() == Some(Signal::TERM.as_raw());
    if status.success() || terminated {
        let text = "the embedded workspace was stopped while it started";
        return Error::new(Kind::Conflict, text).hint(its_log);
    }
    let kind = [Kind::Usage, Kind::Conflict, Kind::Refused]
        .into_iter()
        .find(|kind| status.code() == Some(kind.exit_code().into()))
        .unwrap_or(Kind::Failed);
    let mut error = Error::new(kind, "the embedded workspace could not start");
    let Some(failure) = told_failure(folder, log_start) else {
        let log = log_since(&path, log_start);
        let lines = log.lines().count();
        error = log.lines().skip(lines.saturating_sub(SHOWN)).fold(error, Error::why);
        return error.hint(its_log);
    };
    error = std::iter::once(failure.message).chain(failure.why).fold(error, Error::why);
    error.hint(failure.hint.unwrap_or(its_log))
}

/// What a server wrote about its failure.
#[derive(Deserialize)]
struct Failure {
    code: String,
    message: String,
    why: Vec<String>,
    hint: Option<String>,
}

/// Returns the last failure that a server wrote into its log after the first `log_start` bytes.
fn told_failure(folder: &WorkspaceFolder, log_start: u64) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Document {
        error: Failure,
    }
    let log = log_since(&folder.server_log(), log_start);
    let failure = |line: &str| serde_json::from_str::<Document>(line).ok();
    log.lines().rev().find_map(failure).map(|document| document.error)
}

/// Returns what was added to a log after its first `start` bytes.
fn log_since(path: &Path, start: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// Returns the last `count` lines of a log.
pub(crate) fn log_end(path: &Path, count: usize) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text.lines().rev().take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}

async fn answers(serving: &Serving) -> bool {
    let discovery = request(&serving.host, Method::GET, "/.well-known/databricks-config", None);
    match discovery {
        Ok(request) => loopback::send(request).await.is_ok_and(|(status, document)| {
            status == 200 && document["lakeforge_local"].is_string()
        }),
        Err(_) => false,
    }
}

/// Returns what is known of the workspace in `data`, whether it runs or not.
///
/// Fails with `Refused` when the folder holds something that is no workspace.
pub(crate) async fn status(data: &Path) -> Result<Status> {
    let Some(folder) = WorkspaceFolder::find(data)? else { return Ok(Status::of_nothing(data)) };
    let layout = Layout::clone(&folder);
    let disk = tokio::task::spawn_blocking(move || layout.disk_bytes());
    let (status, disk) = tokio::join!(describe(&folder), disk);
    Ok(Status { disk_bytes: disk.ok(), ..status? })
}

/// Returns what is quickly known of a workspace.
async fn describe(folder: &WorkspaceFolder) -> Result<Status> {
    let holder = folder.holder()?;
    let serving = holder.process().and_then(|process| folder.serving(process));
    let document = match &serving {
        Some(serving) => asked(folder, serving, Method::GET, "/lakeforge/status").await.ok(),
        None => None,
    };
    let text = |key: &str| document.as_ref()?.get(key)?.as_str().map(str::to_owned);
    let number = |key: &str| document.as_ref()?.get(key)?.as_u64();
    let (version, postgres_version) = (text("version"), text("postgres_version"));
    let (projects, branches, apps) = (number("projects"), number("branches"), number("apps"));
    let pid = |process: &ProcessId| process.pid.as_raw_nonzero().get().cast_unsigned();
    Ok(Status {
        running: document.is_some(),
        host: serving.map(|serving| serving.host),
        pid: holder.process().map(pid),
        data_folder: folder.folder().to_owned(),
        certificate_file: text("certificate_file").map(PathBuf::from),
        config_file: Some(folder.profiles()).filter(|path| path.exists()),
        version,
        postgres_version,
        projects,
        branches,
        apps,
        awake: number("awake"),
        disk_bytes: None,
    })
}

impl Status {
    /// Returns what is known of a workspace that is not there.
    fn of_nothing(data: &Path) -> Self {
        Status {
            running: false,
            host: None,
            pid: None,
            data_folder: data.to_owned(),
            config_file: None,
            certificate_file: None,
            version: None,
            postgres_version: None,
            projects: None,
            branches: None,
            apps: None,
            awake: None,
            disk_bytes: Some(0),
        }
    }
}

/// Stops the server of `data` and waits until it is gone, with all that it started. Returns whether one ran.
///
/// Fails with `Refused` when the folder holds something that is no workspace.
pub(crate) async fn stop(data: &Path) -> Result<bool> {
    let Some(folder) = WorkspaceFolder::find(data)? else { return Ok(false) };
    stop_in(&folder).await
}

async fn stop_in(folder: &WorkspaceFolder) -> Result<bool> {
    let ran = end_server(folder).await?;
    end_leftovers(folder).await?;
    Ok(ran)
}

/// Ends the server that holds the data folder now, and no other.
async fn end_server(folder: &WorkspaceFolder) -> Result<bool> {
    let Some(process) = server_of(folder).await? else { return Ok(false) };
    let asked = match folder.serving(&process) {
        Some(serving) => asked(folder, &serving, Method::POST, "/lakeforge/stop").await.is_ok(),
        None => false,
    };
    if asked && gone(&process).await {
        return Ok(true);
    }
    process.signal(Signal::TERM);
    if gone(&process).await {
        return Ok(true);
    }
    let pid = process.pid.as_raw_nonzero();
    Err(Error::new(Kind::TimedOut, format!("the embedded workspace (process {pid}) does not stop"))
        .hint(format!("its log: {}", folder.server_log().display())))
}

/// Returns the server that holds the data folder, waiting for one that is just taking it.
async fn server_of(folder: &WorkspaceFolder) -> Result<Option<ProcessId>> {
    let limit = Instant::now() + STOP_LIMIT;
    loop {
        match folder.holder()? {
            Holder::Nobody => return Ok(None),
            Holder::Server(process) => return Ok(Some(process)),
            Holder::Unknown if Instant::now() > limit => {
                let text = format!("something holds `{}`", folder.folder().display());
                return Err(
                    Error::new(Kind::TimedOut, text).why("it does not say which process it is")
                );
            }
            Holder::Unknown => tokio::time::sleep(BEAT).await,
        }
    }
}

/// Ends what outlived a killed server; one that was started since does so itself.
async fn end_leftovers(folder: &WorkspaceFolder) -> Result<()> {
    if !folder.postgres().exists() {
        return Ok(());
    }
    let _lock = match folder.hold().await {
        Err(error) if error.kind() == Kind::Conflict => return Ok(()),
        lock => lock?,
    };
    folder.retract();
    apps::end_leftovers(folder.part(Layout::apps)).await;
    postgres::end_leftovers(&folder.part(Layout::postgres)).await
}

/// Waits until `process` has ended; false when it does not.
async fn gone(process: &ProcessId) -> bool {
    let limit = Instant::now() + STOP_LIMIT;
    while process.is_alive() {
        if Instant::now() > limit {
            return false;
        }
        tokio::time::sleep(BEAT).await;
    }
    true
}

/// Returns whether there is a workspace in `data` that a reset would delete.
///
/// Fails with `Refused` when the folder holds something that is no workspace.
pub(crate) fn exists(data: &Path) -> Result<bool> {
    Ok(WorkspaceFolder::find(data)?.is_some())
}

/// Stops the server of `data` and removes everything of that workspace. The caller has asked for consent.
///
/// Fails with `Refused`, and changes nothing, when the folder holds something that is no workspace.
pub(crate) async fn reset(data: &Path) -> Result<()> {
    let Some(folder) = WorkspaceFolder::find(data)? else { return Ok(()) };
    stop_in(&folder).await?;
    // Nobody starts a server while its data goes.
    let lock = folder.hold().await?;
    let cleared = tokio::task::spawn_blocking(move || folder.clear(lock)).await;
    cleared.map_err(|error| Error::new(Kind::Failed, error.to_string()))?
}

/// Asks a server as its administrator.
async fn asked(
    folder: &WorkspaceFolder,
    serving: &Serving,
    method: Method,
    path: &str,
) -> Result<Value> {
    let token = token(folder, serving).await?;
    let (status, document) =
        loopback::send(request(&serving.host, method, path, Some(&token))?).await?;
    match status {
        200 => Ok(document),
        _ => Err(Error::new(Kind::Failed, format!("the embedded workspace answered {status}"))),
    }
}

async fn token(folder: &WorkspaceFolder, serving: &Serving) -> Result<Secret<String>> {
    let path = folder.profiles();
    let text =
        fs::read_to_string(&path).doing(|| format!("could not read `{}`", path.display()))?;
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        value("client_id"),
        value("client_secret")
    );
    let request = Request::post(format!("{}/oidc/v1/token", serving.host))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form))
        .map_err(|error| Error::new(Kind::Failed, error.to_string()))?;
    let (_, document) = loopback::send(request).await?;
    let token = document["access_token"].as_str().ok_or_else(|| {
        Error::new(Kind::Auth, format!("`{}` does not open this workspace", path.display()))
    })?;
    Ok(Secret::new(token.to_owned()))
}

fn request(
    host: &str,
    method: Method,
    path: &str,
    token: Option<&Secret<String>>,
) -> Result<Request<Body>> {
    let mut request = Request::builder().method(method).uri(format!("{host}{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.expose()));
    }
    request.body(Body::empty()).map_err(|error| Error::new(Kind::Failed, error.to_string()))
}
