//! Users and service principals, and what they may do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{AppRecord, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::store::Shelf;
use crate::local::tokens::EVERYTHING;
use crate::secret::Secret;

/// Login name of the service principal that the profile `local` is.
const ADMIN: &str = "lakeforge-admin";
/// Login name of the user that the profile `local-user` is.
const USER: &str = "developer@lakeforge.test";
/// Login name of the user that the profile `local-member` is.
const MEMBER: &str = "member@lakeforge.test";

/// What an identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum IdentityKind {
    /// A person.
    User,
    /// A program.
    ServicePrincipal,
}

/// An identity as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    /// Numeric id.
    pub(crate) id: u64,
    /// E-mail address, or application id (UUID).
    pub(crate) user_name: String,
    /// Name for people.
    pub(crate) display_name: String,
    /// What it is.
    pub(crate) kind: IdentityKind,
    /// Whether it may do everything.
    pub(crate) admin: bool,
    /// Client secret of a service principal, personal access token of a user.
    pub(crate) secret: Secret<String>,
    /// The app it belongs to.
    pub(crate) app: Option<String>,
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Login name: e-mail address or application id.
    pub(crate) user_name: String,
    /// What it is.
    pub(crate) kind: IdentityKind,
    /// Whether it may do everything.
    pub(crate) admin: bool,
    /// The app it belongs to.
    pub(crate) app: Option<String>,
    /// What its token is good for: words with blanks between them.
    pub(crate) scope: String,
    /// When its token ends; nothing for a personal access token.
    pub(crate) expires: Option<Timestamp>,
}

impl Caller {
    /// Returns whether its token is good for everything that it may do itself.
    pub(crate) fn is_unscoped(&self) -> bool {
        self.has_scope(EVERYTHING)
    }

    /// Returns whether its token is good for `scope`.
    pub(crate) fn may_use(&self, scope: &str) -> bool {
        self.is_unscoped() || self.has_scope(scope)
    }

    fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|held| held == scope)
    }
}

impl World {
    /// Makes the identities every workspace starts with, unless they are there.
    pub(crate) fn ensure_identities(&mut self) {
        if self.admin().is_none() {
            self.add_service_principal(ADMIN, None, true);
        }
        for (name, display_name, admin) in [(USER, "Developer", true), (MEMBER, "Member", false)] {
            if self.identity(name).is_none() {
                self.add_identity(IdentityRecord {
                    id: ids::number(),
                    user_name: name.to_owned(),
                    display_name: display_name.to_owned(),
                    kind: IdentityKind::User,
                    admin,
                    secret: Secret::new(format!("dapi{}", ids::hex(16))),
                    app: None,
                });
            }
        }
    }

    /// Adds a service principal with a fresh client id and secret; returns the client id.
    pub(super) fn add_service_principal(
        &mut self,
        display_name: &str,
        app: Option<&str>,
        admin: bool,
    ) -> IdentityRecord {
        let identity = IdentityRecord {
            id: ids::number(),
            user_name: ids::uuid(),
            display_name: display_name.to_owned(),
            kind: IdentityKind::ServicePrincipal,
            admin,
            secret: Secret::new(format!("dose{}", ids::hex(16))),
            app: app.map(str::to_owned),
        };
        self.add_identity(identity.clone());
        identity
    }

    fn add_identity(&mut self, identity: IdentityRecord) {
        let uid = identity.id.to_string();
        self.identities.insert(uid.clone(), identity);
        self.touch(Shelf::Identities, uid);
    }

    /// Removes the identity of an app.
    pub(super) fn remove_identity(&mut self, user_name: &str) {
        let found = self.identities.values().find(|identity| identity.user_name == user_name);
        if let Some(uid) = found.map(|identity| identity.id.to_string()) {
            self.identities.remove(&uid);
            self.touch(Shelf::Identities, uid);
        }
    }

    /// Returns the service principal that the profile `local` is.
    pub(crate) fn admin(&self) -> Option<&IdentityRecord> {
        self.identities
            .values()
            .find(|identity| identity.admin && identity.kind == IdentityKind::ServicePrincipal)
    }

    /// Returns the user that the profile `local-user` is.
    pub(crate) fn user(&self) -> Option<&IdentityRecord> {
        self.identity(USER)
    }

    /// Returns the user that the profile `local-member` is, who has no rights but those granted by name.
    pub(crate) fn member(&self) -> Option<&IdentityRecord> {
        self.identity(MEMBER)
    }

    /// Returns an identity by login name.
    pub(crate) fn identity(&self, user_name: &str) -> Option<&IdentityRecord> {
        self.identities.values().find(|identity| identity.user_name == user_name)
    }

    /// Returns the service principal `client_id` when `secret` is its secret.
    pub(crate) fn service_principal(
        &self,
        client_id: &str,
        secret: &Secret<String>,
    ) -> Option<&IdentityRecord> {
        self.identity(client_id)
            .filter(|identity| identity.kind == IdentityKind::ServicePrincipal)
            .filter(|identity| same(&identity.secret, secret))
    }

    /// Returns the user whose personal access token `token` is.
    pub(crate) fn token_holder(&self, token: &Secret<String>) -> Option<&IdentityRecord> {
        self.identities
            .values()
            .filter(|identity| identity.kind == IdentityKind::User)
            .find(|identity| same(&identity.secret, token))
    }

    /// Refuses callers who may not mint credentials for the project or read through it.
    pub(crate) fn require_use(&self, caller: &Caller, project: &str) -> Answer<()> {
        let object = format!("database-projects/{project}");
        let attached = || {
            let uid = self.project(project).map(|project| &project.uid);
            self.app_of(caller).zip(uid.ok()).is_some_and(|(app, uid)| app.is_attached_to(uid))
        };
        if self.may_manage(caller, project)
            || self.permitted(caller, &object, &["CAN_USE"])
            || attached()
        {
            return Ok(());
        }
        Err(Fault::denied(format!(
            "User does not have 'Can Use' permission on database project {project}."
        )))
    }

    /// Refuses callers who may not change the project.
    pub(crate) fn require_manage(&self, caller: &Caller, project: &str) -> Answer<()> {
        if self.may_manage(caller, project) {
            return Ok(());
        }
        Err(Fault::denied(format!(
            "User does not have 'Can Manage' permission on database project {project}."
        )))
    }

    fn may_manage(&self, caller: &Caller, project: &str) -> bool {
        let object = format!("database-projects/{project}");
        caller.admin
            // One that is deleted too: its owner may bring it back.
            || self.projects.get(project).is_some_and(|one| one.owner == caller.user_name)
            || self.permitted(caller, &object, &["CAN_MANAGE"])
    }

    /// Refuses callers who may not create projects: the identities of apps.
    pub(crate) fn require_person(&self, caller: &Caller) -> Answer<()> {
        match &caller.app {
            None => Ok(()),
            Some(app) => Err(Fault::denied(format!("App {app} may not create projects."))),
        }
    }

    /// Refuses callers who may not create apps or manage the workspace.
    pub(crate) fn require_admin(&self, caller: &Caller) -> Answer<()> {
        if caller.admin {
            return Ok(());
        }
        Err(Fault::denied("Only workspace admins may do this."))
    }

    /// Refuses callers who may not change the app or read its log.
    pub(crate) fn require_manage_app(&self, caller: &Caller, app: &str) -> Answer<()> {
        if caller.admin || self.permitted(caller, &format!("apps/{app}"), &["CAN_MANAGE"]) {
            return Ok(());
        }
        Err(Fault::denied(format!("User does not have 'Can Manage' permission on app {app}.")))
    }

    /// Refuses callers who may not enter the app. An app may enter those among its resources, and itself only
    /// where that was granted.
    pub(crate) fn require_use_app(&self, caller: &Caller, app: &str) -> Answer<()> {
        let granted = self.permitted(caller, &format!("apps/{app}"), &["CAN_USE"]);
        let attached = || {
            let sibling = self.apps.get(app);
            let attached = self.app_of(caller).zip(sibling);
            attached.is_some_and(|(own, sibling)| own.is_attached_to(&sibling.id))
        };
        if granted || attached() || self.require_manage_app(caller, app).is_ok() {
            return Ok(());
        }
        Err(Fault::denied(format!("User does not have 'Can Use' permission on app {app}.")))
    }

    fn app_of(&self, caller: &Caller) -> Option<&AppRecord> {
        self.apps.get(caller.app.as_ref()?)
    }
}

/// Compares two secrets without telling by its time how far they agree.
fn same(one: &Secret<String>, other: &Secret<String>) -> bool {
    Sha256::digest(one.expose()) == Sha256::digest(other.expose())
}

impl IdentityRecord {
    /// Says whether it is a member of `group`: everybody is one of `users`, and those who may do everything
    /// are `admins`.
    pub(super) fn belongs_to(&self, group: &str) -> bool {
        match group {
            "users" => true,
            "admins" => self.admin,
            _ => false,
        }
    }

    /// Returns who makes a request with this identity.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            user_name: self.user_name.clone(),
            kind: self.kind,
            admin: self.admin,
            app: self.app.clone(),
            scope: EVERYTHING.to_owned(),
            expires: None,
        }
    }

    /// Returns the SCIM form: what `GET /api/2.0/preview/scim/v2/Me` answers.
    pub(crate) fn scim(&self) -> Value {
        let emails = match self.kind {
            IdentityKind::User => {
                json!([{ "type": "work", "value": self.user_name, "primary": true }])
            }
            IdentityKind::ServicePrincipal => json!([]),
        };
        let groups = match self.admin {
            true => json!([{ "display": "admins", "type": "direct", "value": "1" }]),
            false => json!([]),
        };
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": self.id.to_string(),
            "userName": self.user_name,
            "displayName": self.display_name,
            "active": true,
            "emails": emails,
            "groups": groups,
        })
    }
}
