//! One server from its start to its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::apps::Apps;
use super::disk::write_private;
use super::door;
use super::faults::{self, Faults};
use super::files::Files;
use super::folder::{PROFILES_HEAD, WorkspaceFolder};
use super::http;
use super::ids;
use super::layout::{Layout, Serving};
use super::postgres::{Install, Postgres};
use super::store::Store;
use super::tls::Authority;
use super::tokens::Keys;
use super::workspace::{Parts, Workspace};
use super::world::{Settings, World};
use crate::error::{Doing, Error, Kind, Result};
use crate::wire::apps::{AppState, ComputeState};

/// Port of the REST API of a workspace that never had another.
const PORT: u16 = 8765;
/// How long open requests may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// How to serve.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Data folder.
    pub(crate) data: PathBuf,
    /// Port of the REST API: 0 for any; nothing for the one it had, or 8765 the first time.
    pub(crate) port: Option<u16>,
    /// Folder of the PostgreSQL programs.
    pub(crate) postgres: Option<PathBuf>,
    /// Folder for what can be made again, such as Python environments.
    pub(crate) cache: PathBuf,
    /// Python interpreter for apps.
    pub(crate) python: Option<PathBuf>,
    /// File with what is to go wrong on demand.
    pub(crate) faults: Option<PathBuf>,
    /// What else is to go wrong, one rule each in YAML or JSON.
    pub(crate) fault: Vec<String>,
    /// Environment that apps inherit a few variables of, and installers all.
    pub(crate) environment: BTreeMap<String, String>,
}

/// A server that serves.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// Base address of the REST API.
    pub(crate) host: String,
    /// Version of the PostgreSQL server.
    pub(crate) postgres_version: String,
    /// File of Databricks profiles.
    pub(crate) profiles: PathBuf,
}

/// Serves the workspace in `options.data` until `stop` comes or it is told to; `ready` is called once it answers.
///
/// Fails with `Conflict` when another server has the data folder or the port, and with `Refused` when the folder
/// holds something that is no workspace.
pub(crate) async fn serve(
    options: Options,
    ready: impl FnOnce(&Ready),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let folder = WorkspaceFolder::claim(&options.data)?;
    let _lock = folder.lock().await?;
    folder.retract();
    raise_file_limit();
    let (workspace, listener) = open(&folder, options).await?;
    workspace.begin().await;
    let mut told = workspace.stop.subscribe();
    let router = http::router(&workspace);
    let served = door::serve(listener, router, door::Limits::USUAL, workspace.stop.subscribe());
    let server = tokio::spawn(served);
    let keeper = tokio::spawn(Arc::clone(&workspace).look_after());
    folder.announce(&Serving { pid: std::process::id(), host: workspace.host.clone() })?;
    ready(&Ready {
        host: workspace.host.clone(),
        postgres_version: workspace.postgres_version.clone(),
        profiles: folder.profiles(),
    });
    tokio::select! {
        () = stop => {}
        _ = told.wait_for(|told| *told) => {}
    }
    folder.retract();
    workspace.stop.send_replace(true);
    let ended = server.abort_handle();
    if tokio::time::timeout(GRACE, server).await.is_err() {
        // Streams that never end by themselves are cut off.
        ended.abort();
    }
    let _ = keeper.await;
    workspace.end().await;
    Ok(())
}

/// Puts the workspace together from what is on disk.
async fn open(folder: &WorkspaceFolder, options: Options) -> Result<(Arc<Workspace>, TcpListener)> {
    let mut rules = options.faults.as_deref().map(faults::read).transpose()?.unwrap_or_default();
    for text in &options.fault {
        rules.push(faults::read_rule(text)?);
    }
    let install = Install::find(options.postgres.as_deref())?;
    let (postgres_version, major) = (install.version.clone(), install.major);
    let store = Store::open(&folder.part(Layout::objects))?;
    let mut world = World::load(&store, new_settings, major)?;
    let listener = bind(options.port, &mut world)?;
    let postgres = Postgres::open(&folder.part(Layout::postgres), install).await?;
    let host = format!("http://127.0.0.1:{}", world.settings.port);
    let issuer = format!("{host}/oidc");
    let keys = Keys::open(&folder.keys(), world.settings.workspace_id, issuer)?;
    world.ensure_identities();
    write_private(&folder.profiles(), profiles(&world, &host).as_bytes())?;
    let own = folder.part(Layout::apps);
    let apps = Apps::open(own, &options.cache, options.python, options.environment).await?;
    let workspace = Workspace::new(Parts {
        world,
        store,
        keys,
        postgres,
        authority: Authority::open(&folder.authority())?,
        faults: Faults::new(rules),
        apps,
        files: Files::open(&folder.part(Layout::files))?,
        data: folder.folder().to_owned(),
        host,
        postgres_version,
    });
    Ok((Arc::new(workspace), listener))
}

/// Binds the port of the REST API and keeps it for the next time.
fn bind(wanted: Option<u16>, world: &mut World) -> Result<TcpListener> {
    let port = wanted.unwrap_or(world.settings.port);
    let listener = door::listen(port).map_err(|error| {
        Error::new(Kind::Conflict, format!("port {port} of 127.0.0.1 cannot be used"))
            .why(error.to_string())
            .hint("choose another with `--port PORT`, or let the system choose with `--port 0`")
            .code("PORT_TAKEN")
    })?;
    let port = listener.local_addr().doing(|| "could not bind the REST API".to_owned())?.port();
    if port != world.settings.port {
        world.settings.port = port;
        world.touch_settings();
    }
    Ok(listener)
}

/// Allows as many open files as the system lets this user have: each endpoint is a socket.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // macOS calls the limit infinite and refuses more than this.
    let current = maximum.map_or(10_240, |maximum| maximum.min(65_536));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

fn new_settings() -> Settings {
    let [second, third] = ids::bytes();
    // 127.0.… is where systems keep addresses of their own.
    let network = u16::from_be_bytes([second.clamp(1, 254), third]);
    let workspace_id = 1_000_000_000_000_000 + ids::number() % 9_000_000_000_000_000;
    Settings { workspace_id, network, port: PORT }
}

/// Returns the profiles that official clients log in with.
fn profiles(world: &World, host: &str) -> String {
    let mut text = PROFILES_HEAD.to_owned();
    if let Some(admin) = world.admin() {
        let (id, secret) = (&admin.user_name, admin.secret.expose());
        text += &format!(
            "\n[local]\nhost          = {host}\nclient_id     = {id}\nclient_secret = {secret}\n"
        );
    }
    for (profile, user) in [("local-user", world.user()), ("local-member", world.member())] {
        if let Some(user) = user {
            let token = user.secret.expose();
            text += &format!("\n[{profile}]\nhost  = {host}\ntoken = {token}\n");
        }
    }
    text
}

impl Workspace {
    /// Brings everything back that ran when the last server ended.
    async fn begin(self: &Arc<Self>) {
        let mut unfinished = Vec::new();
        self.note(|world| unfinished = world.resume(Workspace::now())).await;
        self.remove_strays().await;
        let open: Vec<String> =
            self.read(|world| world.open_branches().map(|branch| branch.uid.clone()).collect());
        for uid in &open {
            if let Err(error) = self.open_endpoints(uid).await {
                tracing::error!("{error}");
            }
            self.note_states(uid).await;
        }
        for work in unfinished {
            tokio::spawn(Arc::clone(self).carry_out(work));
        }
        self.begin_apps().await;
    }

    /// Removes clusters that no branch or endpoint owns: what a killed server was removing.
    async fn remove_strays(&self) {
        let Ok(entries) = std::fs::read_dir(self.data.join("postgres").join("clusters")) else {
            return;
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let strays: Vec<String> = names
            .filter(|name| name.starts_with("br-") || name.starts_with("ep-"))
            .filter(|name| !self.read(|world| world.owns_cluster(name)))
            .collect();
        for stray in strays {
            if let Err(error) = self.postgres.remove(&stray).await {
                tracing::warn!("{error}");
            }
        }
    }

    async fn begin_apps(self: &Arc<Self>) {
        let apps: Vec<_> = self.read(|world| world.apps().cloned().collect());
        for app in apps {
            let name = app.name.clone();
            if app.compute == ComputeState::Deleting {
                tokio::spawn(Arc::clone(self).clear_app(name));
                continue;
            }
            if let Err(error) = self.open_gateway(&name).await {
                tracing::error!("{error}");
            }
            let runs = app.compute == ComputeState::Active && app.active.is_some();
            self.note(|world| {
                world.with_app(&name, |app| {
                    app.state = if runs { AppState::Deploying } else { AppState::Unavailable };
                    if app.compute == ComputeState::Stopping {
                        app.compute = ComputeState::Stopped;
                    }
                });
            })
            .await;
            if runs {
                tokio::spawn(Arc::clone(self).relaunch(name));
            }
        }
    }

    /// Stops everything; what was under way is taken up by the next server.
    async fn end(self: &Arc<Self>) {
        tokio::join!(self.halt_all(), self.finish_jobs());
        self.listeners.close_all();
        self.note_all_before_sleep().await;
        self.postgres.close().await;
        self.state.flush().await;
    }
}
