//! The whole server over HTTP, TLS and real Postgres; each test in a data folder of its own.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::layout::Layout;
use super::postgres::tests::quick_folder;
use super::{Options, loopback, serve};
use crate::error::{Kind, Result};

mod doors;
mod full;
mod instances;
mod logins;
mod readers;
mod roles;
mod unwritable;

const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCTION: &str = "projects/shop/branches/production";

/// A data folder that the user Postgres runs as can pass through.
fn folder() -> tempfile::TempDir {
    let folder =
        tempfile::Builder::new().prefix("lakeforge-test-").tempdir_in(quick_folder()).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

fn options(data: &std::path::Path) -> Options {
    Options {
        data: data.to_owned(),
        port: Some(0),
        cache: data.join("cache"),
        environment: [("PATH".to_owned(), env!("PATH").to_owned())].into(),
        ..Options::default()
    }
}

/// A server with threads of its own, so that it can die as a process does.
struct Server {
    runtime: Runtime,
    host: String,
    layout: Layout,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<()>>,
    token: String,
}

impl Server {
    fn start(data: &std::path::Path) -> Server {
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let options = options(data);
        let served = runtime.spawn(async move {
            let ready = move |ready: &super::Ready| tell.send(ready.host.clone()).unwrap();
            let stopped = async {
                stopped.await.unwrap();
            };
            serve(options, ready, stopped).await
        });
        let Ok(host) = told.recv_timeout(PATIENCE) else {
            panic!("{:?}", runtime.block_on(served));
        };
        let layout = Layout::new(data);
        let mut server = Server { runtime, host, layout, stop, served, token: String::new() };
        server.token = server.profile("token");
        server
    }

    fn profile(&self, key: &str) -> String {
        let text = std::fs::read_to_string(self.layout.profiles()).unwrap();
        let line = text.lines().find(|line| line.split('=').next().unwrap().trim() == key);
        line.unwrap().split_once('=').unwrap().1.trim().to_owned()
    }

    /// Ends the server as SIGKILL would: nothing is tidied up, and nothing of it goes on.
    fn kill(self) {
        self.runtime.shutdown_timeout(PATIENCE);
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.served).unwrap().unwrap();
    }

    fn send(&self, method: &str, path: &str, token: Option<&str>, body: Body) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.host));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).unwrap();
        self.runtime.block_on(loopback::send(request)).unwrap()
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, Some(&self.token), Body::from(body.to_string()))
    }

    fn get(&self, path: &str) -> Value {
        let (status, document) = self.call("GET", path, &json!({}));
        assert_eq!(status, 200, "{path}: {document}");
        document
    }

    /// Makes a change under `/api/2.0/postgres/` and waits for its operation.
    fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, operation) = self.call(method, &format!("/api/2.0/postgres/{path}"), body);
        assert_eq!(status, 200, "{path}: {operation}");
        let name = operation["name"].as_str().unwrap();
        let done = self.until(|| {
            let operation = self.get(&format!("/api/2.0/postgres/{name}"));
            operation["done"].as_bool().unwrap().then_some(operation)
        });
        assert!(done.get("error").is_none(), "{path}: {done}");
        done["response"].clone()
    }

    fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < limit, "waited too long");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn credential(&self, branch: &str) -> String {
        self.credential_for(&format!("{branch}/endpoints/primary"))
    }

    fn credential_for(&self, endpoint: &str) -> String {
        let body = json!({ "endpoint": endpoint });
        let (status, answer) = self.call("POST", "/api/2.0/postgres/credentials", &body);
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Runs a query on a branch as the user with the token, and returns the first column.
    fn ask(&self, branch: &str, query: &str) -> Vec<String> {
        let password = self.credential(branch);
        self.log_in(branch, "developer@lakeforge.test", &password, query).unwrap()
    }

    fn log_in(
        &self,
        branch: &str,
        user: &str,
        password: &str,
        query: &str,
    ) -> Result<Vec<String>, String> {
        self.log_in_at(&format!("{branch}/endpoints/primary"), user, password, query)
    }

    fn log_in_at(
        &self,
        endpoint: &str,
        user: &str,
        password: &str,
        query: &str,
    ) -> Result<Vec<String>, String> {
        self.log_in_by(endpoint, "host", user, password, query)
    }

    /// Logs in through the host of the endpoint that its status calls `which`.
    fn log_in_by(
        &self,
        endpoint: &str,
        which: &str,
        user: &str,
        password: &str,
        query: &str,
    ) -> Result<Vec<String>, String> {
        let endpoint = self.get(&format!("/api/2.0/postgres/{endpoint}"));
        let hosts = &endpoint["status"]["hosts"];
        let mut config = tokio_postgres::Config::new();
        config
            .host(hosts[which].as_str().unwrap())
            .port(u16::try_from(hosts["port"].as_u64().unwrap_or(5432)).unwrap())
            .user(user)
            .password(password)
            .dbname("databricks_postgres")
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        self.runtime.block_on(async {
            let connected = config.connect(self.tls()).await.map_err(|error| told(&error))?;
            let (client, connection) = connected;
            tokio::spawn(connection);
            let rows = client.simple_query(query).await.map_err(|error| told(&error))?;
            let first = |row: &tokio_postgres::SimpleQueryMessage| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            };
            Ok(rows.iter().filter_map(first).collect())
        })
    }

    fn tls(&self) -> MakeRustlsConnect {
        let authority = super::tls::Authority::open(&self.layout.authority()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        MakeRustlsConnect::new(config)
    }

    fn shop(&self) {
        self.change("POST", "projects?project_id=shop", &json!({}));
    }

    fn branch(&self, id: &str, spec: &Value) -> Value {
        self.change(
            "POST",
            &format!("projects/shop/branches?branch_id={id}"),
            &json!({ "spec": spec }),
        )
    }
}

fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[test]
fn a_project_lives_from_its_creation_to_its_purge() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.ask(PRODUCTION, "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1), (2)");
    std::thread::sleep(Duration::from_millis(20));
    let before = jiff::Timestamp::now();
    std::thread::sleep(Duration::from_millis(20));
    server.ask(PRODUCTION, "DELETE FROM notes");

    let spec = json!({ "source_branch_time": before.to_string(), "ttl": "3600s" });
    let restored = server.branch("restored", &spec);

    let really: jiff::Timestamp =
        restored["status"]["source_branch_time"].as_str().unwrap().parse().unwrap();
    assert!(really <= before, "{really} is after {before}");
    let count = "SELECT count(*) FROM notes";
    assert_eq!(server.ask("projects/shop/branches/restored", count), ["2"]);
    assert_eq!(server.ask(PRODUCTION, count), ["0"]);
    let too_early =
        json!({ "spec": { "source_branch_time": "2020-01-01T00:00:00Z", "ttl": "60s" } });
    let path = "/api/2.0/postgres/projects/shop/branches?branch_id=x";
    assert_eq!(server.call("POST", path, &too_early).0, 400);

    server.change("DELETE", "projects/shop/branches/restored?purge=true", &json!({}));
    server.change("DELETE", "projects/shop?purge=true", &json!({}));
    let clusters = server.layout.postgres().join("clusters");
    server.until(|| (std::fs::read_dir(&clusters).unwrap().count() == 0).then_some(()));
    server.stop();
}

#[test]
fn a_killed_server_comes_back_with_everything_and_finishes_what_it_had_begun() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.ask(PRODUCTION, "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1)");
    let path = "/api/2.0/postgres/projects/shop/branches?branch_id=dev";
    let host = server.host.clone();
    let (token, body) = (server.token.clone(), json!({ "spec": { "no_expiry": true } }));
    let asking = std::thread::spawn(move || {
        let request = Request::post(format!("{host}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body.to_string()));
        // The answer never comes when the server dies first.
        let _ = Runtime::new().unwrap().block_on(loopback::send(request.unwrap()));
    });
    let branches = server.layout.objects().join("branches");
    server.until(|| (std::fs::read_dir(&branches).unwrap().count() == 2).then_some(()));
    server.kill();
    asking.join().unwrap();

    let server = Server::start(folder.path());

    let branch = server.until(|| {
        let branch = server.get("/api/2.0/postgres/projects/shop/branches/dev");
        (branch["status"]["current_state"] == "READY").then_some(branch)
    });
    assert!(branch["status"]["source_branch_lsn"].is_string());
    for branch in [PRODUCTION, "projects/shop/branches/dev"] {
        assert_eq!(server.ask(branch, "SELECT count(*) FROM notes"), ["1"], "{branch}");
    }
    server.stop();
}

#[test]
fn a_stopped_server_gives_its_endpoints_the_same_addresses_again() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    let path = format!("/api/2.0/postgres/{PRODUCTION}/endpoints/primary");
    let hosts = server.get(&path)["status"]["hosts"].clone();
    let password = server.credential(PRODUCTION);
    server.stop();

    let server = Server::start(folder.path());

    let endpoint = server.get(&path);
    assert_eq!(endpoint["status"]["hosts"], hosts);
    assert_eq!(endpoint["status"]["current_state"], "IDLE");
    let user = "developer@lakeforge.test";
    assert_eq!(server.log_in(PRODUCTION, user, &password, "SELECT 1").unwrap(), ["1"]);
    assert_eq!(server.get(&path)["status"]["current_state"], "ACTIVE");
    server.stop();
}

#[test]
fn only_the_right_token_opens_a_door() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    for token in [None, Some("dapi0000"), Some("a.b.c"), Some("")] {
        let (status, body) = server.send("GET", "/api/2.0/apps", token, Body::empty());
        assert_eq!((status, &body["error_code"]), (401, &json!("UNAUTHENTICATED")), "{token:?}");
    }
    let form = "grant_type=client_credentials&client_id=x&client_secret=y";
    let request = Request::post(format!("{}/oidc/v1/token", server.host))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form));
    let (status, body) = server.runtime.block_on(loopback::send(request.unwrap())).unwrap();
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));

    let good = server.credential(PRODUCTION);
    let user = "developer@lakeforge.test";
    let refused = |user: &str, password: &str| {
        server.log_in(PRODUCTION, user, password, "SELECT 1").unwrap_err()
    };
    assert_eq!(
        refused(user, &server.token),
        "Provided authentication token is not a valid JWT encoding"
    );
    assert!(refused("eve", &good).starts_with("OAuth: User is not authorized"));
    let (body, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
    assert!(refused(user, &forged).starts_with("External authorization failed"));
    server.stop();
}

#[test]
fn requests_that_make_no_sense_are_refused_in_the_documented_envelope() {
    let folder = folder();
    let server = Server::start(folder.path());
    let token = Some(server.token.as_str());
    let send = |method: &str, path: &str, body: &str| {
        let (status, answer) = server.send(method, path, token, Body::from(body.to_owned()));
        (status, answer["error_code"].as_str().unwrap().to_owned(), answer["message"].to_string())
    };

    let (status, code, message) = send("GET", "/api/2.1/jobs/list", "");
    assert_eq!((status, code.as_str()), (501, "NOT_IMPLEMENTED"));
    assert!(message.contains("GET /api/2.1/jobs/list"));
    assert_eq!(send("PUT", "/api/2.0/apps", "").0, 501);
    for body in ["{", "[]", "{\"spec\":7}", "{\"spec\":{\"ttl\":\"soon\"}}"] {
        let path = "/api/2.0/postgres/projects/shop/branches?branch_id=x";
        assert_eq!(send("POST", path, body).1, "MALFORMED_REQUEST", "{body}");
    }
    assert_eq!(send("POST", "/api/2.0/postgres/projects", "").1, "INVALID_PARAMETER_VALUE");
    assert_eq!(send("GET", "/api/2.0/postgres/projects?page_size=x", "").0, 400);
    assert_eq!(send("GET", "/api/2.0/workspace/get-status?path=/a/../b", "").0, 400);
    let long = "x".repeat(super::files::LARGEST + 1);
    assert_eq!(send("POST", "/api/2.0/workspace/mkdirs", &long).0, 413);
    server.stop();
}

#[test]
fn a_second_server_and_a_taken_port_are_conflicts() {
    let folder = folder();
    let server = Server::start(folder.path());
    let serve_there = |options: Options| {
        let result = Runtime::new().unwrap().block_on(serve(
            options,
            |_| panic!("it serves"),
            std::future::pending(),
        ));
        result.unwrap_err()
    };

    let error = serve_there(options(folder.path()));
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");

    let other = self::folder();
    let port = server.host.rsplit_once(':').unwrap().1.parse().unwrap();
    let error = serve_there(Options { port: Some(port), ..options(other.path()) });
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.hint_text().unwrap().contains("--port 0"));
    server.stop();
}

/// Puts the files of an app into the workspace.
fn upload(server: &Server, files: &[(&str, &str)]) {
    let folder = "/Workspace/Users/ada/portal";
    server.call("POST", "/api/2.0/workspace/mkdirs", &json!({ "path": folder }));
    for (name, content) in files {
        let path = format!("{}%2F{name}", folder[1..].replace('/', "%2F"));
        let path = format!("/api/2.0/workspace-files/import-file/{path}?overwrite=true");
        let body = Body::from((*content).to_owned());
        assert_eq!(server.send("POST", &path, Some(&server.token), body).0, 200);
    }
}

fn deploy(server: &Server) -> Value {
    let body = json!({ "source_code_path": "/Workspace/Users/ada/portal" });
    let (status, deployment) = server.call("POST", "/api/2.0/apps/portal/deployments", &body);
    assert_eq!(status, 200, "{deployment}");
    let id = deployment["deployment_id"].as_str().unwrap().to_owned();
    server.until(|| {
        let now = server.get(&format!("/api/2.0/apps/portal/deployments/{id}"));
        (now["status"]["state"] != "IN_PROGRESS").then_some(now)
    })
}

#[test]
fn an_app_is_served_to_who_may_see_it_and_comes_back_after_a_restart() {
    let folder = folder();
    let server = Server::start(folder.path());
    let yaml = "command: [python, -m, http.server, $DATABRICKS_APP_PORT, --bind, 127.0.0.1]\n";
    upload(&server, &[("app.yaml", yaml), ("hello.json", "{\"hello\": 1}")]);
    server.call("POST", "/api/2.0/apps", &json!({ "name": "portal" }));

    let deployment = deploy(&server);

    assert_eq!(deployment["status"]["state"], "SUCCEEDED", "{deployment}");
    let url = |server: &Server| {
        let app = server.get("/api/2.0/apps/portal");
        app["url"].as_str().unwrap().to_owned()
    };
    let fetch = |server: &Server, token: Option<&str>| {
        let mut request = Request::get(format!("{}/hello.json", url(server)));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        server.runtime.block_on(loopback::send(request)).unwrap()
    };
    assert_eq!(fetch(&server, Some(&server.token)), (200, json!({ "hello": 1 })));
    assert_eq!(fetch(&server, None), (200, Value::Null), "the login page");
    let (before, log) = (url(&server), server.layout.app_log("portal"));
    server.stop();
    assert!(std::fs::read_to_string(log).unwrap().contains("[APP]"));

    let server = Server::start(folder.path());
    assert_eq!(url(&server), before);
    server.until(|| {
        (server.get("/api/2.0/apps/portal")["app_status"]["state"] == "RUNNING").then_some(())
    });
    assert_eq!(fetch(&server, Some(&server.token)).0, 200);
    server.call("POST", "/api/2.0/apps/portal/stop", &json!({}));
    server.until(|| {
        (server.get("/api/2.0/apps/portal")["compute_status"]["state"] == "STOPPED").then_some(())
    });
    assert_eq!(fetch(&server, Some(&server.token)).0, StatusCode::BAD_GATEWAY.as_u16());
    server.call("DELETE", "/api/2.0/apps/portal", &json!({}));
    server
        .until(|| (server.call("GET", "/api/2.0/apps/portal", &json!({})).0 == 404).then_some(()));
    server.stop();
}

#[test]
fn an_app_that_ends_at_once_is_a_failed_deployment_with_its_exit_status() {
    let folder = folder();
    let server = Server::start(folder.path());
    upload(&server, &[("app.yaml", "command: [sh, -c, 'echo oops; exit 3']\n")]);
    server.call("POST", "/api/2.0/apps", &json!({ "name": "portal" }));

    let deployment = deploy(&server);

    assert_eq!(deployment["status"]["state"], "FAILED");
    let message = deployment["status"]["message"].as_str().unwrap();
    assert!(message.contains("exit status: 3"), "{message}");
    assert!(message.contains("lakeforge local logs portal"), "{message}");
    assert_eq!(server.get("/api/2.0/apps/portal")["app_status"]["state"], "CRASHED");
    server.stop();
}
