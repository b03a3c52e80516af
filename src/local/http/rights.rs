//! Who may use which route: one row each. What has no row is not served, and a token that is good for certain
//! scopes reaches the rows of those scopes alone.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::local::fault::{Answer, Fault};
use crate::local::tokens::EVERYTHING;
use crate::local::world::{Caller, World};

/// A route, and who may use it.
#[derive(Debug)]
pub(crate) struct Row {
    /// `GET`, `POST`, …
    pub(crate) method: &'static str,
    /// Its path, parameters in braces.
    pub(crate) path: &'static str,
    /// What a token must be good for.
    pub(crate) scope: Scope,
    /// What whoever sends the request must be allowed.
    pub(crate) right: Right,
}

/// What somebody must be allowed to use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Nothing: the route leads to a token.
    Open,
    /// To be somebody whom the workspace knows.
    Known,
    /// To be no app.
    Person,
    /// To manage the project `{project}`.
    ManageProject,
    /// To manage the provisioned instance `{name}`.
    ManageInstance,
    /// To manage the app `{name}`.
    ManageApp,
    /// To enter the app `{name}`.
    UseApp,
    /// To use the project or instances that the body names; the handler asks.
    UseNamed,
    /// To read or change the file or folder that the request names; the handler asks.
    Files,
    /// To see or manage the object `{kind}/{id}`; the handler asks.
    Object,
    /// To be an administrator of the workspace.
    Admin,
}

/// What a token must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Anything: what comes of it is good for no more than the token.
    Any,
    /// This one.
    One(&'static str),
    /// Everything: no token that is good for certain scopes will do.
    All,
}

use Scope::{All, Any};

/// Scope of the Postgres API.
const POSTGRES: Scope = Scope::One("postgres");

const fn row(method: &'static str, path: &'static str, scope: Scope, right: Right) -> Row {
    Row { method, path, scope, right }
}

/// The routes of the REST API.
///
/// Sources of the scopes: product documentation, "Configure authorization in a Databricks app", and
/// answers of the live service reported by its users, read 2026-08.
#[rustfmt::skip]
pub(crate) const ROUTES: &[Row] = &{
    use Right::{
        Admin, Files, Known, ManageApp, ManageInstance, ManageProject, Object, Open, Person, UseNamed,
    };
    [
        row("GET", "/.well-known/databricks-config", Any, Open),
        row("GET", "/oidc/.well-known/oauth-authorization-server", Any, Open),
        row("GET", "/oidc/.well-known/openid-configuration", Any, Open),
        row("GET", "/oidc/jwks.json", Any, Open),
        row("POST", "/oidc/v1/token", Any, Open),

        row("GET", "/api/2.0/preview/scim/v2/Me", Scope::One("iam.current-user:read"), Known),
        row("POST", "/telemetry-ext", All, Known),

        row("GET", "/api/2.0/postgres/projects", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/projects", POSTGRES, Person),
        row("GET", "/api/2.0/postgres/projects/{project}", POSTGRES, Known),
        row("PATCH", "/api/2.0/postgres/projects/{project}", POSTGRES, ManageProject),
        row("DELETE", "/api/2.0/postgres/projects/{project}", POSTGRES, ManageProject),
        row("POST", "/api/2.0/postgres/projects/{project}/undelete", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/operations/{id}", POSTGRES, Known),
        row("GET", "/api/2.0/postgres/projects/{project}/branches", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/projects/{project}/branches", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}", POSTGRES, Known),
        row("PATCH", "/api/2.0/postgres/projects/{project}/branches/{branch}", POSTGRES, ManageProject),
        row("DELETE", "/api/2.0/postgres/projects/{project}/branches/{branch}", POSTGRES, ManageProject),
        row("POST", "/api/2.0/postgres/projects/{project}/branches/{branch}/undelete", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/operations/{id}", POSTGRES, Known),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints/{endpoint}", POSTGRES, Known),
        row("PATCH", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints/{endpoint}", POSTGRES, ManageProject),
        row("DELETE", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints/{endpoint}", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/endpoints/{endpoint}/operations/{id}", POSTGRES, Known),
        row("GET", "/api/2.0/postgres/operations/{id}", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/credentials", POSTGRES, UseNamed),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles/{role}", POSTGRES, Known),
        row("PATCH", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles/{role}", POSTGRES, ManageProject),
        row("DELETE", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles/{role}", POSTGRES, ManageProject),
        row("POST", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles/{role}/password", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/roles/{role}/operations/{id}", POSTGRES, Known),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases", POSTGRES, Known),
        row("POST", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases/{database}", POSTGRES, Known),
        row("PATCH", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases/{database}", POSTGRES, ManageProject),
        row("DELETE", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases/{database}", POSTGRES, ManageProject),
        row("GET", "/api/2.0/postgres/projects/{project}/branches/{branch}/databases/{database}/operations/{id}", POSTGRES, Known),

        row("GET", "/api/2.0/database/instances", All, Known),
        row("POST", "/api/2.0/database/instances", All, Admin),
        row("GET", "/api/2.0/database/instances:findByUid", All, Known),
        row("GET", "/api/2.0/database/instances/{name}", All, Known),
        row("PATCH", "/api/2.0/database/instances/{name}", All, ManageInstance),
        row("DELETE", "/api/2.0/database/instances/{name}", All, ManageInstance),
        row("POST", "/api/2.0/database/credentials", All, UseNamed),

        row("GET", "/api/2.0/apps", All, Known),
        row("POST", "/api/2.0/apps", All, Admin),
        row("GET", "/api/2.0/apps/{name}", All, Known),
        row("PATCH", "/api/2.0/apps/{name}", All, ManageApp),
        row("DELETE", "/api/2.0/apps/{name}", All, ManageApp),
        row("GET", "/api/2.0/apps/{name}/update", All, Known),
        row("POST", "/api/2.0/apps/{name}/update", All, ManageApp),
        row("POST", "/api/2.0/apps/{name}/start", All, ManageApp),
        row("POST", "/api/2.0/apps/{name}/stop", All, ManageApp),
        row("GET", "/api/2.0/apps/{name}/deployments", All, Known),
        row("POST", "/api/2.0/apps/{name}/deployments", All, ManageApp),
        row("GET", "/api/2.0/apps/{name}/deployments/{id}", All, Known),

        row("GET", "/api/2.0/workspace/get-status", All, Files),
        row("GET", "/api/2.0/workspace/list", All, Files),
        row("GET", "/api/2.0/workspace/export", All, Files),
        row("POST", "/api/2.0/workspace/mkdirs", All, Files),
        row("POST", "/api/2.0/workspace/delete", All, Files),
        row("POST", "/api/2.0/workspace-files/import-file/{*path}", All, Files),

        row("GET", "/api/2.0/permissions/{kind}/{id}", All, Object),
        row("PUT", "/api/2.0/permissions/{kind}/{id}", All, Object),
        row("PATCH", "/api/2.0/permissions/{kind}/{id}", All, Object),
        row("GET", "/api/2.0/permissions/{kind}/{id}/permissionLevels", All, Known),

        row("GET", "/lakeforge/status", All, Admin),
        row("POST", "/lakeforge/stop", All, Admin),
        row("GET", "/lakeforge/apps/{name}/log", All, ManageApp),
        row("GET", "/lakeforge/faults", All, Admin),
        row("POST", "/lakeforge/faults", All, Admin),
        row("DELETE", "/lakeforge/faults", All, Admin),
    ]
};

/// The log of an app, at its gateway.
pub(crate) const APP_LOG: Row = row("GET", "/logz/stream", All, Right::ManageApp);
/// Everything else at the gateway of an app.
pub(crate) const APP: Row = row("*", "/{*path}", Any, Right::UseApp);

/// Returns the row of a request; nothing for what is not served.
pub(super) fn of(request: &Request) -> Option<&'static Row> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    // A route that can be read answers HEAD as well.
    let method = match request.method() {
        &Method::HEAD => "GET",
        method => method.as_str(),
    };
    ROUTES.iter().find(|row| row.method == method && row.path == path)
}

impl Scope {
    /// Refuses a token that is good for other things only.
    pub(crate) fn check(self, caller: &Caller) -> Answer<()> {
        let needed = match self {
            Scope::Any => return Ok(()),
            Scope::One(scope) => scope,
            Scope::All => EVERYTHING,
        };
        if caller.may_use(needed) {
            return Ok(());
        }
        let text = format!("Provided OAuth token does not have required scopes: {needed}");
        Err(Fault::denied(text))
    }
}

impl Row {
    /// Refuses who may not use this route, or not with this token; `parameter` returns a parameter of its path.
    pub(crate) fn check<'a>(
        &self,
        world: &World,
        caller: &Caller,
        parameter: impl Fn(&str) -> Option<&'a str>,
    ) -> Answer<()> {
        self.scope.check(caller)?;
        let parameter = |name: &str| {
            let text = format!("the path has no {name}");
            parameter(name).ok_or_else(|| Fault::new(400, "MALFORMED_REQUEST", text))
        };
        match self.right {
            Right::Open | Right::Known | Right::UseNamed | Right::Files | Right::Object => Ok(()),
            Right::Person => world.require_person(caller),
            Right::Admin => world.require_admin(caller),
            Right::ManageProject => world.require_manage(caller, parameter("project")?),
            Right::ManageInstance => {
                let name = parameter("name")?;
                world.get_instance(name)?;
                world.require_manage(caller, name)
            }
            Right::ManageApp => {
                let name = parameter("name")?;
                world.app(name)?;
                world.require_manage_app(caller, name)
            }
            Right::UseApp => world.require_use_app(caller, parameter("name")?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::{self, Next};
    use axum::routing::get;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[test]
    fn a_route_has_one_row() {
        let routes: HashSet<_> = ROUTES.iter().map(|row| (row.method, row.path)).collect();
        assert_eq!(routes.len(), ROUTES.len());
    }

    #[tokio::test]
    async fn only_what_a_row_names_has_a_row() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = {
            let seen = Arc::clone(&seen);
            move |request: Request, next: Next| {
                seen.lock().unwrap().push(of(&request).map(|row| row.right));
                next.run(request)
            }
        };
        let router = Router::new()
            .route("/api/2.0/apps/{name}", get(async || "here"))
            .route("/api/2.0/secrets", get(async || "here"))
            .layer(middleware::from_fn(note));
        for (method, path) in [
            ("GET", "/api/2.0/apps/x"),
            ("HEAD", "/api/2.0/apps/x"),
            ("PUT", "/api/2.0/apps/x"),
            ("GET", "/api/2.0/secrets"),
            ("GET", "/nowhere"),
        ] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            TowerToHyperService::new(router.clone()).call(request).await.unwrap();
        }
        let known = Some(Right::Known);
        assert_eq!(*seen.lock().unwrap(), [known, known, None, None, None]);
    }
}
