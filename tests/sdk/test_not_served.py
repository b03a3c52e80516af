"""What the SDK has and the embedded workspace does not: 501, by name, and nothing else."""

from __future__ import annotations

import inspect
import re
import unittest
from pathlib import Path

from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import NotImplemented as Missing
from databricks.sdk.service import apps, database as db, postgres as pg

from workspace import Case

HERE = Path(__file__).resolve().parent


class NotServed(Case):
    def test_snapshots_catalogs_feeds_and_the_data_api_are_refused_by_name(self) -> None:
        p = self.w.postgres
        home = self.project()
        branch = f"{home}/branches/production"
        database = f"{branch}/databases/databricks-postgres"
        snapshot = pg.Snapshot(spec=pg.SnapshotSpec(source_branch=branch))
        calls = [
            lambda: p.create_snapshot(home, snapshot, "first"),
            lambda: p.get_snapshot(f"{home}/snapshots/first"),
            lambda: list(p.list_snapshots(home)),
            lambda: p.delete_snapshot(f"{home}/snapshots/first"),
            lambda: p.get_snapshot_schedule(f"{branch}/snapshot-schedule"),
            lambda: p.update_snapshot_schedule(
                f"{branch}/snapshot-schedule",
                pg.SnapshotSchedule(schedule=[]),
                FieldMask(["schedule"]),
            ),
            lambda: p.create_data_api(database, pg.DataApi()),
            lambda: p.get_data_api(f"{database}/data-api"),
            lambda: p.update_data_api(
                f"{database}/data-api", pg.DataApi(), FieldMask(["spec.db_max_rows"])
            ),
            lambda: p.delete_data_api(f"{database}/data-api"),
            lambda: p.create_cdf_config(
                database,
                pg.CdfConfig(catalog="c", schema="s", postgres_schema="public"),
                cdf_config_id="feed",
            ),
            lambda: p.get_cdf_config(f"{database}/cdf-configs/feed"),
            lambda: list(p.list_cdf_configs(database)),
            lambda: p.delete_cdf_config(f"{database}/cdf-configs/feed"),
            lambda: p.get_cdf_status(f"{database}/cdf-configs/feed/cdf-statuses/t"),
            lambda: list(p.list_cdf_statuses(f"{database}/cdf-configs/feed")),
            lambda: p.create_catalog(pg.Catalog(), "main"),
            lambda: p.get_catalog("catalogs/main"),
            lambda: p.delete_catalog("catalogs/main"),
            lambda: p.create_synced_table(pg.SyncedTable(), "c.s.t"),
            lambda: p.get_synced_table("synced_tables/c.s.t"),
            lambda: p.delete_synced_table("synced_tables/c.s.t"),
            lambda: p.generate_database_credential(
                f"{branch}/endpoints/primary",
                claims=[
                    pg.RequestedClaims(permission_set=pg.RequestedClaimsPermissionSet.READ_ONLY)
                ],
            ),
            lambda: p.create_branch(
                home,
                pg.Branch(
                    spec=pg.BranchSpec(no_expiry=True, source_snapshot=f"{home}/snapshots/first")
                ),
                "restored",
            ),
        ]
        for call in calls:
            source = inspect.getsource(call).strip().splitlines()[0]
            with (
                self.subTest(source),
                self.refused(Missing, "NOT_IMPLEMENTED", "not served by the embedded workspace$"),
            ):
                call()

    def test_spaces_and_thumbnails_of_apps_are_refused_by_name(self) -> None:
        a = self.w.apps
        space = apps.Space(name="s")
        calls = [
            lambda: a.create_space(space),
            lambda: a.get_space("s"),
            lambda: list(a.list_spaces()),
            lambda: a.update_space("s", space, FieldMask(["description"])),
            lambda: a.delete_space("s"),
            lambda: a.get_space_operation("s/operations/1"),
            lambda: a.update_app_thumbnail("s", app_thumbnail=apps.AppThumbnail()),
            lambda: a.delete_app_thumbnail("s"),
        ]
        for call in calls:
            source = inspect.getsource(call).strip()
            with (
                self.subTest(source),
                self.refused(Missing, "NOT_IMPLEMENTED", "not served by the embedded workspace$"),
            ):
                call()


class Complete(unittest.TestCase):
    def test_every_call_of_the_sdk_is_made_by_some_test(self) -> None:
        tests = "".join(file.read_text() for file in HERE.glob("*.py"))
        for api in (pg.PostgresAPI, db.DatabaseAPI, apps.AppsAPI):
            calls = [
                name
                for name, _ in inspect.getmembers(api, inspect.isfunction)
                if not name.startswith("_")
            ]
            missing = [
                name
                for name in calls
                # The waiters themselves are what `…_and_wait` and `.result()` call.
                if not name.startswith("wait_") and not re.search(rf"\.{name}(_and_wait)?\b", tests)
            ]
            self.assertEqual(missing, [], api.__name__)
