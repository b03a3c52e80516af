//! Provisioned instances: their life, their copies of a past moment, their credentials.

use super::*;

const INSTANCES: &str = "/api/2.0/database/instances";
const DEVELOPER: &str = "developer@lakeforge.test";
const COUNT: &str = "SELECT count(*) FROM notes";

impl Server {
    fn create_instance(&self, spec: &Value) -> Value {
        let (status, created) = self.call("POST", INSTANCES, spec);
        assert_eq!(status, 200, "{created}");
        self.instance(spec["name"].as_str().unwrap(), "AVAILABLE")
    }

    /// Waits until an instance is in `state`.
    fn instance(&self, name: &str, state: &str) -> Value {
        self.until(|| {
            let instance = self.get(&format!("{INSTANCES}/{name}"));
            (instance["state"] == state).then_some(instance)
        })
    }

    fn update_instance(&self, name: &str, mask: &str, body: &Value) -> (u16, Value) {
        self.call("PATCH", &format!("{INSTANCES}/{name}?update_mask={mask}"), body)
    }

    fn instance_token(&self, names: &[&str]) -> String {
        let body = json!({ "request_id": "1", "instance_names": names });
        let (status, answer) = self.call("POST", "/api/2.0/database/credentials", &body);
        assert_eq!(status, 200, "{answer}");
        assert!(answer["expiration_time"].is_string(), "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    fn ask_instance(&self, name: &str, query: &str) -> Result<Vec<String>, String> {
        let branch = format!("projects/{name}/branches/production");
        self.log_in(&branch, DEVELOPER, &self.instance_token(&[name]), query)
    }

    fn refused_instance(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.call(method, &format!("{INSTANCES}{path}"), body);
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn an_instance_is_created_changed_stopped_and_deleted() {
    let folder = folder();
    let server = Server::start(folder.path());
    let tags = json!([{ "key": "team", "value": "shop" }]);
    let spec = json!({ "name": "orders", "capacity": "CU_2", "custom_tags": tags });
    let instance = server.create_instance(&spec);

    assert_eq!(instance["creator"], DEVELOPER);
    assert_eq!(instance["effective_capacity"], "CU_2");
    assert_eq!(instance["effective_node_count"], 1);
    assert_eq!(instance["effective_retention_window_in_days"], 7);
    assert_eq!(instance["effective_stopped"], false);
    assert_eq!(instance["effective_custom_tags"], tags);
    assert!(instance["pg_version"].as_str().unwrap().starts_with("PG_VERSION_"));
    let hosts = server.get("/api/2.0/postgres/projects/orders/branches/production/endpoints");
    let hosts = &hosts["endpoints"][0]["status"]["hosts"];
    assert_eq!(instance["read_write_dns"], hosts["host"]);
    let uid = instance["uid"].as_str().unwrap();
    assert_eq!(server.get(&format!("{INSTANCES}:findByUid?uid={uid}"))["name"], "orders");
    server.ask_instance("orders", "CREATE TABLE notes (n int)").unwrap();

    let body = json!({ "stopped": true, "capacity": "CU_4", "retention_window_in_days": 14 });
    let (status, stopped) =
        server.update_instance("orders", "stopped,retention_window_in_days", &body);
    assert_eq!(status, 200, "{stopped}");
    assert_eq!(stopped["state"], "STOPPED");
    assert_eq!(stopped["capacity"], "CU_2", "not in the mask");
    assert_eq!(stopped["effective_retention_window_in_days"], 14);
    assert_eq!(server.ask_instance("orders", COUNT).unwrap_err(), "endpoint is disabled");
    let (_, started) = server.update_instance("orders", "*", &json!({ "stopped": false }));
    assert_eq!(started["state"], "AVAILABLE");
    assert_eq!(server.ask_instance("orders", COUNT).unwrap(), ["0"]);

    let refused = server.refused_instance("DELETE", "/orders", &json!({}));
    assert_eq!(refused, (400, "DELETE request must have purge=true parameter".to_owned()));
    assert_eq!(server.refused_instance("DELETE", "/orders?purge=true", &json!({})).0, 200);
    let gone = server.refused_instance("GET", "/orders", &json!({}));
    assert_eq!(gone, (404, "DatabaseInstance not found: orders".to_owned()));
    server.create_instance(&spec);
    server.stop();
}

#[test]
fn a_child_instance_starts_from_a_past_moment_of_its_parent() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.create_instance(&json!({ "name": "orders", "capacity": "CU_1" }));
    let notes = "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1), (2)";
    server.ask_instance("orders", notes).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let before = jiff::Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(20));
    server.ask_instance("orders", "DELETE FROM notes").unwrap();

    let copy = |name: &str, parent: Value| json!({ "name": name, "parent_instance_ref": parent });
    let moment = json!({ "name": "orders", "branch_time": before });
    let child = server.create_instance(&copy("orders-before", moment));
    server.create_instance(&copy("orders-now", json!({ "name": "orders" })));

    assert_eq!(child["parent_instance_ref"]["name"], "orders");
    assert!(child["parent_instance_ref"]["effective_lsn"].is_string(), "{child}");
    assert_eq!(server.ask_instance("orders-before", COUNT).unwrap(), ["2"]);
    assert_eq!(server.ask_instance("orders-now", COUNT).unwrap(), ["0"]);
    let parent = server.get(&format!("{INSTANCES}/orders"));
    let children = parent["child_instance_refs"].as_array().unwrap();
    let names: Vec<&Value> = children.iter().map(|child| &child["name"]).collect();
    assert_eq!(names, ["orders-before", "orders-now"]);
    let root = server.get("/api/2.0/postgres/projects/orders-now/branches/production");
    assert_eq!(root["status"].get("source_branch"), None, "it is in another project");

    let both = server.instance_token(&["orders", "orders-now"]);
    for (name, opens) in [("orders", true), ("orders-now", true), ("orders-before", false)] {
        let branch = format!("projects/{name}/branches/production");
        assert_eq!(server.log_in(&branch, DEVELOPER, &both, COUNT).is_ok(), opens, "{name}");
    }

    let early = copy("x", json!({ "name": "orders", "branch_time": "2020-01-01T00:00:00Z" }));
    let (status, why) = server.refused_instance("POST", "", &early);
    assert!(status == 400 && why.contains("is outside the history"), "{why}");
    let (status, why) = server.refused_instance("DELETE", "/orders?purge=true", &json!({}));
    assert!(status == 400 && why.contains("has child instances"), "{why}");
    let forced = server.refused_instance("DELETE", "/orders?purge=true&force=true", &json!({}));
    assert_eq!(forced.0, 200);
    assert_eq!(server.get(INSTANCES)["database_instances"], json!([]));
    let clusters = server.layout.postgres().join("clusters");
    server.until(|| (std::fs::read_dir(&clusters).unwrap().count() == 0).then_some(()));
    server.stop();
}

#[test]
fn what_no_instance_can_be_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.create_instance(&json!({ "name": "orders", "capacity": "CU_1" }));

    let refused = |spec: Value| server.refused_instance("POST", "", &spec).0;
    assert_eq!(refused(json!({ "name": "orders" })), 409);
    assert_eq!(refused(json!({ "capacity": "CU_1" })), 400);
    assert_eq!(refused(json!({ "name": "Not a name" })), 400);
    assert_eq!(refused(json!({ "name": "other", "capacity": "CU_3" })), 400);
    assert_eq!(refused(json!({ "name": "other", "retention_window_in_days": 36 })), 400);
    assert_eq!(refused(json!({ "name": "other", "parent_instance_ref": { "name": "none" } })), 404);
    assert_eq!(server.update_instance("orders", "colour", &json!({})).0, 400);
    assert_eq!(server.update_instance("none", "stopped", &json!({ "stopped": true })).0, 404);
    let (status, _) =
        server.call("POST", "/api/2.0/database/credentials", &json!({ "instance_names": [] }));
    assert_eq!(status, 400);
    let page = server.get(&format!("{INSTANCES}?page_size=1"));
    assert_eq!(page["database_instances"][0]["name"], "orders");
    assert_eq!(page.get("next_page_token"), None);
    server.stop();
}
