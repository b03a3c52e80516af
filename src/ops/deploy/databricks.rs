//! The Databricks CLI as a child process: validate, plan, deploy, run.
//!
//! Source of its contract: Databricks CLI 1.13.0, read 2026-08.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::record::Entry;
use super::run::Journal;
use crate::api::Poll;
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::change::{Action, Change};
use crate::ops::child::{self, Patience};
use crate::ops::drift::Drift;
use crate::ui::Steps;

/// First release that knows Lakebase projects, branches and endpoints.
const OLDEST: (u32, u32) = (0, 287);

/// How to call the Databricks CLI for one bundle and target.
#[derive(Debug, Clone)]
pub(crate) struct Databricks {
    program: PathBuf,
    /// Its version, as it says.
    pub(crate) version: String,
    call: Call,
    steps: Steps,
}

/// What the Databricks CLI would do.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// What happens to each resource.
    pub(super) changes: Vec<Change>,
    /// The plan itself, where it can be handed to `deploy`: by the direct engine alone.
    file: Option<Vec<u8>>,
}

/// What every call of the Databricks CLI is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// Folder of the bundle.
    pub(crate) root: PathBuf,
    /// Target of the bundle.
    pub(crate) target: String,
    /// Profile, when one was named.
    pub(crate) profile: Option<String>,
    /// Variables of the bundle; passed in the environment, because a flag splits at commas.
    pub(crate) variables: BTreeMap<String, String>,
    /// Further environment, such as the embedded workspace's configuration file.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Databricks {
    /// Starts `program` to learn its version.
    ///
    /// Fails with `Usage` when it does not start or is too old for Lakebase.
    pub(crate) async fn open(program: PathBuf, call: Call, steps: &Steps) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            version: String,
        }
        let doing = || format!("could not use the Databricks CLI `{}`", program.display());
        let output = Command::new(&program)
            .args(["version", "-o", "json"])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(Error::from)
            .doing(doing)?;
        let version: Version = serde_json::from_slice(&output.stdout).map_err(|_| {
            Error::new(Kind::Usage, doing())
                .why("it does not tell its version; is it the old `databricks-cli` of Python?")
                .hint("install the Databricks CLI 1.11 or later")
        })?;
        if numbers(&version.version).is_some_and(|have| have < OLDEST) {
            return Err(Error::new(Kind::Usage, doing())
                .why(format!("version {} does not know Lakebase", version.version))
                .hint("install the Databricks CLI 1.11 or later"));
        }
        Ok(Databricks { program, version: version.version, call, steps: steps.clone() })
    }

    /// Returns the program and its version, as people read it.
    pub(crate) fn name(&self) -> String {
        format!("Databricks CLI {} ({})", self.version, self.program.display())
    }

    /// Validates the bundle.
    pub(super) async fn validate(&self) -> Result<()> {
        self.run(&["bundle", "validate"])
            .await
            .doing(|| "the bundle is not valid".to_owned())
            .map(drop)
    }

    /// Plans the deployment.
    ///
    /// Fails when the plan is not understood: nothing is deployed then.
    pub(super) async fn plan(&self) -> Result<Planned> {
        let doing = || "could not plan the deployment".to_owned();
        let output = self.run(&["bundle", "plan", "-o", "json"]).await.doing(doing)?;
        let plan: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::new(Kind::Failed, doing()).why(error.to_string()))?;
        let changes = changes(&plan).doing(doing)?;
        let is_direct = plan.get("plan_version").is_some();
        Ok(Planned { changes, file: is_direct.then_some(output.stdout) })
    }

    /// Deploys what was planned and nothing else; waits up to `limit` for somebody else's lock.
    ///
    /// The plan goes along as a file in `folder`. The Terraform engine takes none, so the deployment
    /// is planned again just before, and refused when that plan is another one.
    pub(super) async fn deploy(
        &self,
        steps: &Steps,
        planned: &Planned,
        folder: &Path,
        limit: Duration,
    ) -> Result<()> {
        let file = planned.file.as_ref().map(|plan| save(folder, plan)).transpose()?;
        let path = file.as_ref().map(|file| file.path().to_string_lossy().into_owned());
        let mut arguments = vec!["bundle", "deploy", "--auto-approve"];
        match &path {
            Some(path) => arguments.extend(["--plan", path]),
            None => refuse_another(&planned.changes, &self.plan().await?.changes)?,
        }
        let done = self.run_locked(steps, &arguments, limit).await;
        done.doing(|| "could not deploy the bundle".to_owned())
    }

    /// Destroys what is deployed, which has to be `entries`; waits up to `limit` for somebody else's
    /// lock.
    pub(super) async fn destroy(
        &self,
        steps: &Steps,
        entries: &[Entry],
        limit: Duration,
    ) -> Result<()> {
        let deletion =
            |(resource, name): (String, String)| Change { action: Action::Delete, resource, name };
        let now: Vec<Change> = self.deployed().await?.into_iter().map(deletion).collect();
        let agreed: Vec<Change> = entries.iter().map(Entry::deletion).collect();
        refuse_another(&agreed, &now)?;
        let done = self.run_locked(steps, &["bundle", "destroy", "--auto-approve"], limit).await;
        done.doing(|| "could not destroy the deployment".to_owned())
    }

    /// Runs what takes the deployment's lock, again until `limit` while somebody else holds it.
    async fn run_locked(&self, steps: &Steps, arguments: &[&str], limit: Duration) -> Result<()> {
        let mut poll = Poll::new(limit);
        loop {
            match self.run(arguments).await {
                Err(error) if held_lock(&error).is_some() => {
                    let holder = held_lock(&error).unwrap_or_default();
                    steps.note(format!("waiting for the deployment lock: {holder}"));
                    if !poll.pause().await {
                        let again = arguments[..2].join(" ");
                        return Err(error.code("DEPLOY_LOCK_HELD").hint(format!(
                            "if nobody deploys any more: databricks {again} --force-lock"
                        )));
                    }
                }
                done => return done.map(drop),
            }
        }
    }

    /// Returns what the deployment's state holds, as labels of the bundle with names in the workspace.
    pub(super) async fn deployed(&self) -> Result<Vec<(String, String)>> {
        let doing = || "could not read what is deployed".to_owned();
        let output =
            self.run(&["bundle", "summary", "-o", "json", "--force-pull"]).await.doing(doing)?;
        let summary: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::new(Kind::Failed, doing()).why(error.to_string()))?;
        Ok(in_state(&summary))
    }

    /// Fetches the state once, so that parallel runs find it complete.
    pub(super) async fn pull_state(&self) -> Result<()> {
        let done = self.run(&["bundle", "summary", "-o", "json", "--force-pull"]).await;
        done.doing(|| "could not read what is deployed".to_owned()).map(drop)
    }

    /// Runs one app; what the CLI says goes to `log`.
    pub(super) async fn run_app(&self, key: &str, log: &Journal) -> Result<()> {
        let output = self.output(&["bundle", "run", key]).await?;
        log.write(&String::from_utf8_lossy(&output.stderr));
        check(&output).doing(|| format!("`databricks bundle run {key}` failed"))
    }

    /// Reads the last `lines` lines of an app's own log.
    pub(super) async fn app_log(&self, app: &str, lines: usize) -> Result<Vec<String>> {
        let lines = lines.to_string();
        let output = self.run(&["apps", "logs", app, "--tail-lines", &lines]).await?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.output(arguments).await?;
        check(&output)?;
        Ok(output)
    }

    async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["-t", &self.call.target])
            .current_dir(&self.call.root)
            .envs(&self.call.environment)
            .env("DATABRICKS_CLI_UPSTREAM", "lakeforge")
            .env("DATABRICKS_CLI_UPSTREAM_VERSION", env!("CARGO_PKG_VERSION"))
            .env_remove("DATABRICKS_OUTPUT_FORMAT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(profile) = &self.call.profile {
            command.args(["-p", profile]);
        }
        for (name, value) in &self.call.variables {
            command.env(format!("BUNDLE_VAR_{name}"), value);
        }
        tracing::debug!(program = %self.program.display(), ?arguments, "running the Databricks CLI");
        // It is never killed: told to stop, it gives its lock back.
        let (child, group) = child::spawn(&self.steps, &mut command, Patience::Endless)?;
        match group.wait(child.wait_with_output()).await {
            (output, None) => Ok(output?),
            (_, Some(stopped)) => Err(stopped.signal.into()),
        }
    }
}

/// Fails as `Refused`, with what differs, when `now` is not what was agreed to.
fn refuse_another(agreed: &[Change], now: &[Change]) -> Result<()> {
    let said = |change: &Change| {
        let text = format!("{} {} {}", change.action.word(), change.resource, change.name);
        text.trim_end().to_owned()
    };
    let words = |changes: &[Change]| changes.iter().map(said).collect::<BTreeSet<_>>();
    let drift = Drift::between(
        ("what was agreed to", words(agreed)),
        ("the plan as it is now", words(now)),
    );
    match drift {
        None => Ok(()),
        Some(drift) => Err(drift.refuse().code("PLAN_CHANGED").hint("run the same command again")),
    }
}

fn save(folder: &Path, plan: &[u8]) -> Result<tempfile::NamedTempFile> {
    use std::io::Write;
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().suffix(".json").tempfile_in(folder)?;
    file.write_all(plan)?;
    Ok(file)
}

/// Fails with what the CLI said when it did not succeed.
fn check(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let at = text.find("Error: ").map_or(0, |at| at + "Error: ".len());
    let mut lines = text[at..].lines();
    let headline = lines.next().unwrap_or("the Databricks CLI failed without a word");
    let rest: Vec<&str> = lines.map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let mut error = Error::new(kind_of(text), headline);
    if !rest.is_empty() {
        error = error.why(rest.join("\n"));
    }
    Err(error)
}

/// Classifies a failure by the texts that the CLI keeps stable.
fn kind_of(text: &str) -> Kind {
    let has = |part: &str| text.contains(part);
    if has("cannot resolve bundle auth configuration")
        || has("cannot configure default credentials")
    {
        Kind::Auth
    } else if has("PERMISSION_DENIED") || has("possible permission error") {
        Kind::Denied
    } else if has("deploy lock acquired by") || has("ALREADY_EXISTS") {
        Kind::Conflict
    } else if has("has lifecycle.prevent_destroy set") {
        Kind::Refused
    } else if has("no such target") || has("no value assigned to required variable") {
        Kind::Usage
    } else {
        Kind::Failed
    }
}

/// Returns who holds the deployment lock, when that is why `error` happened.
fn held_lock(error: &Error) -> Option<String> {
    error
        .to_string()
        .lines()
        .find(|line| line.contains("deploy lock acquired by"))
        .map(str::to_owned)
}

/// Reads the changes out of `bundle plan -o json`, in the order of their labels.
///
/// The words are those of Databricks CLI 1.13.0 `bundle/deployplan`; a deletion that is `gone` or
/// `state_only` touches nothing in the workspace. What is none of these words counts as unknown.
pub(super) fn changes(plan: &Value) -> Result<Vec<Change>> {
    let entries = plan.get("plan").and_then(Value::as_object).ok_or_else(|| {
        Error::new(Kind::Failed, "the Databricks CLI's plan is not understood")
            .why("it has no `plan`")
    })?;
    let change = |(path, entry): (&String, &Value)| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let is = |key: &str| entry.get(key) == Some(&Value::Bool(true));
        let action = match text("action") {
            "skip" => Action::Unchanged,
            "create" => Action::Create,
            "update" | "update_id" | "resize" => Action::Update,
            "recreate" => Action::Recreate,
            "delete" if is("gone") || is("state_only") => Action::Unchanged,
            "delete" => Action::Delete,
            word => Action::Unknown(word.to_owned()),
        };
        let resource = path.strip_prefix("resources.").unwrap_or(path).to_owned();
        Change { action, resource, name: text("id").to_owned() }
    };
    let mut changes: Vec<Change> = entries.iter().map(change).collect();
    changes.sort_by(|one, other| one.resource.cmp(&other.resource));
    Ok(changes)
}

/// Reads what is in the state out of `bundle summary -o json`: what the state lacks is marked `created`.
fn in_state(summary: &Value) -> Vec<(String, String)> {
    let kinds = summary.get("resources").and_then(Value::as_object).into_iter().flatten();
    let entries = kinds.flat_map(|(kind, entries)| {
        let entries = entries.as_object().into_iter().flatten();
        entries.map(move |(key, body)| (format!("{kind}.{key}"), body))
    });
    entries
        .filter_map(|(label, body)| {
            let id = body.get("id").and_then(Value::as_str)?;
            let is_missing = body.get("modified_status").and_then(Value::as_str) == Some("created");
            (!is_missing).then(|| (label, id.to_owned()))
        })
        .collect()
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use serde_json::json;

    use super::*;

    fn failed(stderr: &str) -> Error {
        let status = ExitStatus::from_raw(256);
        check(&Output { status, stdout: Vec::new(), stderr: stderr.into() }).unwrap_err()
    }

    #[test]
    fn what_the_cli_says_becomes_headline_and_reason() {
        let error = failed(
            "Uploading bundle files to /Workspace/x...\nError: deploy lock acquired by me@example.test at 2026-01-02. Use --force-lock\n",
        );
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(held_lock(&error).is_some());

        let error = failed(
            "Error: cannot create resources.apps.x: no (403 PERMISSION_DENIED)\n\nEndpoint: POST\nHTTP Status: 403\n",
        );
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(error.reasons(), ["Endpoint: POST\nHTTP Status: 403"]);
    }

    /// Shapes: `bundle plan -o json` of CLI 1.13.0, direct and Terraform engine, read 2026-08.
    #[test]
    fn both_shapes_of_a_plan_are_read() {
        let direct = json!({"plan_version": 2, "plan": {
            "resources.apps.a": {"id": "a", "action": "delete"},
            "resources.postgres_branches.b": {"action": "delete", "gone": true},
            "resources.postgres_projects.p": {"action": "create"}}});
        let actions: Vec<Action> =
            changes(&direct).unwrap().into_iter().map(|change| change.action).collect();
        assert_eq!(actions, [Action::Delete, Action::Unchanged, Action::Create]);

        let terraform =
            json!({"cli_version": "1.2.1", "plan": {"resources.apps.a": {"action": "recreate"}}});
        let terraform = changes(&terraform).unwrap();
        assert_eq!(terraform[0].action, Action::Recreate);
        assert_eq!((&*terraform[0].resource, &*terraform[0].name), ("apps.a", ""));
    }

    /// Shape: `bundle summary -o json` of CLI 1.13.0, read 2026-08.
    #[test]
    fn the_state_is_told_from_what_is_not_deployed_yet() {
        let summary = json!({"resources": {
            "apps": {"a": {"id": "a", "name": "a"}, "b": {"name": "b", "modified_status": "created"}},
            "postgres_projects": {"p": {"id": "projects/p", "modified_status": "deleted"}}}});

        let pair = |label: &str, id: &str| (label.to_owned(), id.to_owned());
        assert_eq!(
            in_state(&summary),
            [pair("apps.a", "a"), pair("postgres_projects.p", "projects/p")]
        );
        assert_eq!(in_state(&json!({})), []);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(numbers("1.14.0-dev"), Some((1, 14)));
        assert!(numbers("0.286.9").unwrap() < OLDEST);
        assert!(numbers("v1.0.0").unwrap() > OLDEST);
    }
}
