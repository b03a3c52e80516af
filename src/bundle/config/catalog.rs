//! Roles and databases of a branch in `lakeforge.yml`.

use super::keys;
use super::read::{check_ids, list, optional};
use crate::bundle::node::Node;
use crate::bundle::place::{Place, suggest};
use crate::error::Result;
use crate::wire::names::check_id;
use crate::wire::roles::{AuthMethod, IdentityType};

/// Fewest characters of the id of a role or database.
///
/// Source: bundle schema of the Databricks CLI 1.13, read 2026-11.
const SHORTEST_ID: usize = 4;

/// A role to generate.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    /// Id.
    pub(crate) id: String,
    /// Where it is written.
    pub(crate) place: Place,
    /// Name in Postgres: that of an identity, or the id where nothing else is said.
    pub(crate) name: Option<String>,
    /// What it stands for.
    pub(crate) identity: IdentityType,
    /// How it logs in; follows from what it stands for by default.
    pub(crate) login: Option<AuthMethod>,
    /// Whether it is a member of the platform's administrators.
    pub(crate) superuser: bool,
    /// Whether it creates databases.
    pub(crate) createdb: bool,
    /// Whether it creates roles.
    pub(crate) createrole: bool,
    /// Whether it reads and writes past row-level security.
    pub(crate) bypassrls: bool,
}

/// A database to generate.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    /// Id.
    pub(crate) id: String,
    /// Where it is written.
    pub(crate) place: Place,
    /// Name in Postgres, the id by default.
    pub(crate) name: Option<String>,
    /// Id of the role that owns it.
    pub(crate) owner: String,
}

/// Reads `roles` of a project or branch.
pub(super) fn roles(node: &Node) -> Result<Vec<Role>> {
    let roles = list(node.get("roles"), |id, node| {
        node.only(keys::ROLE)?;
        let place = node.key_place();
        check_length(&id, &place)?;
        let flag = |key: &str| -> Result<bool> {
            Ok(optional(node.get(key), Node::boolean)?.unwrap_or(false))
        };
        let name = optional(node.get("name"), Node::text)?;
        let identity = optional(node.get("identity"), |node| {
            word(
                node,
                &[
                    ("user", IdentityType::User),
                    ("service_principal", IdentityType::ServicePrincipal),
                    ("group", IdentityType::Group),
                ],
            )
        })?;
        if identity.is_some() && name.is_none() {
            return Err(place.error(format!("the role `{id}` needs a `name`")).why(
                "a user is known by their e-mail address, a service principal by its client id, a group by its name",
            ));
        }
        let login = optional(node.get("login"), |node| {
            word(
                node,
                &[
                    ("oauth", AuthMethod::Oauth),
                    ("password", AuthMethod::Password),
                    ("none", AuthMethod::NoLogin),
                ],
            )
        })?;
        Ok(Role {
            id,
            place,
            name,
            identity: identity.unwrap_or_default(),
            login,
            superuser: flag("superuser")?,
            createdb: flag("createdb")?,
            createrole: flag("createrole")?,
            bypassrls: flag("bypassrls")?,
        })
    })?;
    check_ids(roles.iter().map(|role| (&role.id, &role.place)))?;
    Ok(roles)
}

/// Reads `databases` of a project or branch.
pub(super) fn databases(node: &Node) -> Result<Vec<Database>> {
    let databases = list(node.get("databases"), |id, node| {
        node.only(keys::DATABASE)?;
        let place = node.key_place();
        check_length(&id, &place)?;
        let Some(owner) = node.get("owner") else {
            return Err(place.error("`owner` is missing").hint("write `{owner: ROLE}`"));
        };
        let role = owner.text()?;
        check_id(&role).map_err(|why| owner.place().error(why))?;
        let name = optional(node.get("name"), Node::text)?;
        Ok(Database { id, place, name, owner: role })
    })?;
    check_ids(databases.iter().map(|database| (&database.id, &database.place)))?;
    Ok(databases)
}

fn check_length(id: &str, place: &Place) -> Result<()> {
    match id.len() < SHORTEST_ID {
        true => Err(place.error(format!("the id `{id}` is shorter than {SHORTEST_ID} characters"))),
        false => Ok(()),
    }
}

/// Reads one of a few words.
fn word<T: Copy>(node: &Node, words: &[(&'static str, T)]) -> Result<T> {
    let text = node.text()?;
    let known = words.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let error = node.place().error(format!("`{text}` is not known here"));
        suggest(error, &text, words.iter().map(|(word, _)| *word))
    })
}
