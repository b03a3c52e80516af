//! Access control lists, kept for any object.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::folders::{FILE_KINDS, FILE_LEVELS};
use super::{Caller, World};
use crate::local::fault::{Answer, Fault};
use crate::local::ids;
use crate::local::paths::TreePath;
use crate::local::store::Shelf;

/// The level that includes every other one.
pub(super) const MANAGE: &str = "CAN_MANAGE";
/// The levels of projects, instances and apps.
const LEVELS: [&str; 2] = ["CAN_USE", MANAGE];

/// Who may do what with one object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AccessList {
    /// Name of its file.
    pub(crate) uid: String,
    /// Kind and id of the object, such as `apps/portal`.
    pub(crate) object: String,
    /// Where it is, when it is a workspace file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What was granted.
    pub(crate) grants: Vec<AccessControl>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessControl {
    /// A user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<String>,
    /// A group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group_name: Option<String>,
    /// A service principal, by application id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_principal_name: Option<String>,
    /// `CAN_USE`, `CAN_MANAGE`, …
    pub(crate) permission_level: String,
}

impl World {
    /// Returns the access control list of `object` as it goes over the wire.
    pub(crate) fn access(&self, object: &str) -> Value {
        let grants = self.permissions.get(&uid_of(object)).map_or(&[][..], |list| &list.grants);
        let entries: Vec<Value> = grants.iter().map(|grant| self.wire_grant(grant)).collect();
        let kind = object.split('/').next().unwrap_or_default();
        json!({
            "object_id": format!("/{object}"),
            "object_type": match kind {
                "directories" => "directory",
                _ => kind.strip_suffix('s').unwrap_or(kind),
            },
            "access_control_list": entries,
        })
    }

    /// Replaces the access control list of `object`, or adds to it: that never takes anything away.
    ///
    /// Fails for levels that `object` does not know.
    ///
    /// Source: Lakebase documentation, "Grant permissions programmatically", read 2026-11.
    pub(crate) fn grant(
        &mut self,
        object: &str,
        grants: Vec<AccessControl>,
        replace: bool,
    ) -> Answer<()> {
        let known = levels_of(object.split('/').next().unwrap_or_default());
        for AccessControl { permission_level: level, .. } in &grants {
            if known.is_some_and(|known| !known.contains(&level.as_str())) {
                let text = format!("Permission level {level} cannot be granted on /{object}");
                return Err(Fault::invalid(text));
            }
        }
        let uid = uid_of(object);
        let kept = match self.permissions.remove(&uid) {
            Some(list) if !replace => list.grants,
            _ => Vec::new(),
        };
        let mut list =
            AccessList { uid: uid.clone(), object: object.to_owned(), path: None, grants: kept };
        for grant in grants {
            let held = list.grants.iter().position(|old| old.same_holder(&grant));
            match held.map(|index| &mut list.grants[index]) {
                Some(old) if old.permission_level == MANAGE => {}
                Some(old) => *old = grant,
                None => list.grants.push(grant),
            }
        }
        self.permissions.insert(uid.clone(), list);
        self.touch(Shelf::Permissions, uid);
        Ok(())
    }

    /// Replaces the access control list of the file or folder at `path`, or adds to it.
    pub(crate) fn grant_file(
        &mut self,
        object: &str,
        path: &TreePath,
        grants: Vec<AccessControl>,
        replace: bool,
    ) -> Answer<()> {
        self.grant(object, grants, replace)?;
        if let Some(list) = self.permissions.get_mut(&uid_of(object)) {
            list.path = Some(path.to_string());
        }
        Ok(())
    }

    /// Removes the access control list of an object that is gone: its name may come to mean another one.
    pub(super) fn revoke(&mut self, object: &str) {
        let uid = uid_of(object);
        if self.permissions.remove(&uid).is_some() {
            self.touch(Shelf::Permissions, uid);
        }
    }

    /// Returns whether `caller` was granted one of `levels` on `object`, by name or as a member of a group.
    pub(super) fn permitted(&self, caller: &Caller, object: &str, levels: &[&str]) -> bool {
        self.levels_held(caller, object).any(|level| levels.contains(&level))
    }

    /// Returns the levels that `caller` was granted on `object`, by name or as a member of a group.
    pub(super) fn levels_held<'a>(
        &'a self,
        caller: &'a Caller,
        object: &str,
    ) -> impl Iterator<Item = &'a str> {
        let list = self.permissions.get(&uid_of(object));
        let identity = self.identity(&caller.user_name);
        let named = |name: &Option<String>| name.as_ref() == Some(&caller.user_name);
        let member = move |group: &Option<String>| {
            let group = group.as_deref();
            group.zip(identity).is_some_and(|(group, identity)| identity.belongs_to(group))
        };
        list.into_iter().flat_map(|list| &list.grants).filter_map(move |grant| {
            let held = named(&grant.user_name)
                || named(&grant.service_principal_name)
                || member(&grant.group_name);
            held.then_some(grant.permission_level.as_str())
        })
    }

    fn wire_grant(&self, grant: &AccessControl) -> Value {
        let AccessControl { user_name, group_name, service_principal_name, .. } = grant;
        let name = user_name.as_ref().or(service_principal_name.as_ref());
        let display = name
            .and_then(|name| self.identity(name))
            .map(|identity| identity.display_name.clone())
            .or_else(|| name.or(group_name.as_ref()).cloned());
        let mut entry = json!({
            "display_name": display,
            "all_permissions": [{ "permission_level": grant.permission_level, "inherited": false }],
        });
        let holders = [
            ("user_name", user_name),
            ("group_name", group_name),
            ("service_principal_name", service_principal_name),
        ];
        for (key, holder) in holders {
            if let Some(holder) = holder {
                entry[key] = json!(holder);
            }
        }
        entry
    }
}

impl AccessControl {
    fn same_holder(&self, other: &AccessControl) -> bool {
        self.user_name == other.user_name
            && self.group_name == other.group_name
            && self.service_principal_name == other.service_principal_name
    }
}

/// Returns the levels that can be granted on objects of `kind`; nothing where any is kept as it is given.
pub(crate) fn levels_of(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "apps" | "database-projects" | "database-instances" => Some(&LEVELS),
        kind if FILE_KINDS.contains(&kind) => Some(&FILE_LEVELS),
        _ => None,
    }
}

/// Returns the name of the file for `object`, whose id may hold anything.
fn uid_of(object: &str) -> String {
    ids::to_hex(&Sha256::digest(object)[..16])
}
