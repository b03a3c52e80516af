//! Read-only endpoints: from their creation to their end, and what happens to them meanwhile.

use super::*;

const PRIMARY: &str = "projects/shop/branches/production/endpoints/primary";
const READERS: &str = "projects/shop/branches/production/endpoints/readers";
const DEVELOPER: &str = "developer@lakeforge.test";
const API: &str = "/api/2.0/postgres";
const COUNT: &str = "SELECT count(*) FROM notes";

/// Starts a server with a project whose branch has two notes and the endpoint `readers`.
fn server_with_readers(folder: &std::path::Path) -> Server {
    let server = Server::start(folder);
    server.shop();
    server.ask(PRODUCTION, "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1), (2)");
    create(&server, PRODUCTION, "readers");
    server
}

fn create(server: &Server, branch: &str, id: &str) -> Value {
    let body = json!({ "spec": { "endpoint_type": "ENDPOINT_TYPE_READ_ONLY" } });
    server.change("POST", &format!("{branch}/endpoints?endpoint_id={id}"), &body)
}

fn status(server: &Server, endpoint: &str) -> Value {
    server.get(&format!("{API}/{endpoint}"))["status"].clone()
}

/// Runs a query on an endpoint as the user with the token.
fn ask(server: &Server, endpoint: &str, query: &str) -> Result<Vec<String>, String> {
    server.log_in_at(endpoint, DEVELOPER, &server.credential_for(endpoint), query)
}

fn strike(server: &Server, blow: &str, name: &str) {
    let body = json!({ "compute": { blow: name } });
    let (status, answer) = server.call("POST", "/lakeforge/faults", &body);
    assert_eq!(status, 200, "{answer}");
}

fn clusters(server: &Server) -> usize {
    std::fs::read_dir(server.layout.postgres().join("clusters")).unwrap().count()
}

#[test]
fn a_read_only_endpoint_reads_and_has_a_door_of_its_own() {
    let folder = folder();
    let server = server_with_readers(folder.path());

    let readers = status(&server, READERS);
    assert_eq!(readers["endpoint_type"], "ENDPOINT_TYPE_READ_ONLY");
    assert_eq!(readers["current_state"], "ACTIVE");
    assert_eq!(readers["hosts"]["read_only_host"], readers["hosts"]["host"]);
    assert_ne!(readers["hosts"], status(&server, PRIMARY)["hosts"]);
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["2".to_owned()]));
    server.ask(PRODUCTION, "INSERT INTO notes VALUES (3)");
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["3".to_owned()]));
    let refused = ask(&server, READERS, "INSERT INTO notes VALUES (4)").unwrap_err();
    assert_eq!(refused, "cannot execute INSERT in a read-only transaction");
    let token = server.credential_for(PRIMARY);
    let refused = server.log_in_at(READERS, DEVELOPER, &token, COUNT).unwrap_err();
    assert!(refused.starts_with("OAuth: User is not authorized"), "{refused}");
    let token = server.credential_for(READERS);
    assert!(server.log_in_at(PRIMARY, DEVELOPER, &token, COUNT).is_err());

    let native = json!({ "spec": { "enable_pg_native_login": true } });
    server.change("PATCH", "projects/shop?update_mask=spec.enable_pg_native_login", &native);
    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'of its own'");
    let who = server.log_in_at(READERS, "native", "of its own", "SELECT current_user");
    assert_eq!(who, Ok(vec!["native".to_owned()]));
    server.stop();
}

#[test]
fn pooled_hosts_lead_to_the_same_compute_with_the_same_token() {
    let folder = folder();
    let server = server_with_readers(folder.path());
    let compute = "SELECT pg_postmaster_start_time() || current_setting('port')";
    for (endpoint, pooled, foreign) in [
        (PRIMARY, "read_write_pooled_host", "read_only_pooled_host"),
        (READERS, "read_only_pooled_host", "read_write_pooled_host"),
    ] {
        let token = server.credential_for(endpoint);
        let ask = |host: &str| server.log_in_by(endpoint, host, DEVELOPER, &token, compute);

        assert_eq!(ask(pooled).unwrap(), ask("host").unwrap(), "{endpoint}");
        assert_eq!(status(&server, endpoint)["hosts"].get(foreign), None);
    }
    server.stop();
}

#[test]
fn the_size_of_a_compute_decides_what_postgres_allows() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    let sizes = "SELECT concat_ws(' ', current_setting('max_connections'), \
                 current_setting('work_mem'), current_setting('max_parallel_workers'))";
    let resize = |endpoint: &str, cu: f64| {
        let spec = json!({ "autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": cu });
        let mask = "spec.autoscaling_limit_min_cu,spec.autoscaling_limit_max_cu";
        let path = format!("{endpoint}?update_mask={mask}");
        server.change("PATCH", &path, &json!({ "spec": spec }));
        // It takes on the new size once the last session is over.
        server.until(|| (status(&server, endpoint)["current_state"] == "IDLE").then_some(()));
    };
    let of = |endpoint: &str| ask(&server, endpoint, sizes).unwrap().remove(0);
    assert_eq!(of(PRIMARY), "209 4MB 1");
    create(&server, PRODUCTION, "readers");
    assert_eq!(of(READERS), "209 4MB 1");

    resize(PRIMARY, 4.0);
    assert_eq!(of(READERS), "839 4MB 1", "as many as its primary");
    assert_eq!(of(PRIMARY), "839 16MB 4");
    resize(PRIMARY, 0.5);
    assert_eq!(of(PRIMARY), "104 4MB 1");
    resize(READERS, 8.0);
    assert_eq!(of(READERS), "1678 32MB 8");

    server.branch("dev", &json!({ "no_expiry": true }));
    assert_eq!(of("projects/shop/branches/dev/endpoints/primary"), "209 4MB 1");
    create(&server, "projects/shop/branches/dev", "readers");
    assert_eq!(of("projects/shop/branches/dev/endpoints/readers"), "839 4MB 1");
    server.stop();
}

#[test]
fn a_read_only_endpoint_sleeps_and_wakes_by_itself() {
    let folder = folder();
    let server = server_with_readers(folder.path());
    let state = |endpoint: &str| status(&server, endpoint)["current_state"].clone();

    strike(&server, "suspend", READERS);
    assert_eq!((state(READERS), state(PRIMARY)), (json!("IDLE"), json!("ACTIVE")));
    strike(&server, "suspend", PRODUCTION);
    assert_eq!(state(PRIMARY), "IDLE");
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["2".to_owned()]));
    assert_eq!((state(READERS), state(PRIMARY)), (json!("ACTIVE"), json!("IDLE")));

    for (blow, name) in [("kill", READERS), ("kill", PRODUCTION), ("suspend", PRIMARY)] {
        strike(&server, blow, name);
        assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["2".to_owned()]), "{blow} {name}");
    }
    server.stop();
}

#[test]
fn a_disabled_endpoint_refuses_until_it_is_enabled_and_the_other_one_goes_on() {
    let folder = folder();
    let server = server_with_readers(folder.path());
    let disable = |endpoint: &str, disabled: bool| {
        let body = json!({ "spec": { "disabled": disabled } });
        server.change("PATCH", &format!("{endpoint}?update_mask=spec.disabled"), &body);
    };
    for (one, other) in [(READERS, PRIMARY), (PRIMARY, READERS)] {
        disable(one, true);
        assert_eq!(status(&server, one)["current_state"], "IDLE");
        assert_eq!(status(&server, one)["disabled"], true);
        assert_eq!(ask(&server, one, COUNT), Err("endpoint is disabled".to_owned()));
        assert_eq!(ask(&server, other, COUNT), Ok(vec!["2".to_owned()]));
        disable(one, false);
        assert_eq!(ask(&server, one, COUNT), Ok(vec!["2".to_owned()]));
    }
    server.stop();
}

#[test]
fn a_read_only_endpoint_survives_the_server_and_goes_with_its_branch() {
    let folder = folder();
    let server = server_with_readers(folder.path());
    let hosts = status(&server, READERS)["hosts"].clone();
    server.kill();

    let server = Server::start(folder.path());

    assert_eq!(status(&server, READERS)["hosts"], hosts);
    assert_eq!(status(&server, READERS)["current_state"], "IDLE");
    server.ask(PRODUCTION, "INSERT INTO notes VALUES (3)");
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["3".to_owned()]));
    server.branch("dev", &json!({ "no_expiry": true }));
    let dev = "projects/shop/branches/dev";
    assert_eq!(clusters(&server), 3, "readers are not copied");
    create(&server, dev, "readers");
    assert_eq!(ask(&server, &format!("{dev}/endpoints/readers"), COUNT), Ok(vec!["3".to_owned()]));

    server.change("DELETE", dev, &json!({}));
    server.change("POST", &format!("{dev}/undelete"), &json!({}));
    assert_eq!(ask(&server, &format!("{dev}/endpoints/readers"), COUNT), Ok(vec!["3".to_owned()]));
    server.change("DELETE", &format!("{dev}?purge=true"), &json!({}));
    server.until(|| (clusters(&server) == 2).then_some(()));
    server.change("DELETE", READERS, &json!({}));
    assert_eq!(server.call("GET", &format!("{API}/{READERS}"), &json!({})).0, 404);
    server.until(|| (clusters(&server) == 1).then_some(()));
    create(&server, PRODUCTION, "readers");
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["3".to_owned()]));
    server.stop();
}

#[test]
fn a_server_killed_while_it_makes_a_read_only_endpoint_finishes_it() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.ask(PRODUCTION, "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1)");
    let url = format!("{}{API}/{PRODUCTION}/endpoints?endpoint_id=readers", server.host);
    let token = server.token.clone();
    let asking = std::thread::spawn(move || {
        let body = json!({ "spec": { "endpoint_type": "ENDPOINT_TYPE_READ_ONLY" } });
        let request = Request::post(url).header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::from(body.to_string())).unwrap();
        // The answer never comes when the server dies first.
        let _ = Runtime::new().unwrap().block_on(loopback::send(request));
    });
    server.until(|| {
        (server.call("GET", &format!("{API}/{READERS}"), &json!({})).0 == 200).then_some(())
    });
    server.kill();
    asking.join().unwrap();

    let server = Server::start(folder.path());

    server.until(|| (status(&server, READERS)["pending_state"].is_null()).then_some(()));
    assert_eq!(ask(&server, READERS, COUNT), Ok(vec!["1".to_owned()]));
    server.stop();
}
