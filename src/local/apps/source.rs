//! The deployed source of an app: its snapshot and its `app.yaml`.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::local::fault::{Answer, Fault};
use crate::wire::apps::{Deployment, EnvVar};

/// What `app.yaml` and the deployment say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Source {
    command: Vec<String>,
    /// Variables of the app's environment.
    pub(crate) env: Vec<EnvVar>,
}

#[derive(Debug, Default, Deserialize)]
struct AppYaml {
    command: Option<Command>,
    #[serde(default)]
    env: Vec<YamlVariable>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Command {
    Words(Vec<String>),
    Line(String),
}

#[derive(Debug, Deserialize)]
struct YamlVariable {
    name: String,
    value: Option<serde_yaml::Value>,
    #[serde(alias = "valueFrom")]
    value_from: Option<String>,
}

impl Source {
    /// Reads `app.yaml` (or `app.yml`) in `folder`; what the deployment says replaces what it says.
    pub(crate) fn read(folder: &Path, deployment: &Deployment) -> Result<Source, String> {
        let yaml = ["app.yaml", "app.yml"].iter().find_map(|name| {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            Some(parse(&text).map_err(|error| format!("{name}: {error}")))
        });
        let mut source = yaml.transpose()?.unwrap_or_default();
        if !deployment.command.is_empty() {
            source.command = deployment.command.clone();
        }
        if !deployment.env_vars.is_empty() {
            source.env = deployment.env_vars.clone();
        }
        if source.command.is_empty() {
            source.command = vec!["python".to_owned(), "app.py".to_owned()];
        }
        Ok(source)
    }

    /// Returns the command to run. There is no shell; the port's variable alone is filled in.
    pub(crate) fn command(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        let fill = |word: &String| {
            word.replace("${DATABRICKS_APP_PORT}", &port).replace("$DATABRICKS_APP_PORT", &port)
        };
        self.command.iter().map(fill).collect()
    }
}

fn parse(text: &str) -> Result<Source, String> {
    if text.trim().is_empty() {
        return Ok(Source::default());
    }
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    let yaml: AppYaml = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    let command = match yaml.command {
        None => Vec::new(),
        Some(Command::Words(words)) => words,
        Some(Command::Line(line)) => ["sh".to_owned(), "-c".to_owned(), line].to_vec(),
    };
    let env = yaml.env.into_iter().map(variable).collect::<Result<_, _>>()?;
    Ok(Source { command, env })
}

fn variable(yaml: YamlVariable) -> Result<EnvVar, String> {
    let YamlVariable { name, value, value_from } = yaml;
    let value = match value {
        None | Some(serde_yaml::Value::Null) => None,
        Some(serde_yaml::Value::String(text)) => Some(text),
        Some(serde_yaml::Value::Bool(flag)) => Some(flag.to_string()),
        Some(serde_yaml::Value::Number(number)) => Some(number.to_string()),
        Some(_) => return Err(format!("the value of `{name}` is neither text nor a number")),
    };
    if value.is_some() == value_from.is_some() {
        return Err(format!("`{name}` needs one of `value` and `valueFrom`"));
    }
    Ok(EnvVar { name, value, value_from })
}

/// Puts what `copy` makes in a staging folder at `target`, which is then there as a whole or not at all.
pub(crate) fn take(target: &Path, copy: impl FnOnce(&Path) -> Answer<()>) -> Answer<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Fault::internal)?;
    let staging = tempfile::tempdir_in(parent).map_err(Fault::internal)?;
    let inside = staging.path().join("source");
    copy(&inside)?;
    fs::rename(&inside, target).map_err(Fault::internal)
}

/// Removes every snapshot beside `kept`.
pub(crate) fn remove_others(kept: &Path) {
    let Some(entries) = kept.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return };
    for entry in entries.flatten().filter(|entry| entry.path() != kept) {
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!("{}: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_yaml_gives_command_and_environment() {
        let source = parse(
            "command: [uvicorn, app:app, --port, $DATABRICKS_APP_PORT]\nenv:\n- {name: A, value: 1}\n- name: B\n  valueFrom: db\n",
        )
        .unwrap();

        assert_eq!(source.command(8001), ["uvicorn", "app:app", "--port", "8001"]);
        assert_eq!(source.env[0].value.as_deref(), Some("1"));
        assert_eq!(source.env[1].value_from.as_deref(), Some("db"));
    }

    #[test]
    fn without_app_yaml_python_runs_app_py_and_a_deployment_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Source::read(folder.path(), &Deployment::default()).unwrap();
        assert_eq!(plain.command(1), ["python", "app.py"]);

        let wanted = Deployment { command: vec!["./run".to_owned()], ..Deployment::default() };
        assert_eq!(Source::read(folder.path(), &wanted).unwrap().command(1), ["./run"]);
    }

    #[test]
    fn a_variable_without_a_value_is_refused_by_name() {
        let error = parse("env: [{name: A}]").unwrap_err();

        assert_eq!(error, "`A` needs one of `value` and `valueFrom`");
    }
}
