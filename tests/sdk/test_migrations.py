"""Alembic tries a migration on a branch before production has it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import event, inspect

from workspace import Case

VERSIONS = Path(__file__).resolve().parent / "alembic"


class Migrations(Case):
    def engine(self, branch: str) -> sqlalchemy.Engine:
        me = self.w.current_user.me().user_name
        url = sqlalchemy.URL.create(
            "postgresql+psycopg", me, database="databricks_postgres", **self.address(branch)
        )
        engine = sqlalchemy.create_engine(url, connect_args={"sslmode": "require"})

        @event.listens_for(engine, "do_connect")
        def mint(
            dialect: object, record: object, arguments: object, parameters: dict[str, str]
        ) -> None:
            parameters["password"] = self.token(branch)

        self.addCleanup(engine.dispose)
        return engine

    def migrate(self, branch: str, way: str, revision: str) -> None:
        config = Config()
        config.set_main_option("script_location", str(VERSIONS))
        with self.engine(branch).begin() as connection:
            config.attributes["connection"] = connection
            getattr(command, way)(config, revision)

    def columns(self, branch: str) -> list[str]:
        return [column["name"] for column in inspect(self.engine(branch)).get_columns("customer")]

    def test_a_migration_goes_up_and_down_on_a_branch_and_production_is_untouched(self) -> None:
        home = self.project()
        production = f"{home}/branches/production"
        self.migrate(production, "upgrade", "0001")
        self.sql(production, "INSERT INTO customer (name) VALUES ('Ada'), ('Eve')")
        branch = self.branch(home, "try-out").name

        self.migrate(branch, "upgrade", "head")

        emails = "SELECT email FROM customer ORDER BY email"
        self.assertEqual(self.sql(branch, emails), [("ada@example.test",), ("eve@example.test",)])
        self.assertEqual(self.sql(branch, "SELECT version_num FROM alembic_version"), [("0002",)])
        self.assertEqual(self.columns(production), ["id", "name"])
        self.assertEqual(
            self.sql(production, "SELECT version_num FROM alembic_version"), [("0001",)]
        )
        self.assertEqual(
            self.sql(production, "SELECT * FROM customer ORDER BY id"), [(1, "Ada"), (2, "Eve")]
        )
        self.migrate(branch, "downgrade", "-1")
        self.assertEqual(self.columns(branch), ["id", "name"])
        self.migrate(branch, "downgrade", "base")
        self.assertFalse(inspect(self.engine(branch)).has_table("customer"))
        self.assertTrue(inspect(self.engine(production)).has_table("customer"))
        self.migrate(production, "upgrade", "head")
        self.assertEqual(self.columns(production), ["id", "name", "email"])
