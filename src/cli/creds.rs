//! `lakeforge creds`: what can be asked, and how the answers read.

use std::ffi::OsString;
use std::fmt;

use serde::Serialize;

use super::cx::Cx;
use super::scope::ProjectChoice;
use super::{Done, WaitTimeout};
use crate::error::{Error, Kind, Result};
use crate::ops::creds::{self, Connection, Wanted};
use crate::secret::Secret;
use crate::time::{Ttl, distance};
use crate::ui::Show;
use crate::wire::names::{BranchName, check_id};

/// Exit code when a child could not be started for a reason of ours.
const CANNOT_START: u8 = 125;
/// Exit code when the program may not be run.
const NOT_RUNNABLE: u8 = 126;
/// Exit code when the program does not exist.
const NO_PROGRAM: u8 = 127;

/// Mint database passwords that live for minutes, and use them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge creds exec shop/dev -- psql")]
pub(crate) struct Creds {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Mint(Mint),
    Env(Env),
    Exec(Exec),
}

impl Creds {
    pub(super) async fn run(self, cx: &Cx) -> Result<Done> {
        match self.command {
            Command::Mint(command) => command.run(cx).await.map(Done::from),
            Command::Env(command) => command.run(cx).await.map(Done::from),
            Command::Exec(command) => Ok(command.run(cx).await),
        }
    }
}

/// What a password is for.
#[derive(Debug, clap::Args)]
struct For {
    #[command(flatten)]
    project: ProjectChoice,
    /// Endpoint, by its id [default: the branch's read-write endpoint]
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Database [default: databricks_postgres]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Life of the password, 5m to 1h [default: 1h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Ttl>,
    #[command(flatten)]
    wait: WaitTimeout,
}

impl For {
    async fn connection(self, cx: &Cx, branch: Option<&str>) -> Result<Connection> {
        if let Some(id) = &self.endpoint {
            check_id(id).map_err(|why| Error::new(Kind::Usage, why))?;
        }
        if let Some(ttl) = self.ttl.filter(|ttl| !(300..=3600).contains(&ttl.0.as_secs())) {
            return Err(Error::new(Kind::Usage, format!("a password cannot live for {ttl}"))
                .hint("--ttl 5m to --ttl 1h"));
        }
        let scope = self.project.scope(cx, &cx.config()?);
        let api = cx.api()?;
        let branch: BranchName = match branch {
            Some(name) => scope.branch(name)?.name,
            None => creds::default_branch(&api, &scope.project()?.0).await?,
        };
        let wanted = Wanted {
            branch,
            endpoint: self.endpoint,
            database: self.database,
            ttl: self.ttl,
            wait: self.wait.limit(),
        };
        let connection = creds::connection(&api, &wanted).await?;
        cx.ui.steps.note(format!(
            "→ {} as {}, expires {}",
            connection.endpoint,
            connection.user,
            distance(connection.expire_time, cx.now())
        ));
        cx.ui.steps.announce_secret(&connection.token);
        Ok(connection)
    }
}

/// Refuses to show a password on a terminal unasked.
fn refuse_terminal(cx: &Cx, show: bool, hint: &str) -> Result<()> {
    if show || !cx.ui.stdout_is_terminal() {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, "a password would appear on the terminal")
        .code("SECRET_ON_TERMINAL")
        .hint(hint))
}

/// Mint a password and print it
///
/// On a terminal only with --show.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  PGPASSWORD=$(lakeforge creds mint shop/dev) psql …")]
struct Mint {
    /// Branch: dev, shop/dev or projects/shop/branches/dev [default: the project's default branch]
    branch: Option<String>,
    #[command(flatten)]
    wanted: For,
    /// Print a bearer token for the REST API and the apps instead
    #[arg(long, conflicts_with_all = ["branch", "endpoint", "database", "ttl"])]
    workspace: bool,
    /// Print the password on a terminal too
    #[arg(long)]
    show: bool,
}

impl Mint {
    async fn run(self, cx: &Cx) -> Result<()> {
        refuse_terminal(
            cx,
            self.show,
            "--show, or use the password without seeing it: lakeforge creds exec -- psql",
        )?;
        if self.workspace {
            let token = cx.api()?.login().token().await?;
            cx.ui.steps.announce_secret(&token);
            return cx.ui.show(&Bearer { token });
        }
        let connection = self.wanted.connection(cx, self.branch.as_deref()).await?;
        cx.ui.show(&Minted(connection))
    }
}

/// Print the variables that every Postgres client reads, as shell lines
///
/// On a terminal only with --show.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eval \"$(lakeforge creds env shop/dev)\"")]
struct Env {
    /// Branch: dev, shop/dev or projects/shop/branches/dev [default: the project's default branch]
    branch: Option<String>,
    #[command(flatten)]
    wanted: For,
    /// Print the password on a terminal too
    #[arg(long)]
    show: bool,
}

impl Env {
    async fn run(self, cx: &Cx) -> Result<()> {
        refuse_terminal(cx, self.show, "eval \"$(lakeforge creds env)\", or --show")?;
        let connection = self.wanted.connection(cx, self.branch.as_deref()).await?;
        cx.ui.show(&Variables(connection))
    }
}

/// Run a command that can connect
///
/// The command gets PGHOST, PGPORT, PGDATABASE, PGUSER, PGSSLMODE and PGPASSWORD in its environment
/// and takes the place of this process, so signals and its exit code are its own. 125, 126 or 127
/// when it could not be started.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lakeforge creds exec shop/dev -- psql -c 'select now()'")]
struct Exec {
    /// Branch: dev, shop/dev or projects/shop/branches/dev [default: the project's default branch]
    branch: Option<String>,
    #[command(flatten)]
    wanted: For,
    /// Command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Exec {
    async fn run(self, cx: &Cx) -> Done {
        let exit_code = match self.wanted.connection(cx, self.branch.as_deref()).await {
            Err(error) => {
                cx.ui.fail(&error);
                CANNOT_START
            }
            Ok(connection) => replace(cx, &connection, &self.command),
        };
        Done { exit_code }
    }
}

/// Replaces this process by `command`; comes back with an exit code only when that fails.
fn replace(cx: &Cx, connection: &Connection, command: &[OsString]) -> u8 {
    use std::os::unix::process::CommandExt as _;

    let error = child(connection, command).exec();
    cannot_start(cx, command, &error)
}

fn child(connection: &Connection, command: &[OsString]) -> std::process::Command {
    let mut child = std::process::Command::new(&command[0]);
    child.args(&command[1..]);
    // A service file or a full host list of the caller would win over what is set here.
    for other in ["PGSERVICE", "PGHOSTADDR", "PGPASSFILE", "PGSSLNEGOTIATION", "PGREQUIRESSL"] {
        child.env_remove(other);
    }
    for (name, value) in connection.variables() {
        child.env(name, value.expose());
    }
    child
}

fn cannot_start(cx: &Cx, command: &[OsString], error: &std::io::Error) -> u8 {
    let name = command[0].to_string_lossy();
    cx.ui.fail(
        &Error::new(Kind::Failed, format!("could not start `{name}`")).why(error.to_string()),
    );
    match error.kind() {
        std::io::ErrorKind::NotFound => NO_PROGRAM,
        std::io::ErrorKind::PermissionDenied => NOT_RUNNABLE,
        _ => CANNOT_START,
    }
}

#[derive(Serialize)]
struct Bearer {
    token: Secret<String>,
}

impl Show for Bearer {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "{}", self.token.expose())
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Minted(Connection);

impl Show for Minted {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "{}", self.0.token.expose())
    }
}

struct Variables(Connection);

impl Serialize for Variables {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.variables().iter().map(|(name, value)| (name, value)))
    }
}

impl Show for Variables {
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        for (name, value) in self.0.variables() {
            writeln!(f, "export {name}={}", shell_quoted(value.expose()))?;
        }
        Ok(())
    }
}

/// Quotes `text` for a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for (text, expected) in [
            ("plain-1.2_3@a.test", "plain-1.2_3@a.test"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's $HOME `x` \"y\"", r#"'it'\''s $HOME `x` "y"'"#),
        ] {
            assert_eq!(shell_quoted(text), expected);
        }
    }

    #[test]
    fn the_child_gets_the_password_in_its_environment_alone() {
        let connection = Connection {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            user: "me".to_owned(),
            database: "databricks_postgres".to_owned(),
            endpoint: "projects/p/branches/b/endpoints/primary".parse().unwrap(),
            token: "s3cret".to_owned().into(),
            expire_time: jiff::Timestamp::MAX,
            authority: None,
        };
        let command = child(&connection, &["psql".into(), "-c".into(), "select 1".into()]);

        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["-c", "select 1"]);
        let password = command.get_envs().find(|(name, _)| *name == "PGPASSWORD").unwrap().1;
        assert_eq!(password.unwrap(), "s3cret");
        let service = command.get_envs().find(|(name, _)| *name == "PGSERVICE").unwrap().1;
        assert_eq!(service, None);
    }
}
