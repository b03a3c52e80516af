//! Who may do what with workspace files: homes, the shared folder, and what was granted on a folder holds for all
//! that is in it.
//!
//! Source: product documentation, "Access control lists" (folders, files) and "Share workspace objects using
//! folders" (special folders), read 2026-11.

use serde_json::{Value, json};

use super::permissions::MANAGE;
use super::{Caller, World};
use crate::local::fault::{Answer, Fault};
use crate::local::paths::{TreePath, no_such_path};

/// What can be granted on a folder or file; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileLevel {
    /// To see it.
    Read,
    /// To run it.
    Run,
    /// To change the content of what is there.
    Edit,
    /// To create, delete and grant.
    Manage,
}

/// Kinds of the objects that lie in folders, as the route of permissions calls them.
pub(crate) const FILE_KINDS: [&str; 3] = ["directories", "files", "notebooks"];
/// The names of the levels, the least first.
pub(super) const FILE_LEVELS: [&str; 4] = ["CAN_READ", "CAN_RUN", "CAN_EDIT", MANAGE];

impl FileLevel {
    fn of(name: &str) -> Option<Self> {
        let all = [FileLevel::Read, FileLevel::Run, FileLevel::Edit, FileLevel::Manage];
        FILE_LEVELS.iter().zip(all).find(|(known, _)| **known == name).map(|(_, level)| level)
    }
}

/// What a folder is by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// The root, or the folder of homes: everybody sees that it is there.
    Top,
    /// The home of somebody, or within it.
    Home(&'a str),
    /// The shared folder, or within it.
    Shared,
    Elsewhere,
}

impl<'a> Place<'a> {
    fn of(path: &'a TreePath) -> Self {
        match path.parts() {
            [] => Place::Top,
            [only] if only == "Users" => Place::Top,
            [first, owner, ..] if first == "Users" => Place::Home(owner),
            [first, ..] if first == "Shared" => Place::Shared,
            _ => Place::Elsewhere,
        }
    }
}

impl World {
    /// Returns the most that `caller` may do with what is at `path`, or would be there.
    pub(crate) fn file_level(&self, caller: &Caller, path: &TreePath) -> Option<FileLevel> {
        if caller.admin {
            return Some(FileLevel::Manage);
        }
        let by_place = match Place::of(path) {
            Place::Shared => Some(FileLevel::Manage),
            Place::Home(owner) if owner == caller.user_name => Some(FileLevel::Manage),
            Place::Top => Some(FileLevel::Read),
            Place::Home(_) | Place::Elsewhere => None,
        };
        let granted = path.upwards().filter_map(|folder| self.granted_level(caller, &folder)).max();
        granted.max(by_place)
    }

    fn granted_level(&self, caller: &Caller, path: &TreePath) -> Option<FileLevel> {
        let id = path.object_id();
        let objects = FILE_KINDS.map(|kind| format!("{kind}/{id}"));
        let held = objects.iter().flat_map(|object| self.levels_held(caller, object));
        held.filter_map(FileLevel::of).max()
    }

    /// Refuses to show what is at `path`, in the words for what is not there.
    pub(crate) fn require_read_file(&self, caller: &Caller, path: &TreePath) -> Answer<()> {
        match self.file_level(caller, path) {
            Some(_) => Ok(()),
            None => Err(no_such_path(&path.to_string())),
        }
    }

    /// Refuses callers who may not change the content of what is at `path`, for [`FileLevel::Edit`], or create and
    /// delete there.
    pub(crate) fn require_file(
        &self,
        caller: &Caller,
        path: &TreePath,
        level: FileLevel,
    ) -> Answer<()> {
        if self.file_level(caller, path) >= Some(level) {
            return Ok(());
        }
        let what = if level == FileLevel::Manage { "Manage" } else { "Edit" };
        Err(Fault::denied(format!(
            "{} does not have {what} permissions on {path}. Please contact the owner or an administrator for access.",
            caller.user_name
        )))
    }

    /// Refuses callers who may not delete what is at `path`: homes and the shared folder stay.
    pub(crate) fn require_delete_file(&self, caller: &Caller, path: &TreePath) -> Answer<()> {
        self.require_file(caller, path, FileLevel::Manage)?;
        let kept = match Place::of(path) {
            Place::Home(_) => path.parts().len() == 2,
            Place::Shared => path.parts().len() == 1,
            Place::Top => true,
            Place::Elsewhere => false,
        };
        if kept && !caller.admin {
            return Err(Fault::denied(format!("{path} can be deleted by an administrator alone.")));
        }
        Ok(())
    }

    /// Takes back what was granted on what is at `path` and below it: other things may come to be there.
    pub(crate) fn revoke_below(&mut self, path: &TreePath) {
        let within = |kept: &str| TreePath::parse(kept).is_ok_and(|kept| kept.is_within(path));
        let gone: Vec<String> = self
            .permissions
            .values()
            .filter(|list| list.path.as_deref().is_some_and(within))
            .map(|list| list.object.clone())
            .collect();
        for object in gone {
            self.revoke(&object);
        }
    }

    /// Returns the access control list of what is at `path`, with what it has from the folders around it.
    pub(crate) fn file_access(&self, object: &str, path: &TreePath) -> Value {
        let mut access = self.access(object);
        let own = access["access_control_list"].as_array_mut().map(std::mem::take);
        let mut entries = own.unwrap_or_default();
        for (depth, folder) in path.upwards().enumerate() {
            let from = format!("directories/{}", folder.object_id());
            let mut more = given_by_place(&folder);
            if depth > 0 {
                let granted = self.access(&from);
                more.extend(
                    granted["access_control_list"].as_array().into_iter().flatten().cloned(),
                );
                for entry in &mut more {
                    for permission in entry["all_permissions"].as_array_mut().into_iter().flatten()
                    {
                        permission["inherited"] = json!(true);
                        permission["inherited_from_object"] = json!([format!("/{from}")]);
                    }
                }
            }
            entries.extend(more);
        }
        access["access_control_list"] = json!(entries);
        access
    }
}

/// Returns what holds for a folder, and all that is in it, by its place alone.
fn given_by_place(folder: &TreePath) -> Vec<Value> {
    let holder = match (Place::of(folder), folder.parts().len()) {
        (Place::Top, 0) => json!({ "group_name": "admins", "display_name": "admins" }),
        (Place::Shared, 1) => json!({ "group_name": "users", "display_name": "users" }),
        (Place::Home(owner), 2) => json!({ "user_name": owner, "display_name": owner }),
        _ => return Vec::new(),
    };
    let mut entry = holder;
    entry["all_permissions"] = json!([{ "permission_level": MANAGE, "inherited": false }]);
    vec![entry]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::local::world::{AccessControl, Settings, parse};

    const ADA: &str = "ada@example.test";

    fn world() -> World {
        World::new(Settings { workspace_id: 1, network: 1, port: 1 }, 15)
    }

    fn caller(name: &str) -> Caller {
        let mut world = world();
        world.ensure_identities();
        let member = world.member().unwrap().caller();
        Caller { user_name: name.to_owned(), ..member }
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn grant(world: &mut World, folder: &TreePath, user: &str, level: &str) {
        let entry = json!({ "user_name": user, "permission_level": level });
        let grants: Vec<AccessControl> = vec![parse(&entry).unwrap()];
        let object = format!("directories/{}", folder.object_id());
        world.grant_file(&object, folder, grants, false).unwrap();
    }

    #[test]
    fn a_home_is_its_owners_and_the_shared_folder_everybodys() {
        let world = world();
        let ada = caller(ADA);
        for (at, level) in [
            ("/", Some(FileLevel::Read)),
            ("/Users", Some(FileLevel::Read)),
            ("/Users/ada@example.test", Some(FileLevel::Manage)),
            ("/Workspace/Users/ada@example.test/.bundle/x", Some(FileLevel::Manage)),
            ("/Users/eve@example.test", None),
            ("/Users/ada@example.tes", None),
            ("/users/ada@example.test", None),
            ("/Users/ADA@example.test", None),
            ("/Shared/x", Some(FileLevel::Manage)),
            ("/Team", None),
            ("/Workspace/Workspace/Users/ada@example.test", None),
        ] {
            assert_eq!(world.file_level(&ada, &path(at)), level, "{at}");
        }
        for kept in ["/", "/Users", "/Users/ada@example.test", "/Shared", "/Team"] {
            let refused = world.require_delete_file(&ada, &path(kept)).unwrap_err();
            assert_eq!(refused.failure.error_code, "PERMISSION_DENIED", "{kept}");
        }
        world.require_delete_file(&ada, &path("/Users/ada@example.test/x")).unwrap();
    }

    #[test]
    fn a_grant_goes_with_the_folder_it_was_given_on() {
        let mut world = world();
        let (eve, home) = (caller("eve@example.test"), path("/Users/ada@example.test"));
        grant(&mut world, &home.child("x"), &eve.user_name, "CAN_MANAGE");
        let inside = home.child("x").child("y");
        assert_eq!(world.file_level(&eve, &inside), Some(FileLevel::Manage));
        assert_eq!(world.file_level(&eve, &home), None);
        assert_eq!(world.file_level(&eve, &home.child("xy")), None);
        let shown = world.file_access("directories/1", &inside);
        let listed = shown["access_control_list"].as_array().unwrap();
        let inherited = |entry: &&Value| entry["all_permissions"][0]["inherited"] == true;
        let mut holders: Vec<&str> = listed
            .iter()
            .filter(inherited)
            .map(|entry| entry["display_name"].as_str().unwrap())
            .collect();
        holders.sort_unstable();
        assert_eq!(holders, ["ada@example.test", "admins", "eve@example.test"]);

        world.revoke_below(&home.child("xy"));
        assert_eq!(world.file_level(&eve, &inside), Some(FileLevel::Manage));
        world.revoke_below(&home);
        assert_eq!(world.file_level(&eve, &inside), None);
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["Users", "Shared", ADA, "eve@example.test", "x"])
            .prop_map(str::to_owned)
    }

    fn place() -> impl Strategy<Value = TreePath> {
        prop::collection::vec(name(), 0..5).prop_map(|parts| path(&format!("/{}", parts.join("/"))))
    }

    proptest! {
        #[test]
        fn a_level_is_the_most_that_its_place_and_the_folders_around_it_give(
            grants in prop::collection::vec((place(), prop::sample::select(FILE_LEVELS.to_vec())), 0..6),
            asked in place(),
        ) {
            let (mut world, ada) = (world(), caller(ADA));
            let mut most: HashMap<String, usize> = HashMap::new();
            for (folder, level) in &grants {
                grant(&mut world, folder, ADA, level);
                let rank = FILE_LEVELS.iter().position(|known| known == level).unwrap();
                // A grant that is added takes the place of the last one, unless that was the highest.
                let held = most.entry(folder.to_string()).or_insert(rank);
                *held = if *held == 3 { 3 } else { rank };
            }
            let text = asked.to_string();
            let above = |folder: &str| {
                folder == "/" || text == folder || text.starts_with(&format!("{folder}/"))
            };
            let given = most.iter().filter(|(folder, _)| above(folder)).map(|(_, rank)| *rank).max();
            let by_place = if above("/Shared") || above(&format!("/Users/{ADA}")) {
                Some(3)
            } else if text == "/" || text == "/Users" {
                Some(0)
            } else {
                None
            };
            let expected = given.max(by_place);
            let found = world.file_level(&ada, &asked).map(|level| level as usize);
            prop_assert_eq!(found, expected, "{} with {:?}", text, grants);
        }
    }
}
