//! `lakeforge smoke` from the outside, and the gateway it looks through.

use std::sync::OnceLock;

use insta::assert_snapshot;
use serde_json::Value;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::{Admin, Answer, decode, encode, send, sign_again};

/// What the one app of these tests answers.
const ANSWERS: &str = r#"{
    "/healthz": {"body": "{\"ok\": true}"},
    "/ordered": {"body": "{\"version\": {\"major\": 1, \"minor\": 2}, \"ok\": true}"},
    "/sad": {"body": "{\"ok\": false}"},
    "/broken": {"status": 500, "body": "{\"ok\": true}"},
    "/made": {"status": 201, "body": "{\"ok\": true}"},
    "/text": {"body": "fine"},
    "/moved": {"status": 302, "headers": {"Location": "/healthz"}, "body": ""},
    "/page": {"headers": {"Content-Type": "text/html"}, "body": "<html><body>Hello</body></html>"},
    "/login": {"headers": {"Content-Type": "text/html"},
        "body": "<!doctype html><title>Databricks - Sign In</title><h1>Sign in to Databricks</h1>"}
}"#;

/// Returns a folder with the bundle of the app `smoke-app`, which runs, and `settings` for it.
fn with_app(settings: &str) -> Forge {
    static DEPLOYED: OnceLock<()> = OnceLock::new();
    let forge = Forge::new();
    bundle(&forge, "smoke", &[], &[("smoke-app", App::Answers(ANSWERS))]);
    DEPLOYED.get_or_init(|| {
        forge.succeed("deploy");
    });
    forge.write("lakeforge.yml", &format!("apps: {{smoke_app: {{{settings}}}}}\n"));
    forge
}

#[test]
fn smoke_is_green_when_status_and_body_are_right() {
    assert_snapshot!(with_app("").run("smoke"), @r"
        --- stdout
        ok      smoke-app  [LENGTH]  [HOST]/healthz
        1 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        --- exit 0
        ");
}

#[test]
fn the_order_of_keys_and_spaces_do_not_matter() {
    let forge =
        with_app("health: /ordered, expect: {body: {ok: true, version: {minor: 2, major: 1}}}");

    assert_eq!(forge.output("smoke").status.code(), Some(0));
}

#[test]
fn a_wrong_status_is_unhealthy_whatever_the_body() {
    assert_snapshot!(with_app("health: /broken").run("smoke --wait-timeout 1s"), @r#"
        --- stdout
        FAILED  smoke-app  [LENGTH]  [HOST]/broken
                status 500; got {"ok": true}
        0 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        error: 1 of 1 apps are unhealthy
          why: smoke-app: status 500; got {"ok": true}
        --- exit 10
        "#);
}

#[test]
fn another_success_than_the_expected_one_is_unhealthy() {
    assert_eq!(with_app("health: /made").output("smoke").status.code(), Some(10));
    let forge = with_app("health: /made, expect: {status: 201}");
    assert_eq!(forge.output("smoke").status.code(), Some(0));
}

#[test]
fn a_wrong_body_is_unhealthy() {
    assert_snapshot!(with_app("health: /sad").run("smoke"), @r#"
        --- stdout
        FAILED  smoke-app  [LENGTH]  [HOST]/sad
                expected {"ok":true}; got {"ok": false}
        0 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        error: 1 of 1 apps are unhealthy
          why: smoke-app: expected {"ok":true}; got {"ok": false}
        --- exit 10
        "#);
    assert_eq!(with_app("health: /text").output("smoke").status.code(), Some(10));
    let more = with_app("health: /ordered").output("smoke").status.code();
    assert_eq!(more, Some(10), "a body that says more than was expected");
}

#[test]
fn a_redirect_is_not_followed() {
    assert_snapshot!(with_app("health: /moved").run("smoke"), @r"
        --- stdout
        FAILED  smoke-app  [LENGTH]  [HOST]/moved
                redirect (302) to /healthz
        0 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        error: 1 of 1 apps are unhealthy
          why: smoke-app: redirect (302) to /healthz
        --- exit 10
        ");
}

#[test]
fn a_page_is_unhealthy_also_with_status_200() {
    assert_snapshot!(with_app("health: /page").run("smoke"), @r#"
        --- stdout
        FAILED  smoke-app  [LENGTH]  [HOST]/page
                expected {"ok":true}; got <html><body>Hello</body></html>
        0 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        error: 1 of 1 apps are unhealthy
          why: smoke-app: expected {"ok":true}; got <html><body>Hello</body></html>
        --- exit 10
        "#);
}

#[test]
fn a_login_page_with_status_200_is_unhealthy_and_called_so() {
    assert_snapshot!(with_app("health: /login").run("smoke"), @r"
        --- stdout
        FAILED  smoke-app  [LENGTH]  [HOST]/login
                the gateway answered with its login page (status 200); the app was not reached
        0 of 1 apps are healthy
        --- stderr
        smoke-app: asking
        error: 1 of 1 apps are unhealthy
          why: smoke-app: the gateway answered with its login page (status 200); the app was not reached
        --- exit 10
        ");
    let any_page = with_app("health: /login, expect: {status: 200}");
    assert_eq!(any_page.output("smoke").status.code(), Some(10));
}

#[test]
fn smoke_streams_an_object_for_each_app_and_a_summary() {
    let stdout = with_app("").succeed("-q smoke -o json");
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    assert_eq!(lines.len(), 2, "{stdout}");
    assert_eq!((&lines[0]["app"], &lines[0]["healthy"]), (&"smoke-app".into(), &true.into()));
    assert_eq!((&lines[1]["type"], &lines[1]["healthy"]), (&"summary".into(), &1.into()));
}

#[test]
fn a_stopped_app_is_unhealthy_and_its_sibling_is_asked() {
    let forge = Forge::new();
    bundle(&forge, "halt", &[], &[("halt-first", App::Healthy), ("halt-second", App::Healthy)]);
    forge.succeed("deploy");
    Admin::of(&forge).send("POST", "/api/2.0/apps/halt-first/stop", "{}").expect(200);
    let output = forge.output("smoke --wait-timeout 2s");
    let stdout = String::from_utf8(output.stdout).unwrap();

    assert_eq!(output.status.code(), Some(10), "{stdout}");
    let line = |start: &str| stdout.lines().any(|line| line.starts_with(start));
    assert!(line("FAILED  halt-first") && line("ok      halt-second"), "{stdout}");
    assert!(stdout.contains("the app is stopped\n"), "{stdout}");
    assert!(stdout.contains("1 of 2 apps are healthy"), "{stdout}");
}

#[test]
fn an_unknown_app_is_named_with_the_nearest_one() {
    assert_snapshot!(with_app("").run("smoke --app smoke-ap"), @r"
        --- stderr
        error: there is no app `smoke-ap` in the bundle
          why: the bundle has smoke_app
          try: --app smoke-app
        --- exit 6
        ");
}

#[test]
fn an_app_that_was_never_deployed_is_unhealthy() {
    let forge = Forge::new();
    bundle(&forge, "never", &[], &[("undeployed-thing", App::Healthy)]);

    assert_snapshot!(forge.run("smoke --wait-timeout 1s"), @r"
        --- stdout
        FAILED  undeployed-thing  [LENGTH]
                the workspace has no app `undeployed-thing`
        0 of 1 apps are healthy
        --- stderr
        undeployed-thing: asking
        error: 1 of 1 apps are unhealthy
          why: undeployed-thing: the workspace has no app `undeployed-thing`
        --- exit 10
        ");
}

/// Asks the gateway of `smoke-app` for a path that answers with the headers it got.
fn ask(forge: &Forge, headers: &[(&str, &str)]) -> Answer {
    let url = Admin::of(forge).app("smoke-app")["url"].as_str().unwrap().to_owned();
    send("GET", &format!("{url}/headers"), headers, "")
}

fn assert_login_page(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("text/html"), "{:?}", answer.headers);
    assert!(answer.body.contains("Sign In"), "{}", answer.body);
}

#[test]
fn the_gateway_shows_a_login_page_to_whoever_has_no_valid_token() {
    let forge = with_app("");
    let admin = Admin::of(&forge);
    let tampered = tamper(admin.token());
    let expired = expired(&forge, admin.token());

    assert_login_page(&ask(&forge, &[]));
    for token in ["nonsense", &tampered, &expired, ""] {
        assert_login_page(&ask(&forge, &[("Authorization", &format!("Bearer {token}"))]));
    }
    assert_login_page(&ask(&forge, &[("Authorization", "Basic YTpi")]));
    assert_eq!(ask(&forge, &[("Authorization", &admin.bearer())]).json()["accept"], Value::Null);
}

/// Returns the token with another payload and the signature it had.
fn tamper(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = String::from_utf8(decode(parts[1])).unwrap();
    let payload = payload.replacen("all-apis", "all-of-it", 1);
    format!("{}.{}.{}", parts[0], encode(payload.as_bytes()), parts[2])
}

/// Returns the token as the workspace would have signed it two hours ago.
fn expired(forge: &Forge, token: &str) -> String {
    sign_again(forge, token, |payload| {
        for time in ["iat", "exp"] {
            payload[time] = (payload[time].as_i64().unwrap() - 7200).into();
        }
    })
}

#[test]
fn the_gateway_tells_the_app_who_asks_and_nobody_else_can() {
    let forge = with_app("");
    let admin = Admin::of(&forge);
    let got = ask(
        &forge,
        &[
            ("Authorization", &admin.bearer()),
            ("X-Forwarded-Email", "chief@evil.test"),
            ("x-forwarded-preferred-username", "chief"),
            ("X-Forwarded-Groups", "admins"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X_Forwarded_Email", "chief@evil.test"),
            ("x_forwarded-user", "chief"),
            ("X_Real_IP", "chief"),
            ("X-Real-IP", "chief"),
            ("Forwarded", "for=chief"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade, X-Forwarded-Email, X-Forwarded-Access-Token"),
        ],
    )
    .json();

    assert_eq!(got["x-forwarded-email"], *admin.client_id);
    assert!(!got.to_string().contains("chief"), "{got}");
    assert!(got["x-forwarded-groups"].is_null(), "{got}");
    assert_ne!(got["x-forwarded-for"], "192.0.2.1");
    // A server that takes this list at its word would drop what the workspace says.
    assert_eq!(got["connection"], "Upgrade");
}
