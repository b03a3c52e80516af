//! Who gets in where: every route with every kind of caller, as its row says and as written down here a second time.

use super::*;
use crate::local::http::rights::{ROUTES, Right, Row, Scope};

const HOME: &str = "/Workspace/Users/developer@lakeforge.test";
const MEMBER: &str = "member@lakeforge.test";
const PROJECT: &str = "doors";
const APP: &str = "doors-app";

/// How much somebody was granted on the project, the app and the folder of this test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Nothing,
    Use,
    Manage,
}

/// Somebody who sends requests.
struct Caller {
    name: &'static str,
    token: Option<String>,
    /// Whether the token is one of the workspace at all.
    known: bool,
    admin: bool,
    /// Whether it is an app.
    app: bool,
    /// What its token is good for; nothing: everything.
    scope: Option<&'static str>,
    project: Level,
    /// On the app and the folder.
    rest: Level,
}

/// How a request ended, as far as doors go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Refused,
    In,
}

/// A workspace with a project, an app and a folder.
struct House {
    server: Server,
    admin: String,
    directory: u64,
    _folder: tempfile::TempDir,
}

impl House {
    fn build() -> House {
        let folder = folder();
        let server = Server::start(folder.path());
        let instance = json!({ "name": PROJECT, "capacity": "CU_1" });
        assert_eq!(server.call("POST", "/api/2.0/database/instances", &instance).0, 200);
        server.until(|| {
            let found = server.get(&format!("/api/2.0/database/instances/{PROJECT}"));
            (found["state"] == "AVAILABLE").then_some(())
        });
        // Nothing that is let in deletes what the next caller needs.
        let protect = json!({ "spec": { "is_protected": true } });
        let production = format!("projects/{PROJECT}/branches/production");
        server.change("PATCH", &format!("{production}?update_mask=spec.is_protected"), &protect);
        let admin = server.token.clone();
        let resource = json!({ "name": "db", "postgres": {
            "branch": production, "permission": "CAN_CONNECT_AND_CREATE",
            "database": format!("{production}/databases/databricks-postgres"),
        } });
        let apps = [
            json!({ "name": APP }),
            json!({ "name": "attached", "resources": [resource] }),
            json!({ "name": "stranger" }),
        ];
        for app in apps {
            let (status, answer) = server.call("POST", "/api/2.0/apps?no_compute=true", &app);
            assert_eq!(status, 200, "{answer}");
        }
        for folder in ["x", "x/empty"] {
            let body = json!({ "path": format!("{HOME}/{folder}") });
            assert_eq!(server.call("POST", "/api/2.0/workspace/mkdirs", &body).0, 200);
        }
        let import = format!("/api/2.0/workspace-files/import-file{HOME}/x/a.txt");
        assert_eq!(server.send("POST", &import, Some(&admin), Body::from("a")).0, 200);
        let status = server.get(&format!("/api/2.0/workspace/get-status?path={HOME}/x"));
        let directory = status["object_id"].as_u64().unwrap();
        House { server, admin, directory, _folder: folder }
    }

    /// Logs a service principal in, for a token that is good for `scope`.
    fn log_in(&self, id: &str, secret: &str, scope: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={id}&client_secret={secret}&scope={scope}"
        );
        let request = Request::post(format!("{}/oidc/v1/token", self.server.host))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let (status, answer) = self.server.runtime.block_on(loopback::send(request)).unwrap();
        assert_eq!((status, answer["scope"].as_str()), (200, Some(scope)), "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Logs the identity of an app in.
    fn app_token(&self, app: &str) -> String {
        let folder = self.server.layout.objects().join("identities");
        let read = |entry: std::fs::DirEntry| -> Value {
            serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap()
        };
        let mut all = std::fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap()));
        let found = all.find(|identity| identity["app"] == app).unwrap();
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        self.log_in(&text("user_name"), &text("secret"), "all-apis")
    }

    fn personal_token(&self, profile: &str) -> String {
        let text = std::fs::read_to_string(self.server.layout.profiles()).unwrap();
        let section = text.split(&format!("[{profile}]")).nth(1).unwrap().to_owned();
        let line = section.lines().find(|line| line.starts_with("token")).unwrap();
        line.split_once('=').unwrap().1.trim().to_owned()
    }

    /// Grants the member `level` on everything, or takes all back.
    fn grant(&self, level: Level) {
        let directory = format!("directories/{}", self.directory);
        let project = format!("database-projects/{PROJECT}");
        let app = format!("apps/{APP}");
        for (object, least) in [(&project, "CAN_USE"), (&app, "CAN_USE"), (&directory, "CAN_READ")]
        {
            let level = match level {
                Level::Nothing => None,
                Level::Use => Some(least),
                Level::Manage => Some("CAN_MANAGE"),
            };
            let entry = |level| json!({ "user_name": MEMBER, "permission_level": level });
            let list: Vec<Value> = level.into_iter().map(entry).collect();
            let body = json!({ "access_control_list": list });
            let path = format!("/api/2.0/permissions/{object}");
            let (status, answer) = self.server.call("PUT", &path, &body);
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// Returns everybody but the member.
    fn others(&self) -> Vec<Caller> {
        let id = self.server.profile("client_id");
        let secret = self.server.profile("client_secret");
        let scoped = |scope| Some(self.log_in(&id, &secret, scope));
        let credential = self.server.credential(&format!("projects/{PROJECT}/branches/production"));
        let admin = |name, token, scope| Caller {
            name,
            token,
            known: true,
            admin: true,
            app: false,
            scope,
            project: Level::Manage,
            rest: Level::Manage,
        };
        let nobody = |name, token| Caller {
            known: false,
            admin: false,
            project: Level::Nothing,
            rest: Level::Nothing,
            ..admin(name, token, None)
        };
        let app = |name, project| Caller {
            known: true,
            app: true,
            project,
            ..nobody(name, Some(self.app_token(name)))
        };
        vec![
            nobody("nobody", None),
            nobody("a wrong token", Some("dapi0123456789abcdef".to_owned())),
            nobody("a database credential", Some(credential)),
            app("stranger", Level::Nothing),
            app("attached", Level::Use),
            admin("a token for postgres", scoped("postgres"), Some("postgres")),
            admin("a token for sql", scoped("sql"), Some("sql")),
            admin(
                "a token for the current user",
                scoped("iam.current-user:read"),
                Some("iam.current-user:read"),
            ),
            admin("the user", Some(self.admin.clone()), None),
            admin("the service principal", scoped("all-apis"), None),
        ]
    }

    fn member(&self, name: &'static str, level: Level) -> Caller {
        Caller {
            name,
            token: Some(self.personal_token("local-member")),
            known: true,
            admin: false,
            app: false,
            scope: None,
            project: level,
            rest: level,
        }
    }

    /// Returns what requests of a row are tried: their paths and bodies.
    fn requests(&self, row: &Row) -> Vec<(String, Value)> {
        let file = match row.path.rsplit('/').next().unwrap() {
            "delete" => format!("{HOME}/x/nothing"),
            "mkdirs" => format!("{HOME}/x/empty"),
            "export" => format!("{HOME}/x/a.txt"),
            _ => format!("{HOME}/x"),
        };
        let body = match (row.method, row.path) {
            (_, "/api/2.0/postgres/credentials") => {
                let endpoint = format!("projects/{PROJECT}/branches/production/endpoints/primary");
                json!({ "endpoint": endpoint })
            }
            (_, "/api/2.0/database/credentials") => json!({ "instance_names": [PROJECT] }),
            (_, path) if path.starts_with("/api/2.0/workspace/") => json!({ "path": file }),
            // Let in, and refused for what it asks.
            ("PUT" | "PATCH", path) if path.starts_with("/api/2.0/permissions/") => {
                let level = json!({ "user_name": MEMBER, "permission_level": "CAN_FLY" });
                json!({ "access_control_list": [level] })
            }
            _ => json!({}),
        };
        let name = if row.path.contains("/instances/") { PROJECT } else { APP };
        let path = row
            .path
            .replace("{project}", PROJECT)
            .replace("{branch}", "production")
            .replace("{endpoint}", "primary")
            .replace("{name}", name)
            .replace("{role}", "nobody")
            .replace("{database}", "nothing")
            .replace("{*path}", &format!("{}/x/a.txt", &HOME[1..]));
        if row.right == Right::Files && row.method == "GET" {
            return vec![(format!("{path}?path={file}"), body)];
        }
        let directory = self.directory.to_string();
        let objects = [("database-projects", PROJECT), ("apps", APP), ("directories", &directory)];
        match path.contains("{kind}") {
            true => objects
                .map(|(kind, id)| (path.replace("{kind}", kind).replace("{id}", id), body.clone()))
                .to_vec(),
            false => vec![(path.replace("{id}", "1"), body)],
        }
    }

    fn outcome(&self, row: &Row, path: &str, body: &Value, caller: &Caller) -> Outcome {
        let body = Body::from(body.to_string());
        let (status, answer) = self.server.send(row.method, path, caller.token.as_deref(), body);
        let hides = row.right == Right::Object || row.right == Right::Files && row.method == "GET";
        let said = answer["error_code"].as_str().unwrap_or_default();
        assert_ne!(said, "NOT_IMPLEMENTED", "{} {path} is not served", row.method);
        match status {
            401 => Outcome::Unknown,
            403 => Outcome::Refused,
            404 if hides => Outcome::Refused,
            _ => Outcome::In,
        }
    }
}

impl House {
    /// Returns where the gateway of `app` listens.
    fn gateway(&self, app: &str) -> String {
        let app = self.server.get(&format!("/api/2.0/apps/{app}"));
        app["url"].as_str().unwrap().to_owned()
    }

    /// Knocks at a gateway, whose app does not run: 502 is what is heard inside.
    fn knock(&self, gateway: &str, path: &str, caller: &Caller) -> Outcome {
        let mut request = Request::get(format!("{gateway}{path}"));
        if let Some(token) = &caller.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let (status, answer) = self.server.runtime.block_on(loopback::send(request)).unwrap();
        match (path, status) {
            ("/logz/stream", 401) => Outcome::Unknown,
            (_, 403) => {
                assert_eq!(answer["error_code"], "PERMISSION_DENIED", "{answer}");
                Outcome::Refused
            }
            // A login page.
            ("/", 200) => Outcome::Unknown,
            ("/", 502) | ("/logz/stream", 400) => Outcome::In,
            other => panic!("{other:?} {answer}"),
        }
    }
}

/// Says what a row means for a caller.
fn by_row(row: &Row, path: &str, caller: &Caller) -> Outcome {
    if row.right == Right::Open {
        return Outcome::In;
    }
    if !caller.known {
        return Outcome::Unknown;
    }
    let scope = match (row.scope, caller.scope) {
        (Scope::Any, _) | (_, None) => true,
        (Scope::One(needed), Some(held)) => needed == held,
        (Scope::All, Some(_)) => false,
    };
    let reads = row.method == "GET";
    let files = if reads { Level::Use } else { Level::Manage };
    let right = match row.right {
        Right::Open | Right::Known => true,
        Right::Person => !caller.app,
        Right::Admin => caller.admin,
        Right::ManageProject | Right::ManageInstance => caller.project == Level::Manage,
        Right::UseNamed => caller.project >= Level::Use,
        Right::ManageApp => caller.rest == Level::Manage,
        Right::UseApp => caller.rest >= Level::Use,
        Right::Files => caller.rest >= files,
        Right::Object if path.contains("directories") => caller.rest >= files,
        Right::Object => reads || caller.rest == Level::Manage,
    };
    if scope && right { Outcome::In } else { Outcome::Refused }
}

/// Says the same by path and method alone, without the rows.
fn by_hand(method: &str, path: &str, caller: &Caller) -> Outcome {
    let under = |folder: &str| path.starts_with(folder);
    if under("/.well-known/") || under("/oidc/") {
        return Outcome::In;
    }
    if !caller.known {
        return Outcome::Unknown;
    }
    let for_scope = match caller.scope {
        None => true,
        Some("postgres") => under("/api/2.0/postgres/"),
        Some("iam.current-user:read") => path == "/api/2.0/preview/scim/v2/Me",
        Some(_) => false,
    };
    let reads = method == "GET";
    let is_in = if caller.admin {
        for_scope
    } else if under("/lakeforge/") {
        path.ends_with("/log") && caller.rest == Level::Manage
    } else if path.ends_with("/credentials") {
        caller.project >= Level::Use
    } else if under("/api/2.0/workspace") || path.contains("/permissions/directories/") {
        let levels = path.ends_with("/permissionLevels");
        levels || caller.rest == Level::Manage || reads && caller.rest == Level::Use
    } else if reads || path == "/telemetry-ext" {
        true
    } else if path == "/api/2.0/postgres/projects" {
        !caller.app
    } else if path.contains("projects/") || path.contains("/instances/") {
        caller.project == Level::Manage
    } else {
        path.contains("apps/") && caller.rest == Level::Manage
    };
    if is_in { Outcome::In } else { Outcome::Refused }
}

/// Tries every route as `caller` and returns how many requests that were; the last one of all is told apart.
fn try_all(house: &House, caller: &Caller, wrong: &mut Vec<String>) -> usize {
    let mut tried = 0;
    for row in ROUTES {
        for (path, body) in house.requests(row) {
            let expected = by_row(row, &path, caller);
            let again = by_hand(row.method, path.split('?').next().unwrap(), caller);
            let ends = row.path == "/lakeforge/stop"
                || row.method == "DELETE" && row.path == "/api/2.0/apps/{name}";
            // What would end the house is tried with those who are refused.
            let outcome = match ends && expected == Outcome::In {
                true => Outcome::In,
                false => house.outcome(row, &path, &body, caller),
            };
            if outcome != expected || outcome != again {
                let name = caller.name;
                let method = row.method;
                wrong.push(format!("{name}: {method} {path}: {outcome:?}, by its row {expected:?}, by hand {again:?}"));
            }
            tried += 1;
        }
    }
    tried
}

#[test]
fn every_route_lets_in_whom_its_row_says_and_nobody_else() {
    let house = House::build();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for caller in house.others() {
        tried += try_all(&house, &caller, &mut wrong);
    }
    for (name, level) in [
        ("a member without rights", Level::Nothing),
        ("a member who may use", Level::Use),
        ("a member who may manage", Level::Manage),
        ("a member whose rights were taken back", Level::Nothing),
    ] {
        house.grant(level);
        tried += try_all(&house, &house.member(name, level), &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    // Every row with fourteen callers, the routes of permissions with three objects each.
    assert_eq!(tried, 14 * (ROUTES.len() + 2 * 4));
    let (deleted, stopped) = ("/api/2.0/apps/doors-app", "/lakeforge/stop");
    assert_eq!(house.server.call("DELETE", deleted, &json!({})).0, 200);
    assert_eq!(house.server.call("POST", stopped, &json!({})).0, 200);
}

#[test]
fn a_gateway_lets_in_who_may_use_its_app_and_shows_its_log_to_who_manages_it() {
    let house = House::build();
    let gateway = house.gateway(APP);
    let mut callers = house.others();
    callers.push(house.member("a member without rights", Level::Nothing));
    for caller in &callers {
        let entered = match (caller.known, caller.admin) {
            (false, _) => Outcome::Unknown,
            (true, true) => Outcome::In,
            (true, false) => Outcome::Refused,
        };
        // The log is for no token that is good for certain scopes.
        let log = if caller.scope.is_some() { Outcome::Refused } else { entered };
        assert_eq!(house.knock(&gateway, "/", caller), entered, "{}", caller.name);
        assert_eq!(house.knock(&gateway, "/logz/stream", caller), log, "{}", caller.name);
    }
    for (level, log) in [(Level::Use, Outcome::Refused), (Level::Manage, Outcome::In)] {
        house.grant(level);
        let member = house.member("a member", level);
        assert_eq!(house.knock(&gateway, "/", &member), Outcome::In, "{level:?}");
        assert_eq!(house.knock(&gateway, "/logz/stream", &member), log, "{level:?}");
    }
}

#[test]
fn an_app_enters_the_apps_among_its_resources_and_those_that_everybody_may_use() {
    let house = House::build();
    let stranger = |house: &House| {
        let mut others = house.others();
        others.swap_remove(others.iter().position(|one| one.name == "stranger").unwrap())
    };
    let (own, other) = (house.gateway("stranger"), house.gateway(APP));
    let caller = stranger(&house);
    assert_eq!(house.knock(&own, "/", &caller), Outcome::Refused, "its own, without a grant");
    assert_eq!(house.knock(&other, "/", &caller), Outcome::Refused);

    let sibling = json!({ "name": "other", "app": { "name": APP, "permission": "CAN_USE" } });
    let body = json!({ "resources": [sibling] });
    assert_eq!(house.server.call("PATCH", "/api/2.0/apps/stranger", &body).0, 200);
    assert_eq!(house.knock(&other, "/", &caller), Outcome::In);
    assert_eq!(house.knock(&other, "/logz/stream", &caller), Outcome::Refused);
    let none = json!({ "resources": [] });
    assert_eq!(house.server.call("PATCH", "/api/2.0/apps/stranger", &none).0, 200);
    assert_eq!(house.knock(&other, "/", &caller), Outcome::Refused);

    let everybody = json!({ "group_name": "users", "permission_level": "CAN_USE" });
    let body = json!({ "access_control_list": [everybody] });
    let path = format!("/api/2.0/permissions/apps/{APP}");
    assert_eq!(house.server.call("PUT", &path, &body).0, 200);
    assert_eq!(house.knock(&other, "/", &caller), Outcome::In);
    let member = house.member("a member", Level::Use);
    assert_eq!(house.knock(&other, "/", &member), Outcome::In);
    assert_eq!(house.knock(&own, "/", &member), Outcome::Refused);
}
