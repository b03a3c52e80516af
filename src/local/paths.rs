//! Paths of workspace files.

use std::fmt;

use sha2::{Digest, Sha256};

use super::fault::{Answer, Fault};

/// A path of the workspace's tree: `/Workspace/Users/x` and `/Users/x` are the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TreePath(Vec<String>);

impl TreePath {
    /// Reads a path; one that could lead out of the tree is refused.
    pub(crate) fn parse(path: &str) -> Answer<Self> {
        let refuse = || Fault::invalid(format!("Path ({path}) is not a valid workspace path."));
        let inside = path.strip_prefix('/').ok_or_else(refuse)?;
        let inside = match inside.strip_prefix("Workspace") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => inside,
        };
        let parts: Vec<&str> = inside.split('/').filter(|part| !part.is_empty()).collect();
        let bad = |part: &&str| matches!(*part, "." | "..") || part.contains('\0');
        if parts.iter().any(|part| bad(part) || part.len() > 255) {
            return Err(refuse());
        }
        Ok(TreePath(parts.into_iter().map(str::to_owned).collect()))
    }

    /// Returns the root of the tree.
    pub(crate) fn root() -> Self {
        TreePath(Vec::new())
    }

    /// Returns the names on the way from the root.
    pub(crate) fn parts(&self) -> &[String] {
        &self.0
    }

    /// Returns what is called `name` in this folder.
    pub(crate) fn child(&self, name: &str) -> Self {
        TreePath([self.parts(), &[name.to_owned()]].concat())
    }

    /// Returns this path and every folder around it, the root last.
    pub(crate) fn upwards(&self) -> impl Iterator<Item = TreePath> {
        (0..=self.0.len()).rev().map(|depth| TreePath(self.0[..depth].to_vec()))
    }

    /// Returns whether this is `folder` or below it.
    pub(crate) fn is_within(&self, folder: &TreePath) -> bool {
        self.0.starts_with(&folder.0)
    }

    /// Returns the id of the object at this path: always the same one, 53 bits long.
    pub(crate) fn object_id(&self) -> u64 {
        let path: String = self.0.iter().flat_map(|part| ["/", part]).collect();
        let digest = Sha256::digest(path);
        digest.iter().take(8).fold(0u64, |id, byte| id << 8 | u64::from(*byte)) >> 11
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

/// Says that there is nothing at `path`, or nothing for this caller.
pub(crate) fn no_such_path(path: &str) -> Fault {
    Fault::new(404, "RESOURCE_DOES_NOT_EXIST", format!("Path ({path}) doesn't exist."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_one_however_it_is_written() {
        let path = TreePath::parse("/Workspace/Users/ada/x").unwrap();
        for same in ["/Users/ada/x", "/Workspace//Users/ada/x/", "//Users/ada/x"] {
            assert_eq!(TreePath::parse(same).unwrap(), path, "{same}");
        }
        assert_eq!(path.to_string(), "/Users/ada/x");
        assert_eq!(TreePath::parse(&path.to_string()).unwrap(), path);
        let up: Vec<String> = path.upwards().map(|folder| folder.to_string()).collect();
        assert_eq!(up, ["/Users/ada/x", "/Users/ada", "/Users", "/"]);
        assert_eq!(TreePath::parse("/Workspace").unwrap(), TreePath::root());
        assert_ne!(TreePath::parse("/Workspaces/x").unwrap(), TreePath::parse("/x").unwrap());
    }

    #[test]
    fn one_is_within_another_by_whole_names() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        assert!(path("/Users/ada/x").is_within(&path("/Users/ada")));
        assert!(path("/Users/ada").is_within(&path("/Users/ada")));
        assert!(!path("/Users/adam").is_within(&path("/Users/ada")));
    }

    #[test]
    fn what_could_lead_out_of_the_tree_is_no_path() {
        for text in ["", "x", "/a/../../secret", "/./a", "/a\0b", &format!("/{}", "x".repeat(256))]
        {
            assert_eq!(TreePath::parse(text).unwrap_err().status, 400, "{text}");
        }
    }
}
