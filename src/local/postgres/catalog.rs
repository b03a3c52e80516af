//! The roles and databases of a cluster: what is there, and changes to it.

use jiff::Timestamp;
use tokio_postgres::Client;

use super::roles::{check_name, identity_of, mark};
use super::session::{Address, OWN_DATABASE, SUPERUSER, quoted};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::wire::roles::{Attributes, IdentityType};

/// Membership in this role makes an administrator of a branch.
pub(super) const ADMINISTRATOR: &str = "databricks_superuser";

/// What a cluster has besides what every cluster has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    /// Its roles.
    pub(crate) roles: Vec<FoundRole>,
    /// Its databases.
    pub(crate) databases: Vec<FoundDatabase>,
}

/// A role of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRole {
    /// Name in Postgres.
    pub(crate) name: String,
    /// Whether it may log in.
    pub(crate) login: bool,
    /// Whether it is a member of the platform's administrators.
    pub(crate) administrator: bool,
    /// What it may do.
    pub(crate) attributes: Attributes,
    /// What it is said to stand for.
    pub(crate) identity: IdentityType,
    /// What its password is checked with, when it has one.
    pub(crate) verifier: Option<Secret<String>>,
    /// When its password stops being good.
    pub(crate) valid_until: Option<Timestamp>,
}

/// A database of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundDatabase {
    /// Name in Postgres.
    pub(crate) name: String,
    /// Name in Postgres of the role that owns it.
    pub(crate) owner: String,
}

/// A change of a cluster's roles or databases, by their names in Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CatalogChange {
    /// Creates a role.
    CreateRole {
        /// Its name.
        role: String,
        /// Whether it may log in.
        login: bool,
        /// Whether it becomes a member of the platform's administrators.
        administrator: bool,
        /// What it may do.
        attributes: Attributes,
        /// What it stands for.
        identity: IdentityType,
    },
    /// Changes what a role may do.
    AlterRole {
        /// Its name.
        role: String,
        /// Whether it is to be a member of the platform's administrators; nothing keeps it.
        administrator: Option<bool>,
        /// What it may do; nothing keeps it.
        attributes: Option<Attributes>,
    },
    /// Drops a role, with its grants and sessions.
    DropRole {
        /// Its name.
        role: String,
        /// The role that gets what it owns.
        heir: Option<String>,
    },
    /// Creates a database.
    CreateDatabase {
        /// Its name.
        database: String,
        /// The role that owns it.
        owner: String,
    },
    /// Renames a database or gives it to another role.
    AlterDatabase {
        /// Its name until now.
        database: String,
        /// Its name from now on; nothing keeps it.
        name: Option<String>,
        /// The role that owns it from now on; nothing keeps it.
        owner: Option<String>,
    },
    /// Drops a database, with its sessions.
    DropDatabase {
        /// Its name.
        database: String,
    },
}

const ROLES: &str = "SELECT rolname, rolcanlogin, rolbypassrls, rolcreatedb, rolcreaterole, \
     EXISTS (SELECT 1 FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
             WHERE m.member = r.oid AND g.rolname = $1), \
     shobj_description(r.oid, 'pg_authid'), rolpassword, \
     CASE WHEN rolvaliduntil < 'infinity' THEN greatest(extract(epoch FROM rolvaliduntil), 0)::bigint END \
     FROM pg_authid r WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> ALL ($2) ORDER BY rolname";
const DATABASES: &str = "SELECT datname, pg_get_userbyid(datdba)::text FROM pg_database \
     WHERE NOT datistemplate AND datname <> $1 ORDER BY datname";

/// Reads the roles and databases.
pub(super) async fn read(address: &Address) -> Result<Catalog> {
    let client = address.connect(OWN_DATABASE).await?;
    let hidden = vec![SUPERUSER, ADMINISTRATOR];
    let roles = client.query(ROLES, &[&ADMINISTRATOR, &hidden]).await.map_err(refused)?;
    let databases = client.query(DATABASES, &[&OWN_DATABASE]).await.map_err(refused)?;
    Ok(Catalog {
        roles: roles
            .iter()
            .map(|row| FoundRole {
                name: row.get(0),
                login: row.get(1),
                attributes: Attributes {
                    bypassrls: row.get(2),
                    createdb: row.get(3),
                    createrole: row.get(4),
                },
                administrator: row.get(5),
                identity: identity_of(row.get(6)),
                verifier: row.get::<_, Option<String>>(7).map(Secret::new),
                // Later than any calendar is never.
                valid_until: row
                    .get::<_, Option<i64>>(8)
                    .and_then(|second| Timestamp::from_second(second).ok()),
            })
            .collect(),
        databases: databases
            .iter()
            .map(|row| FoundDatabase { name: row.get(0), owner: row.get(1) })
            .collect(),
    })
}

/// Makes `change`. What is so already, because a killed server had made it, is no failure.
///
/// Fails with `Usage` when Postgres refuses it.
pub(super) async fn apply(address: &Address, change: &CatalogChange) -> Result<()> {
    let client = address.connect(OWN_DATABASE).await?;
    match change {
        CatalogChange::CreateRole { role, login, administrator, attributes, identity } => {
            let login = if *login { "LOGIN" } else { "NOLOGIN" };
            let mut create = format!("CREATE ROLE {} {login} {}", quoted(role), words(attributes));
            if *administrator {
                create += &format!("; GRANT {ADMINISTRATOR} TO {}", quoted(role));
            }
            if let Some(mark) = mark(role, *identity) {
                create += &format!("; {mark}");
            }
            run(&client, &create).await
        }
        CatalogChange::AlterRole { role, administrator, attributes } => {
            let mut changes = Vec::new();
            if let Some(attributes) = attributes {
                changes.push(format!("ALTER ROLE {} {}", quoted(role), words(attributes)));
            }
            match administrator {
                Some(true) => changes.push(format!("GRANT {ADMINISTRATOR} TO {}", quoted(role))),
                // With CASCADE: what was granted on the strength of it goes too.
                Some(false) => {
                    changes.push(format!("REVOKE {ADMINISTRATOR} FROM {} CASCADE", quoted(role)))
                }
                None => {}
            }
            run(&client, &changes.join("; ")).await
        }
        CatalogChange::DropRole { role, heir } => {
            drop_role(address, &client, role, heir.as_deref()).await
        }
        CatalogChange::CreateDatabase { database, owner } => {
            let create = format!("CREATE DATABASE {} OWNER {}", quoted(database), quoted(owner));
            run(&client, &create).await
        }
        CatalogChange::AlterDatabase { database, name, owner } => {
            if let Some(owner) = owner {
                let change =
                    format!("ALTER DATABASE {} OWNER TO {}", quoted(database), quoted(owner));
                run(&client, &change).await?;
            }
            if let Some(name) = name {
                end_sessions(&client, "datname", database).await?;
                let change =
                    format!("ALTER DATABASE {} RENAME TO {}", quoted(database), quoted(name));
                run(&client, &change).await?;
            }
            Ok(())
        }
        CatalogChange::DropDatabase { database } => {
            run(&client, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(database)))
                .await
        }
    }
}

/// Gives `role` the password that `verifier` is made of.
pub(super) async fn set_password(
    address: &Address,
    role: &str,
    verifier: &Secret<String>,
) -> Result<()> {
    let client = address.connect(OWN_DATABASE).await?;
    // A verifier holds neither quotes nor backslashes.
    run(&client, &format!("ALTER ROLE {} PASSWORD '{}'", quoted(role), verifier.expose())).await
}

async fn drop_role(
    address: &Address,
    client: &Client,
    role: &str,
    heir: Option<&str>,
) -> Result<()> {
    let known = "SELECT oid FROM pg_roles WHERE rolname = $1";
    let known = client.query_opt(known, &[&role]).await.map_err(refused)?;
    let Some(row) = known else { return Ok(()) };
    let oid: u32 = row.get(0);
    if heir.is_none() {
        let owns = "SELECT 1 FROM pg_shdepend WHERE refobjid = $1 AND deptype = 'o' \
                    AND refclassid = 'pg_authid'::regclass LIMIT 1";
        if client.query_opt(owns, &[&oid]).await.map_err(refused)?.is_some() {
            let text = format!("role `{role}` owns objects and cannot be deleted");
            return Err(
                Error::new(Kind::Usage, text).why("set `reassign_owned_to` to another role")
            );
        }
    }
    let name = quoted(role);
    let mut clear = heir
        .map_or_else(String::new, |heir| format!("REASSIGN OWNED BY {name} TO {}; ", quoted(heir)));
    // It owns nothing any more: what goes are its grants.
    clear += &format!("DROP OWNED BY {name}");
    let all = "SELECT datname FROM pg_database WHERE datallowconn";
    for row in client.query(all, &[]).await.map_err(refused)? {
        run(&address.connect(row.get(0)).await?, &clear).await?;
    }
    end_sessions(client, "usename", role).await?;
    run(client, &format!("DROP ROLE {name}")).await
}

/// Ends the sessions whose `column` in `pg_stat_activity` is `value`, and waits for a short while.
async fn end_sessions(client: &Client, column: &str, value: &str) -> Result<()> {
    let end = format!(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity \
         WHERE {column} = $1 AND pid <> pg_backend_pid()"
    );
    client.query(&end, &[&value]).await.map(drop).map_err(refused)
}

async fn run(client: &Client, statements: &str) -> Result<()> {
    client.batch_execute(statements).await.map_err(refused)
}

fn words(attributes: &Attributes) -> String {
    let word = |set: bool, word: &str| format!("{}{word}", if set { "" } else { "NO" });
    format!(
        "{} {} {}",
        word(attributes.bypassrls, "BYPASSRLS"),
        word(attributes.createdb, "CREATEDB"),
        word(attributes.createrole, "CREATEROLE"),
    )
}

/// Converts what Postgres or the driver said: a refusal is the caller's, a lost connection ours.
fn refused(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(told) => Error::new(Kind::Usage, told.message().to_owned()),
        None => Error::new(Kind::Failed, "the compute did not answer").why(error.to_string()),
    }
}

/// Refuses names that Postgres would refuse for a role, or that are taken by the platform.
pub(crate) fn check_role_name(role: &str) -> Result<()> {
    check_name(role)
}

/// Refuses names that Postgres would change or refuse for a database, or that are taken by the platform.
pub(crate) fn check_database_name(database: &str) -> Result<()> {
    let wrong = match database {
        "" => "is empty",
        name if name.len() > 63 => "is longer than 63 bytes",
        name if name.contains('\0') => "holds a zero byte",
        OWN_DATABASE | "template0" | "template1" => "is reserved",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Usage, format!("there cannot be a Postgres database `{database}`"))
        .why(format!("the name {wrong}")))
}
