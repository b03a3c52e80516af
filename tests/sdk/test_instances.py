"""Provisioned database instances through the official SDK."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    AlreadyExists,
    BadRequest,
    DatabricksError,
    InvalidParameterValue,
    NotFound,
    PermissionDenied,
)
from databricks.sdk.errors import NotImplemented as Missing
from databricks.sdk.service import database as db

from workspace import Case

NOTES = "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1), (2)"
COUNT = "SELECT count(*) FROM notes"


class Instances(Case):
    def instance(self, name: str, **wanted: Any) -> db.DatabaseInstance:
        """Creates an instance that goes with the test, and waits until it is available."""
        wanted.setdefault("capacity", "CU_1")
        self.addCleanup(self.remove, name)
        return self.w.database.create_database_instance_and_wait(
            db.DatabaseInstance(name=name, **wanted)
        )

    def remove(self, name: str) -> None:
        try:
            self.w.database.delete_database_instance(name, force=True, purge=True)
        except DatabricksError:
            # It went with its parent, or the test removed it.
            pass

    def ask(self, name: str, statement: str, password: str | None = None) -> list[Any]:
        """Runs a statement on an instance, with a credential for it unless another is given."""
        instance = self.w.database.get_database_instance(name)
        if password is None:
            password = self.credential(name)
        # A system without loopback addresses of their own names a port, which the SDK drops.
        raw = self.w.api_client.do("GET", f"/api/2.0/database/instances/{name}")
        with psycopg.connect(
            host=instance.read_write_dns,
            port=raw.get("port", 5432),
            user=self.w.current_user.me().user_name,
            password=password,
            dbname="databricks_postgres",
            sslmode="require",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def credential(self, *names: str, client: WorkspaceClient | None = None) -> str:
        minted = (client or self.w).database.generate_database_credential(
            request_id="7", instance_names=list(names)
        )
        assert minted.token and minted.expiration_time
        return minted.token

    def test_an_instance_is_made_found_changed_stopped_and_deleted(self) -> None:
        tags = [db.CustomTag(key="team", value="shop")]
        made = self.instance("sdk-orders", capacity="CU_2", custom_tags=tags)
        self.assertEqual(made.state, db.DatabaseInstanceState.AVAILABLE)
        self.assertEqual((made.effective_capacity, made.effective_node_count), ("CU_2", 1))
        self.assertEqual(made.effective_retention_window_in_days, 7)
        self.assertEqual(made.effective_custom_tags, tags)
        self.assertIs(made.effective_stopped, False)
        self.assertIs(made.effective_enable_pg_native_login, False)
        self.assertEqual(made.creator, self.w.current_user.me().user_name)
        found = self.w.database.find_database_instance_by_uid(uid=made.uid)
        self.assertEqual(found.name, "sdk-orders")
        self.assertIn("sdk-orders", [i.name for i in self.w.database.list_database_instances()])
        self.assertEqual(self.ask("sdk-orders", "SHOW max_connections"), [("419",)])

        changed = self.w.database.update_database_instance(
            "sdk-orders",
            db.DatabaseInstance(name="sdk-orders", retention_window_in_days=9, stopped=True),
            "retention_window_in_days,stopped",
        )
        self.assertEqual(changed.effective_retention_window_in_days, 9)
        self.assertEqual(changed.state, db.DatabaseInstanceState.STOPPED)
        with self.assertRaisesRegex(psycopg.OperationalError, "endpoint is disabled"):
            self.ask("sdk-orders", "SELECT 1")
        self.w.database.update_database_instance(
            "sdk-orders", db.DatabaseInstance(name="sdk-orders", stopped=False), "stopped"
        )
        started = self.w.database.wait_get_database_instance_database_available("sdk-orders")
        self.assertIs(started.effective_stopped, False)
        self.assertEqual(self.ask("sdk-orders", "SELECT 1"), [(1,)])

        with self.refused(BadRequest, "BAD_REQUEST", "must have purge=true"):
            self.w.database.delete_database_instance("sdk-orders")
        self.w.database.delete_database_instance("sdk-orders", purge=True)
        with self.refused(NotFound, "NOT_FOUND", "DatabaseInstance not found: sdk-orders"):
            self.w.database.get_database_instance("sdk-orders")

    def test_a_child_is_its_parent_at_a_moment(self) -> None:
        parent = self.instance("sdk-parent")
        self.ask("sdk-parent", NOTES)
        (before,) = self.ask("sdk-parent", "SELECT clock_timestamp()")[0]
        self.ask("sdk-parent", "DELETE FROM notes")
        moment = before.astimezone(timezone.utc).isoformat()
        past = db.DatabaseInstanceRef(name="sdk-parent", branch_time=moment)

        child = self.instance("sdk-child", parent_instance_ref=past)

        self.assertEqual(child.parent_instance_ref.uid, parent.uid)
        self.assertRegex(child.parent_instance_ref.effective_lsn or "", "^[0-9A-F]+/[0-9A-F]+$")
        self.assertEqual(self.ask("sdk-child", COUNT), [(2,)])
        self.assertEqual(self.ask("sdk-parent", COUNT), [(0,)])
        children = self.w.database.get_database_instance("sdk-parent").child_instance_refs
        self.assertEqual([child.name for child in children], ["sdk-child"])
        with self.refused(BadRequest, "BAD_REQUEST", "has child instances"):
            self.w.database.delete_database_instance("sdk-parent", purge=True)
        late = datetime(2100, 1, 1, tzinfo=timezone.utc).isoformat()
        future = db.DatabaseInstanceRef(name="sdk-parent", branch_time=late)
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "in the future"):
            self.instance("sdk-late", parent_instance_ref=future)
        nobody = db.DatabaseInstanceRef(name="sdk-nobody")
        with self.refused(NotFound, "NOT_FOUND", "DatabaseInstance not found: sdk-nobody"):
            self.instance("sdk-orphan", parent_instance_ref=nobody)

    def test_a_credential_opens_the_instances_it_names_and_no_other(self) -> None:
        for name in ("sdk-a", "sdk-b", "sdk-c"):
            self.instance(name)
        both = self.credential("sdk-a", "sdk-b")
        self.assertEqual(self.ask("sdk-a", "SELECT 1", both), [(1,)])
        self.assertEqual(self.ask("sdk-b", "SELECT 1", both), [(1,)])
        with self.assertRaisesRegex(psycopg.OperationalError, "User is not authorized"):
            self.ask("sdk-c", "SELECT 1", both)
        with self.refused(NotFound, "NOT_FOUND", "DatabaseInstance not found: sdk-nobody"):
            self.credential("sdk-a", "sdk-nobody")

    def test_what_no_instance_can_be_is_refused(self) -> None:
        self.instance("sdk-taken")
        with self.refused(AlreadyExists, "ALREADY_EXISTS", "sdk-taken"):
            self.w.database.create_database_instance(db.DatabaseInstance(name="sdk-taken"))
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "between 2 and 35"):
            self.instance("sdk-long", retention_window_in_days=36)
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "colour"):
            self.w.database.update_database_instance(
                "sdk-taken", db.DatabaseInstance(name="sdk-taken"), "colour"
            )

    def test_somebody_without_rights_uses_and_changes_nothing(self) -> None:
        self.instance("sdk-private")
        member = self.workspace().client("local-member").database
        with self.refused(PermissionDenied, "PERMISSION_DENIED", "'Can Use'"):
            member.generate_database_credential(instance_names=["sdk-private"])
        with self.refused(PermissionDenied, "PERMISSION_DENIED", "'Can Manage'"):
            member.delete_database_instance("sdk-private", purge=True)
        with self.refused(PermissionDenied, "PERMISSION_DENIED", "admin"):
            member.create_database_instance(db.DatabaseInstance(name="sdk-more"))

    def test_what_belongs_to_the_lakehouse_is_refused_by_name(self) -> None:
        self.instance("sdk-plain")
        d = self.w.database
        catalog = db.DatabaseCatalog("c", "sdk-plain", "databricks_postgres")
        role = db.DatabaseInstanceRole(name="reader")
        table = db.SyncedDatabaseTable(name="c.s.t")
        calls = [
            lambda: d.create_database_catalog(catalog),
            lambda: d.get_database_catalog("c"),
            lambda: list(d.list_database_catalogs("sdk-plain")),
            lambda: d.update_database_catalog("c", catalog, "database_name"),
            lambda: d.delete_database_catalog("c"),
            lambda: d.create_database_instance_role("sdk-plain", role),
            lambda: d.get_database_instance_role("sdk-plain", "reader"),
            lambda: list(d.list_database_instance_roles("sdk-plain")),
            lambda: d.delete_database_instance_role("sdk-plain", "reader"),
            lambda: d.create_database_table(db.DatabaseTable(name="c.s.t")),
            lambda: d.get_database_table("c.s.t"),
            lambda: d.delete_database_table("c.s.t"),
            lambda: d.create_synced_database_table(table),
            lambda: d.get_synced_database_table("c.s.t"),
            lambda: list(d.list_synced_database_tables("sdk-plain")),
            lambda: d.update_synced_database_table("c.s.t", table, "spec"),
            lambda: d.delete_synced_database_table("c.s.t"),
            lambda: self.instance("sdk-more", node_count=2),
        ]
        for number, call in enumerate(calls):
            with (
                self.subTest(number),
                self.refused(Missing, "NOT_IMPLEMENTED", "not served by the embedded workspace$"),
            ):
                call()
