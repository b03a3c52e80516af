//! What an app hears of who asks, through its gateway.

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::{Admin, claims, send, sign_again};

/// Deploys `apps`, which say what headers they were sent, and lets each ask for a token of the Postgres API.
fn deployed(apps: &[&str]) -> (Forge, Admin) {
    let forge = Forge::new();
    let all: Vec<(&str, App)> = apps.iter().map(|app| (*app, App::Healthy)).collect();
    bundle(&forge, apps[0], &[], &all);
    forge.succeed("deploy");
    let admin = Admin::of(&forge);
    for app in apps {
        let body =
            r#"{"app": {"user_api_scopes": ["postgres"]}, "update_mask": "user_api_scopes"}"#;
        admin.send("POST", &format!("/api/2.0/apps/{app}/update"), body).expect(200);
    }
    (forge, admin)
}

/// Asks an app for the headers it gets, and returns the token among them.
fn forwarded(admin: &Admin, app: &str, token: &str) -> String {
    let url = admin.app(app)["url"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let heard = send("GET", &format!("{url}/headers"), &[("Authorization", &bearer)], "");
    let token = &heard.expect(200)["x-forwarded-access-token"];
    token.as_str().unwrap().to_owned()
}

fn status(admin: &Admin, token: &str, path: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    send("GET", &format!("{}{path}", admin.host), &[("Authorization", &bearer)], "").status
}

#[test]
fn a_gateway_neither_widens_nor_renews_a_token() {
    let (forge, admin) = deployed(&["narrow-one", "narrow-two"]);
    let projects = "/api/2.0/postgres/projects";
    let me = "/api/2.0/preview/scim/v2/Me";

    // Issued a while ago: what is minted for it anew ends with it.
    let old = |token: &str| {
        sign_again(&forge, token, |claims| {
            claims["exp"] = (claims["exp"].as_i64().unwrap() - 600).into();
        })
    };
    let whole = old(admin.token());
    let first = forwarded(&admin, "narrow-one", &whole);
    let (whole, narrow) = (claims(&whole), claims(&first));
    let scopes: Vec<&str> = narrow["scope"].as_str().unwrap().split(' ').collect();
    assert_eq!(scopes, ["iam.access-control:read", "iam.current-user:read", "postgres"]);
    assert_eq!(narrow["exp"], whole["exp"], "it ends with the other");
    assert_eq!([status(&admin, &first, projects), status(&admin, &first, me)], [200, 200]);
    for closed in ["/api/2.0/apps", "/lakeforge/status", "/api/2.0/database/instances"] {
        assert_eq!(status(&admin, &first, closed), 403, "{closed}");
    }

    // Again, and through another app, which asks for more than the token is good for.
    let less = old(&admin.scoped("iam.current-user:read"));
    let ends = claims(&less)["exp"].clone();
    let once = forwarded(&admin, "narrow-one", &less);
    let twice = forwarded(&admin, "narrow-two", &once);
    for token in [&once, &twice] {
        assert_eq!(claims(token)["scope"], "iam.current-user:read");
        assert_eq!(claims(token)["exp"], ends);
        assert_eq!([status(&admin, token, projects), status(&admin, token, me)], [403, 200]);
    }
}
