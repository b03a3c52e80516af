//! The REST API as raw bytes, against the shapes recorded in its public documentation and SDKs.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::forge::Forge;
use crate::http::{Admin, Answer, send};
use crate::own::within;

const POSTGRES: &str = "/api/2.0/postgres";

/// Creates `project` and returns the administrator.
fn admin_with(project: &str) -> Admin {
    let admin = Admin::of(&Forge::new());
    let path = format!("{POSTGRES}/projects?project_id={project}");
    finish(&admin, &admin.send("POST", &path, r#"{"spec":{"display_name":"A project"}}"#));
    admin
}

/// Waits for the operation that was the answer, and returns what came of it.
fn finish(admin: &Admin, answer: &Answer) -> Value {
    let path = format!("{POSTGRES}/{}", answer.expect(200)["name"].as_str().unwrap());
    let mut operation = Value::Null;
    let done = within(Duration::from_secs(30), || {
        operation = admin.get(&path).expect(200);
        operation["done"] == true
    });
    assert!(done, "{operation}");
    assert!(operation["error"].is_null(), "{operation}");
    operation["response"].take()
}

/// Returns the administrator, with the project `contract` there; its branches are left alone.
fn admin_with_contract() -> &'static Admin {
    static ADMIN: OnceLock<Admin> = OnceLock::new();
    ADMIN.get_or_init(|| admin_with("contract"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

/// Expects `value` to have each of `names`, and none of `never`.
fn assert_keys(value: &Value, names: &[&str], never: &[&str]) {
    let found = keys(value);
    for name in names {
        assert!(found.contains(name), "`{name}` is missing in {value}");
    }
    for name in never {
        assert!(!found.contains(name), "`{name}` is in {value}");
    }
}

#[test]
fn the_token_endpoint_gives_a_bearer_token_for_the_right_secret() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.log_in(&admin.client_secret).expect(200);

    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["scope"], "all-apis");
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["access_token"].as_str().unwrap().split('.').count(), 3, "a JWT");
}

#[test]
fn the_token_endpoint_refuses_a_wrong_secret() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.log_in("wrong").expect(401);

    assert_eq!(answer["error"], "invalid_client");
    assert_eq!(keys(&answer), ["error", "error_description"]);
}

#[test]
fn discovery_leads_to_the_token_endpoint() {
    let admin = Admin::of(&Forge::new());
    let config = send("GET", &format!("{}/.well-known/databricks-config", admin.host), &[], "");
    let endpoint = config.expect(200)["oidc_endpoint"].as_str().unwrap().to_owned();
    let server =
        send("GET", &format!("{endpoint}/.well-known/oauth-authorization-server"), &[], "");

    assert_eq!(server.expect(200)["token_endpoint"], format!("{}/oidc/v1/token", admin.host));
}

#[test]
fn whoever_is_unknown_gets_the_401_envelope() {
    let admin = Admin::of(&Forge::new());
    let url = format!("{}{POSTGRES}/projects", admin.host);
    for headers in [&[][..], &[("Authorization", "Bearer nonsense")]] {
        let answer = send("GET", &url, headers, "").expect(401);
        assert_eq!(answer["error_code"], "UNAUTHENTICATED");
        assert!(answer["message"].is_string());
    }
}

#[test]
fn the_caller_is_a_service_principal_of_the_workspace() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.get("/api/2.0/preview/scim/v2/Me");

    assert_eq!(answer.expect(200)["userName"], *admin.client_id);
    assert!(answer.headers["x-databricks-org-id"].parse::<u64>().is_ok());
}

#[test]
fn creating_a_project_answers_with_its_operation() {
    let admin = Admin::of(&Forge::new());
    let path = format!("{POSTGRES}/projects?project_id=contract-create");
    let answer = admin.send("POST", &path, r#"{"spec":{"display_name":"First"}}"#);
    let operation = answer.expect(200);

    let name = operation["name"].as_str().unwrap();
    assert!(name.starts_with("projects/contract-create/operations/"), "{name}");
    let kind = "type.googleapis.com/databricks.postgres.v1.ProjectOperationMetadata";
    assert_eq!(operation["metadata"]["@type"], kind);
    let project = finish(&admin, &answer);
    assert_eq!(project["name"], "projects/contract-create");
    // A client asks once more, also when the operation was done at once.
    assert_eq!(finish(&admin, &answer), project);
}

#[test]
fn a_project_has_a_status_and_no_spec() {
    let admin = admin_with_contract();
    let project = admin.get(&format!("{POSTGRES}/projects/contract")).expect(200);

    assert_keys(&project, &["name", "project_id", "uid", "create_time", "update_time"], &["spec"]);
    assert_keys(
        &project["status"],
        &[
            "project_id",
            "default_branch",
            "display_name",
            "pg_version",
            "owner",
            "history_retention_duration",
            "enable_pg_native_login",
            "branch_logical_size_limit_bytes",
            "synthetic_storage_size_bytes",
            "default_endpoint_settings",
        ],
        &["budget_policy_id"],
    );
    assert_eq!(project["status"]["display_name"], "A project");
    assert_eq!(project["status"]["branch_logical_size_limit_bytes"], 8_796_093_022_208_u64);
    let branch = "projects/contract/branches/production";
    assert_eq!(project["status"]["default_branch"], branch);
}

#[test]
fn a_new_project_has_the_production_branch_and_its_primary_endpoint() {
    let admin = admin_with_contract();
    let branch = "projects/contract/branches/production";
    let production = admin.get(&format!("{POSTGRES}/{branch}")).expect(200);
    let primary = admin.get(&format!("{POSTGRES}/{branch}/endpoints/primary")).expect(200);

    assert_keys(&production, &["name", "branch_id", "parent", "uid"], &["spec"]);
    let status = &production["status"];
    assert_keys(status, &["branch_id", "current_state"], &["source_branch", "expire_time"]);
    assert_eq!((&status["default"], &status["is_protected"]), (&json!(true), &json!(false)));
    assert_keys(&primary, &["name", "endpoint_id", "parent", "uid"], &["spec"]);
    assert_eq!(primary["parent"], branch);
    assert_keys(&primary["status"], &["current_state", "suspend_timeout_duration"], &[]);
    assert_eq!(primary["status"]["endpoint_type"], "ENDPOINT_TYPE_READ_WRITE");
    assert!(primary["status"]["hosts"]["host"].is_string());
}

#[test]
fn a_branch_says_where_and_when_it_left_its_source() {
    let admin = admin_with("contract-branch");
    let path = format!("{POSTGRES}/projects/contract-branch/branches?branch_id=dev");
    let answer = admin.send("POST", &path, r#"{"spec":{"ttl":"3600s"}}"#);
    let operation = answer.expect(200);
    let name = operation["name"].as_str().unwrap();
    let branch = &finish(&admin, &answer);

    assert!(name.starts_with("projects/contract-branch/branches/dev/operations/"), "{name}");
    assert_keys(branch, &["name", "branch_id", "parent", "uid", "create_time"], &["spec"]);
    assert_keys(
        &branch["status"],
        &["source_branch_lsn", "source_branch_time", "expire_time", "state_change_time"],
        &["ttl", "no_expiry"],
    );
    let source = "projects/contract-branch/branches/production";
    assert_eq!(branch["status"]["source_branch"], source);
    assert_eq!(branch["status"]["current_state"], "READY");
}

#[test]
fn a_project_without_an_id_is_refused() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.send("POST", &format!("{POSTGRES}/projects"), r#"{"spec":{}}"#).expect(400);

    assert_eq!(answer["error_code"], "INVALID_PARAMETER_VALUE");
    let message = "Field 'project_id' is required, expected non-default value (not \"\")!";
    assert_eq!(answer["message"], message);
}

#[test]
fn a_taken_project_id_is_a_conflict() {
    let admin = admin_with_contract();
    let path = format!("{POSTGRES}/projects?project_id=contract");
    let answer = admin.send("POST", &path, r#"{"spec":{}}"#).expect(409);

    assert_eq!(answer["error_code"], "ALREADY_EXISTS");
    assert_eq!(answer["message"], "project with such id already exists in the workspace");
}

#[test]
fn a_deleted_project_keeps_its_id_until_it_is_purged() {
    let admin = admin_with("contract-deleted");
    let project = format!("{POSTGRES}/projects/contract-deleted");
    let create = format!("{POSTGRES}/projects?project_id=contract-deleted");

    let empty = finish(&admin, &admin.send("DELETE", &project, ""));
    assert_eq!(empty["@type"], "type.googleapis.com/google.protobuf.Empty");
    admin.get(&project).expect(404);
    admin.send("POST", &create, r#"{"spec":{}}"#).expect(409);
    finish(&admin, &admin.send("POST", &format!("{project}/undelete"), "{}"));
    admin.get(&project).expect(200);
    finish(&admin, &admin.send("DELETE", &format!("{project}?purge=true"), ""));
    admin.send("POST", &create, r#"{"spec":{}}"#).expect(200);
}

#[test]
fn a_branch_needs_exactly_one_expiration() {
    let admin = admin_with("contract-expiry");
    let path = format!("{POSTGRES}/projects/contract-expiry/branches?branch_id=dev");

    let none = admin.send("POST", &path, r#"{"spec":{}}"#).expect(400);
    assert_eq!(none["message"], "Expiration must be specified when creating a branch");
    admin.send("POST", &path, r#"{"spec":{"ttl":"3600s","no_expiry":true}}"#).expect(400);
    admin.send("POST", &path, r#"{"spec":{"no_expiry":false}}"#).expect(400);
    let long = admin.send("POST", &path, r#"{"spec":{"ttl":"2678400s"}}"#).expect(400);
    let message = long["message"].as_str().unwrap();
    assert!(message.contains("expiration time exceeds the maximum"), "{message}");
}

#[test]
fn a_branch_that_expires_has_no_children() {
    let admin = admin_with("contract-child");
    let path = format!("{POSTGRES}/projects/contract-child/branches?branch_id");
    finish(&admin, &admin.send("POST", &format!("{path}=dev"), r#"{"spec":{"ttl":"3600s"}}"#));
    let source = "projects/contract-child/branches/dev";
    let body = json!({"spec": {"source_branch": source, "no_expiry": true}}).to_string();
    let answer = admin.send("POST", &format!("{path}=below"), &body).expect(400);

    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("Branches with an expiration date cannot have child branches"));
}

#[test]
fn the_root_branch_is_managed_by_its_project() {
    let admin = admin_with_contract();
    let branch = "projects/contract/branches/production";
    let answer = admin.send("DELETE", &format!("{POSTGRES}/{branch}"), "").expect(400);

    assert_eq!(answer["error_code"], "BAD_REQUEST");
    let message = format!(
        "Cannot delete root branch '{branch}'. Root branches cannot be deleted independently."
    );
    assert_eq!(answer["message"], message);
    let details = &answer["details"][0];
    assert_eq!(details["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!(details["reason"], "RESOURCE_CONFLICT");
    assert_eq!(details["domain"], "databricks.com");
    assert_eq!(details["metadata"]["declarative_context"], "MANAGED_BY_PARENT");
    assert_eq!(answer["details"][1]["@type"], "type.googleapis.com/google.rpc.RequestInfo");
}

#[test]
fn an_unknown_path_of_a_mask_is_refused() {
    let admin = admin_with_contract();
    let path = format!("{POSTGRES}/projects/contract?update_mask=spec.colour");
    let answer = admin.send("PATCH", &path, r#"{"spec":{"display_name":"New"}}"#).expect(400);

    assert_eq!(answer["error_code"], "INVALID_PARAMETER_VALUE");
    assert!(answer["message"].as_str().unwrap().contains("Unknown field path in update_mask"));
    let project = admin.get(&format!("{POSTGRES}/projects/contract")).expect(200);
    assert_eq!(project["status"]["display_name"], "A project");
}

#[test]
fn pages_of_one_show_every_branch_once() {
    let admin = admin_with("contract-pages");
    let list = format!("{POSTGRES}/projects/contract-pages/branches");
    for branch in ["one", "two"] {
        let path = format!("{list}?branch_id={branch}");
        finish(&admin, &admin.send("POST", &path, r#"{"spec":{"ttl":"3600s"}}"#));
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = admin.get(&format!("{list}?page_size=1&page_token={token}")).expect(200);
        let branches = page["branches"].as_array().unwrap();
        assert_eq!(branches.len(), 1);
        seen.push(branches[0]["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
        match page["next_page_token"].as_str() {
            None | Some("") => break,
            Some(next) => token = next.to_owned(),
        }
        assert!(seen.len() < 4, "{seen:?}");
    }
    seen.sort();
    assert_eq!(seen, ["one", "production", "two"]);
}

#[test]
fn a_route_that_is_not_served_is_named() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.get("/api/2.0/clusters/list").expect(501);

    assert_eq!(answer["error_code"], "NOT_IMPLEMENTED");
    assert!(answer["message"].as_str().unwrap().contains("GET /api/2.0/clusters/list"));
}

#[test]
fn what_does_not_exist_is_404_with_its_kind() {
    let admin = admin_with_contract();
    for (path, text) in [
        ("projects/contract-none", "project id not found [TraceId: "),
        ("projects/contract-none/branches/x", "project id not found [TraceId: "),
        ("projects/contract/branches/x", "branch id not found [TraceId: "),
        ("projects/contract/branches/production/endpoints/x", "endpoint id not found"),
    ] {
        let answer = admin.get(&format!("{POSTGRES}/{path}")).expect(404);
        assert_eq!(answer["error_code"], "NOT_FOUND", "{path}");
        assert!(answer["message"].as_str().unwrap().starts_with(text), "{path}: {answer}");
    }
}

#[test]
fn credentials_are_for_one_existing_endpoint() {
    let admin = admin_with_contract();
    let ask = |endpoint: &str| {
        let body = json!({"endpoint": endpoint}).to_string();
        admin.send("POST", &format!("{POSTGRES}/credentials"), &body)
    };
    let branch = "projects/contract/branches/production";
    let endpoint = format!("{branch}/endpoints/primary");

    let uid = admin.get(&format!("{POSTGRES}/{endpoint}")).expect(200)["uid"].clone();
    assert_eq!(ask(&format!("{branch}/endpoints/other")).expect(404)["error_code"], "NOT_FOUND");
    ask(&format!("{branch}/endpoints/{}", uid.as_str().unwrap())).expect(404);
    let answer = ask(&endpoint).expect(200);
    assert_eq!(keys(&answer), ["token", "expire_time"]);
}

#[test]
fn a_file_comes_back_as_it_was_imported() {
    let admin = Admin::of(&Forge::new());
    let folder = "/Workspace/Users/somebody/contract";
    let import = |overwrite: bool, text: &str| {
        let path = format!("{folder}/note%20one.txt").trim_start_matches('/').replace('/', "%2F");
        let query = format!("?overwrite={overwrite}");
        let path = format!("/api/2.0/workspace-files/import-file/{path}{query}");
        admin.send("POST", &path, text)
    };
    let export = format!("/api/2.0/workspace/export?path={folder}/note%20one.txt");

    let missing = import(false, "first").expect(404);
    assert_eq!(missing["message"], format!("The parent folder ({folder}) does not exist."));
    let body = json!({"path": folder}).to_string();
    admin.send("POST", "/api/2.0/workspace/mkdirs", &body).expect(200);
    assert_eq!(import(false, "first").status, 200);
    let taken = import(false, "second").expect(409);
    assert_eq!(taken["message"], format!("File already exists at ({folder}/note one.txt)."));
    assert_eq!(admin.get(&format!("{export}&direct_download=true")).body, "first");
    assert_eq!(import(true, "second").status, 200);
    assert_eq!(admin.get(&export).expect(200)["content"], "c2Vjb25k", "base64 of `second`");
}

#[test]
fn a_path_that_is_not_there_has_no_status() {
    let admin = Admin::of(&Forge::new());
    let path = "/api/2.0/workspace/get-status?path=/Workspace/nowhere";
    let answer = admin.get(path).expect(404);

    assert_eq!(answer["message"], "Path (/Workspace/nowhere) doesn't exist.");
}

#[test]
fn an_app_that_is_not_there_is_404_with_its_name() {
    let admin = Admin::of(&Forge::new());
    let answer = admin.get("/api/2.0/apps/contract-none").expect(404);

    assert_eq!(answer["message"], "Resource apps.App not found: contract-none");
}
