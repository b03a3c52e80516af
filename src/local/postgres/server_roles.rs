//! The predefined roles that reach the operating system, which nobody is granted.

use super::session::{Address, OWN_DATABASE, told};
use crate::error::Result;

/// Last major version whose CREATEROLE may grant every role that is not a superuser. Later ones ask for
/// ADMIN OPTION on the role, which nobody has on these.
///
/// Source: PostgreSQL 16 release notes, "Privileges".
const LAST_GENEROUS: u32 = 15;

/// Marks the roles as superusers, which only superusers may grant and nobody may become: the one bar that
/// PostgreSQL 15 has in every statement that makes members. The attribute says no more than these roles can
/// do anyhow, by way of a program or of the files of the cluster. Dropping them instead would break clients
/// that ask `pg_has_role` about them. Whoever was granted one before is a member no longer.
const RESTRICT: &str = "BEGIN;
SET LOCAL allow_system_table_mods = on;
DELETE FROM pg_auth_members WHERE roleid IN (
    'pg_execute_server_program'::regrole, 'pg_read_server_files'::regrole, 'pg_write_server_files'::regrole);
UPDATE pg_authid SET rolsuper = true WHERE NOT rolsuper AND oid IN (
    'pg_execute_server_program'::regrole, 'pg_read_server_files'::regrole, 'pg_write_server_files'::regrole);
COMMIT";

/// Makes sure that SQL cannot gain the roles with which files and programs of the machine are used.
pub(super) async fn restrict(address: &Address, major: u32) -> Result<()> {
    if major > LAST_GENEROUS {
        return Ok(());
    }
    address.connect(OWN_DATABASE).await?.batch_execute(RESTRICT).await.map_err(told)
}
