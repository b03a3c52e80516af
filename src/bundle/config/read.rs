//! `lakeforge.yml` read into types; whatever is not as it should be is refused at its place.

use super::catalog::{databases, roles};
use super::{
    AppConfig, Branch, Compute, Config, Endpoint, Expect, Expiry, Gc, Migrate, Project, WIDEST_CU,
    keys,
};
use crate::bundle::node::Node;
use crate::bundle::place::{Place, suggest};
use crate::bundle::read::tidy;
use crate::error::Result;
use crate::time::Ttl;
use crate::wire::names::{PRIMARY_ENDPOINT, check_id};

/// Longest life of a branch; longer ones are refused by the platform (documentation, read 2026-08).
const LONGEST_LIFE: Ttl = Ttl::from_secs(30 * 86_400);
/// Least and most of compute that an endpoint may be given, in CU.
///
/// Source: bundle schema of the Databricks CLI 1.13, read 2026-11.
const LEAST_CU: f64 = 0.5;
const MOST_CU: f64 = 64.0;

impl Config {
    /// Reads a whole `lakeforge.yml`.
    pub(super) fn read(node: &Node) -> Result<Config> {
        node.only(keys::FILE)?;
        let branch = node.get("branch");
        if let Some(branch) = &branch {
            branch.only(keys::BRANCH_POLICY)?;
        }
        let folder = node.place().folder().to_owned();
        Ok(Config {
            projects: list(node.get("projects"), Project::read)?,
            branch_ttl: optional(branch.and_then(|branch| branch.get("ttl")), Node::ttl)?,
            apps: list(node.get("apps"), |name, app| Ok((name, AppConfig::read(app)?)))?,
            gc: optional(node.get("gc"), Gc::read)?.unwrap_or_default(),
            templates: optional(node.get("templates"), Node::text)?.map(|path| folder.join(path)),
            previews: optional(node.get("previews"), Node::texts)?.unwrap_or_default(),
            out: optional(node.get("out"), Node::text)?,
        })
    }
}

/// Reads a value that may be absent.
pub(super) fn optional<'d, T>(
    node: Option<Node<'d>>,
    read: impl FnOnce(&Node<'d>) -> Result<T>,
) -> Result<Option<T>> {
    node.as_ref().map(read).transpose()
}

/// Reads ids with what is said about each.
pub(super) fn list<'d, T>(
    node: Option<Node<'d>>,
    read: impl Fn(String, &Node<'d>) -> Result<T>,
) -> Result<Vec<T>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    node.named()?.into_iter().map(|(id, node)| read(id, &node)).collect()
}

/// Refuses an id that the platform refuses, and one that is there twice.
pub(super) fn check_ids<'a>(ids: impl IntoIterator<Item = (&'a String, &'a Place)>) -> Result<()> {
    let mut seen: Vec<(&String, &Place)> = Vec::new();
    let ids: Vec<(&String, &Place)> = ids.into_iter().collect();
    for (id, place) in ids.iter().copied() {
        if let Err(why) = check_id(id) {
            let plain = |id: &str| id.to_lowercase().replace('_', "-");
            let near = ids.iter().find(|(other, _)| *other != id && plain(other) == plain(id));
            return Err(match near {
                None => place.error(why),
                Some((other, first)) => place
                    .error(format!("`{id}` would have the resource key of `{other}`"))
                    .why(why)
                    .why(format!("`{other}` is at {first}")),
            });
        }
        if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == id) {
            return Err(place
                .error(format!("the id `{id}` is there twice"))
                .why(format!("first at {first}")));
        }
        seen.push((id, place));
    }
    Ok(())
}

impl Project {
    fn read(id: String, node: &Node) -> Result<Project> {
        node.only(keys::PROJECT)?;
        let place = node.key_place();
        check_ids([(&id, &place)])?;
        let branches = list(node.get("branches"), Branch::read)?;
        check_ids(branches.iter().map(|branch| (&branch.id, &branch.place)))?;
        Ok(Project {
            place,
            display_name: optional(node.get("display_name"), |name| match name.text()? {
                text if text.chars().count() > 256 => {
                    Err(name.place().error("a name has at most 256 characters"))
                }
                text => Ok(text),
            })?,
            pg_version: optional(node.get("pg_version"), Node::whole)?,
            retention: optional(node.get("retention"), |length| {
                length.ttl_between(Ttl::from_secs(2 * 86_400), Ttl::from_secs(35 * 86_400))
            })?,
            compute: Compute::read(node)?,
            prevent_destroy: optional(node.get("prevent_destroy"), Node::boolean)?.unwrap_or(true),
            branches,
            endpoints: endpoints(node)?,
            roles: roles(node)?,
            databases: databases(node)?,
            id,
        })
    }
}

impl Branch {
    fn read(id: String, node: &Node) -> Result<Branch> {
        node.only(keys::BRANCH)?;
        Ok(Branch {
            id,
            place: node.key_place(),
            source: optional(node.get("source"), Node::text)?,
            expiry: Expiry::read(node)?,
            protected: optional(node.get("protected"), Node::boolean)?.unwrap_or(false),
            endpoints: endpoints(node)?,
            roles: roles(node)?,
            databases: databases(node)?,
        })
    }
}

impl Expiry {
    fn read(node: &Node) -> Result<Expiry> {
        let given: Vec<(&str, Node)> = ["ttl", "expires_at", "no_expiry"]
            .into_iter()
            .filter_map(|key| Some((key, node.get(key)?)))
            .collect();
        match &given[..] {
            [] => Ok(Expiry::Never),
            [("ttl", length)] => {
                length.ttl_between(Ttl::from_secs(1), LONGEST_LIFE).map(Expiry::After)
            }
            [("expires_at", moment)] => moment.text()?.parse().map(Expiry::At).map_err(|_| {
                moment.place().error("a time such as `2026-12-31T00:00:00Z` is expected")
            }),
            [(_, never)] if never.boolean()? => Ok(Expiry::Never),
            [(_, never)] => Err(never
                .place()
                .error("`no_expiry` can only be `true`")
                .hint("write `ttl: 7d` for a branch that goes away")),
            [(first, _), (second, node), ..] => {
                Err(node.key_place().error(format!("`{first}` and `{second}` exclude each other")))
            }
        }
    }
}

/// Reads `endpoints` of a project or branch, when they are there.
fn endpoints(node: &Node) -> Result<Option<Vec<Endpoint>>> {
    if node.get("endpoints").is_none() {
        return Ok(None);
    }
    let endpoints = list(node.get("endpoints"), |id, node| {
        node.only(keys::ENDPOINT)?;
        let kind = node.get("type");
        let read_only = match optional(kind.clone(), Node::text)?.as_deref() {
            None => id != PRIMARY_ENDPOINT,
            Some("read_write") => false,
            Some("read_only") => true,
            Some(other) => {
                let place = kind.as_ref().unwrap_or(node).place();
                let error = place.error(format!("there is no type `{other}`"));
                return Err(suggest(error, other, ["read_write", "read_only"]));
            }
        };
        Ok(Endpoint { id, place: node.key_place(), read_only, compute: Compute::read(node)? })
    })?;
    check_ids(endpoints.iter().map(|endpoint| (&endpoint.id, &endpoint.place)))?;
    Ok(Some(endpoints))
}

impl Compute {
    fn read(node: &Node) -> Result<Compute> {
        let compute = Compute {
            min_cu: optional(node.get("min_cu"), units)?,
            max_cu: optional(node.get("max_cu"), units)?,
            suspend_after: optional(node.get("suspend_after"), |length| {
                length.ttl_between(Ttl::from_secs(60), Ttl::from_secs(7 * 86_400))
            })?,
        };
        let place = || node.get("max_cu").map_or_else(|| node.place(), |max| max.place());
        match (compute.min_cu, compute.max_cu) {
            (Some(min), Some(max)) if min > max => {
                Err(place().error(format!("`max_cu` {max} is below `min_cu` {min}")))
            }
            (Some(min), Some(max)) if max - min > WIDEST_CU => Err(place()
                .error(format!("`max_cu` {max} is more than {WIDEST_CU} above `min_cu` {min}"))),
            _ => Ok(compute),
        }
    }
}

/// Reads compute units.
fn units(node: &Node) -> Result<f64> {
    let number = node.number()?;
    if (LEAST_CU..=MOST_CU).contains(&number) {
        return Ok(number);
    }
    Err(node.place().error(format!("compute is between {LEAST_CU} and {MOST_CU} CU")))
}

impl AppConfig {
    fn read(node: &Node) -> Result<AppConfig> {
        node.only(keys::APP)?;
        let health = optional(node.get("health"), |health| {
            let path = health.text()?;
            match path.starts_with('/') {
                true => Ok(path),
                false => {
                    Err(health.place().error(format!("the path `{path}` must begin with `/`")))
                }
            }
        })?;
        Ok(AppConfig {
            place: node.key_place(),
            health,
            expect: optional(node.get("expect"), Expect::read)?.unwrap_or_default(),
            migrate: optional(node.get("migrate"), Migrate::read)?,
        })
    }
}

impl Expect {
    fn read(node: &Node) -> Result<Expect> {
        node.only(keys::EXPECT)?;
        let status = optional(node.get("status"), |status| {
            u16::try_from(status.whole()?)
                .ok()
                .filter(|code| (100..600).contains(code))
                .ok_or_else(|| status.place().error("an HTTP status is expected here"))
        })?;
        Ok(Expect { status, body: node.get("body").map(|body| body.value().clone()) })
    }
}

impl Migrate {
    fn read(node: &Node) -> Result<Migrate> {
        node.only(keys::MIGRATE)?;
        let Some(command) = node.get("command") else {
            return Err(node.key_place().error("`command` is missing"));
        };
        let directory = optional(node.get("directory"), Node::text)?.unwrap_or_default();
        let project = optional(node.get("project"), |project| {
            let id = project.text()?;
            check_id(&id).map_err(|why| project.place().error(why))?;
            Ok(id)
        })?;
        let directory = tidy(&node.place().folder().join(directory));
        Ok(Migrate { command: command.text()?, directory, project })
    }
}

impl Gc {
    fn read(node: &Node) -> Result<Gc> {
        node.only(keys::GC)?;
        Ok(Gc {
            prefix: optional(node.get("prefix"), Node::text)?,
            grace: optional(node.get("grace"), Node::ttl)?,
            protected_names: optional(node.get("protected_names"), Node::texts)?
                .unwrap_or_default(),
        })
    }
}
