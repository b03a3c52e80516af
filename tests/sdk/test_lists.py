"""Lists in pages, and operations."""

from __future__ import annotations

from typing import Any, Callable, Iterator
from unittest import mock

from databricks.sdk.common.lro import LroOptions
from databricks.sdk.errors import Aborted, BadRequest, NotFound
from databricks.sdk.service import postgres as pg

from workspace import Case


class Lists(Case):
    def test_every_list_is_the_same_whatever_the_size_of_its_pages(self) -> None:
        home = self.project()
        production = f"{home}/branches/production"
        for id in ("page-a", "page-b", "page-c"):
            self.branch(home, id)
            role = pg.Role(spec=pg.RoleRoleSpec(postgres_role=id))
            owner = self.w.postgres.create_role(production, role, role_id=id).wait().name
            spec = pg.DatabaseDatabaseSpec(postgres_database=id, role=owner)
            self.w.postgres.create_database(
                production, pg.Database(spec=spec), database_id=id
            ).wait()
        self.project()
        lists: list[tuple[Callable[..., Iterator[Any]], tuple[str, ...]]] = [
            (self.w.postgres.list_projects, ()),
            (self.w.postgres.list_branches, (home,)),
            (self.w.postgres.list_roles, (production,)),
            (self.w.postgres.list_databases, (production,)),
            (self.w.postgres.list_endpoints, (production,)),
        ]
        for call, arguments in lists:
            with self.subTest(call.__name__):
                whole = [item.name for item in call(*arguments)]
                self.assertEqual(len(whole), len(set(whole)))
                with mock.patch.object(
                    self.w.postgres._api, "do", wraps=self.w.postgres._api.do
                ) as do:
                    self.assertEqual([item.name for item in call(*arguments, page_size=1)], whole)
                self.assertEqual(do.call_count, len(whole), "one page for each")
                self.assertEqual([item.name for item in call(*arguments, page_size=1000)], whole)
                with self.assertRaises(BadRequest):
                    list(call(*arguments, page_token="nonsense"))
                with self.assertRaises(BadRequest):
                    list(call(*arguments, page_size=-1))


class Operations(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project()

    def test_an_operation_is_remembered_under_the_name_of_what_it_changes(self) -> None:
        branch = pg.Branch(spec=pg.BranchSpec(no_expiry=True))
        started = self.w.postgres.create_branch(self.home, branch, "remembered")
        created = started.wait()
        operation = self.w.postgres.get_operation(started.name())
        self.assertTrue(operation.done)
        self.assertEqual(operation.name, started.name())
        self.assertEqual(operation.response["name"], created.name)
        self.assertEqual(
            operation.metadata["@type"],
            "type.googleapis.com/databricks.postgres.v1.BranchOperationMetadata",
        )
        deleted = self.w.postgres.delete_branch(created.name, purge=True)
        deleted.wait()
        self.assertRegex(deleted.name(), rf"^{created.name}/operations/")
        self.assertEqual(
            self.w.postgres.get_operation(deleted.name()).response,
            {"@type": "type.googleapis.com/google.protobuf.Empty"},
        )
        for name in (
            f"{created.name}/operations/nobody",
            started.name().replace("remembered", "other"),
        ):
            with self.subTest(name), self.refused(NotFound, "NOT_FOUND", "^operation id not found"):
                self.w.postgres.get_operation(name)

    def test_an_operation_that_takes_its_time_is_waited_for(self) -> None:
        path = f"/api/2.0/postgres/{self.home}/branches"
        self.workspace().admin_route(
            "POST", {"method": "POST", "path": path, "fault": {"slow_operation": "10s"}, "times": 1}
        )
        branch = pg.Branch(spec=pg.BranchSpec(no_expiry=True))
        started = self.w.postgres.create_branch(self.home, branch, "slow")
        under_way = self.w.postgres.get_branch(f"{self.home}/branches/slow").status
        self.assertEqual(under_way.current_state, pg.BranchStatusState.INIT)
        self.assertEqual(under_way.pending_state, pg.BranchStatusState.READY)
        endpoint = self.w.postgres.get_endpoint(
            f"{self.home}/branches/slow/endpoints/primary"
        ).status
        self.assertEqual(
            (endpoint.current_state, endpoint.pending_state, endpoint.hosts),
            (pg.EndpointStatusState.INIT, pg.EndpointStatusState.ACTIVE, None),
        )
        with self.refused(Aborted, "ABORTED", "reconciliation"):
            self.w.postgres.delete_branch(f"{self.home}/branches/slow")
        self.assertEqual(
            started.wait(LroOptions()).status.current_state, pg.BranchStatusState.READY
        )
        self.assertTrue(started.done())
