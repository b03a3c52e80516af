"""The service's connections: each logs in with a credential that is minted for it."""

from __future__ import annotations

import os
from typing import Any, Sequence

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from psycopg import errors
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from web import Answer, Refusal, Request

ENDPOINT = os.environ["LAKEBASE_ENDPOINT"]

# Host, port, database, user and TLS mode are read from PGHOST and its siblings by libpq.
# A compute that sleeps needs a few seconds before it answers.
SETTINGS = {
    "connect_timeout": 12,
    "options": "-c statement_timeout=10s -c timezone=UTC",
    "row_factory": dict_row,
}


class MintedConnection(psycopg.Connection[Any]):
    """A connection whose password is a fresh credential: they expire after an hour."""

    workspace: WorkspaceClient | None = None
    failure: str = "the database did not answer"

    @classmethod
    def connect(cls, conninfo: str = "", **settings: Any) -> Any:
        try:
            if cls.workspace is None:
                config = Config(http_timeout_seconds=10, retry_timeout_seconds=12)
                cls.workspace = WorkspaceClient(config=config)
            credential = cls.workspace.postgres.generate_database_credential(ENDPOINT)
            return super().connect(conninfo, password=credential.token, **settings)
        except Exception as error:
            cls.failure = first_line(error)
            raise


POOL = ConnectionPool(
    name="database",
    connection_class=MintedConnection,
    kwargs=SETTINGS,
    min_size=1,
    max_size=4,
    max_lifetime=2700,
    timeout=8,
    reconnect_timeout=20,
    check=ConnectionPool.check_connection,
    open=False,
)


def query(statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Runs one statement in a transaction of its own and returns its rows."""
    try:
        with POOL.connection() as connection:
            return connection.execute(statement, values).fetchall()
    except PoolTimeout:
        raise Refusal(503, f"no database connection: {MintedConnection.failure}") from None
    except (errors.UndefinedTable, errors.UndefinedColumn):
        raise Refusal(503, "the database is not migrated") from None
    except errors.InsufficientPrivilege as error:
        raise Refusal(503, f"the app has no grant yet: {first_line(error)}") from None
    except errors.UniqueViolation:
        raise Refusal(409, "there is one already") from None
    except (errors.IntegrityError, errors.DataError) as error:
        raise Refusal(400, first_line(error)) from None
    except psycopg.Error as error:
        raise Refusal(503, f"the database failed: {first_line(error)}") from None


def health(_: Request) -> Answer:
    """Well only if a query on the service's own database is answered now."""
    try:
        query("select 1")
    except Refusal as refusal:
        return Answer(503, {"ok": False, "why": refusal.why})
    return Answer(200, {"ok": True})


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
