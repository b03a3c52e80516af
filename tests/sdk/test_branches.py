"""Branches through the official SDK: lineage, moments, expiry, protection, deletion."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as pg

from workspace import Case, in_, moment, seconds, when

CAP = "^expiration time exceeds the maximum expiration time$"


class Branches(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project()
        cls.production = f"{cls.home}/branches/production"

    def create(
        self, id: str, replace: bool | None = None, **spec: object
    ) -> pg.CreateBranchOperation:
        branch = pg.Branch(spec=pg.BranchSpec(**spec))
        return self.w.postgres.create_branch(self.home, branch, id, replace_existing=replace)

    def update(self, name: str, mask: list[str], **spec: object) -> pg.Branch:
        branch = pg.Branch(spec=pg.BranchSpec(**spec))
        return self.w.postgres.update_branch(name, branch, FieldMask(mask)).wait()

    def test_a_new_branch_has_the_data_of_its_source_and_goes_its_own_way(self) -> None:
        self.sql(self.production, "CREATE TABLE own AS SELECT 1 AS n")

        operation = self.create("own-way", no_expiry=True)
        self.assertRegex(operation.name(), rf"^{self.home}/branches/own-way/operations/\S+$")
        branch = operation.wait()

        self.assertEqual((branch.name, branch.parent), (f"{self.home}/branches/own-way", self.home))
        self.assertRegex(branch.uid or "", "^br-")
        status = branch.status
        self.assertEqual(
            (status.current_state, status.default, status.is_protected, status.source_branch),
            (pg.BranchStatusState.READY, False, False, self.production),
        )
        self.assertRegex(status.source_branch_lsn or "", "^[0-9A-F]+/[0-9A-F]+$")
        self.assertLessEqual(
            when(status.source_branch_time), when(branch.create_time) + timedelta(minutes=1)
        )
        self.assertIsNone(status.expire_time)
        self.sql(branch.name, "INSERT INTO own VALUES (2)")
        self.sql(self.production, "INSERT INTO own VALUES (3)")
        self.assertEqual(self.sql(branch.name, "SELECT n FROM own ORDER BY n"), [(1,), (2,)])
        self.assertEqual(self.sql(self.production, "SELECT n FROM own ORDER BY n"), [(1,), (3,)])
        [endpoint] = self.w.postgres.list_endpoints(branch.name)
        self.assertEqual(endpoint.name, f"{branch.name}/endpoints/primary")

    def test_a_branch_starts_from_any_other_of_its_project_and_from_none_of_another(self) -> None:
        parent = self.branch(self.home, "parent").name
        self.assertEqual(
            self.branch(self.home, "child", source_branch=parent).status.source_branch, parent
        )
        foreign = self.project()
        with self.refused(
            BadRequest,
            "BAD_REQUEST",
            "^source_branch field must point to the branch from the same Project$",
        ):
            self.create("foreign", no_expiry=True, source_branch=f"{foreign}/branches/production")
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.create("orphan", no_expiry=True, source_branch=f"{self.home}/branches/nobody")
        uid = self.w.postgres.get_branch(parent).uid
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.w.postgres.get_branch(f"{self.home}/branches/{uid}")

    def test_a_branch_of_a_past_moment_has_what_was_committed_then(self) -> None:
        self.sql(self.production, "CREATE TABLE past AS SELECT 1 AS n")
        lsn, wanted = self.sql(
            self.production, "SELECT pg_current_wal_lsn()::text, clock_timestamp()"
        )[0]
        # The moment lies between two commits, also for a clock of whole milliseconds.
        time.sleep(0.01)
        self.sql(self.production, "INSERT INTO past VALUES (2)")

        at_time = self.branch(self.home, "at-time", source_branch_time=moment(wanted))
        at_lsn = self.branch(self.home, "at-lsn", source_branch_lsn=lsn)

        for branch in (at_time, at_lsn):
            with self.subTest(branch.name):
                self.assertEqual(self.sql(branch.name, "SELECT n FROM past"), [(1,)])
                self.assertLessEqual(when(branch.status.source_branch_time), wanted)
                self.assertRegex(branch.status.source_branch_lsn or "", "^[0-9A-F]+/[0-9A-F]+$")
                self.assertEqual(branch.status.source_branch, self.production)
        self.assertEqual(
            self.w.postgres.get_branch(at_time.name).status.as_dict(), at_time.status.as_dict()
        )

    def test_moments_outside_the_history_are_refused(self) -> None:
        for time_, text in [
            (in_(days=-40), "outside the history"),
            (in_(days=-3), "outside the history"),
            (in_(hours=1), "future"),
        ]:
            with (
                self.subTest(text),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", text),
            ):
                self.create("never", no_expiry=True, source_branch_time=time_)
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "only one of"):
            self.create(
                "never", no_expiry=True, source_branch_time=in_(seconds=-1), source_branch_lsn="0/1"
            )
        with self.refused(
            InvalidParameterValue, "INVALID_PARAMETER_VALUE", "^Invalid source_branch_lsn"
        ):
            self.create("never", no_expiry=True, source_branch_lsn="nonsense")
        for lsn in ("FFFFFFF/0", "0/1"):
            # Only the compute knows how far its log reaches: the operation fails.
            with (
                self.subTest(lsn),
                self.assertRaisesRegex(
                    Exception,
                    r"^operation failed: \[\S*INVALID_PARAMETER_VALUE\] .*outside the retention",
                ),
            ):
                self.create("never", no_expiry=True, source_branch_lsn=lsn).wait()
        self.assertNotIn(
            f"{self.home}/branches/never",
            [b.name for b in self.w.postgres.list_branches(self.home)],
        )

    def test_expiry_must_be_given_once_and_within_thirty_days(self) -> None:
        with self.refused(
            InvalidParameterValue,
            "INVALID_PARAMETER_VALUE",
            "^Expiration must be specified when creating a branch$",
        ):
            self.create("never")
        for text, spec in [
            (CAP, {"ttl": seconds(30 * 86_400 + 60)}),
            (CAP, {"expire_time": in_(days=30, minutes=5)}),
            ("future", {"expire_time": in_(minutes=-1)}),
            ("only one of", {"ttl": seconds(3600), "no_expiry": True}),
            ("only one of", {"ttl": seconds(3600), "expire_time": in_(hours=1)}),
            ("no_expiry", {"no_expiry": False}),
        ]:
            with (
                self.subTest(text, spec=spec),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", text),
            ):
                self.create("never", **spec)

    def test_expiry_is_read_back_as_a_moment_and_changed_by_leaf_and_by_group(self) -> None:
        branch = self.branch(self.home, "expiring", ttl=seconds(3600))
        self.assertEqual(
            when(branch.status.expire_time), when(branch.create_time) + timedelta(hours=1)
        )
        later = in_(days=2)
        later.nanos = 0

        by_group = self.update(branch.name, ["spec.expiration"], expire_time=later)
        self.assertEqual(by_group.status.expire_time, later)
        by_leaf = self.update(branch.name, ["spec.ttl"], ttl=seconds(7200))
        self.assertGreater(
            when(by_leaf.status.expire_time), datetime.now(timezone.utc) + timedelta(hours=1)
        )
        self.assertLess(when(by_leaf.status.expire_time), when(later))
        self.assertIsNone(
            self.update(branch.name, ["spec.expiration"], no_expiry=True).status.expire_time
        )
        self.assertIsNotNone(
            self.update(branch.name, ["spec.expire_time"], expire_time=later).status.expire_time
        )
        self.assertIsNone(
            self.update(branch.name, ["spec.no_expiry"], no_expiry=True).status.expire_time
        )
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", CAP):
            self.update(branch.name, ["spec.expiration"], ttl=seconds(31 * 86_400))

    def test_an_expired_branch_goes_by_itself(self) -> None:
        name = self.branch(self.home, "brief", ttl=seconds(1)).name
        end = time.monotonic() + 120
        while name in [branch.name for branch in self.w.postgres.list_branches(self.home)]:
            self.assertLess(time.monotonic(), end, "it is still there")
            time.sleep(0.2)
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.w.postgres.get_branch(name)

    def test_default_protected_and_parent_branches_do_not_expire(self) -> None:
        parent = self.branch(self.home, "with-child").name
        self.branch(self.home, "its-child", source_branch=parent)
        protected = self.branch(self.home, "guarded", is_protected=True).name
        for name, text in [
            (self.production, "default branch"),
            (protected, "Protected"),
            (parent, "child branches"),
        ]:
            with self.subTest(name), self.refused(BadRequest, "BAD_REQUEST", text):
                self.update(name, ["spec.expiration"], ttl=seconds(3600))
        with self.refused(BadRequest, "BAD_REQUEST", "Protected"):
            self.create("never", is_protected=True, ttl=seconds(3600))
        expiring = self.branch(self.home, "expires", ttl=seconds(3600)).name
        with self.refused(
            BadRequest,
            "BAD_REQUEST",
            "^Branches with an expiration date cannot have child branches$",
        ):
            self.create("never", no_expiry=True, source_branch=expiring)
        self.update(protected, ["spec.is_protected"], is_protected=False)

    def test_what_must_stay_is_not_deleted(self) -> None:
        protected = self.branch(self.home, "protected", is_protected=True).name
        with self.refused(BadRequest, "BAD_REQUEST", "^cannot delete protected branch$"):
            self.w.postgres.delete_branch(protected)
        unprotected = self.update(protected, ["spec.is_protected"], is_protected=False)
        self.assertIs(unprotected.status.is_protected, False)
        self.w.postgres.delete_branch(protected, purge=True).wait()
        text = rf"^Cannot delete root branch '{self.production}'\. Root branches cannot be deleted independently\.$"
        with self.refused(BadRequest, "BAD_REQUEST", text) as caught:
            self.w.postgres.delete_branch(self.production)
        details = caught.exception.get_error_details()
        self.assertEqual(
            (details.error_info.reason, details.error_info.domain, details.error_info.metadata),
            ("RESOURCE_CONFLICT", "databricks.com", {"declarative_context": "MANAGED_BY_PARENT"}),
        )
        self.assertTrue(details.request_info.request_id)
        parent = self.branch(self.home, "elder").name
        child = self.branch(self.home, "younger", source_branch=parent).name
        with self.refused(BadRequest, "BAD_REQUEST", "child branches"):
            self.w.postgres.delete_branch(parent)
        self.w.postgres.delete_branch(child, purge=True).wait()
        self.w.postgres.delete_branch(parent, purge=True).wait()

    def test_a_deleted_branch_comes_back_with_its_data_until_it_is_purged(self) -> None:
        name = self.branch(self.home, "comes-back").name
        self.sql(name, "CREATE TABLE mine AS SELECT 7 AS n")

        self.assertIsNone(self.w.postgres.delete_branch(name).wait())

        with self.refused(NotFound, "NOT_FOUND", r"^branch id not found \[TraceId: [0-9a-f]+\]$"):
            self.w.postgres.get_branch(name)
        listed = {b.name: b for b in self.w.postgres.list_branches(self.home, show_deleted=True)}
        status = listed[name].status
        self.assertEqual(status.current_state, pg.BranchStatusState.DELETED)
        self.assertEqual(status.purge_time.seconds - status.delete_time.seconds, 7 * 86_400)
        self.w.postgres.undelete_branch(name).wait()
        self.assertEqual(
            self.w.postgres.get_branch(name).status.current_state, pg.BranchStatusState.READY
        )
        self.assertEqual(self.sql(name, "SELECT n FROM mine"), [(7,)])
        with self.refused(BadRequest, "BAD_REQUEST", "not deleted"):
            self.w.postgres.undelete_branch(name)
        self.w.postgres.delete_branch(name).wait()
        self.w.postgres.delete_branch(name, purge=True).wait()
        self.assertNotIn(
            name, [b.name for b in self.w.postgres.list_branches(self.home, show_deleted=True)]
        )
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.w.postgres.undelete_branch(name)

    def test_a_taken_id_is_refused_unless_it_is_to_be_replaced(self) -> None:
        first = self.branch(self.home, "twice", ttl=seconds(3600))
        with self.refused(AlreadyExists, "ALREADY_EXISTS", "^branch with such id already exists$"):
            self.create("twice", no_expiry=True)

        second = self.create("twice", replace=True, no_expiry=True).wait()

        self.assertEqual((second.uid, second.status.expire_time), (first.uid, None))

    def test_ids_and_masks_are_checked(self) -> None:
        with self.refused(
            InvalidParameterValue,
            "INVALID_PARAMETER_VALUE",
            r"""^Field 'branch_id' is required, expected""",
        ):
            self.create("", no_expiry=True)
        for id in ("Dev", "1dev", "dev_1", "dev-", "d" * 64):
            with (
                self.subTest(id),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "branch_id"),
            ):
                self.create(id, no_expiry=True)
        for mask, spec in [
            ("spec.colour", {}),
            ("spec.is_protected", {}),
            ("spec.source_branch", {"source_branch": "x"}),
        ]:
            with (
                self.subTest(mask),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "update_mask"),
            ):
                self.update(self.production, [mask], **spec)
        with self.refused(NotFound, "NOT_FOUND", "^project id not found"):
            self.w.postgres.list_branches("projects/nobody").__next__()
