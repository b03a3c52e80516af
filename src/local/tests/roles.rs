//! Roles and databases: through the API, with SQL, and at the endpoints' doors.

use super::*;

const ROLES: &str = "projects/shop/branches/production/roles";
const DATABASES: &str = "projects/shop/branches/production/databases";
const DEVELOPER: &str = "developer@lakeforge.test";
const API: &str = "/api/2.0/postgres";

/// Returns the status of a request below the API, the code and the message.
fn refused(server: &Server, method: &str, path: &str, body: &Value) -> (u16, String, String) {
    let (status, answer) = server.call(method, &format!("{API}/{path}"), body);
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (status, text("error_code"), text("message"))
}

/// Makes a change that is accepted and fails; returns why.
fn failure(server: &Server, method: &str, path: &str, body: &Value) -> String {
    let (status, operation) = server.call(method, &format!("{API}/{path}"), body);
    assert_eq!(status, 200, "{operation}");
    let done = server.until(|| {
        let operation = server.get(&format!("{API}/{}", operation["name"].as_str().unwrap()));
        operation["done"].as_bool().unwrap().then_some(operation)
    });
    done["error"]["message"].as_str().unwrap().to_owned()
}

fn ids(server: &Server, path: &str, key: &str) -> Vec<String> {
    let list = server.get(&format!("{API}/{path}"));
    let kind = path.rsplit('/').next().unwrap();
    let id = |object: &Value| object[key].as_str().unwrap().to_owned();
    list[kind].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn roles_made_by_the_api_are_in_postgres_and_those_made_by_sql_are_in_the_list() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    assert_eq!(ids(&server, ROLES, "role_id"), ["developer"]);

    let spec = json!({ "spec": {
        "postgres_role": "report", "membership_roles": ["DATABRICKS_SUPERUSER"],
        "attributes": { "createdb": true },
    } });
    let role = server.change("POST", &format!("{ROLES}?role_id=reporting"), &spec);
    assert_eq!(role["name"], format!("{ROLES}/reporting"));
    assert_eq!(role.get("spec"), None);
    let status = &role["status"];
    assert_eq!(status["postgres_role"], "report");
    assert_eq!(status["identity_type"], "IDENTITY_TYPE_UNSPECIFIED");
    assert_eq!(status["auth_method"], "PG_PASSWORD_SCRAM_SHA_256");
    assert_eq!(status["membership_roles"], json!(["DATABRICKS_SUPERUSER"]));
    let facts = "SELECT rolcreatedb::text || rolcreaterole::text || \
                 pg_has_role('report', 'databricks_superuser', 'member')::text \
                 FROM pg_roles WHERE rolname = 'report'";
    assert_eq!(server.ask(PRODUCTION, facts), ["truefalsetrue"]);

    server.ask(PRODUCTION, "CREATE ROLE \"by SQL\" NOLOGIN");
    assert_eq!(ids(&server, ROLES, "role_id"), ["by-sql", "developer", "reporting"]);
    let found = server.get(&format!("{API}/{ROLES}/by-sql"));
    assert_eq!(found["status"]["auth_method"], "NO_LOGIN");
    server.ask(PRODUCTION, "DROP ROLE \"by SQL\"");
    assert_eq!(refused(&server, "GET", &format!("{ROLES}/by-sql"), &json!({})).0, 404);

    let mask = "update_mask=spec.attributes.createrole,spec.membership_roles";
    let body = json!({ "spec": {
        "attributes": { "createrole": true }, "membership_roles": [],
    } });
    let role = server.change("PATCH", &format!("{ROLES}/reporting?{mask}"), &body);
    assert_eq!(role["status"]["membership_roles"], json!([]));
    assert_eq!(
        role["status"]["attributes"],
        json!({ "bypassrls": false, "createdb": true, "createrole": true })
    );
    assert_eq!(server.ask(PRODUCTION, facts), ["truetruefalse"]);
    let path = format!("{ROLES}?role_id=reporting&replace_existing=true");
    let role = server.change("POST", &path, &spec);
    assert_eq!(role["status"]["membership_roles"], json!(["DATABRICKS_SUPERUSER"]));
    assert_eq!(server.ask(PRODUCTION, facts), ["truefalsetrue"]);
    server.stop();
}

#[test]
fn what_is_no_role_or_database_is_refused_in_the_platforms_words() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    let role = |name: &str| json!({ "spec": { "postgres_role": name } });
    server.change("POST", &format!("{ROLES}?role_id=report"), &role("report"));
    let post = |path: &str, body: &Value| refused(&server, "POST", path, body);

    for path in
        [format!("{ROLES}?role_id=report"), format!("{ROLES}?role_id=other"), ROLES.to_owned()]
    {
        let (status, code, message) = post(&path, &role("report"));
        assert_eq!((status, code.as_str()), (400, "BAD_REQUEST"));
        assert_eq!(message, "role with that name already exists");
    }
    for id in ["abc", "1abc", "Abcd", "abcd-", "8f1b2c3d-0000-4000-8000-123456789abc"] {
        let (status, code, _) = post(&format!("{ROLES}?role_id={id}"), &role("other"));
        assert_eq!((status, code.as_str()), (400, "INVALID_PARAMETER_VALUE"), "{id}");
    }
    for name in ["pg_x", "databricks_superuser", "lakeforge"] {
        assert_eq!(post(ROLES, &role(name)).0, 400, "{name}");
    }
    let oauth = json!({ "spec": { "postgres_role": "x", "auth_method": "LAKEBASE_OAUTH_V1" } });
    assert_eq!(post(ROLES, &oauth).0, 400);
    let mask = format!("{ROLES}/report?update_mask=spec.postgres_role");
    let (_, _, message) = refused(&server, "PATCH", &mask, &role("other"));
    assert!(message.contains("Unknown field path in update_mask"), "{message}");

    let database = |role: Value| json!({ "spec": { "postgres_database": "extra", "role": role } });
    let (_, code, message) = post(DATABASES, &json!({ "spec": { "postgres_database": "extra" } }));
    assert_eq!(code, "INVALID_PARAMETER_VALUE");
    assert_eq!(
        message,
        "Field 'database.spec.role' is required, expected non-default value (not \"\")!"
    );
    assert_eq!(post(DATABASES, &database(json!(format!("{ROLES}/nobody")))).0, 404);
    let good = database(json!(format!("{ROLES}/report")));
    server.change("POST", DATABASES, &good);
    let (status, code, message) = post(&format!("{DATABASES}?database_id=again"), &good);
    assert_eq!((status, code.as_str()), (400, "BAD_REQUEST"));
    assert_eq!(message, "database with that name already exists");
    let foreign = "projects/shop/branches/nowhere/roles";
    assert_eq!(refused(&server, "GET", foreign, &json!({})).0, 404);
    server.stop();
}

#[test]
fn a_database_is_created_renamed_given_away_and_dropped() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.change("POST", ROLES, &json!({ "spec": { "postgres_role": "report" } }));
    let names = "SELECT datname || ' ' || pg_get_userbyid(datdba) FROM pg_database \
                 WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname";
    let body = json!({ "spec": {
        "postgres_database": "Extra Data", "role": format!("{ROLES}/developer"),
    } });

    let database = server.change("POST", DATABASES, &body);

    assert_eq!(database["database_id"], "extra-data");
    let standard = format!("databricks_postgres {DEVELOPER}");
    assert_eq!(
        server.ask(PRODUCTION, names),
        [format!("Extra Data {DEVELOPER}"), standard.clone()]
    );
    let body =
        json!({ "spec": { "postgres_database": "extra", "role": format!("{ROLES}/report") } });
    let path = format!("{DATABASES}/extra-data?update_mask=spec.postgres_database,spec.role");
    let database = server.change("PATCH", &path, &body);
    assert_eq!(database["database_id"], "extra-data");
    assert_eq!(database["status"]["postgres_database"], "extra");
    assert_eq!(database["status"]["role"], format!("{ROLES}/report"));
    assert_eq!(server.ask(PRODUCTION, names), [standard.clone(), "extra report".to_owned()]);

    server.branch("dev", &json!({ "no_expiry": true }));
    let there = "projects/shop/branches/dev/databases";
    assert_eq!(ids(&server, there, "database_id"), ["databricks-postgres", "extra-data"]);
    server.change("DELETE", &format!("{DATABASES}/extra-data"), &json!({}));
    assert_eq!(server.ask(PRODUCTION, names), [standard]);
    assert_eq!(ids(&server, DATABASES, "database_id"), ["databricks-postgres"]);
    assert_eq!(ids(&server, there, "database_id"), ["databricks-postgres", "extra-data"]);
    server.stop();
}

#[test]
fn a_role_that_owns_something_goes_only_when_somebody_takes_it() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.change("POST", ROLES, &json!({ "spec": { "postgres_role": "report" } }));
    server.ask(PRODUCTION, "CREATE TABLE notes (n int); GRANT SELECT ON notes TO report");
    server.ask(
        PRODUCTION,
        "GRANT report TO CURRENT_USER; GRANT CREATE ON SCHEMA public TO report; \
         CREATE TABLE own (n int); ALTER TABLE own OWNER TO report",
    );
    let path = format!("{ROLES}/report");

    let why = failure(&server, "DELETE", &path, &json!({}));

    assert!(why.contains("owns objects"), "{why}");
    assert_eq!(ids(&server, ROLES, "role_id"), ["developer", "report"]);
    let heir = format!("{path}?reassign_owned_to={path}");
    assert_eq!(refused(&server, "DELETE", &heir, &json!({})).0, 400);
    let heir = format!("{path}?reassign_owned_to={ROLES}/developer");
    server.change("DELETE", &heir, &json!({}));
    assert_eq!(ids(&server, ROLES, "role_id"), ["developer"]);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'own'";
    assert_eq!(server.ask(PRODUCTION, owner), [DEVELOPER]);
    server.stop();
}

#[test]
fn roles_log_in_the_way_they_are_meant_to() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.change("POST", ROLES, &json!({ "spec": { "postgres_role": "report" } }));
    let somebody = json!({ "spec": { "postgres_role": "eve@shop.test", "identity_type": "USER" } });
    server.change("POST", ROLES, &somebody);
    assert_eq!(ids(&server, ROLES, "role_id"), ["developer", "report", "role-eve"]);
    let path = format!("{API}/{ROLES}/report/password");
    let draw = || {
        let (status, answer) = server.call("POST", &path, &json!({}));
        assert_eq!(status, 200, "{answer}");
        answer["password"].as_str().unwrap().to_owned()
    };
    let password = draw();
    let who = "SELECT current_user";
    let log_in = |user: &str, password: &str| server.log_in(PRODUCTION, user, password, who);
    let off = "native postgres login is disabled for this endpoint";
    assert_eq!(log_in("report", &password), Err(off.to_owned()));

    let native = json!({ "spec": { "enable_pg_native_login": true } });
    server.change("PATCH", "projects/shop?update_mask=spec.enable_pg_native_login", &native);

    assert_eq!(log_in("report", &password), Ok(vec!["report".to_owned()]));
    let wrong = "password authentication failed for user \"report\"";
    assert_eq!(log_in("report", "guess"), Err(wrong.to_owned()));
    let again = draw();
    assert_eq!(log_in("report", &password), Err(wrong.to_owned()), "the old one is gone");
    assert_eq!(log_in("report", &again), Ok(vec!["report".to_owned()]));
    let token = server.credential(PRODUCTION);
    assert_eq!(log_in("report", &token), Err(wrong.to_owned()));
    assert_eq!(log_in(DEVELOPER, &token), Ok(vec![DEVELOPER.to_owned()]));
    assert!(log_in("eve@shop.test", &token).unwrap_err().starts_with("OAuth: User is not"));
    let jwt = "Provided authentication token is not a valid JWT encoding";
    assert_eq!(log_in("eve@shop.test", &again), Err(jwt.to_owned()));
    let (status, _, _) =
        refused(&server, "POST", &format!("{ROLES}/developer/password"), &json!({}));
    assert_eq!(status, 400);

    server.ask(PRODUCTION, "CREATE ROLE native LOGIN PASSWORD 'of its own'");
    assert_eq!(log_in("native", "of its own"), Ok(vec!["native".to_owned()]));
    server.ask(PRODUCTION, "ALTER ROLE native VALID UNTIL '2020-01-01'");
    assert!(log_in("native", "of its own").is_err());
    server.stop();
}

/// Logs in to the workspace as the service principal of the profile `local`; returns its id and token.
fn service_principal(server: &Server) -> (String, String) {
    let (id, secret) = (server.profile("client_id"), server.profile("client_secret"));
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let request = Request::post(format!("{}/oidc/v1/token", server.host))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form));
    let (_, answer) = server.runtime.block_on(loopback::send(request.unwrap())).unwrap();
    (id, answer["access_token"].as_str().unwrap().to_owned())
}

#[test]
fn roles_of_identities_are_made_with_sql_as_the_platform_does() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    let (id, access) = service_principal(&server);
    let make = |name: &str, kind: &str| {
        format!(
            "CREATE EXTENSION IF NOT EXISTS databricks_auth; \
             SELECT databricks_create_role('{name}', '{kind}')"
        )
    };
    let attempt =
        |query: &str| server.log_in(PRODUCTION, DEVELOPER, &server.credential(PRODUCTION), query);

    server.ask(PRODUCTION, &make(&id, "SERVICE_PRINCIPAL"));

    let body = json!({ "endpoint": format!("{PRODUCTION}/endpoints/primary") }).to_string();
    let path = format!("{API}/credentials");
    let (_, credential) = server.send("POST", &path, Some(&access), Body::from(body));
    let password = credential["token"].as_str().unwrap();
    let who = server.log_in(PRODUCTION, &id, password, "SELECT current_user");
    assert_eq!(who, Ok(vec![id.clone()]));
    let role = server.get(&format!("{API}/{ROLES}/sp-{id}"));
    assert_eq!(role["status"]["identity_type"], "SERVICE_PRINCIPAL");
    assert_eq!(role["status"]["auth_method"], "LAKEBASE_OAUTH_V1");
    assert_eq!(role["status"]["membership_roles"], json!([]));
    let list = "SELECT role_name || ' ' || identity_type FROM databricks_list_roles ORDER BY 1";
    let mut expected = [format!("{DEVELOPER} user"), format!("{id} service_principal")];
    expected.sort();
    assert_eq!(server.ask(PRODUCTION, list), expected);

    assert_eq!(attempt(&make(&id, "USER")), Err(format!("role \"{id}\" already exists")));
    let wrong = attempt(&make("x", "ROBOT")).unwrap_err();
    assert_eq!(wrong, "invalid identity type \"ROBOT\"");
    let lesser = "CREATE ROLE lesser; GRANT lesser TO CURRENT_USER; SET ROLE lesser; ";
    let denied = attempt(&format!("{lesser}{}", make("x", "USER"))).unwrap_err();
    assert!(denied.starts_with("permission denied"), "{denied}");
    server.stop();
}

#[test]
fn members_of_a_group_log_in_as_its_role_with_their_own_token() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.ask(PRODUCTION, "SELECT databricks_create_role('admins', 'group')");
    for group in ["users", "strangers"] {
        let spec = json!({ "spec": { "postgres_role": group, "identity_type": "GROUP" } });
        server.change("POST", ROLES, &spec);
    }
    server.ask(PRODUCTION, "CREATE ROLE plain LOGIN");
    let token = server.credential(PRODUCTION);
    let log_in = |role: &str| server.log_in(PRODUCTION, role, &token, "SELECT current_user");

    for group in ["admins", "users"] {
        assert_eq!(log_in(group), Ok(vec![group.to_owned()]));
    }
    for role in ["strangers", "plain", "nobody"] {
        let refused = log_in(role).unwrap_err();
        assert!(refused.starts_with("OAuth: User is not authorized"), "{role}: {refused}");
    }
    server.stop();
}

#[test]
fn administrators_of_a_branch_are_less_than_a_superuser() {
    let folder = folder();
    let server = Server::start(folder.path());
    server.shop();
    server.ask(
        PRODUCTION,
        "CREATE ROLE other; GRANT other TO CURRENT_USER; GRANT CREATE ON SCHEMA public TO other; \
         SET ROLE other; CREATE TABLE notes AS SELECT 7 AS n; RESET ROLE; \
         REVOKE other FROM CURRENT_USER",
    );

    assert_eq!(server.ask(PRODUCTION, "SELECT n FROM notes"), ["7"], "they read everything");
    server.ask(PRODUCTION, "CREATE ROLE mine");
    server.ask(PRODUCTION, "CREATE DATABASE mine");
    for query in [
        "CREATE ROLE mighty SUPERUSER",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "COPY notes TO PROGRAM 'cat'",
        "SET ROLE lakeforge",
    ] {
        let token = server.credential(PRODUCTION);
        let refused = server.log_in(PRODUCTION, DEVELOPER, &token, query).unwrap_err();
        let denied = ["permission denied", "must be superuser"];
        assert!(denied.iter().any(|text| refused.contains(text)), "{query}: {refused}");
    }
    server.stop();
}
