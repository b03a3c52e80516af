//! What a plan does with a resource of a bundle: the kind of the resource, and the action.

use serde::{Serialize, Serializer};

/// Kind of a resource of a bundle, as far as its deletion is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceKind {
    /// An autoscaling Postgres project.
    Project,
    /// A branch of one.
    Branch,
    /// An endpoint of a branch.
    Endpoint,
    /// A role of a branch.
    Role,
    /// A database of a branch.
    Database,
    /// A provisioned database instance.
    Instance,
    /// An app.
    App,
    /// Anything else, also the permissions of one of the others.
    Other,
}

impl ResourceKind {
    /// Reads the kind out of a label: `postgres_projects.shop`.
    ///
    /// Permissions and grants are entries of their own in a plan, below what they are of:
    /// `postgres_projects.shop.permissions`.
    ///
    /// Source: Databricks CLI 1.13.0 `bundle/deployplan`, read 2026-11.
    pub(crate) fn of(label: &str) -> Self {
        let end = label.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (word, rest) = label.split_at(end.unwrap_or(label.len()));
        let is_part = [".permissions", ".grants"]
            .iter()
            .any(|part| rest.strip_suffix(part).is_some_and(|key| key.len() > 1));
        match word {
            _ if is_part => ResourceKind::Other,
            "postgres_projects" => ResourceKind::Project,
            "postgres_branches" => ResourceKind::Branch,
            "postgres_endpoints" => ResourceKind::Endpoint,
            "postgres_roles" => ResourceKind::Role,
            "postgres_databases" => ResourceKind::Database,
            "database_instances" => ResourceKind::Instance,
            "apps" => ResourceKind::App,
            _ => ResourceKind::Other,
        }
    }
}

/// What happens to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is deleted and made anew, without what it held.
    Recreate,
    /// It is deleted.
    Delete,
    /// It stays as it is.
    Unchanged,
    /// Something that this version does not know.
    Unknown(String),
}

impl Action {
    /// Returns the word for it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Recreate => "recreate",
            Action::Delete => "delete",
            Action::Unchanged => "unchanged",
            Action::Unknown(word) if word.is_empty() => "unknown",
            Action::Unknown(word) => word,
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// What happens.
    pub(crate) action: Action,
    /// Type and key in the bundle: `postgres_projects.shop`.
    pub(crate) resource: String,
    /// Name in the workspace, when it is known.
    pub(crate) name: String,
}

impl Change {
    /// Returns the kind of the resource.
    pub(crate) fn kind(&self) -> ResourceKind {
        ResourceKind::of(&self.resource)
    }

    /// Returns whether it loses what the resource holds, or may: an action that is not known does.
    pub(crate) fn is_destructive(&self) -> bool {
        matches!(self.action, Action::Delete | Action::Recreate | Action::Unknown(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_that_of_the_resource_and_not_of_its_permissions() {
        for (label, kind) in [
            ("postgres_projects.shop", ResourceKind::Project),
            ("postgres_projects", ResourceKind::Project),
            (r#"postgres_projects["a.b"]"#, ResourceKind::Project),
            ("postgres_projects.permissions", ResourceKind::Project),
            ("postgres_projects.shop.permissions", ResourceKind::Other),
            ("database_instances.old", ResourceKind::Instance),
            ("apps.web", ResourceKind::App),
            ("apps.web.grants", ResourceKind::Other),
            ("postgres_projects_of_tomorrow.x", ResourceKind::Other),
            ("", ResourceKind::Other),
        ] {
            assert_eq!(ResourceKind::of(label), kind, "{label}");
        }
    }
}
