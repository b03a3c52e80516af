//! Database passwords that live for minutes, and all that is needed to connect with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::names;
use super::sql::{self, Refusal};
use crate::api::{Client, Poll};
use crate::error::{Doing, Error, Kind, Result, nearest};
use crate::secret::Secret;
use crate::time::Ttl;
use crate::wire::names::{BranchName, DEFAULT_DATABASE, EndpointName, ProjectName};
use crate::wire::postgres::{Endpoint, EndpointType};

/// Port of Postgres, unless an endpoint says otherwise.
const PORT: u16 = 5432;
/// How often a login that the server refuses is tried again: a role made a moment ago may not
/// have reached the compute.
const REFUSALS: u32 = 3;

/// What to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The branch.
    pub(crate) branch: BranchName,
    /// Id of the endpoint, instead of the branch's read-write one.
    pub(crate) endpoint: Option<String>,
    /// Database, instead of the one every branch starts with.
    pub(crate) database: Option<String>,
    /// Life of the password: 5 minutes to 1 hour.
    pub(crate) ttl: Option<Ttl>,
    /// How long to wait for an endpoint that is being provisioned.
    pub(crate) wait: Duration,
}

impl Wanted {
    /// Asks for the read-write endpoint of `branch` and its first database.
    pub(crate) fn of(branch: &BranchName, wait: Duration) -> Self {
        Wanted { branch: branch.clone(), endpoint: None, database: None, ttl: None, wait }
    }
}

/// All that is needed to connect.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Connection {
    /// Host to connect to.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Login.
    pub(crate) user: String,
    /// Database.
    pub(crate) database: String,
    /// Endpoint the password is for.
    pub(crate) endpoint: EndpointName,
    /// The password.
    pub(crate) token: Secret<String>,
    /// When the password stops opening new connections.
    pub(crate) expire_time: Timestamp,
    /// Certificate of the authority that vouches for the server; the public ones do without it.
    #[serde(skip)]
    pub(crate) authority: Option<PathBuf>,
}

impl Connection {
    /// Returns the variables that every Postgres client reads, the password last.
    pub(crate) fn variables(&self) -> [(&'static str, Secret<String>); 6] {
        let open = |value: &str| Secret::new(value.to_owned());
        [
            ("PGHOST", open(&self.host)),
            ("PGPORT", open(&self.port.to_string())),
            ("PGDATABASE", open(&self.database)),
            ("PGUSER", open(&self.user)),
            ("PGSSLMODE", open("require")),
            ("PGPASSWORD", self.token.clone()),
        ]
    }
}

/// Mints a password for `wanted` and says how to connect with it.
///
/// Fails with `NotFound` when project, branch or endpoint does not exist, each with the nearest
/// that does, and with `TimedOut` when the endpoint has no address in time.
pub(crate) async fn connection(api: &Client, wanted: &Wanted) -> Result<Connection> {
    let what = || format!("could not get credentials for `{}`", wanted.branch.short());
    let endpoint = endpoint(api, wanted).await.doing(what)?;
    let (me, credential) = tokio::join!(api.me(), api.mint_credential(&endpoint.name, wanted.ttl));
    let credential = credential.doing(what)?;
    let hosts = endpoint.status.hosts.unwrap_or_default();
    Ok(Connection {
        host: hosts.host.unwrap_or_default(),
        port: hosts.port.unwrap_or(PORT),
        user: me.doing(what)?.user_name.clone(),
        database: wanted.database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned()),
        endpoint: endpoint.name,
        token: credential.token,
        expire_time: credential.expire_time,
        authority: api.login().certificate().map(Path::to_owned),
    })
}

/// Returns the default branch of `project`.
///
/// Fails with `NotFound` when the project does not exist.
pub(crate) async fn default_branch(api: &Client, project: &ProjectName) -> Result<BranchName> {
    match api.get_project(project).await {
        Err(error) => Err(names::explain_project(api, project, error).await),
        Ok(found) => found.status.default_branch.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("project `{}` has no default branch", project.project),
            )
            .hint("name the branch")
        }),
    }
}

/// Waits until a login and `SELECT 1` work on the read-write endpoint of `branch`, with a fresh
/// password each time.
///
/// Fails with `Denied` when the server refuses the login, with `TimedOut` when the compute does not
/// wake in time, and with `Refused` when somebody else listens in its place.
pub(crate) async fn ready(api: &Client, branch: &BranchName, wait: Duration) -> Result<Connection> {
    let mut poll = Poll::new(wait);
    let mut refused = 0;
    loop {
        let connection = connection(api, &Wanted::of(branch, poll.left())).await?;
        let refusal = match sql::probe(&connection, poll.left()).await {
            Ok(()) => return Ok(connection),
            Err(refusal) => refusal,
        };
        tracing::debug!(branch = branch.short(), ?refusal, "not ready");
        refused += u32::from(matches!(refusal, Refusal::Refused(_)));
        let is_final = matches!(refusal, Refusal::Unknown(_)) || refused >= REFUSALS;
        if is_final || !poll.pause().await {
            return Err(refusal.into_error(&connection.endpoint.to_string()));
        }
    }
}

/// Finds the endpoint to connect to, and waits until it has an address.
async fn endpoint(api: &Client, wanted: &Wanted) -> Result<Endpoint> {
    let mut poll = Poll::new(wanted.wait);
    loop {
        let all = match api.list_endpoints(&wanted.branch).await {
            Ok(all) => all,
            Err(error) if error.is_not_found() => return Err(explain(api, wanted, error).await),
            Err(error) => return Err(error.into()),
        };
        let found = choose(all, wanted)?;
        if let Some(found) = found.filter(|endpoint| address(endpoint).is_some()) {
            return Ok(found);
        }
        if !poll.pause().await {
            return Err(Error::new(
                Kind::TimedOut,
                format!("no endpoint of `{}` has an address yet", wanted.branch.short()),
            )
            .code("ENDPOINT_NOT_READY"));
        }
    }
}

fn address(endpoint: &Endpoint) -> Option<&str> {
    endpoint.status.hosts.as_ref()?.host.as_deref().filter(|host| !host.is_empty())
}

/// Chooses the named endpoint, else the read-write one: with an address before one without,
/// `primary` before others.
fn choose(all: Vec<Endpoint>, wanted: &Wanted) -> Result<Option<Endpoint>> {
    let Some(id) = &wanted.endpoint else {
        let writable =
            all.into_iter().filter(|e| e.status.endpoint_type == EndpointType::ReadWrite);
        let rank = |e: &Endpoint| (address(e).is_none(), e.name.endpoint != "primary");
        let best = writable.min_by_key(rank);
        return refuse_disabled(best);
    };
    let near = nearest(id, all.iter().map(|e| e.name.endpoint.as_str())).map(str::to_owned);
    match all.into_iter().find(|e| e.name.endpoint == *id) {
        Some(found) => refuse_disabled(Some(found)),
        None => {
            let error = Error::new(
                Kind::NotFound,
                format!("`{}` has no endpoint `{id}`", wanted.branch.short()),
            )
            .code("ENDPOINT_NOT_FOUND");
            Err(match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            })
        }
    }
}

fn refuse_disabled(endpoint: Option<Endpoint>) -> Result<Option<Endpoint>> {
    match endpoint {
        Some(endpoint) if endpoint.status.disabled => {
            Err(Error::new(Kind::Failed, format!("endpoint `{}` is disabled", endpoint.name))
                .code("ENDPOINT_DISABLED")
                .why("it refuses connections until it is enabled again"))
        }
        endpoint => Ok(endpoint),
    }
}

/// Says whether it is the project or the branch that does not exist.
async fn explain(api: &Client, wanted: &Wanted, error: crate::api::Error) -> Error {
    let project = wanted.branch.parent();
    match api.list_branches(&project).await {
        Err(error) => names::explain_project(api, &project, error).await,
        Ok(known) if known.iter().any(|branch| branch.name == wanted.branch) => error.into(),
        Ok(known) => names::unknown_branch(&wanted.branch, &known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, json: &str) -> Endpoint {
        serde_json::from_str(&format!(
            r#"{{"name":"projects/p/branches/b/endpoints/{id}","status":{json}}}"#
        ))
        .unwrap()
    }

    fn wanted(id: Option<&str>) -> Wanted {
        let branch = "projects/p/branches/b".parse().unwrap();
        Wanted { endpoint: id.map(str::to_owned), ..Wanted::of(&branch, Duration::ZERO) }
    }

    const RW: &str = r#"{"endpoint_type":"ENDPOINT_TYPE_READ_WRITE","hosts":{"host":"h"}}"#;
    const RW_NO_HOST: &str = r#"{"endpoint_type":"ENDPOINT_TYPE_READ_WRITE"}"#;
    const RO: &str = r#"{"endpoint_type":"ENDPOINT_TYPE_READ_ONLY","hosts":{"host":"h"}}"#;
    const OFF: &str =
        r#"{"endpoint_type":"ENDPOINT_TYPE_READ_WRITE","disabled":true,"hosts":{"host":"h"}}"#;

    #[test]
    fn the_writable_endpoint_is_chosen() {
        for (all, expected) in [
            (vec![endpoint("ro", RO), endpoint("primary", RW)], Some("primary")),
            (vec![endpoint("a", RW), endpoint("primary", RW)], Some("primary")),
            (vec![endpoint("primary", RW_NO_HOST), endpoint("b", RW)], Some("b")),
            (vec![endpoint("ro", RO)], None),
            (vec![], None),
        ] {
            let found = choose(all, &wanted(None)).unwrap().map(|e| e.name.endpoint);
            assert_eq!(found.as_deref(), expected);
        }
    }

    #[test]
    fn a_named_endpoint_is_that_one_or_an_error() {
        let all = || vec![endpoint("readers", RO), endpoint("primary", RW), endpoint("off", OFF)];

        let found = choose(all(), &wanted(Some("readers"))).unwrap().unwrap();
        assert_eq!(found.name.endpoint, "readers");
        let error = choose(all(), &wanted(Some("reader"))).unwrap_err();
        assert_eq!(error.hint_text(), Some("did you mean `readers`?"));
        assert!(choose(all(), &wanted(Some("off"))).is_err());
    }
}
