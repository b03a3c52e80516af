//! A disk without room, from each write of each operation on: what is refused has changed nothing, what was accepted
//! comes to its end when there is room, and the next try works.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PRODUCTION, Server, folder};
use crate::local::store::trouble;

/// What a test asks for: method, path and body. `#` stands for a number.
type Ask = (&'static str, &'static str, &'static str);

/// An operation.
struct Case {
    /// What makes what it is about.
    before: &'static [Ask],
    ask: Ask,
    after: After,
}

/// What is so after an operation, and only then.
enum After {
    There(&'static str),
    Gone(&'static str),
    /// A document with this value at this place.
    Has(&'static str, &'static str, &'static str),
}

use After::{Gone, Has, There};

const PROJECT: Ask = ("POST", "postgres/projects?project_id=p#", "{}");
const INSTANCE: Ask = ("POST", "database/instances", r#"{"name": "i#", "capacity": "CU_1"}"#);
const BRANCH: Ask =
    ("POST", "postgres/projects/shop/branches?branch_id=b#", r#"{"spec": {"ttl": "3600s"}}"#);
const READER: Ask = (
    "POST",
    "postgres/projects/shop/branches/production/endpoints?endpoint_id=r#",
    r#"{"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}}"#,
);
const ROLE: Ask = (
    "POST",
    "postgres/projects/shop/branches/production/roles?role_id=role-#",
    r#"{"spec": {"postgres_role": "role_#"}}"#,
);
const DATABASE: Ask = (
    "POST",
    "postgres/projects/shop/branches/production/databases?database_id=data-#",
    r#"{"spec": {"postgres_database": "data_#", "role": "projects/shop/branches/production/roles/developer"}}"#,
);
const APP: Ask = ("POST", "apps", r#"{"name": "app-#"}"#);
const DEPLOYMENT: Ask = (
    "POST",
    "apps/app-#/deployments",
    r#"{"source_code_path": "/Users/ana", "command": ["false"]}"#,
);

const CASES: &[Case] = &[
    Case {
        before: &[],
        ask: PROJECT,
        after: Has("postgres/projects/p#/branches/production", "/status/current_state", "READY"),
    },
    Case {
        before: &[],
        ask: (
            "PATCH",
            "postgres/projects/shop?update_mask=spec.display_name",
            r#"{"spec": {"display_name": "d#"}}"#,
        ),
        after: Has("postgres/projects/shop", "/status/display_name", "d#"),
    },
    Case {
        before: &[PROJECT],
        ask: ("DELETE", "postgres/projects/p#", "{}"),
        after: Gone("postgres/projects/p#"),
    },
    Case {
        before: &[PROJECT],
        ask: ("DELETE", "postgres/projects/p#?purge=true", "{}"),
        after: Gone("postgres/projects/p#"),
    },
    Case {
        before: &[PROJECT, ("DELETE", "postgres/projects/p#", "{}")],
        ask: ("POST", "postgres/projects/p#/undelete", "{}"),
        after: There("postgres/projects/p#"),
    },
    Case { before: &[], ask: INSTANCE, after: Has("database/instances/i#", "/state", "AVAILABLE") },
    Case {
        before: &[INSTANCE],
        ask: ("DELETE", "database/instances/i#?purge=true", "{}"),
        after: Gone("database/instances/i#"),
    },
    Case {
        before: &[],
        ask: BRANCH,
        after: Has("postgres/projects/shop/branches/b#", "/status/current_state", "READY"),
    },
    Case {
        before: &[BRANCH],
        ask: (
            "PATCH",
            "postgres/projects/shop/branches/b#?update_mask=spec.no_expiry",
            r#"{"spec": {"no_expiry": true}}"#,
        ),
        after: Has("postgres/projects/shop/branches/b#", "/status/expire_time", ""),
    },
    Case {
        before: &[BRANCH],
        ask: ("DELETE", "postgres/projects/shop/branches/b#", "{}"),
        after: Gone("postgres/projects/shop/branches/b#"),
    },
    Case {
        before: &[BRANCH],
        ask: ("DELETE", "postgres/projects/shop/branches/b#?purge=true", "{}"),
        after: Gone("postgres/projects/shop/branches/b#"),
    },
    Case {
        before: &[BRANCH, ("DELETE", "postgres/projects/shop/branches/b#", "{}")],
        ask: ("POST", "postgres/projects/shop/branches/b#/undelete", "{}"),
        after: There("postgres/projects/shop/branches/b#"),
    },
    Case {
        before: &[],
        ask: READER,
        after: Has(
            "postgres/projects/shop/branches/production/endpoints/r#",
            "/status/current_state",
            "ACTIVE",
        ),
    },
    Case {
        before: &[READER],
        ask: (
            "PATCH",
            "postgres/projects/shop/branches/production/endpoints/r#?update_mask=spec.suspend_timeout_duration",
            r#"{"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY", "suspend_timeout_duration": "777s"}}"#,
        ),
        after: Has("postgres/projects/shop/branches/production/endpoints/r#", "", "777s"),
    },
    Case {
        before: &[READER],
        ask: ("DELETE", "postgres/projects/shop/branches/production/endpoints/r#", "{}"),
        after: Gone("postgres/projects/shop/branches/production/endpoints/r#"),
    },
    Case {
        before: &[],
        ask: ROLE,
        after: There("postgres/projects/shop/branches/production/roles/role-#"),
    },
    Case {
        before: &[ROLE],
        ask: ("DELETE", "postgres/projects/shop/branches/production/roles/role-#", "{}"),
        after: Gone("postgres/projects/shop/branches/production/roles/role-#"),
    },
    Case {
        before: &[],
        ask: DATABASE,
        after: There("postgres/projects/shop/branches/production/databases/data-#"),
    },
    Case {
        before: &[DATABASE],
        ask: ("DELETE", "postgres/projects/shop/branches/production/databases/data-#", "{}"),
        after: Gone("postgres/projects/shop/branches/production/databases/data-#"),
    },
    Case { before: &[], ask: APP, after: There("apps/app-#") },
    Case {
        before: &[APP],
        ask: ("PATCH", "apps/app-#", r#"{"description": "d#"}"#),
        after: Has("apps/app-#", "/description", "d#"),
    },
    Case {
        before: &[APP],
        ask: DEPLOYMENT,
        after: Has("apps/app-#/deployments", "/app_deployments/0/status/state", "FAILED"),
    },
    Case {
        before: &[APP],
        ask: ("POST", "apps/app-#/stop", "{}"),
        after: Has("apps/app-#", "/compute_status/state", "STOPPED"),
    },
    Case {
        before: &[APP, ("POST", "apps/app-#/stop", "{}")],
        ask: ("POST", "apps/app-#/start", "{}"),
        after: Has("apps/app-#", "/compute_status/state", "ACTIVE"),
    },
    Case { before: &[APP], ask: ("DELETE", "apps/app-#", "{}"), after: Gone("apps/app-#") },
    Case {
        before: &[],
        ask: (
            "PATCH",
            "permissions/database-projects/shop",
            r#"{"access_control_list": [{"user_name": "u#", "permission_level": "CAN_USE"}]}"#,
        ),
        after: Has("permissions/database-projects/shop", "/access_control_list", "u#"),
    },
];

impl Server {
    /// Asks for something, with every `#` replaced; returns the status and the answer.
    fn try_ask(&self, (method, path, body): Ask, number: usize) -> (u16, Value) {
        let filled = |text: &str| text.replace('#', &number.to_string());
        let path = format!("/api/2.0/{}", filled(path));
        self.call(method, &path, &serde_json::from_str(&filled(body)).unwrap())
    }

    /// Returns whether it is so.
    fn is_so(&self, after: &After, number: usize) -> bool {
        let (There(path) | Gone(path) | Has(path, ..)) = after;
        let (status, found) = self.try_ask(("GET", path, "{}"), number);
        match after {
            There(_) => status == 200,
            Gone(_) => status == 404,
            Has(_, place, value) => {
                let value = value.replace('#', &number.to_string());
                let found = found.pointer(place).map(Value::to_string).unwrap_or_default();
                if value.is_empty() {
                    found.is_empty() || found == "null"
                } else {
                    found.contains(&value)
                }
            }
        }
    }

    fn make(&self, case: &Case, number: usize) {
        for ask in case.before {
            self.until(|| {
                // One that comes before is still on its way.
                let (status, answer) = self.try_ask(*ask, number);
                assert!(matches!(status, 200 | 409), "{ask:?}: {answer}");
                (status == 200).then(|| self.finish(&answer))
            });
        }
    }

    /// Waits until an operation is finished; fails when it failed.
    fn finish(&self, answer: &Value) {
        let name = answer["name"].as_str().unwrap_or_default();
        if name.contains("/operations/") {
            let path = format!("/api/2.0/postgres/{name}");
            let done = self.until(|| Some(self.get(&path)).filter(|found| found["done"] == true));
            assert!(done.get("error").is_none(), "{done}");
        }
    }

    /// Returns everything there is, but for what changes by itself.
    fn everything(&self) -> Value {
        let paths = [
            "postgres/projects?show_deleted=true",
            "postgres/projects/shop/branches?show_deleted=true",
            "postgres/projects/shop/branches/production/endpoints",
            "postgres/projects/shop/branches/production/roles",
            "postgres/projects/shop/branches/production/databases",
            "permissions/database-projects/shop",
            "database/instances",
            "apps",
        ];
        let mut all =
            Value::from_iter(paths.map(|path| (path, self.get(&format!("/api/2.0/{path}")))));
        settle(&mut all);
        all
    }
}

/// Removes what changes by itself.
fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for changing in [
                "current_state",
                "last_active_time",
                "logical_size_bytes",
                "app_status",
                "compute_status",
                "disabled",
            ] {
                fields.remove(changing);
            }
            fields.values_mut().for_each(settle);
        }
        Value::Array(all) => all.iter_mut().for_each(settle),
        _ => {}
    }
}

/// Plays a case on a disk that is full after `commits` more commits; returns whether that was met.
fn play(server: &Server, case: &Case, number: usize, commits: usize) -> bool {
    server.make(case, number);
    let before = server.everything();
    let (what, full) = (&case.ask, trouble::fill_after(&server.layout.objects(), commits));

    let (status, answer) = server.try_ask(case.ask, number);
    // Long enough for what follows to meet the full disk too; should it be slower, it meets none.
    std::thread::sleep(Duration::from_millis(if status == 200 { 50 } else { 0 }));
    let met = full.was_met();
    drop(full);

    if status == 200 {
        server.finish(&answer);
    } else {
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status == 500 && message.contains("could not write"), "{what:?}: {answer}");
        assert!(!server.is_so(&case.after, number), "{what:?} was refused, and is so");
        assert_eq!(server.everything(), before, "{what:?} was refused");
        let (status, answer) = server.try_ask(case.ask, number);
        assert_eq!(status, 200, "{what:?} again: {answer}");
        server.finish(&answer);
    }
    server.until(|| server.is_so(&case.after, number).then_some(()));
    met
}

#[test]
fn whichever_write_fails_nothing_is_stuck() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.call("POST", "/api/2.0/workspace/mkdirs", &json!({ "path": "/Users/ana" }));
    let (mut number, mut most) = (0, 0);
    for case in CASES {
        for commits in 0.. {
            number += 1;
            if !play(&server, case, number, commits) {
                break;
            }
            most = most.max(commits + 1);
        }
    }
    assert!(most > 1, "no operation writes twice");

    assert_eq!(server.ask(PRODUCTION, "SELECT 1"), ["1"]);
    let before = server.everything();
    server.stop();
    let server = Server::start(folder.path());
    assert_eq!(server.everything(), before);
    server.stop();
}
