//! The command line: parse, run, answer with an exit code.

mod branch;
mod completions;
mod creds;
mod cx;
mod deploy;
mod destroy;
mod engine;
mod environment;
mod gc;
mod init;
mod local;
mod login;
mod migrate;
mod scaffold;
mod scope;
mod settings;
mod smoke;
mod topics;
mod usage;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use cx::Cx;
use environment::{Refusal, Set};
use settings::{Environment, Global};

use crate::error::{Error, Result};
use crate::time::Ttl;
use crate::ui::{self, Interrupt, Output, Ui};

/// How long after the first signal another one counts as the same.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Branches, credentials, deployments and clean-up for Databricks Lakebase
///
/// Works on a real workspace and on an embedded one (`lakeforge local`) with real Postgres.
#[derive(Debug, Parser)]
#[command(name = "lakeforge", version, max_term_width = 100, styles = styles())]
#[command(
    after_help = "Exit codes: lakeforge help exit-codes; variables: lakeforge help environment"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::Init),
    Gen(scaffold::Gen),
    Branch(branch::Branches),
    Creds(creds::Creds),
    Migrate(migrate::Migrate),
    Deploy(deploy::Deploy),
    Destroy(destroy::Destroy),
    Smoke(smoke::Smoke),
    Gc(gc::Gc),
    Local(local::Local),
    Completions(completions::Completions),
}

impl Command {
    async fn run(self, cx: &Cx) -> Result<Done> {
        match self {
            Command::Init(command) => command.run(cx).await.map(Done::from),
            Command::Gen(command) => command.run(cx).map(Done::from),
            Command::Branch(command) => command.run(cx).await,
            Command::Creds(command) => command.run(cx).await,
            Command::Migrate(command) => command.run(cx).await,
            Command::Deploy(command) => command.run(cx).await,
            Command::Destroy(command) => command.run(cx).await.map(Done::from),
            Command::Smoke(command) => command.run(cx).await,
            Command::Gc(command) => command.run(cx).await,
            Command::Local(command) => command.run(cx).await,
            Command::Completions(command) => command.run().map(Done::from),
        }
    }

    /// Returns whether the command serves many connections at once.
    fn is_server(&self) -> bool {
        matches!(self, Command::Local(local) if local.is_server())
    }
}

/// How a command that did not fail ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    exit_code: u8,
}

impl From<()> for Done {
    fn from((): ()) -> Self {
        Done { exit_code: 0 }
    }
}

/// The longest wait of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
struct WaitTimeout {
    /// Longest wait for one thing to be ready
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    wait_timeout: Ttl,
}

impl WaitTimeout {
    fn limit(self) -> Duration {
        self.wait_timeout.0
    }
}

/// Runs the program with `args`, the first being its own name, and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    clap_complete::CompleteEnv::with_factory(Cli::command).completer("lakeforge").complete();
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(text) = topics::asked_for(&args) {
        return topics::show(&text);
    }
    let environment = Environment::read();
    let (Cli { global, command }, set) = match parse(&args, &environment) {
        Ok(understood) => understood,
        Err(refusal) => return usage::answer(refusal, &args, &environment),
    };
    let ui = Ui::new(environment.terminal(global.color()), global.output(), global.quiet);
    environment.secrets().for_each(|secret| ui.steps.mask().hide(&secret));
    global.secrets().for_each(|secret| ui.steps.mask().hide(&secret));
    start_log(&global, &environment, &ui, command.is_server());
    restore_cursor_on_panic();
    let cx = Cx::new(ui, global, environment, set);
    cx.announce_variables();
    match run(command, &cx) {
        Ok(done) => done.exit_code,
        Err(error) => {
            cx.ui.fail(&error);
            error.kind().exit_code()
        }
    }
}

fn parse(args: &[OsString], environment: &Environment) -> Result<(Cli, Vec<Set>), Refusal> {
    let (mut matches, set) = environment::parse(&Cli::command(), args, environment)?;
    Ok((Cli::from_arg_matches_mut(&mut matches).map_err(Refusal::Clap)?, set))
}

fn run(command: Command, cx: &Cx) -> Result<Done> {
    let mut runtime = if command.is_server() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(async {
        // Before the command begins: what comes earlier than it looks is not lost.
        let signals = Signals::listen()?;
        tokio::select! {
            done = command.run(cx) => done,
            end = end_of_patience(&cx.ui, signals) => Err(end),
        }
    });
    runtime.shutdown_background();
    done
}

/// Waits for a signal that ends the program: the first, or the second where the command tidies up after the first.
/// At a question it is the first in any case: nothing has been done yet.
///
/// Terminals, shells and CI systems often signal the process and its group: what comes within half
/// a second of the first is the same wish.
async fn end_of_patience(ui: &Ui, mut signals: Signals) -> Error {
    let mut first: Option<Instant> = None;
    loop {
        let signal = signals.next().await;
        if ui.leave_question() {
            return Error::from(signal).why("nothing was changed");
        }
        ui::restore_cursor();
        match first {
            Some(first) if first.elapsed() < SAME_WISH => continue,
            Some(_) => return ui.steps.leave(signal),
            None if !ui.steps.interrupt(signal) => return signal.into(),
            None => first = Some(Instant::now()),
        }
        ui.steps.note("interrupted; tidying up (again to leave at once)");
    }
}

/// The signals that ask the program to end, heard from the moment this is made.
struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let (int, term, hup) =
            (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Signals { int: signal(int)?, term: signal(term)?, hup: signal(hup)? })
    }

    async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.int.recv() => Interrupt::Interrupted,
            _ = self.term.recv() => Interrupt::Terminated,
            _ = self.hup.recv() => Interrupt::Terminated,
        }
    }
}

/// Starts the log on stderr: warnings, with `-v` one line per request, with `-vv` everything.
///
/// A server's is read by people in any case, with `local logs`.
fn start_log(global: &Global, environment: &Environment, ui: &Ui, is_server: bool) {
    let level = match global.verbose {
        0 => "lakeforge=warn",
        1 => "lakeforge=debug",
        _ => "lakeforge=trace",
    };
    let filter = environment.get("LAKEFORGE_LOG").unwrap_or(level);
    let steps = ui.steps.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_target(false)
        // Colours are control characters, and what is written there is written out.
        .with_ansi(false)
        .with_writer(move || steps.clone());
    match ui.output() {
        _ if is_server => log.init(),
        Output::Text => log.without_time().init(),
        Output::Json => log.json().init(),
    }
}

fn restore_cursor_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        ui::restore_cursor();
        before(panic);
    }));
}

fn styles() -> clap::builder::Styles {
    use clap::builder::styling::{AnsiColor, Style};
    clap::builder::Styles::styled()
        .header(Style::new().bold())
        .usage(Style::new().bold())
        .literal(AnsiColor::Cyan.on_default())
        .placeholder(AnsiColor::Green.on_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
