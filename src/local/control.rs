//! The embedded workspace from outside: start, stop, look, reset. Also when the server is dead.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::{Layout, Serving};
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
/// `executable` is this program. Returns whether a server was started.
pub(crate) async fn start(options: &Options, executable: &Path) -> Result<(Status, bool)> {
    let layout = Layout::new(&options.data);
    while layout.holder()?.is_some() {
        if await_answer(&layout, None).await? {
            return Ok((describe(&options.data).await?, false));
        }
        // It was killed or stopping, and let go of the folder only now.
    }
    layout.make()?;
    let mut child = spawn(&layout, options, executable)?;
    if await_answer(&layout, Some(&mut child)).await? {
        return Ok((describe(&options.data).await?, true));
    }
    Err(Error::new(Kind::Failed, "the embedded workspace ended while starting")
        .hint(format!("its log: {}", layout.server_log().display())))
}

/// A server that was started.
struct Started {
    child: Child,
    /// Where in the log its own lines begin.
    log_start: u64,
}

fn spawn(layout: &Layout, options: &Options, executable: &Path) -> Result<Started> {
    let path = layout.server_log();
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

/// Waits until a server of this data folder answers; `started` is the one that was started.
///
/// False when there is none any more.
async fn await_answer(layout: &Layout, mut started: Option<&mut Started>) -> Result<bool> {
    let limit = Instant::now() + START_LIMIT;
    loop {
        if let Some(serving) = layout.announced()
            && answers(&serving).await
        {
            return Ok(true);
        }
        if let Some(started) = started.as_deref_mut()
            && let Ok(Some(status)) = started.child.try_wait()
        {
            // Another start may have been quicker.
            if layout.holder()?.is_some() {
                return Box::pin(await_answer(layout, None)).await;
            }
            return Err(died(layout, status, started.log_start));
        }
        if started.is_none() && layout.holder()?.is_none() {
            return Ok(false);
        }
        if Instant::now() > limit {
            return Err(Error::new(Kind::TimedOut, "the embedded workspace does not answer")
                .hint(format!("its log: {}", layout.server_log().display())));
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Says why a server could not start, in its own words as far as it found any.
fn died(layout: &Layout, status: std::process::ExitStatus, log_start: u64) -> Error {
    let kind = match status.code() {
        Some(2) => Kind::Usage,
        Some(7) => Kind::Conflict,
        _ => Kind::Failed,
    };
    let path = layout.server_log();
    let log = log_since(&path, log_start);
    let mut error = Error::new(kind, "the embedded workspace could not start");
    let its_log = format!("its log: {}", path.display());
    let Some(failure) = log.lines().rev().find_map(failure) else {
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
    message: String,
    why: Vec<String>,
    hint: Option<String>,
}

/// Reads a line of a log as a failure, if it is one.
fn failure(line: &str) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Document {
        error: Failure,
    }
    serde_json::from_str::<Document>(line).ok().map(|document| document.error)
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
pub(crate) async fn status(data: &Path) -> Result<Status> {
    let layout = Layout::new(data);
    let disk = tokio::task::spawn_blocking(move || layout.disk_bytes());
    let (status, disk) = tokio::join!(describe(data), disk);
    Ok(Status { disk_bytes: disk.ok(), ..status? })
}

/// Returns what is quickly known of the workspace in `data`.
async fn describe(data: &Path) -> Result<Status> {
    let layout = Layout::new(data);
    let pid = layout.holder()?;
    let serving = layout.announced().filter(|_| pid.is_some());
    let document = match &serving {
        Some(serving) => asked(&layout, serving, Method::GET, "/lakeforge/status").await.ok(),
        None => None,
    };
    let text = |key: &str| document.as_ref()?.get(key)?.as_str().map(str::to_owned);
    let number = |key: &str| document.as_ref()?.get(key)?.as_u64();
    let (version, postgres_version) = (text("version"), text("postgres_version"));
    let (projects, branches, apps) = (number("projects"), number("branches"), number("apps"));
    Ok(Status {
        running: document.is_some(),
        host: serving.map(|serving| serving.host),
        pid: pid.filter(|pid| *pid != 0),
        data_folder: data.to_owned(),
        certificate_file: text("certificate_file").map(PathBuf::from),
        config_file: Some(layout.profiles()).filter(|path| path.exists()),
        version,
        postgres_version,
        projects,
        branches,
        apps,
        awake: number("awake"),
        disk_bytes: None,
    })
}

/// Stops the server of `data` and waits until it is gone, with all that it started. Returns whether one ran.
pub(crate) async fn stop(data: &Path) -> Result<bool> {
    let layout = Layout::new(data);
    let ran = end_server(&layout).await?;
    end_leftovers(&layout).await?;
    Ok(ran)
}

async fn end_server(layout: &Layout) -> Result<bool> {
    let Some(pid) = layout.holder()? else { return Ok(false) };
    let asked = match layout.announced() {
        Some(serving) => asked(layout, &serving, Method::POST, "/lakeforge/stop").await.is_ok(),
        None => false,
    };
    if asked && gone(layout).await? {
        return Ok(true);
    }
    // It holds the lock, so the number is still that server's.
    if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && layout.holder()?.is_some()
    {
        // Gone meanwhile is what is wanted.
        let _ = kill_process(process, Signal::TERM);
    }
    if gone(layout).await? {
        return Ok(true);
    }
    Err(Error::new(Kind::TimedOut, format!("the embedded workspace (process {pid}) does not stop"))
        .hint(format!("its log: {}", layout.server_log().display())))
}

/// Ends what outlived a killed server; one that was started since does so itself.
async fn end_leftovers(layout: &Layout) -> Result<()> {
    if !layout.postgres().exists() {
        return Ok(());
    }
    let _lock = match layout.lock() {
        Err(error) if error.kind() == Kind::Conflict => return Ok(()),
        lock => lock?,
    };
    layout.retract();
    apps::end_leftovers(&layout.apps());
    postgres::end_leftovers(&layout.postgres()).await
}

async fn gone(layout: &Layout) -> Result<bool> {
    let limit = Instant::now() + STOP_LIMIT;
    while layout.holder()?.is_some() {
        if Instant::now() > limit {
            return Ok(false);
        }
        tokio::time::sleep(BEAT).await;
    }
    Ok(true)
}

/// Stops the server of `data` and removes everything of that workspace. The caller has asked for consent.
pub(crate) async fn reset(data: &Path) -> Result<()> {
    stop(data).await?;
    let layout = Layout::new(data);
    if !data.exists() {
        return Ok(());
    }
    let clear = move || {
        // Nobody starts a server while its data goes.
        let _lock = layout.lock()?;
        layout.clear()
    };
    let cleared = tokio::task::spawn_blocking(clear).await;
    cleared.map_err(|error| Error::new(Kind::Failed, error.to_string()))?
}

/// Asks a server as its administrator.
async fn asked(layout: &Layout, serving: &Serving, method: Method, path: &str) -> Result<Value> {
    let token = token(layout, serving).await?;
    let (status, document) =
        loopback::send(request(&serving.host, method, path, Some(&token))?).await?;
    match status {
        200 => Ok(document),
        _ => Err(Error::new(Kind::Failed, format!("the embedded workspace answered {status}"))),
    }
}

async fn token(layout: &Layout, serving: &Serving) -> Result<Secret<String>> {
    let path = layout.profiles();
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
