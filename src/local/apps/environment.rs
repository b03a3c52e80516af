//! The environment of an app's process: what the platform sets, and nothing else of ours.

use std::collections::BTreeMap;
use std::path::Path;

use crate::local::world::{Attachment, Launch};
use crate::wire::apps::{AppResource, EnvVar};

/// Variables of this process that an app needs to run at all.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// What an environment says of the workspace and this start.
pub(crate) struct Facts<'a> {
    /// Base address of the REST API.
    pub(crate) host: &'a str,
    /// Numeric id of the workspace.
    pub(crate) workspace_id: u64,
    /// Port to listen on.
    pub(crate) port: u16,
    /// Python environment to prefer.
    pub(crate) venv: Option<&'a Path>,
    /// Home folder, where the server's own is not the app's.
    pub(crate) home: Option<&'a Path>,
    /// Environment of the server.
    pub(crate) inherited: &'a BTreeMap<String, String>,
}

/// Returns the whole environment; the app's own variables win.
///
/// Fails with a sentence when a variable names a resource the app does not have.
pub(crate) fn build(
    launch: &Launch,
    facts: &Facts<'_>,
    attachments: &[Attachment],
    own: &[EnvVar],
) -> Result<Vec<(String, String)>, String> {
    let mut all = inherited(facts);
    all.extend(platform(launch, facts));
    if let Some(first) = attachments.first() {
        all.extend(database(launch, first));
    }
    for variable in own {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => value.clone(),
            (None, Some(resource)) => value_of(resource, &launch.app.resources, attachments)?,
            (None, None) => String::new(),
        };
        all.push((variable.name.clone(), value));
    }
    Ok(all)
}

fn inherited(facts: &Facts<'_>) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = facts
        .inherited
        .iter()
        .filter(|(name, _)| INHERITED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(home) = facts.home {
        variables.retain(|(name, _)| name != "HOME");
        variables.push(("HOME".to_owned(), home.display().to_string()));
    }
    let Some(venv) = facts.venv else { return variables };
    let bin = venv.join("bin").display().to_string();
    match variables.iter_mut().find(|(name, _)| name == "PATH") {
        Some((_, path)) => *path = format!("{bin}:{path}"),
        None => variables.push(("PATH".to_owned(), bin)),
    }
    variables.push(("VIRTUAL_ENV".to_owned(), venv.display().to_string()));
    variables
}

fn platform(launch: &Launch, facts: &Facts<'_>) -> Vec<(String, String)> {
    let app = &launch.app;
    [
        ("DATABRICKS_APP_NAME", app.name.clone()),
        ("DATABRICKS_WORKSPACE_ID", facts.workspace_id.to_string()),
        ("DATABRICKS_HOST", facts.host.to_owned()),
        ("DATABRICKS_APP_PORT", facts.port.to_string()),
        // Nothing may listen beyond loopback here; the platform's containers listen everywhere.
        ("DATABRICKS_APP_HOST", "127.0.0.1".to_owned()),
        ("DATABRICKS_APP_URL", gateway_url(app.port)),
        ("DATABRICKS_CLIENT_ID", app.client_id.clone()),
        ("DATABRICKS_CLIENT_SECRET", launch.client_secret.expose().clone()),
        // Output would otherwise appear only when a buffer is full.
        ("PYTHONUNBUFFERED", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn gateway_url(port: Option<u16>) -> String {
    port.map_or_else(String::new, |port| format!("http://127.0.0.1:{port}"))
}

fn database(launch: &Launch, attachment: &Attachment) -> Vec<(String, String)> {
    [
        ("PGHOST", attachment.host.clone()),
        ("PGPORT", attachment.port.to_string()),
        ("PGDATABASE", attachment.database.clone()),
        ("PGUSER", launch.app.client_id.clone()),
        ("PGSSLMODE", "require".to_owned()),
        ("PGAPPNAME", launch.app.name.clone()),
        ("LAKEBASE_ENDPOINT", attachment.endpoint.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Returns what `valueFrom` yields: the endpoint of a database, the name of an app.
fn value_of(
    name: &str,
    resources: &[AppResource],
    attachments: &[Attachment],
) -> Result<String, String> {
    if let Some(attachment) = attachments.iter().find(|attachment| attachment.resource == name) {
        return Ok(attachment.endpoint.to_string());
    }
    let resource = resources.iter().find(|resource| resource.name == name);
    let resource = resource
        .ok_or_else(|| format!("valueFrom names `{name}`, which is none of the app's resources"))?;
    match &resource.app {
        Some(sibling) => Ok(sibling.name.clone()),
        None => Err(format!(
            "valueFrom names `{name}`, a kind of resource the embedded workspace does not provide"
        )),
    }
}
