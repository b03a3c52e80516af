//! Python environments of apps, one for each set of requirements, shared between apps and servers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::log::{Log, Origin};
use crate::error::Error;
use crate::local::ids;
use crate::local::postgres::Account;
use crate::secret::{Secret, is_login_secret, secret_in};

/// Ending of the file that is written last, beside an environment: one without it is made again.
const COMPLETE: &str = "complete";

/// The environments in one cache folder.
pub(crate) struct Venvs {
    folder: PathBuf,
    /// Interpreters, the best first.
    candidates: Vec<PathBuf>,
    /// What makes and runs the environments.
    account: Account,
    /// The first of the candidates that the account can run, with what it says of itself; asked once.
    found: OnceCell<Option<Python>>,
    /// Variables of the server that what an app requires must not see.
    withheld: Vec<String>,
    /// What is hidden in what the installer says.
    secrets: Vec<Secret<String>>,
}

struct Python {
    program: PathBuf,
    version: String,
}

impl Venvs {
    /// Uses `python`, or the first `python3` that `account` can run; `inherited` is the environment of the server.
    pub(crate) fn new(
        folder: PathBuf,
        python: Option<PathBuf>,
        inherited: &BTreeMap<String, String>,
        account: Account,
    ) -> Self {
        let path = inherited.get("PATH").map_or("", String::as_str);
        let on_path = || path.split(':').map(|place| Path::new(place).join("python3"));
        let candidates = match python {
            Some(python) => vec![python],
            None if account.is_lesser() => on_path().filter(|program| program.exists()).collect(),
            None => vec![PathBuf::from("python3")],
        };
        let names = inherited.keys().filter(|name| is_login_secret(name));
        let secrets = inherited.iter().filter_map(|(name, value)| secret_in(name, value));
        Venvs {
            folder,
            candidates,
            account,
            found: OnceCell::new(),
            withheld: names.cloned().collect(),
            secrets: secrets.collect(),
        }
    }

    /// Returns the environment for the source in `folder`, making it when it is missing.
    ///
    /// Nothing comes back when there is no Python and nothing requires it.
    /// Fails with the last line of the installer.
    pub(crate) async fn prepare(
        &self,
        folder: &Path,
        log: &Log,
    ) -> Result<Option<PathBuf>, String> {
        self.secrets.iter().for_each(|secret| log.mask().hide(secret));
        let requirements = match fs::read(folder.join("requirements.txt")) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("requirements.txt: {error}")),
        };
        let python = match (self.find().await, &requirements) {
            (Some(python), _) => python,
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let python = self.candidates.first().map_or(Path::new("python3"), PathBuf::as_path);
                let python = python.display();
                return Err(format!("requirements.txt needs Python, and `{python}` cannot be run"));
            }
        };
        let venv = self.folder.join(key(&python.version, requirements.as_deref()));
        if venv.with_extension(COMPLETE).exists() {
            return Ok(Some(venv));
        }
        let _lock = self.lock(&venv).await?;
        if !venv.with_extension(COMPLETE).exists() {
            self.make(python, &venv, requirements.is_some().then_some(folder), log).await?;
        }
        Ok(Some(venv))
    }

    async fn find(&self) -> Option<&Python> {
        let ask = async || {
            let script = "import sys; print(sys.executable, sys.version)";
            for program in &self.candidates {
                let asked = self.command(program).args(["-c", script]).output().await;
                if let Some(output) = asked.ok().filter(|output| output.status.success()) {
                    let version = String::from_utf8_lossy(&output.stdout).into_owned();
                    return Some(Python { program: program.clone(), version });
                }
            }
            None
        };
        self.found.get_or_init(ask).await.as_ref()
    }

    /// Prepares a run of a program as the account, with a home folder of its own if it is a lesser one; packages run
    /// code of theirs while they are installed.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in &self.withheld {
            command.env_remove(name);
        }
        if self.account.is_lesser() {
            command.current_dir("/").env("HOME", self.home());
        }
        self.account.take_over(&mut command);
        command
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Waits for the others, in this process or another, that make the same environment.
    async fn lock(&self, venv: &Path) -> Result<File, String> {
        let (folder, path) = (self.folder.clone(), venv.with_extension("lock"));
        let (account, home) = (self.account.clone(), self.home());
        let lock = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&folder)?;
            if account.is_lesser() {
                account.create_folder(&home)?;
            }
            account.check_reaches(&folder)?;
            let file = File::options().create(true).append(true).open(path)?;
            file.lock()?;
            Ok::<File, Error>(file)
        });
        let locked = lock.await.map_err(|error| error.to_string())?;
        locked.map_err(|error| format!("could not lock `{}`: {error}", venv.display()))
    }

    /// Makes an environment in its final place: its scripts hold that path.
    ///
    /// Installs what the `requirements.txt` in `source` asks for.
    async fn make(
        &self,
        python: &Python,
        venv: &Path,
        source: Option<&Path>,
        log: &Log,
    ) -> Result<(), String> {
        self.make_room(venv).map_err(|error| format!("`{}`: {error}", venv.display()))?;
        let shared = self.has_pip(python).await;
        let mut create = self.command(&python.program);
        create.args(["-m", "venv"]);
        if shared || source.is_none() {
            // The interpreter's own pip installs into it: seconds faster than giving it one.
            create.arg("--without-pip");
        }
        create.arg(venv);
        run(create, log).await?;
        if let Some(source) = source {
            log.write(Origin::System, "Installing packages from requirements.txt");
            let inside = venv.join("bin").join("python");
            let mut pip = self.command(if shared { &python.program } else { &inside });
            pip.args(["-m", "pip"]);
            if shared {
                pip.arg("--python").arg(inside);
            }
            pip.args(["install", "--disable-pip-version-check", "--no-input"])
                .args(["--progress-bar", "off", "--root-user-action", "ignore"])
                .args(["-r", "requirements.txt"])
                .current_dir(source);
            run(pip, log).await?;
        }
        fs::write(venv.with_extension(COMPLETE), "").map_err(|error| error.to_string())
    }

    /// Makes an empty folder for an environment, after removing what an earlier try left there.
    fn make_room(&self, venv: &Path) -> io::Result<()> {
        match fs::remove_dir_all(venv) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(venv)?;
        self.account.own(venv)
    }

    /// Returns whether the interpreter has a pip that can install elsewhere (22.3 or later).
    async fn has_pip(&self, python: &Python) -> bool {
        let asked = self.command(&python.program).args(["-m", "pip", "--version"]).output().await;
        let Ok(output) = asked else { return false };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().nth(1).unwrap_or_default().split('.');
        let mut next = || numbers.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
        output.status.success() && (next(), next()) >= (22, 3)
    }
}

fn key(version: &str, requirements: Option<&[u8]>) -> String {
    let mut digest = Sha256::new();
    digest.update(version);
    digest.update([u8::from(requirements.is_some())]);
    digest.update(requirements.unwrap_or_default());
    ids::to_hex(&digest.finalize()[..12])
}

/// Runs a command with its output in the log; fails with the last line it wrote.
async fn run(mut command: Command, log: &Log) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let last = Arc::new(std::sync::Mutex::new(String::new()));
    let out = child.stdout.take().map(|pipe| copy_lines(pipe, log, &last));
    let err = child.stderr.take().map(|pipe| copy_lines(pipe, log, &last));
    let (_, _, status) = tokio::join!(optional(out), optional(err), child.wait());
    let status = status.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let last = last.lock().map(|last| last.clone()).unwrap_or_default();
    Err(format!("installing packages failed ({status}): {last}"))
}

async fn optional(copy: Option<impl Future<Output = ()>>) {
    if let Some(copy) = copy {
        copy.await;
    }
}

async fn copy_lines(
    pipe: impl tokio::io::AsyncRead + Unpin,
    log: &Log,
    last: &std::sync::Mutex<String>,
) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = log.mask().text(&line).into_owned();
        log.write(Origin::System, &line);
        // pip's last word is often advice about itself, not the reason.
        if !line.trim().is_empty()
            && !line.starts_with("[notice]")
            && let Ok(mut last) = last.lock()
        {
            *last = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_an_app_requires_sees_no_login_and_its_log_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let (python, source) = (folder.path().join("python"), folder.path().join("source"));
        let script = "#!/bin/sh\necho \"${DATABRICKS_TOKEN-none} from $INDEX with 0123456789\"\n\
                      case $* in *venv*) mkdir -p \"$4\";; esac\n";
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&source).unwrap();
        let inherited = [
            ("DATABRICKS_TOKEN".to_owned(), "dapi-0123456789".to_owned()),
            ("OTHER_PASSWORD".to_owned(), "with 0123456789".to_owned()),
        ];
        let cache = folder.path().join("cache");
        let account = Account::our_own();
        let venvs = Venvs::new(cache, Some(python), &BTreeMap::from(inherited), account);
        let log = Log::new(folder.path().join("log"));

        venvs.prepare(&source, &log).await.unwrap();

        let said: Vec<String> = log.tail(9).into_iter().map(|line| line.message).collect();
        assert_eq!(said, ["none from  ***"]);
        let command = venvs.command(Path::new("pip"));
        let removed: Vec<_> = command.as_std().get_envs().collect();
        assert_eq!(removed, [("DATABRICKS_TOKEN".as_ref(), None)]);
    }
}
