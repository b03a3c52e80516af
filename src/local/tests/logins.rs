//! Who gets in, and who starts a compute by trying: nobody who has not shown a good token or password.

use std::path::Path;

use super::*;

const ROLES: &str = "projects/shop/branches/production/roles";
const DEVELOPER: &str = "developer@lakeforge.test";
const API: &str = "/api/2.0/postgres";
const WHO: &str = "SELECT current_user";

/// Starts a server with the project `shop`, whose roles may log in with passwords.
fn shop(folder: &Path) -> Server {
    let server = Server::start(folder);
    let native = json!({ "spec": { "enable_pg_native_login": true } });
    server.change("POST", "projects?project_id=shop", &native);
    server
}

fn suspend(server: &Server) {
    let body = json!({ "compute": { "suspend": PRODUCTION } });
    let (status, answer) = server.call("POST", "/lakeforge/faults", &body);
    assert_eq!(status, 200, "{answer}");
}

/// Returns how often a compute of the workspace was started.
fn starts(server: &Server) -> usize {
    let clusters = std::fs::read_dir(server.layout.postgres().join("clusters")).unwrap();
    let logs = clusters.map(|cluster| std::fs::read_to_string(cluster.unwrap().path().join("log")));
    let begins =
        |log: String| log.matches("database system is ready to accept connections").count();
    logs.map(|log| begins(log.unwrap())).sum()
}

fn wrong(user: &str) -> Result<Vec<String>, String> {
    Err(format!("password authentication failed for user \"{user}\""))
}

fn right(user: &str) -> Result<Vec<String>, String> {
    Ok(vec![user.to_owned()])
}

#[test]
fn nobody_starts_a_compute_without_a_good_token_or_password() {
    let folder = folder();
    let server = shop(folder.path());
    for spec in [
        json!({ "postgres_role": "report" }),
        json!({ "postgres_role": "eve@shop.test", "identity_type": "USER" }),
        json!({ "postgres_role": "asleep", "auth_method": "NO_LOGIN" }),
    ] {
        server.change("POST", ROLES, &json!({ "spec": spec }));
    }
    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'of its own'");
    server.branch("other", &json!({ "no_expiry": true }));
    let elsewhere = server.credential("projects/shop/branches/other");
    let good = server.credential(PRODUCTION);
    suspend(&server);
    let before = starts(&server);

    let forged = format!("{}x", good);
    let passwords = ["guess", "a.b.c", "md5", server.token.as_str(), &elsewhere, &forged];
    let users = [
        "report",
        "native",
        "asleep",
        "eve@shop.test",
        DEVELOPER,
        "nobody",
        "eve@nowhere.test",
        "admins",
        "lakeforge",
        "databricks_superuser",
        "postgres",
        "pg_monitor",
        "8f1b2c3d-0000-4000-8000-123456789abc",
        "o'brien",
        "x\"y",
        "-",
    ];
    let mut tries = 0;
    for password in passwords {
        for user in users {
            let refused = server.log_in(PRODUCTION, user, password, WHO);
            assert!(refused.is_err(), "{user} logs in with {password}");
            tries += 1;
        }
    }
    // A good token says nothing about passwords: it is none of theirs.
    for user in ["report", "native", "asleep", "nobody"] {
        assert_eq!(server.log_in(PRODUCTION, user, &good, WHO), wrong(user));
        tries += 1;
    }

    assert_eq!((tries, starts(&server) - before), (100, 0));
    let state = || server.get(&format!("{API}/{PRODUCTION}/endpoints/primary"))["status"].clone();
    assert_eq!(state()["current_state"], "IDLE");
    assert_eq!(server.log_in(PRODUCTION, "native", "of its own", WHO), right("native"));
    assert_eq!(starts(&server) - before, 1, "a good password does");
    suspend(&server);
    assert_eq!(server.log_in(PRODUCTION, DEVELOPER, &good, WHO), right(DEVELOPER));
    assert_eq!(starts(&server) - before, 2, "a good token does");
    server.stop();
}

#[test]
fn who_has_no_role_is_asked_and_refused_like_who_has() {
    let folder = folder();
    let server = shop(folder.path());
    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'x'; CREATE ROLE without LOGIN");
    let refused = |user: &str| server.log_in(PRODUCTION, user, "guess", WHO);
    for sleeps in [false, true] {
        if sleeps {
            suspend(&server);
        }
        for user in ["native", "without", "nobody", "postgres"] {
            assert_eq!(refused(user), wrong(user), "asleep: {sleeps}");
        }
        let jwt = "Provided authentication token is not a valid JWT encoding";
        for user in [DEVELOPER, "eve@nowhere.test", "8f1b2c3d-0000-4000-8000-123456789abc"] {
            assert_eq!(refused(user), Err(jwt.to_owned()), "asleep: {sleeps}");
        }
    }
    let native = json!({ "spec": { "enable_pg_native_login": false } });
    server.change("PATCH", "projects/shop?update_mask=spec.enable_pg_native_login", &native);
    let off = "native postgres login is disabled for this endpoint";
    for user in ["native", "without", "nobody", "postgres"] {
        assert_eq!(refused(user), Err(off.to_owned()));
    }
    server.stop();
}

#[test]
fn a_password_is_the_one_that_the_cluster_has_whatever_was_noted() {
    let folder = folder();
    let server = shop(folder.path());
    let log_in = |password: &str| server.log_in(PRODUCTION, "native", password, WHO);
    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'first'");
    assert_eq!(log_in("first"), right("native"));
    server.ask(PRODUCTION, "ALTER ROLE native PASSWORD 'second'");
    assert_eq!((log_in("first"), log_in("second")), (wrong("native"), right("native")));
    suspend(&server);
    assert_eq!((log_in("first"), log_in("second")), (wrong("native"), right("native")));

    // Changed after it was noted, by a compute that dies without a word.
    suspend(&server);
    assert_eq!(log_in("second"), right("native"));
    server.ask(PRODUCTION, "ALTER ROLE native PASSWORD 'third'");
    let clusters = std::fs::read_dir(server.layout.postgres().join("clusters")).unwrap();
    let data = clusters.map(|cluster| cluster.unwrap().path()).next().unwrap().join("data");
    let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
    // It starts the compute, and that knows better; until it is gone, it does not answer.
    server.until(|| {
        let refused = log_in("second");
        assert!(refused.is_err());
        (refused == wrong("native")).then_some(())
    });
    assert_eq!(log_in("third"), right("native"));

    server.ask(PRODUCTION, "ALTER ROLE native VALID UNTIL '2020-01-01'");
    assert_eq!(log_in("third"), wrong("native"));
    suspend(&server);
    let before = starts(&server);
    assert_eq!(log_in("third"), wrong("native"));
    assert_eq!(starts(&server), before);
    server.ask(PRODUCTION, "ALTER ROLE native VALID UNTIL 'infinity'");
    suspend(&server);
    assert_eq!(log_in("third"), right("native"));
    server.ask(PRODUCTION, "DROP ROLE native");
    server.stop();

    let server = Server::start(folder.path());
    let before = starts(&server);
    assert_eq!(server.log_in(PRODUCTION, "native", "third", WHO), wrong("native"));
    assert_eq!(starts(&server), before);
    server.stop();
}

#[test]
fn what_was_made_with_sql_is_known_when_a_server_is_started_again() {
    let folder = folder();
    let server = shop(folder.path());
    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'of its own'");
    server.stop();

    let server = Server::start(folder.path());

    assert_eq!(server.log_in(PRODUCTION, "native", "of its own", WHO), right("native"));
    let kept = server.layout.objects().join("branches");
    for file in std::fs::read_dir(kept).unwrap() {
        let mode = std::fs::metadata(file.unwrap().path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "verifiers are for nobody else");
    }
    server.stop();
}

#[test]
fn a_deleted_app_does_not_log_in_with_what_it_was_given() {
    let folder = folder();
    let server = shop(folder.path());
    let resource = json!({ "name": "database", "postgres": {
        "branch": PRODUCTION, "database": format!("{PRODUCTION}/databases/databricks-postgres"),
        "permission": "CAN_CONNECT_AND_CREATE",
    } });
    let app = json!({ "name": "portal", "resources": [resource] });
    let (status, app) = server.call("POST", "/api/2.0/apps", &app);
    assert_eq!(status, 200, "{app}");
    let id = app["service_principal_client_id"].as_str().unwrap();
    let spec = json!({ "spec": { "postgres_role": id, "identity_type": "SERVICE_PRINCIPAL" } });
    server.call("POST", &format!("{API}/{ROLES}?replace_existing=true"), &spec);
    let token = server.credential_of(id);
    let log_in = || server.log_in(PRODUCTION, id, &token, WHO);
    server.until(|| (log_in() == right(id)).then_some(()));

    server.call("DELETE", "/api/2.0/apps/portal", &json!({}));
    server
        .until(|| (server.call("GET", "/api/2.0/apps/portal", &json!({})).0 == 404).then_some(()));

    suspend(&server);
    let before = starts(&server);
    let gone = "External authorization failed: the identity of the token is gone";
    assert_eq!(log_in(), Err(gone.to_owned()));
    assert_eq!(starts(&server), before);
    server.stop();
}

impl Server {
    /// Mints a credential as the service principal of an app, whose secret only its process is given.
    fn credential_of(&self, id: &str) -> String {
        let identities = std::fs::read_dir(self.layout.objects().join("identities")).unwrap();
        let secret = identities
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .map(|text| serde_json::from_slice::<Value>(&text).unwrap())
            .find(|identity| identity["user_name"] == id)
            .map(|identity| identity["secret"].as_str().unwrap().to_owned())
            .unwrap();
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let request = Request::post(format!("{}/oidc/v1/token", self.host))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form));
        let (_, answer) = self.runtime.block_on(loopback::send(request.unwrap())).unwrap();
        let access = answer["access_token"].as_str().unwrap();
        let body = json!({ "endpoint": format!("{PRODUCTION}/endpoints/primary") }).to_string();
        let path = format!("{API}/credentials");
        let (status, answer) = self.send("POST", &path, Some(access), Body::from(body));
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }
}
