//! `lakeforge.yml`: what the bundle cannot say. Optional; an unknown key is an error.

mod catalog;
mod keys;
mod read;
mod schema;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

pub(crate) use catalog::{Database, Role};
pub(crate) use schema::SCHEMA;

use super::node::Node;
use super::place::Place;
use super::yaml::Document;
use crate::error::Result;
use crate::time::Ttl;

/// How far apart the limits of an endpoint's compute may be, in CU.
///
/// Source: bundle schema of the Databricks CLI 1.13, read 2026-11.
pub(crate) const WIDEST_CU: f64 = 16.0;

/// Name of the file.
pub(crate) const CONFIG_FILE: &str = "lakeforge.yml";

/// What `lakeforge.yml` says; a missing file says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Projects to generate, in the order of the file.
    pub(crate) projects: Vec<Project>,
    /// Life of a branch made by `branch create`.
    pub(crate) branch_ttl: Option<Ttl>,
    /// What is known of apps, by bundle key or app name, in the order of the file.
    pub(crate) apps: Vec<(String, AppConfig)>,
    /// What `gc` may clear.
    pub(crate) gc: Gc,
    /// Folder with templates that replace the built-in ones, absolute.
    pub(crate) templates: Option<PathBuf>,
    /// Targets that hold the apps of pull requests and none of the projects.
    pub(crate) previews: Vec<String>,
    /// File that `gen` writes, relative to the folder of `lakeforge.yml`.
    pub(crate) out: Option<String>,
}

/// A project to generate.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// Id.
    pub(crate) id: String,
    /// Where it is written.
    pub(crate) place: Place,
    /// Name for people.
    pub(crate) display_name: Option<String>,
    /// Major version of PostgreSQL, instead of the bundle variable.
    pub(crate) pg_version: Option<u32>,
    /// How far back a branch may start or be restored to.
    pub(crate) retention: Option<Ttl>,
    /// Compute of every endpoint that says nothing else.
    pub(crate) compute: Compute,
    /// Whether it must not be destroyed.
    pub(crate) prevent_destroy: bool,
    /// Branches, in the order of the file.
    pub(crate) branches: Vec<Branch>,
    /// Endpoints of every branch, when something is said about them.
    pub(crate) endpoints: Option<Vec<Endpoint>>,
    /// Roles of every branch.
    pub(crate) roles: Vec<Role>,
    /// Databases of every branch.
    pub(crate) databases: Vec<Database>,
}

/// A branch to generate.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// Id.
    pub(crate) id: String,
    /// Where it is written.
    pub(crate) place: Place,
    /// Id of the branch it starts from.
    pub(crate) source: Option<String>,
    /// When it goes away.
    pub(crate) expiry: Expiry,
    /// Whether it is protected from deletion and reset.
    pub(crate) protected: bool,
    /// Endpoints beside, or instead of, those of the project, when something is said about them.
    pub(crate) endpoints: Option<Vec<Endpoint>>,
    /// Roles beside, or instead of, those of the project.
    pub(crate) roles: Vec<Role>,
    /// Databases beside, or instead of, those of the project.
    pub(crate) databases: Vec<Database>,
}

/// When a branch goes away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Never.
    #[default]
    Never,
    /// So long after it was made.
    After(Ttl),
    /// At a moment.
    At(Timestamp),
}

/// An endpoint to generate.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Id.
    pub(crate) id: String,
    /// Where it is written.
    pub(crate) place: Place,
    /// Whether it only reads; the endpoint `primary` writes unless it says otherwise.
    pub(crate) read_only: bool,
    /// Compute.
    pub(crate) compute: Compute,
}

/// Compute limits and suspension; what is absent comes from further up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Compute {
    /// Smallest compute, in CU.
    pub(crate) min_cu: Option<f64>,
    /// Largest compute, in CU.
    pub(crate) max_cu: Option<f64>,
    /// Idle time before it is suspended.
    pub(crate) suspend_after: Option<Ttl>,
}

/// What is known of an app beside the bundle.
#[derive(Debug, Clone)]
pub(crate) struct AppConfig {
    /// Where it is written.
    pub(crate) place: Place,
    /// Health path, `/healthz` by default.
    pub(crate) health: Option<String>,
    /// What the health path answers.
    pub(crate) expect: Expect,
    /// How its database is migrated.
    pub(crate) migrate: Option<Migrate>,
}

/// What a health path answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expect {
    /// HTTP status, 200 by default.
    pub(crate) status: Option<u16>,
    /// JSON body.
    pub(crate) body: Option<Value>,
}

/// How a database is migrated.
#[derive(Debug, Clone)]
pub(crate) struct Migrate {
    /// Shell command.
    pub(crate) command: String,
    /// Folder it runs in, absolute.
    pub(crate) directory: PathBuf,
    /// Project whose database it changes; the app's own by default.
    pub(crate) project: Option<String>,
}

/// What `gc` may clear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gc {
    /// Beginning of canonical names.
    pub(crate) prefix: Option<String>,
    /// How old something must be.
    pub(crate) grace: Option<Ttl>,
    /// Names that are never cleared.
    pub(crate) protected_names: Vec<String>,
}

/// Returns the nearest folder from `from` upwards that holds a `lakeforge.yml`.
pub(crate) fn find_config(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|folder| folder.join(CONFIG_FILE).is_file()).map(Path::to_owned)
}

impl Config {
    /// Reads `lakeforge.yml` in the folder `root`; a missing file is the default.
    ///
    /// Fails as `Usage`, with line and column, for an unknown key and for whatever is not as it should be.
    pub(crate) fn load(root: &Path) -> Result<Config> {
        if !root.join(CONFIG_FILE).is_file() {
            return Ok(Config::default());
        }
        let document = Document::read(&std::path::absolute(root)?, CONFIG_FILE)?;
        Config::read(&Node::root(&document))
    }

    /// Reads `text` as the `lakeforge.yml` of the folder `root`, absolute, which it may become.
    pub(crate) fn parse(root: &Path, text: &str) -> Result<Config> {
        let document = Document::parse(CONFIG_FILE, root.to_owned(), text.to_owned())?;
        Config::read(&Node::root(&document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let document = Document::parse(CONFIG_FILE, PathBuf::from("/repo"), text.to_owned())?;
        Config::read(&Node::root(&document))
    }

    #[test]
    fn short_and_long_forms_are_read() {
        let config = read(
            "projects:
  shop: {branches: [dev, test]}
  lab:
    retention: 14d
    endpoints: {reports: {type: read_only, max_cu: 1}}
    branches:
      dev: {source: test, ttl: 7d, protected: true}
      test:
apps:
  shop:
    health: /healthz
    expect: {status: 200, body: {ok: true}}
    migrate: {directory: ../shop, command: ./migrate}
gc: {prefix: pr-, grace: 24h, protected_names: [dev]}
",
        )
        .unwrap();

        assert_eq!(config.projects[0].branches[1].id, "test");
        let lab = &config.projects[1];
        assert_eq!(lab.branches[0].expiry, Expiry::After(Ttl::from_secs(604_800)));
        assert_eq!(lab.branches[1].expiry, Expiry::Never);
        assert_eq!(lab.endpoints.as_ref().unwrap()[0].compute.max_cu, Some(1.0));
        assert_eq!(config.apps[0].1.health.as_deref(), Some("/healthz"));
        let migrate = config.apps[0].1.migrate.as_ref().unwrap();
        assert_eq!(migrate.directory, Path::new("/shop"));
        assert_eq!(read("").unwrap().projects.len(), 0);
        assert_eq!(read("projects: [a, b]").unwrap().projects[1].id, "b");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        for (text, expected) in [
            (
                "projects: {}\nprojetcs: {}\n",
                "lakeforge.yml:2:1: unknown key `projetcs` (did you mean `projects`?)",
            ),
            (
                "apps:\n  shop: {helth: /x}\n",
                "lakeforge.yml:2:10: unknown key `helth` (did you mean `health`?)",
            ),
            ("branch: {ttl: 7}\n", "lakeforge.yml:1:15: a text is expected here"),
            (
                "branch: {ttl: soon}\n",
                "lakeforge.yml:1:15: `soon` is not a duration; write `90s`, `15m`, `24h` or `7d`",
            ),
            (
                "projects: [My_Shop]\n",
                "lakeforge.yml:1:12: the id `My_Shop` does not start with a lower-case letter",
            ),
            (
                "projects:\n  a:\n    branches: [dev, dev]\n",
                "lakeforge.yml:3:21: the id `dev` is there twice: first at lakeforge.yml:3:16",
            ),
            (
                "projects:\n  a:\n    branches: {b: {ttl: 1d, no_expiry: true}}\n",
                "lakeforge.yml:3:29: `ttl` and `no_expiry` exclude each other",
            ),
            (
                "projects: {a: {min_cu: 8, max_cu: 2}}\n",
                "lakeforge.yml:1:35: `max_cu` 2 is below `min_cu` 8",
            ),
            (
                "projects: {a: {min_cu: 0.25}}\n",
                "lakeforge.yml:1:24: compute is between 0.5 and 64 CU",
            ),
            (
                "projects: {a: {retention: 1d}}\n",
                "lakeforge.yml:1:27: a duration between 2d and 35d is expected here",
            ),
            ("apps: {a: {health: x}}\n", "lakeforge.yml:1:20: the path `x` must begin with `/`"),
            ("apps: {a: {migrate: {directory: x}}}\n", "lakeforge.yml:1:12: `command` is missing"),
            (
                "apps: {a: {expect: {status: 1000}}}\n",
                "lakeforge.yml:1:29: an HTTP status is expected here",
            ),
            ("gc: [x]\n", "lakeforge.yml:1:5: a mapping is expected here"),
        ] {
            let error = read(text).unwrap_err();
            let shown = match error.hint_text() {
                Some(hint) => format!("{error} ({hint})"),
                None => error.to_string(),
            };
            assert_eq!(shown, expected, "{text}");
        }
    }
}
