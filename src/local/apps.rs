//! The apps' processes: brought up from deployed source, watched, stopped.

mod environment;
mod leftovers;
pub(crate) mod log;
mod process;
mod source;
mod venv;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::folder::OwnedFolder;
use super::postgres::{Access, Account};
use super::workspace::Workspace;
use super::world::{AppRecord, Attachment, Launch, id_of};
use crate::error::{Doing, Error, Result};
use crate::local::fault::Answer;
use crate::wire::apps::{AppState, ComputeState};
use log::{Log, Origin};
use process::Process;
use source::Source;
use venv::Venvs;

/// How long a new process may take until it accepts a connection.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The apps' folders and processes.
pub(crate) struct Apps {
    folder: PathBuf,
    /// What their processes run as.
    account: Account,
    venvs: Venvs,
    /// Environment that apps inherit a few variables of.
    inherited: BTreeMap<String, String>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What this server holds of one app.
pub(crate) struct Slot {
    /// Its output.
    pub(crate) log: Arc<Log>,
    /// Held while its process is replaced or stopped.
    turn: tokio::sync::Mutex<()>,
    process: Mutex<Option<Arc<Process>>>,
    /// Counts the orders to stop: whoever is bringing the app up gives in.
    halts: watch::Sender<u64>,
    /// Turns true to close its gateway.
    pub(crate) gateway: watch::Sender<bool>,
}

impl Slot {
    fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, process: Option<Arc<Process>>) -> Option<Arc<Process>> {
        std::mem::replace(
            &mut *self.process.lock().unwrap_or_else(PoisonError::into_inner),
            process,
        )
    }

    /// Returns the port its process listens on.
    pub(crate) fn port(&self) -> Option<u16> {
        self.process().filter(|process| process.exit().is_none()).map(|process| process.port)
    }
}

impl Apps {
    /// Opens the folder of apps and ends the processes that a killed server left behind.
    pub(crate) async fn open(
        folder: OwnedFolder,
        cache: &Path,
        python: Option<PathBuf>,
        inherited: BTreeMap<String, String>,
    ) -> Result<Self> {
        let account = Account::of_apps()?;
        super::disk::private_folder(&folder)?;
        if account.is_lesser() {
            // It passes through, to the folders of its own below.
            let what = || format!("could not open `{}` to apps", folder.display());
            fs::set_permissions(&*folder, fs::Permissions::from_mode(0o711)).doing(what)?;
        }
        let place = folder.to_path_buf();
        end_leftovers(folder).await;
        let venvs = Venvs::new(cache.join("venvs"), python, &inherited, account.clone());
        Ok(Apps { folder: place, account, venvs, inherited, slots: Mutex::default() })
    }

    /// Returns what this server holds of the app `name`.
    pub(crate) fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Slot {
                log: Arc::new(Log::new(self.folder.join(name).join("log"))),
                turn: tokio::sync::Mutex::default(),
                process: Mutex::default(),
                halts: watch::Sender::new(0),
                gateway: watch::Sender::new(false),
            })
        });
        Arc::clone(slot)
    }

    fn forget(&self, name: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn names(&self) -> Vec<String> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Gives a snapshot to the account that runs it.
    async fn hand_over(&self, snapshot: &Path) -> Result<(), String> {
        let (account, folder) = (self.account.clone(), snapshot.to_owned());
        let owned = tokio::task::spawn_blocking(move || {
            // Those of the app and of its deployments.
            for above in folder.ancestors().skip(1).take(2).filter(|_| account.is_lesser()) {
                fs::set_permissions(above, fs::Permissions::from_mode(0o711))?;
            }
            account.check_reaches(&folder)?;
            Ok::<_, Error>(account.own_tree(&folder)?)
        });
        owned.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn snapshot(&self, launch: &Launch) -> PathBuf {
        let id = id_of(&launch.deployment);
        self.folder.join(&launch.app.name).join("deployments").join(id)
    }
}

/// Ends the processes of all apps in `folder` that a killed server left behind.
pub(crate) async fn end_leftovers(folder: OwnedFolder) {
    // What cannot be ended is met again by the next server.
    let _ = tokio::task::spawn_blocking(move || leftovers::end_all(&folder)).await;
}

impl Workspace {
    /// Brings a new deployment up and records how it went.
    pub(crate) async fn deploy(self: Arc<Self>, name: String, id: String) {
        let slot = self.apps.slot(&name);
        let mut halted = slot.halts.subscribe();
        halted.mark_unchanged();
        let _turn = slot.turn.lock().await;
        let Ok(launch) = self.read(|world| world.launch(&name, &id)) else { return };
        let result = tokio::select! {
            result = self.bring_up(&launch, &slot) => result,
            _ = halted.changed() => Err("the app was stopped".to_owned()),
        };
        if let Err(why) = &result {
            slot.log.write(Origin::System, &format!("Deployment failed: {why}"));
        }
        self.note(|world| {
            let now = Workspace::now();
            world.finish_deployment(&name, &id, result.clone(), now);
            world.with_app(&name, |app| note_standing(app, &result, slot.process().as_deref()));
        })
        .await;
        if result.is_ok() {
            let kept = self.apps.snapshot(&launch);
            tokio::task::spawn_blocking(move || source::remove_others(&kept));
        }
    }

    async fn bring_up(self: &Arc<Self>, launch: &Launch, slot: &Arc<Slot>) -> Result<(), String> {
        let name = &launch.app.name;
        slot.log.write(Origin::System, "Preparing source code");
        let folder = self.apps.snapshot(launch);
        let path = launch.deployment.source_code_path.clone().unwrap_or_default();
        let (files, target) = (self.files.clone(), folder.clone());
        let copied = tokio::task::spawn_blocking(move || {
            source::take(&target, |staging| files.copy_out(&path, staging))
        });
        copied.await.map_err(|error| error.to_string())?.map_err(|fault| fault.failure.message)?;
        self.note(|world| {
            let id = id_of(&launch.deployment);
            world.describe_deployment(name, &id, "Installing packages", Workspace::now());
        })
        .await;
        self.run(launch, slot, &folder).await
    }

    /// Replaces the process of an app by one that runs the source in `folder`.
    async fn run(
        self: &Arc<Self>,
        launch: &Launch,
        slot: &Arc<Slot>,
        folder: &Path,
    ) -> Result<(), String> {
        let name = launch.app.name.clone();
        let source = Source::read(folder, &launch.deployment)?;
        let attachments = self.attach(launch).await?;
        self.apps.hand_over(folder).await?;
        let venv = self.apps.venvs.prepare(folder, &slot.log).await?;
        let port = process::free_port().map_err(|error| error.to_string())?;
        let facts = environment::Facts {
            host: &self.host,
            workspace_id: self.read(|world| world.settings.workspace_id),
            port,
            venv: venv.as_deref(),
            home: self.apps.account.is_lesser().then_some(folder),
            inherited: &self.apps.inherited,
        };
        let variables = environment::build(launch, &facts, &attachments, &source.env)?;
        if let Some(old) = slot.replace(None) {
            slot.log.write(Origin::System, "Stopping the previous deployment");
            old.stop().await;
        }
        let command = source.command(port);
        slot.log.write(Origin::System, &format!("Starting app with command: {command:?}"));
        let mut prepared = process::command(&command, folder, variables);
        self.apps.account.take_over(&mut prepared);
        let process = Process::spawn(prepared, port, &slot.log)
            .map_err(|error| format!("could not start `{}`: {error}", command[0]))?;
        let process = Arc::new(process);
        leftovers::remember(&self.apps.folder.join(&name), process.group);
        slot.replace(Some(Arc::clone(&process)));
        self.watch(name, slot, &process);
        wait_until_open(&process).await.map_err(|why| why + &see_log(&launch.app.name))?;
        slot.log.write(Origin::System, "App started successfully");
        Ok(())
    }

    /// Gives the app's identity a login in every database it is attached to.
    async fn attach(&self, launch: &Launch) -> Result<Vec<Attachment>, String> {
        let name = &launch.app.name;
        let attachments =
            self.read(|world| world.attachments(name)).map_err(|fault| fault.failure.message)?;
        for attachment in &attachments {
            let Attachment { branch_uid, database, endpoint, .. } = attachment;
            let access = Access::ConnectAndCreate { database: database.clone() };
            let _turn = self.catalog_turn(branch_uid).await;
            self.postgres
                .ensure_login(branch_uid, &launch.app.client_id, access)
                .await
                .map_err(|error| format!("could not attach `{endpoint}`: {error}"))?;
            let role = &launch.app.client_id;
            self.note(|world| world.add_login(branch_uid, role, Workspace::now())).await;
        }
        Ok(attachments)
    }

    /// Records it when the process ends by itself after it was up.
    fn watch(self: &Arc<Self>, name: String, slot: &Arc<Slot>, process: &Arc<Process>) {
        let (workspace, slot, process) = (Arc::clone(self), Arc::clone(slot), Arc::clone(process));
        tokio::spawn(async move {
            let status = process.wait().await;
            let current = slot.process().is_some_and(|current| Arc::ptr_eq(&current, &process));
            if process.is_stopping() || !current {
                return;
            }
            slot.log.write(Origin::System, &format!("App ended: {status}"));
            workspace
                .note(|world| {
                    world.with_app(&name, |app| {
                        if app.state == AppState::Running {
                            app.state = AppState::Crashed;
                            app.message = ended(&name, &status);
                        }
                    });
                })
                .await;
        });
    }

    /// Starts an app again from the source of its last deployment.
    pub(crate) async fn relaunch(self: Arc<Self>, name: String) {
        let slot = self.apps.slot(&name);
        let mut halted = slot.halts.subscribe();
        halted.mark_unchanged();
        let _turn = slot.turn.lock().await;
        let launch = self.read(|world| {
            let app = world.app(&name)?;
            let wanted = app.active.clone().filter(|_| app.compute == ComputeState::Active);
            wanted.map(|id| world.launch(&name, &id)).transpose()
        });
        let Ok(Some(launch)) = launch else { return };
        if slot.port().is_some() {
            return;
        }
        let folder = self.apps.snapshot(&launch);
        let result = tokio::select! {
            result = self.run(&launch, &slot, &folder) => result,
            _ = halted.changed() => return,
        };
        if let Err(why) = &result {
            slot.log.write(Origin::System, &format!("Start failed: {why}"));
        }
        self.note(|world| {
            world.with_app(&name, |app| note_standing(app, &result, slot.process().as_deref()));
        })
        .await;
    }

    /// Ends the process of an app, and whatever is bringing it up.
    pub(crate) async fn halt(&self, name: &str) {
        let slot = self.apps.slot(name);
        slot.halts.send_modify(|count| *count += 1);
        let _turn = slot.turn.lock().await;
        if let Some(process) = slot.replace(None) {
            slot.log.write(Origin::System, "Stopping app");
            process.stop().await;
        }
        leftovers::forget(&self.apps.folder.join(name));
    }

    /// Ends the process of an app whose compute is being stopped.
    pub(crate) async fn stop_compute(self: Arc<Self>, name: String) {
        self.halt(&name).await;
        self.note(|world| world.finish_stop(&name)).await;
    }

    /// Removes an app that is being deleted, with its files.
    pub(crate) async fn clear_app(self: Arc<Self>, name: String) {
        self.halt(&name).await;
        self.apps.slot(&name).gateway.send_replace(true);
        let folder = self.apps.folder.join(&name);
        let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder));
        if let Ok(Err(error)) = removed.await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("the files of app {name} could not be removed: {error}");
        }
        self.apps.forget(&name);
        self.note(|world| world.remove_app(&name)).await;
    }

    /// Ends all apps at once; they are started again by the next server.
    pub(crate) async fn halt_all(self: &Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for name in self.apps.names() {
            let workspace = Arc::clone(self);
            tasks.spawn(async move {
                workspace.apps.slot(&name).gateway.send_replace(true);
                workspace.halt(&name).await;
            });
        }
        tasks.join_all().await;
    }

    /// Begins a deployment: answers at once, the rest goes on.
    pub(crate) async fn begin_deployment(
        self: &Arc<Self>,
        name: String,
        begin: impl FnOnce(&mut super::world::World) -> Answer<crate::wire::apps::Deployment>
        + Send
        + 'static,
    ) -> Answer<crate::wire::apps::Deployment> {
        let workspace = Arc::clone(self);
        self.detached(async move {
            let deployment = workspace.change(begin).await?;
            let id = id_of(&deployment);
            tokio::spawn(Arc::clone(&workspace).deploy(name, id));
            Ok(super::world::public(&deployment))
        })
        .await
    }
}

/// Notes how an app stands after it was brought up, or not. Whoever watches its process tells of an end that
/// comes later.
fn note_standing(app: &mut AppRecord, result: &Result<(), String>, process: Option<&Process>) {
    if app.compute != ComputeState::Active {
        return;
    }
    let exit = process.map(Process::exit);
    (app.state, app.message) = match (result, exit) {
        (Ok(()), Some(Some(status))) => (AppState::Crashed, ended(&app.name, &status)),
        (Ok(()), _) => (AppState::Running, "App has status: App is running".to_owned()),
        // What ran before goes on running when the new code never got that far.
        (Err(_), Some(None)) => (AppState::Running, app.message.clone()),
        (Err(why), _) => (AppState::Crashed, why.clone()),
    };
}

fn ended(app: &str, status: &str) -> String {
    format!("App ended: {status}{}", see_log(app))
}

/// Says where a person looks next when an app does not come up.
fn see_log(app: &str) -> String {
    format!("; see `lakeforge local logs {app}`")
}

/// Waits until the process accepts a connection; fails when it ends first.
async fn wait_until_open(process: &Process) -> Result<(), String> {
    let opened = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", process.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        status = process.wait() => Err(format!("App crashed while starting: {status}")),
        opened = tokio::time::timeout(START_LIMIT, opened) => match opened {
            Ok(()) => Ok(()),
            Err(_) => {
                process.stop().await;
                let limit = START_LIMIT.as_secs();
                Err(format!(
                    "App did not listen on port {} (DATABRICKS_APP_PORT) within {limit} seconds",
                    process.port
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> AppRecord {
        let now = Workspace::now();
        let text = json!({
            "name": "portal", "id": "1", "description": null, "creator": "ana@shop.test",
            "create_time": now, "update_time": now, "resources": [], "user_api_scopes": [],
            "other": {}, "client_id": "c", "port": null, "compute": "ACTIVE", "state": "DEPLOYING",
            "message": "before", "active": null, "pending": null,
        });
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn an_app_that_ended_as_soon_as_it_was_up_has_crashed() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(folder.path().join("log")));
        let start = |script: &str| {
            let command = ["/bin/sh", "-c", script].map(str::to_owned);
            let command = process::command(&command, folder.path(), Vec::new());
            Process::spawn(command, 1, &log).unwrap()
        };
        let (lives, died) = (start("exec /bin/sleep 1000"), start("exit 3"));
        died.wait().await;
        let stands = |result: Result<(), String>, process| {
            let mut app = record();
            note_standing(&mut app, &result, process);
            (app.state, app.message)
        };
        let failed = || Err("no such program".to_owned());

        let up = (AppState::Running, "App has status: App is running".to_owned());
        assert_eq!(stands(Ok(()), Some(&lives)), up);
        let told = "App ended: exit status: 3; see `lakeforge local logs portal`";
        assert_eq!(stands(Ok(()), Some(&died)), (AppState::Crashed, told.to_owned()));
        assert_eq!(stands(failed(), Some(&lives)), (AppState::Running, "before".to_owned()));
        let crashed = (AppState::Crashed, "no such program".to_owned());
        assert_eq!(stands(failed(), Some(&died)), crashed);
        assert_eq!(stands(failed(), None), crashed);
        lives.stop().await;
    }
}
