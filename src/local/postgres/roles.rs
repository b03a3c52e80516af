//! The roles and grants that the platform makes in every database.

use super::session::{Address, OWN_DATABASE, quoted, told};
use crate::error::{Error, Kind, Result};
use crate::wire::names::DEFAULT_DATABASE;
use crate::wire::roles::IdentityType;

/// What every database of a fresh cluster has because `template1` has it: the platform's way to create
/// roles of identities with SQL, as the extension that clients ask for first.
///
/// Which identity a role belongs to is in its comment. The rows of an extension are written by hand, because
/// its files would have to be where the Postgres programs are.
///
/// Source: the product documentation, "Create Postgres roles", read 2026-11.
pub(super) const AUTH_SQL: &str = r#"
CREATE FUNCTION public.databricks_create_role(identity_name text, identity_type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF identity_type IS NULL OR lower(identity_type) NOT IN ('user', 'service_principal', 'group') THEN
        RAISE EXCEPTION 'invalid identity type "%"', identity_type
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use USER, SERVICE_PRINCIPAL or GROUP.';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN', identity_name);
    EXECUTE format('COMMENT ON ROLE %I IS %L', identity_name, 'databricks identity: ' || lower(identity_type));
END
$$;
CREATE VIEW public.databricks_list_roles AS
    SELECT rolname::text AS role_name, substr(comment, 22) AS identity_type
    FROM pg_catalog.pg_roles, pg_catalog.shobj_description(oid, 'pg_authid') comment
    WHERE comment LIKE 'databricks identity: %';
GRANT SELECT ON public.databricks_list_roles TO PUBLIC;
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    SELECT pg_nextoid('pg_extension', 'oid', 'pg_extension_oid_index'), 'databricks_auth',
        'lakeforge'::regrole, 'public'::regnamespace, false, '1.0';
RESET allow_system_table_mods;
ALTER EXTENSION databricks_auth ADD FUNCTION public.databricks_create_role(text, text);
ALTER EXTENSION databricks_auth ADD VIEW public.databricks_list_roles;
"#;
/// How the comment of a role begins that belongs to an identity.
const IDENTITY: &str = "databricks identity: ";

/// Returns the statement that says which kind of identity `role` belongs to; nothing for a plain role.
pub(super) fn mark(role: &str, identity: IdentityType) -> Option<String> {
    let kind = match identity {
        IdentityType::User => "user",
        IdentityType::ServicePrincipal => "service_principal",
        IdentityType::Group => "group",
        IdentityType::Plain => return None,
    };
    Some(format!("COMMENT ON ROLE {} IS '{IDENTITY}{kind}'", quoted(role)))
}

/// Reads what [`mark`] or the SQL function wrote.
pub(super) fn identity_of(comment: Option<&str>) -> IdentityType {
    match comment.and_then(|comment| comment.strip_prefix(IDENTITY)) {
        Some("user") => IdentityType::User,
        Some("service_principal") => IdentityType::ServicePrincipal,
        Some("group") => IdentityType::Group,
        _ => IdentityType::Plain,
    }
}

/// What a fresh cluster gets before it becomes the template. `CREATE DATABASE` cannot share a
/// transaction with the rest.
pub(super) const TEMPLATE_SQL: [&str; 3] = [
    "CREATE ROLE databricks_superuser NOLOGIN CREATEDB CREATEROLE BYPASSRLS",
    "GRANT pg_read_all_data, pg_write_all_data, pg_monitor, pg_signal_backend TO databricks_superuser",
    "CREATE DATABASE databricks_postgres",
];

/// Longest role name Postgres keeps whole, in bytes.
const NAME_BYTES: usize = 63;

/// What a login may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything the platform gives to the owner of a branch: membership in `databricks_superuser`.
    Owner,
    /// Connecting to `database` and creating objects in it, as the service principal of an app.
    ConnectAndCreate {
        /// Name of the database in Postgres.
        database: String,
    },
}

/// Makes `role` the owner of the default database, creating it first.
pub(super) async fn create_owner(address: &Address, role: &str) -> Result<()> {
    ensure_login(address, role, &Access::Owner).await?;
    let client = address.connect(OWN_DATABASE).await?;
    let change = format!("ALTER DATABASE {DEFAULT_DATABASE} OWNER TO {}", quoted(role));
    client.batch_execute(&change).await.map_err(told)
}

/// Makes sure that `role` can log in and has `access`.
///
/// Fails with `Usage` when Postgres cannot have a role of this name.
pub(super) async fn ensure_login(address: &Address, role: &str, access: &Access) -> Result<()> {
    check_name(role)?;
    let name = quoted(role);
    let client = address.connect(OWN_DATABASE).await?;
    // The lock makes two callers at once take turns; it goes with the session.
    client.batch_execute("SELECT pg_advisory_lock(7239402)").await.map_err(told)?;
    let known = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
        .await
        .map_err(told)?;
    if known.is_none() {
        client.batch_execute(&format!("CREATE ROLE {name} LOGIN")).await.map_err(told)?;
    }
    let grants = match access {
        // Attributes are not inherited through membership, so the owner has them itself.
        Access::Owner => format!(
            "ALTER ROLE {name} LOGIN CREATEDB CREATEROLE BYPASSRLS; \
             GRANT databricks_superuser TO {name} WITH ADMIN OPTION"
        ),
        Access::ConnectAndCreate { database } => format!(
            "ALTER ROLE {name} LOGIN; GRANT CONNECT, CREATE ON DATABASE {} TO {name}",
            quoted(database)
        ),
    };
    client.batch_execute(&grants).await.map_err(told)?;
    if let (Access::ConnectAndCreate { .. }, Some(mark)) =
        (access, mark(role, IdentityType::ServicePrincipal))
    {
        client.batch_execute(&mark).await.map_err(told)?;
    }
    if let Access::ConnectAndCreate { database } = access {
        let inside = address.connect(database).await?;
        let grants = format!("GRANT USAGE, CREATE ON SCHEMA public TO {name}");
        inside.batch_execute(&grants).await.map_err(told)?;
    }
    Ok(())
}

pub(super) fn check_name(role: &str) -> Result<()> {
    let wrong = match role {
        "" => "is empty",
        name if name.len() > NAME_BYTES => "is longer than 63 bytes",
        name if name.contains('\0') => "holds a zero byte",
        name if name.starts_with("pg_") => "starts with `pg_`, which Postgres keeps for itself",
        super::session::SUPERUSER | "databricks_superuser" | "public" | "none" => "is reserved",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Usage, format!("there cannot be a Postgres role `{role}`"))
        .why(format!("the name {wrong}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgres_would_change_or_refuse_are_refused_first() {
        for name in ["ana@shop.test", "8f1b2c3d-0000-4000-8000-123456789abc", "o\"brien@x.test"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "pg_x", "lakeforge", "a\0b", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
