//! Talking SQL to a compute over its socket, as the engine's own superuser.

use std::path::PathBuf;

use tokio_postgres::{Client, Config, NoTls};

use super::wal::Lsn;
use crate::error::{Error, Kind, Result};

/// The superuser that owns every cluster; reachable over the private socket only.
pub(super) const SUPERUSER: &str = "lakeforge";
/// The database the engine's own sessions use.
pub(super) const OWN_DATABASE: &str = "postgres";

/// Where a running compute listens.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Folder of the socket.
    pub(super) folder: PathBuf,
    /// Number in the socket's name.
    pub(super) port: u16,
}

impl Address {
    /// Returns the path of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Opens a session on `database` as the superuser.
    pub(super) async fn connect(&self, database: &str) -> Result<Client> {
        let mut config = Config::new();
        config.host_path(&self.folder).port(self.port).user(SUPERUSER).dbname(database);
        config.application_name("lakeforge");
        // The owner of a database may give it a search path of its own, and functions where that leads.
        config.options("-c search_path=pg_catalog");
        let (client, connection) = config.connect(NoTls).await.map_err(told)?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Returns the position up to which everything is safe on disk.
pub(super) async fn flush_position(client: &Client) -> Result<Lsn> {
    let query = "SELECT pg_current_wal_flush_lsn()::text";
    let row = client.query_one(query, &[]).await.map_err(told)?;
    row.get::<_, &str>(0).parse().map_err(|error: String| Error::new(Kind::Failed, error))
}

/// Ends the sessions of everybody but the engine and its standbys.
pub(super) async fn end_others(address: &Address) -> Result<()> {
    let client = address.connect(OWN_DATABASE).await?;
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND usename <> $1";
    client.query(end, &[&SUPERUSER]).await.map(drop).map_err(told)
}

/// Converts what Postgres or the driver said into our error.
pub(super) fn told(error: tokio_postgres::Error) -> Error {
    let said = error.as_db_error().map(|told| told.message().to_owned());
    Error::new(Kind::Failed, "Postgres refused").why(said.unwrap_or_else(|| error.to_string()))
}

/// Quotes `name` as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
