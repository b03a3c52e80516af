//! `lakeforge local`: what can be asked of the embedded workspace, and how the answers read.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Done;
use super::cx::Cx;
use crate::error::{Error, Kind, Result};
use crate::local::control::{self, Status};
use crate::local::layout::Layout;
use crate::local::{self, Options};
use crate::ui::{Show, write_stdout};

/// Run an embedded workspace on this machine
///
/// One server on loopback: the workspace's REST API, a real PostgreSQL cluster per branch, real app
/// processes. Needs the programs of PostgreSQL 15 or later, and no account.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local start && eval \"$(lakeforge local env)\"")]
pub(crate) struct Local {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Start(Start),
    Stop(Stop),
    Status(Look),
    Env(Env),
    Logs(Logs),
    Reset(Reset),
    Serve(Serve),
}

/// Start the embedded workspace in the background
///
/// Returns when it answers. One that runs already is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local start")]
struct Start {
    #[command(flatten)]
    server: Server,
}

/// Stop the embedded workspace
///
/// Apps, computes and the server end; everything comes back with the next start.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local stop")]
struct Stop {}

/// Show whether the embedded workspace runs, and what is in it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local status -o json")]
struct Look {}

/// Print the variables that point Databricks tools at the embedded workspace
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eval \"$(lakeforge local env)\"")]
struct Env {}

/// Print the end of a log
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local logs portal")]
struct Logs {
    /// App whose log is meant [default: the server's own]
    app: Option<String>,
    /// Lines to print
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 200)]
    lines: usize,
}

/// Stop the embedded workspace and delete everything in it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local reset --yes")]
struct Reset {
    /// Agree to the loss of all its data
    #[arg(short, long)]
    yes: bool,
    /// Show what would be deleted and stop
    #[arg(long)]
    dry_run: bool,
}

/// Serve the embedded workspace in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge local serve --port 0")]
struct Serve {
    #[command(flatten)]
    server: Server,
    /// Stop as soon as standard input ends, for a parent process that may be killed
    #[arg(long)]
    until_eof: bool,
}

#[derive(Debug, clap::Args)]
struct Server {
    /// Port of the REST API, 0 for any [default: the one it had, or 8765]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Folder of the PostgreSQL programs [default: found on this machine]
    #[arg(long, value_name = "DIR")]
    postgres_bin: Option<PathBuf>,
    /// Python interpreter for apps [default: python3]
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// YAML or JSON file with faults that requests are to meet
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// A fault that requests are to meet, as YAML or JSON (can be repeated)
    #[arg(long, value_name = "RULE")]
    fault: Vec<String>,
}

impl Local {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        match self.command {
            Command::Start(command) => command.run(cx).await,
            Command::Stop(_) => stop(cx).await,
            Command::Status(_) => cx.ui.show(&control::status(&cx.data_dir()?).await?),
            Command::Env(_) => env(cx),
            Command::Logs(command) => command.run(cx),
            Command::Reset(command) => command.run(cx).await,
            Command::Serve(command) => command.run(cx).await,
        }
        .map(Done::from)
    }

    /// Returns whether this is the server itself.
    pub(super) fn is_server(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

impl Server {
    fn options(self, cx: &Cx) -> Result<Options> {
        Ok(Options {
            data: cx.data_dir()?,
            port: self.port,
            postgres: self.postgres_bin,
            cache: cx.cache_dir()?,
            python: self.python,
            faults: self.faults,
            fault: self.fault,
            environment: cx.environment.with_prefix(""),
        })
    }
}

impl Start {
    async fn run(self, cx: &Cx) -> Result<()> {
        let options = self.server.options(cx)?;
        let executable = std::env::current_exe()?;
        let starting = async {
            let _step = cx.ui.steps.start("Starting the embedded workspace");
            control::start(&options, &executable).await
        };
        match cx.ui.steps.unless_interrupted(starting).await {
            Ok(done) => {
                let (status, started) = done?;
                cx.ui.show(&Started { started, status })
            }
            Err(interrupted) => Err(left_behind(cx, interrupted).await),
        }
    }
}

/// Says what an interrupted start left behind: a server goes on in the background.
async fn left_behind(cx: &Cx, interrupted: Error) -> Error {
    let status = match cx.data_dir() {
        Ok(data) => control::status(&data).await,
        Err(error) => Err(error),
    };
    let server = match status.map(|status| status.pid) {
        Ok(Some(pid)) => format!("its server (process {pid}) goes on in the background"),
        _ => "a server that was begun goes on starting in the background".to_owned(),
    };
    interrupted.why(server).hint("lakeforge local stop, or the same command again to wait for it")
}

#[derive(Serialize)]
struct Started {
    started: bool,
    #[serde(flatten)]
    status: Status,
}

impl Show for Started {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        if !self.started {
            writeln!(f, "already running")?;
        }
        self.status.text(f)
    }
}

async fn stop(cx: &Cx) -> Result<()> {
    let _step = cx.ui.steps.start("Stopping the embedded workspace");
    let stopped = control::stop(&cx.data_dir()?).await?;
    cx.ui.show(&Stopped { stopped })
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

impl Show for Stopped {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str(if self.stopped { "stopped\n" } else { "not running\n" })
    }
}

impl Show for Status {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let rows = [
            ("state", Some(if self.running { "running" } else { "stopped" }.to_owned())),
            ("host", self.host.clone()),
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("postgres", self.postgres_version.clone()),
            ("projects", self.projects.map(|count| count.to_string())),
            ("branches", self.branches.map(|count| count.to_string())),
            ("awake", self.awake.map(|count| count.to_string())),
            ("apps", self.apps.map(|count| count.to_string())),
            ("ca", self.certificate_file.as_ref().map(|file| file.display().to_string())),
            ("data", Some(self.data_folder.display().to_string())),
            ("disk", self.disk_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000))),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                writeln!(f, "{name:<10}{value}")?;
            }
        }
        Ok(())
    }
}

fn env(cx: &Cx) -> Result<()> {
    let file = Layout::new(&cx.data_dir()?).profiles();
    if !file.exists() {
        return Err(not_there());
    }
    cx.ui.show(&Variables { databricks_config_file: file, databricks_config_profile: "local" })
}

fn not_there() -> Error {
    Error::new(Kind::NotFound, "there is no embedded workspace yet").hint("lakeforge local start")
}

#[derive(Serialize)]
struct Variables {
    databricks_config_file: PathBuf,
    databricks_config_profile: &'static str,
}

impl Show for Variables {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "export DATABRICKS_CONFIG_FILE={}", quoted(&self.databricks_config_file))?;
        writeln!(f, "export DATABRICKS_CONFIG_PROFILE={}", self.databricks_config_profile)?;
        // Else these would win over the profile, and point elsewhere.
        writeln!(
            f,
            "unset DATABRICKS_HOST DATABRICKS_TOKEN DATABRICKS_CLIENT_ID DATABRICKS_CLIENT_SECRET"
        )
    }
}

/// Writes a path so that every shell reads it as one word.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

impl Logs {
    fn run(self, cx: &Cx) -> Result<()> {
        let layout = Layout::new(&cx.data_dir()?);
        let path = match &self.app {
            Some(app) => layout.app_log(app),
            None => layout.server_log(),
        };
        if !path.exists() {
            let what =
                self.app.map_or_else(|| "the server".to_owned(), |app| format!("app `{app}`"));
            return Err(Error::new(Kind::NotFound, format!("{what} has no log"))
                .why(format!("`{}` is not there", path.display())));
        }
        cx.ui.show(&Lines { lines: control::log_end(&path, self.lines) })
    }
}

#[derive(Serialize)]
struct Lines {
    lines: Vec<String>,
}

impl Show for Lines {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Reset {
    async fn run(self, cx: &Cx) -> Result<()> {
        let data = cx.data_dir()?;
        let exists = control::exists(&data)?;
        if !exists || self.dry_run {
            return cx.ui.show(&Deleted { deleted: false, exists, data_folder: data });
        }
        if !self.yes {
            let question = format!("Delete the embedded workspace in `{}`?", data.display());
            cx.ui.confirm(&question, "--yes").await?;
        }
        control::reset(&data).await?;
        cx.ui.show(&Deleted { deleted: true, exists, data_folder: data })
    }
}

#[derive(Serialize)]
struct Deleted {
    deleted: bool,
    /// Whether there was anything to delete.
    #[serde(skip)]
    exists: bool,
    data_folder: PathBuf,
}

impl Show for Deleted {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let folder = self.data_folder.display();
        match (self.deleted, self.exists) {
            (true, _) => writeln!(f, "deleted {folder}"),
            (false, true) => writeln!(f, "would delete what is in {folder}"),
            (false, false) => writeln!(f, "nothing to delete: there is no workspace in {folder}"),
        }
    }
}

impl Serve {
    async fn run(self, cx: &Cx) -> Result<()> {
        let options = self.server.options(cx)?;
        let steps = cx.ui.steps.clone();
        let until_eof = self.until_eof;
        let stop = async move {
            let ordered = async move {
                if until_eof {
                    end_of_input().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            // Any signal is an order to stop; a stop that was ordered is no failure.
            let _ = steps.unless_interrupted(ordered).await;
        };
        let ready = |ready: &local::Ready| {
            cx.ui.steps.note(format!(
                "serving {} (PostgreSQL {}); profiles in {}",
                ready.host,
                ready.postgres_version,
                ready.profiles.display()
            ));
            // A parent process learns from here that it serves, and where.
            let _ = write_stdout(&format!("{}\n", ready.host));
        };
        local::serve(options, ready, stop).await
    }
}

/// Waits until standard input ends.
async fn end_of_input() {
    // Whatever is written there means nothing, and an error is an end as well.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
