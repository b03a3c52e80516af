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
use crate::local::ids;
use crate::secret::{Secret, is_login_secret, secret_in};

/// Written last: an environment without it is made again.
const COMPLETE: &str = ".complete";

/// The environments in one cache folder.
pub(crate) struct Venvs {
    folder: PathBuf,
    python: PathBuf,
    /// What `python` says of itself, asked once.
    version: OnceCell<Option<String>>,
    /// Variables of the server that what an app requires must not see.
    withheld: Vec<String>,
    /// What is hidden in what the installer says.
    secrets: Vec<Secret<String>>,
}

impl Venvs {
    /// Uses `python`, or the `python3` of `PATH`; `inherited` is the environment of the server.
    pub(crate) fn new(
        folder: PathBuf,
        python: Option<PathBuf>,
        inherited: &BTreeMap<String, String>,
    ) -> Self {
        let python = python.unwrap_or_else(|| PathBuf::from("python3"));
        let names = inherited.keys().filter(|name| is_login_secret(name));
        let secrets = inherited.iter().filter_map(|(name, value)| secret_in(name, value));
        Venvs {
            folder,
            python,
            version: OnceCell::new(),
            withheld: names.cloned().collect(),
            secrets: secrets.collect(),
        }
    }

    /// Returns `program` as a command; packages run code of theirs while they are installed.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in &self.withheld {
            command.env_remove(name);
        }
        command
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
        let version = match (self.version().await, &requirements) {
            (Some(version), _) => version,
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let python = self.python.display();
                return Err(format!("requirements.txt needs Python, and `{python}` cannot be run"));
            }
        };
        let venv = self.folder.join(key(version, requirements.as_deref()));
        if venv.join(COMPLETE).exists() {
            return Ok(Some(venv));
        }
        let _lock = self.lock(&venv).await?;
        if !venv.join(COMPLETE).exists() {
            self.make(&venv, folder, requirements.is_some(), log).await?;
        }
        Ok(Some(venv))
    }

    async fn version(&self) -> Option<&str> {
        let ask = async || {
            let script = "import sys; print(sys.executable, sys.version)";
            let output = self.command(&self.python).args(["-c", script]).output().await.ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        self.version.get_or_init(ask).await.as_deref()
    }

    /// Waits for the others, in this process or another, that make the same environment.
    async fn lock(&self, venv: &Path) -> Result<File, String> {
        let (folder, path) = (self.folder.clone(), venv.with_extension("lock"));
        let lock = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(folder)?;
            let file = File::options().create(true).append(true).open(path)?;
            file.lock()?;
            Ok::<File, io::Error>(file)
        });
        let locked = lock.await.map_err(|error| error.to_string())?;
        locked.map_err(|error| format!("could not lock `{}`: {error}", venv.display()))
    }

    /// Makes an environment in its final place: its scripts hold that path.
    async fn make(
        &self,
        venv: &Path,
        source: &Path,
        install: bool,
        log: &Log,
    ) -> Result<(), String> {
        if let Err(error) = fs::remove_dir_all(venv)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(format!("could not clear `{}`: {error}", venv.display()));
        }
        let shared = self.has_pip().await;
        let mut create = self.command(&self.python);
        create.args(["-m", "venv"]);
        if shared || !install {
            // The interpreter's own pip installs into it: seconds faster than giving it one.
            create.arg("--without-pip");
        }
        create.arg(venv);
        run(create, log).await?;
        if install {
            log.write(Origin::System, "Installing packages from requirements.txt");
            let inside = venv.join("bin").join("python");
            let mut pip = if shared {
                let mut pip = self.command(&self.python);
                pip.args(["-m", "pip", "--python"]).arg(inside);
                pip
            } else {
                let mut pip = self.command(&inside);
                pip.args(["-m", "pip"]);
                pip
            };
            pip.args(["install", "--disable-pip-version-check", "--no-input"])
                .args(["--progress-bar", "off", "--root-user-action", "ignore"])
                .args(["-r", "requirements.txt"])
                .current_dir(source);
            run(pip, log).await?;
        }
        fs::write(venv.join(COMPLETE), "").map_err(|error| error.to_string())
    }

    /// Returns whether the interpreter has a pip that can install elsewhere (22.3 or later).
    async fn has_pip(&self) -> bool {
        let output = self.command(&self.python).args(["-m", "pip", "--version"]).output().await;
        let Ok(output) = output else { return false };
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
        let venvs = Venvs::new(cache, Some(python), &BTreeMap::from(inherited));
        let log = Log::new(folder.path().join("log"));

        venvs.prepare(&source, &log).await.unwrap();

        let said: Vec<String> = log.tail(9).into_iter().map(|line| line.message).collect();
        assert_eq!(said, ["none from  ***"]);
        let command = venvs.command(Path::new("pip"));
        let removed: Vec<_> = command.as_std().get_envs().collect();
        assert_eq!(removed, [("DATABRICKS_TOKEN".as_ref(), None)]);
    }
}
