//! Roles of a branch: what Postgres has, and what it does not know of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog::{Ids, Target, checked};
use super::identities::IdentityKind;
use super::mask::{Fields, Mask};
use super::{BranchRecord, PageRequest, Started, World};
use crate::local::fault::{Answer, Fault};
use crate::local::postgres::{CatalogChange, FoundRole, check_role_name};
use crate::secret::Secret;
use crate::wire::names::BranchName;
use crate::wire::postgres::Body;
use crate::wire::roles::{
    Attributes, AuthMethod, IdentityType, Membership, Role, RoleList, RoleSpec, RoleStatus,
};

const MOST_ROLES: usize = 500;

const ROLE_FIELDS: Fields = Fields {
    leaves: &[
        "spec.membership_roles",
        "spec.attributes.bypassrls",
        "spec.attributes.createdb",
        "spec.attributes.createrole",
    ],
    groups: &[(
        "spec.attributes",
        &["spec.attributes.bypassrls", "spec.attributes.createdb", "spec.attributes.createrole"],
    )],
    lists: &["spec.membership_roles"],
};
/// A role as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoleRecord {
    /// Id in paths.
    pub(crate) id: String,
    /// Name in Postgres.
    pub(crate) role: String,
    /// What it stands for.
    pub(crate) identity: IdentityType,
    /// How it logs in.
    pub(crate) method: AuthMethod,
    /// Whether it is a member of the platform's administrators, when last seen.
    pub(crate) administrator: bool,
    /// What it may do, when last seen.
    pub(crate) attributes: Attributes,
    /// What its password is checked with, when last seen.
    #[serde(default)]
    pub(crate) verifier: Option<Secret<String>>,
    /// When its password stops being good, when last seen.
    #[serde(default)]
    pub(crate) valid_until: Option<Timestamp>,
    /// When it was created, or first seen.
    pub(crate) create_time: Timestamp,
    /// When it last changed.
    pub(crate) update_time: Timestamp,
    /// The operation that creates it, while that runs.
    pub(crate) operation: Option<String>,
}

/// What a login is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token.
    Token,
    /// A password, and what that is checked with; nothing when none is good.
    Password(Option<Secret<String>>),
}

impl World {
    /// Notes that the service principal `role` has a login in a branch's cluster.
    pub(crate) fn add_login(&mut self, uid: &str, role: &str, now: Timestamp) {
        let Some(branch) = self.branches.get(uid) else { return };
        let identity = IdentityType::ServicePrincipal;
        let known = branch.roles.iter().position(|record| record.role == role);
        if known.is_some_and(|index| branch.roles[index].identity == identity) {
            return;
        }
        let id = branch.free_role_id(role, identity);
        self.with_branch(uid, |branch| match known {
            Some(index) => {
                branch.roles[index].identity = identity;
                branch.roles[index].method = AuthMethod::Oauth;
            }
            None => branch.roles.push(RoleRecord::new(id, role, identity, now)),
        });
    }

    /// Says whether `role` of a branch is that of a group which `member` belongs to.
    pub(crate) fn stands_for(&self, uid: &str, role: &str, member: &str) -> bool {
        let found = self.branches.get(uid).and_then(|branch| {
            branch.roles.iter().find(|record| {
                record.role == role
                    && record.identity == IdentityType::Group
                    && record.method == AuthMethod::Oauth
            })
        });
        found.is_some() && self.identity(member).is_some_and(|member| member.belongs_to(role))
    }

    /// Returns what a login as `role` is asked for, as far as the roles of the branch are known.
    ///
    /// A name that nobody has is asked for what a role of such a name would be: the question does not tell
    /// who has a role.
    pub(crate) fn challenge(&self, uid: &str, role: &str, now: Timestamp) -> Challenge {
        let roles = self.branches.get(uid).map_or(&[][..], |branch| &branch.roles);
        match roles.iter().find(|record| record.role == role) {
            Some(known) if known.takes_tokens() => Challenge::Token,
            Some(known) => {
                let good = known.valid_until.is_none_or(|until| now < until);
                Challenge::Password(known.verifier.clone().filter(|_| good))
            }
            None if self.is_identity_name(role) => Challenge::Token,
            None => Challenge::Password(None),
        }
    }

    /// Says whether `name` is that of an identity or a group here, or one that could be.
    fn is_identity_name(&self, name: &str) -> bool {
        name.contains('@')
            || is_uuid(name)
            || matches!(name, "users" | "admins")
            || self.identity(name).is_some()
    }

    /// Notes the new password of a role.
    pub(crate) fn note_password(&mut self, uid: &str, role: &str, verifier: &Secret<String>) {
        self.with_branch(uid, |branch| {
            if let Some(known) = branch.roles.iter_mut().find(|record| record.role == role) {
                known.verifier = Some(verifier.clone());
            }
        });
    }

    /// Returns how `role` logs in to a branch, as far as it is known.
    pub(crate) fn login_method(&self, uid: &str, role: &str) -> Option<AuthMethod> {
        let roles = &self.branches.get(uid)?.roles;
        roles.iter().find(|record| record.role == role).map(|record| record.method)
    }

    /// Returns a page of the roles of a branch.
    pub(crate) fn list_roles(&self, name: &BranchName, request: &PageRequest) -> Answer<RoleList> {
        let branch = self.branch(&name.project, &name.branch)?;
        let mut roles: Vec<&RoleRecord> = branch.roles.iter().collect();
        roles.sort_by(|one, other| one.id.cmp(&other.id));
        let (page, next_page_token) = request.cut(roles.into_iter(), |role| role.id.clone())?;
        let roles = page.into_iter().map(|role| branch.wire_role(role)).collect();
        Ok(RoleList { roles, next_page_token })
    }

    /// Returns a role of a branch.
    pub(crate) fn get_role(&self, name: &BranchName, id: &str) -> Answer<Role> {
        let branch = self.branch(&name.project, &name.branch)?;
        Ok(branch.wire_role(branch.role(id)?))
    }

    /// Returns the uid of a branch and the name in Postgres of one of its roles, which logs in with a password.
    pub(crate) fn password_role(&self, name: &BranchName, id: &str) -> Answer<(String, String)> {
        let branch = self.branch(&name.project, &name.branch)?;
        let role = branch.role(id)?;
        if role.method != AuthMethod::Password {
            let text = format!("role '{id}' does not log in with a password");
            return Err(Fault::bad_request(text));
        }
        Ok((branch.uid.clone(), role.role.clone()))
    }

    /// Creates a role, or gives it other memberships when it is there and `replace` is set.
    pub(crate) fn create_role(
        &mut self,
        name: &BranchName,
        id: Option<&str>,
        spec: &RoleSpec,
        replace: bool,
        now: Timestamp,
    ) -> Answer<Started> {
        let branch = self.settled(name)?;
        let id = checked(id, "role_id")?;
        let role = spec.postgres_role.clone().filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| Fault::required("role.spec.postgres_role"))?;
        check_role_name(&role)?;
        let method = method_of(spec)?;
        let administrator = spec.membership_roles.as_ref().is_some_and(|roles| !roles.is_empty());
        let mut known = branch.roles.iter();
        if let Some(known) = known.find(|known| id == Some(known.id.as_str()) || known.role == role)
        {
            if !replace {
                return Err(Fault::bad_request("role with that name already exists"));
            }
            if known.role != role || id.is_some_and(|id| id != known.id) {
                return Err(Fault::invalid("postgres_role and role_id cannot be changed"));
            }
            let (id, attributes) = (known.id.clone(), spec.attributes);
            let change =
                CatalogChange::AlterRole { role, administrator: Some(administrator), attributes };
            return Ok(self.begin_catalog(name, Target::Role(id), change, now));
        }
        if branch.roles.len() >= MOST_ROLES {
            let text = format!("the branch has {MOST_ROLES} roles, the most there may be");
            return Err(Fault::exhausted(text));
        }
        let id = match id {
            Some(id) => id.to_owned(),
            None => branch.free_role_id(&role, spec.identity_type),
        };
        let mut record = RoleRecord::new(id.clone(), &role, spec.identity_type, now);
        record.method = method;
        record.administrator = administrator;
        record.attributes = spec.attributes.unwrap_or_default();
        let change = CatalogChange::CreateRole {
            role,
            login: method != AuthMethod::NoLogin,
            administrator,
            attributes: record.attributes,
            identity: spec.identity_type,
        };
        let uid = branch.uid.clone();
        let started = self.begin_catalog(name, Target::Role(id), change, now);
        record.operation = Some(started.operation.clone());
        self.with_branch(&uid, |branch| branch.roles.push(record));
        Ok(started)
    }

    /// Changes the fields of a role that `mask` names.
    pub(crate) fn update_role(
        &mut self,
        name: &BranchName,
        id: &str,
        mask: Option<&str>,
        body: &Value,
        now: Timestamp,
    ) -> Answer<Started> {
        let known = self.settled(name)?.role(id)?;
        let mask = Mask::parse(mask, &ROLE_FIELDS, body)?;
        let spec = super::parse::<Body<RoleSpec>>(body)?.spec;
        let wanted = spec.attributes.unwrap_or_default();
        let mut attributes = known.attributes;
        for (path, field, value) in [
            ("spec.attributes.bypassrls", &mut attributes.bypassrls, wanted.bypassrls),
            ("spec.attributes.createdb", &mut attributes.createdb, wanted.createdb),
            ("spec.attributes.createrole", &mut attributes.createrole, wanted.createrole),
        ] {
            if mask.has(path) {
                *field = value;
            }
        }
        let administrator = mask
            .has("spec.membership_roles")
            .then(|| spec.membership_roles.is_some_and(|roles| !roles.is_empty()));
        let change = CatalogChange::AlterRole {
            role: known.role.clone(),
            administrator,
            attributes: (attributes != known.attributes).then_some(attributes),
        };
        Ok(self.begin_catalog(name, Target::Role(id.to_owned()), change, now))
    }

    /// Deletes a role; what it owns goes to `heir`, the name of a role or its name in Postgres.
    pub(crate) fn delete_role(
        &mut self,
        name: &BranchName,
        id: &str,
        heir: Option<&str>,
        now: Timestamp,
    ) -> Answer<Started> {
        let branch = self.settled(name)?;
        let role = branch.role(id)?.role.clone();
        let heir = match heir.filter(|heir| !heir.is_empty()) {
            Some(heir) => Some(match branch.roles.iter().find(|known| known.role == heir) {
                Some(known) => known.role.clone(),
                None => branch.role_named(heir)?.role.clone(),
            }),
            None => None,
        };
        if heir.as_ref() == Some(&role) {
            return Err(Fault::invalid("reassign_owned_to must be another role"));
        }
        let change = CatalogChange::DropRole { role, heir };
        Ok(self.begin_catalog(name, Target::Role(id.to_owned()), change, now))
    }
}

impl BranchRecord {
    pub(super) fn role(&self, id: &str) -> Answer<&RoleRecord> {
        self.roles.iter().find(|role| role.id == id).ok_or_else(|| Fault::missing("role"))
    }

    /// Returns the role with the full name `name`.
    pub(super) fn role_named(&self, name: &str) -> Answer<&RoleRecord> {
        let prefix = format!("{}/roles/", self.name());
        let id = name.strip_prefix(&prefix).ok_or_else(|| Fault::missing("role"))?;
        self.role(id)
    }

    fn free_role_id(&self, role: &str, identity: IdentityType) -> String {
        let mut ids = Ids(self.roles.iter().map(|role| role.id.clone()).collect());
        draw_id(&mut ids, role, identity)
    }

    pub(super) fn wire_role(&self, role: &RoleRecord) -> Role {
        let name = self.name();
        Role {
            name: format!("{name}/roles/{}", role.id),
            role_id: role.id.clone(),
            parent: Some(name),
            create_time: Some(role.create_time),
            update_time: Some(role.update_time),
            status: RoleStatus {
                role_id: role.id.clone(),
                postgres_role: role.role.clone(),
                identity_type: role.identity,
                auth_method: role.method,
                membership_roles: role
                    .administrator
                    .then_some(Membership::Superuser)
                    .into_iter()
                    .collect(),
                attributes: role.attributes,
            },
        }
    }
}

impl RoleRecord {
    pub(super) fn new(id: String, role: &str, identity: IdentityType, now: Timestamp) -> Self {
        let method = match identity {
            IdentityType::Plain => AuthMethod::Password,
            _ => AuthMethod::Oauth,
        };
        RoleRecord {
            id,
            role: role.to_owned(),
            identity,
            method,
            administrator: false,
            attributes: Attributes::default(),
            verifier: None,
            valid_until: None,
            create_time: now,
            update_time: now,
            operation: None,
        }
    }

    /// Creates the record of the identity that owns a new project.
    pub(super) fn owner(branch: &BranchRecord, name: &str, kind: IdentityKind) -> Self {
        let identity = match kind {
            IdentityKind::User => IdentityType::User,
            IdentityKind::ServicePrincipal => IdentityType::ServicePrincipal,
        };
        let id = branch.free_role_id(name, identity);
        let attributes = Attributes { bypassrls: true, createdb: true, createrole: true };
        let record = RoleRecord::new(id, name, identity, branch.create_time);
        RoleRecord { administrator: true, attributes, ..record }
    }

    /// Says whether it logs in with tokens, or would if it might log in.
    fn takes_tokens(&self) -> bool {
        match self.method {
            AuthMethod::NoLogin => self.identity != IdentityType::Plain,
            method => method == AuthMethod::Oauth,
        }
    }

    /// Returns the record with what was found in the cluster.
    pub(super) fn seen(&self, found: &FoundRole) -> Self {
        let mut role = self.clone();
        role.administrator = found.administrator;
        role.attributes = found.attributes;
        role.verifier.clone_from(&found.verifier);
        role.valid_until = found.valid_until;
        if role.identity == IdentityType::Plain && found.identity != IdentityType::Plain {
            role.identity = found.identity;
            role.method = AuthMethod::Oauth;
        }
        if role.identity == IdentityType::Plain && role.operation.is_none() {
            role.method = if found.login { AuthMethod::Password } else { AuthMethod::NoLogin };
        }
        role
    }
}

/// Says whether `name` is a UUID, as those of service principals are.
fn is_uuid(name: &str) -> bool {
    name.len() == 36
        && name.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Returns a free id for the role `role`.
pub(super) fn draw_id(ids: &mut Ids, role: &str, identity: IdentityType) -> String {
    match identity {
        IdentityType::ServicePrincipal => ids.draw("sp", &format!("sp-{role}")),
        IdentityType::User => ids.draw("role", role.split('@').next().unwrap_or_default()),
        IdentityType::Group | IdentityType::Plain => ids.draw("role", role),
    }
}

/// Returns how the role of `spec` logs in; refuses what does not fit together.
fn method_of(spec: &RoleSpec) -> Answer<AuthMethod> {
    match (spec.identity_type, spec.auth_method) {
        (IdentityType::Plain, AuthMethod::Oauth) => {
            Err(Fault::invalid("auth_method LAKEBASE_OAUTH_V1 needs an identity_type"))
        }
        (IdentityType::Plain, AuthMethod::Unspecified) => Ok(AuthMethod::Password),
        (_, AuthMethod::Unspecified) => Ok(AuthMethod::Oauth),
        (_, method) => Ok(method),
    }
}
