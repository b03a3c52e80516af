"""Projects through the official SDK."""

from __future__ import annotations

from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as pg

from workspace import Case, seconds

DAY = 86_400


class Projects(Case):
    def create(self, id: str, **parts: object) -> pg.Project:
        parts.setdefault("spec", pg.ProjectSpec())
        project = self.w.postgres.create_project(pg.Project(**parts), id).wait()
        self.addCleanup(self.purge, project.name)
        return project

    def update(self, name: str, mask: list[str], **spec: object) -> pg.ProjectStatus:
        project = pg.Project(spec=pg.ProjectSpec(**spec))
        return self.w.postgres.update_project(name, project, FieldMask(mask)).wait().status

    def test_a_new_project_has_its_branch_endpoint_database_and_the_role_of_its_creator(
        self,
    ) -> None:
        operation = self.w.postgres.create_project(
            pg.Project(spec=pg.ProjectSpec(display_name="The shop", pg_version=17)), "whole"
        )
        self.addCleanup(self.purge, "projects/whole")
        self.assertTrue(operation.name().startswith("projects/whole/operations/"))
        self.assertIsNotNone(operation.metadata())
        project = operation.wait()
        self.assertTrue(operation.done())

        me = self.w.current_user.me().user_name
        self.assertEqual(project.name, "projects/whole")
        self.assertRegex(project.uid or "", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertIsNone(project.spec, "a spec is never given back")
        status = project.status
        self.assertEqual(
            (status.project_id, status.display_name, status.owner, status.default_branch),
            ("whole", "The shop", me, "projects/whole/branches/production"),
        )
        self.assertEqual(status.enable_pg_native_login, False)
        self.assertEqual(status.branch_logical_size_limit_bytes, 8 << 40)
        self.assertIsNotNone(status.synthetic_storage_size_bytes)
        [branch] = self.w.postgres.list_branches("projects/whole")
        self.assertEqual(
            (
                branch.name,
                branch.status.default,
                branch.status.is_protected,
                branch.status.source_branch,
            ),
            ("projects/whole/branches/production", True, False, None),
        )
        self.assertEqual(branch.status.current_state, pg.BranchStatusState.READY)
        [endpoint] = self.w.postgres.list_endpoints(branch.name)
        self.assertEqual(endpoint.name, f"{branch.name}/endpoints/primary")
        self.assertEqual(endpoint.status.endpoint_type, pg.EndpointType.ENDPOINT_TYPE_READ_WRITE)
        [database] = self.w.postgres.list_databases(branch.name)
        self.assertEqual(
            (database.name, database.status.postgres_database),
            (f"{branch.name}/databases/databricks-postgres", "databricks_postgres"),
        )
        self.assertIn(
            (f"{branch.name}/roles/sp-{me}", me),
            [
                (role.name, role.status.postgres_role)
                for role in self.w.postgres.list_roles(branch.name)
            ],
        )
        self.assertEqual(self.w.postgres.get_project("projects/whole").as_dict(), project.as_dict())

    def test_what_is_asked_of_the_first_branch_and_endpoint_is_theirs(self) -> None:
        self.create(
            "initial",
            initial_branch_spec=pg.InitialBranchSpec(is_protected=True),
            initial_endpoint_spec=pg.InitialEndpointSpec(
                autoscaling_limit_min_cu=0.5,
                autoscaling_limit_max_cu=4,
                suspend_timeout_duration=seconds(120),
            ),
        )
        branch = "projects/initial/branches/production"
        self.assertIs(self.w.postgres.get_branch(branch).status.is_protected, True)
        endpoint = self.w.postgres.get_endpoint(f"{branch}/endpoints/primary").status
        self.assertEqual(
            (endpoint.autoscaling_limit_min_cu, endpoint.autoscaling_limit_max_cu), (0.5, 4)
        )
        self.assertEqual(endpoint.suspend_timeout_duration, seconds(120))
        with self.refused(BadRequest, "BAD_REQUEST", "protected"):
            self.w.postgres.delete_project("projects/initial").wait()
        self.w.postgres.update_branch(
            branch,
            pg.Branch(spec=pg.BranchSpec(is_protected=False)),
            FieldMask(["spec.is_protected"]),
        ).wait()

    def test_ids_are_checked(self) -> None:
        with self.refused(
            InvalidParameterValue,
            "INVALID_PARAMETER_VALUE",
            r"""^Field 'project_id' is required, expected non-default value \(not ""\)!$""",
        ):
            self.w.postgres.create_project(pg.Project(), "")
        for id in ("Shop", "1shop", "shop_", "shop-", "s" * 64):
            with (
                self.subTest(id),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "project_id"),
            ):
                self.w.postgres.create_project(pg.Project(), id)

    def test_a_taken_id_is_refused_also_while_the_project_is_deleted(self) -> None:
        text = "^project with such id already exists in the workspace$"
        self.create("taken")
        with self.refused(AlreadyExists, "ALREADY_EXISTS", text):
            self.w.postgres.create_project(pg.Project(), "taken")
        self.w.postgres.delete_project("projects/taken").wait()
        with self.refused(AlreadyExists, "ALREADY_EXISTS", text):
            self.w.postgres.create_project(pg.Project(), "taken")
        self.w.postgres.delete_project("projects/taken", purge=True).wait()
        self.create("taken")

    def test_a_deleted_project_comes_back_with_its_data(self) -> None:
        self.create("returns")
        branch = "projects/returns/branches/production"
        self.sql(branch, "CREATE TABLE kept AS SELECT 7 AS n")

        self.w.postgres.delete_project("projects/returns").wait()

        with self.refused(NotFound, "NOT_FOUND", r"^project id not found \[TraceId: [0-9a-f]+\]$"):
            self.w.postgres.get_project("projects/returns")
        with self.refused(NotFound, "NOT_FOUND", "^project id not found"):
            self.w.postgres.get_branch(branch)
        listed = {
            project.name: project for project in self.w.postgres.list_projects(show_deleted=True)
        }
        deleted = listed["projects/returns"]
        self.assertEqual(deleted.purge_time.seconds - deleted.delete_time.seconds, 7 * DAY)
        self.assertNotIn(
            "projects/returns", [project.name for project in self.w.postgres.list_projects()]
        )
        self.w.postgres.undelete_project("projects/returns").wait()
        self.assertIsNone(self.w.postgres.get_project("projects/returns").delete_time)
        self.assertEqual(self.sql(branch, "SELECT n FROM kept"), [(7,)])
        with self.refused(BadRequest, "BAD_REQUEST", "not deleted"):
            self.w.postgres.undelete_project("projects/returns")

    def test_a_purged_project_is_gone(self) -> None:
        self.create("purged")
        operation = self.w.postgres.delete_project("projects/purged", purge=True)
        self.assertIsNone(operation.wait())
        with self.refused(NotFound, "NOT_FOUND", "^project id not found"):
            self.w.postgres.undelete_project("projects/purged")
        self.assertNotIn(
            "projects/purged",
            [project.name for project in self.w.postgres.list_projects(show_deleted=True)],
        )

    def test_only_what_the_mask_names_is_changed(self) -> None:
        name = self.create("masked").name
        before = self.w.postgres.get_project(name).status

        after = self.update(
            name,
            ["spec.display_name"],
            display_name="New",
            history_retention_duration=seconds(3 * DAY),
        )

        self.assertEqual(after.display_name, "New")
        self.assertEqual(after.history_retention_duration, before.history_retention_duration)
        for mask, spec in [
            ("spec.history_retention_duration", {"history_retention_duration": seconds(3 * DAY)}),
            ("spec.enable_pg_native_login", {"enable_pg_native_login": True}),
            ("spec.custom_tags", {"custom_tags": [pg.ProjectCustomTag(key="team", value="a")]}),
            ("spec.budget_policy_id", {"budget_policy_id": "b-1"}),
            ("*", {"display_name": "Newer"}),
        ]:
            with self.subTest(mask):
                after = self.update(name, [mask], **spec)
                for field, value in spec.items():
                    self.assertEqual(getattr(after, field), value)
        self.assertFalse(self.update(name, ["spec.custom_tags"], custom_tags=[]).custom_tags)
        self.assertEqual(self.w.postgres.get_project(name).status.display_name, "Newer")

    def test_defaults_of_endpoints_are_changed_as_a_block_by_leaf_or_by_group(self) -> None:
        name = self.create("defaults").name

        def settings(mask: str, **wanted: object) -> pg.ProjectDefaultEndpointSettings:
            block = pg.ProjectDefaultEndpointSettings(**wanted)
            return self.update(
                name, [mask], default_endpoint_settings=block
            ).default_endpoint_settings

        block = "spec.default_endpoint_settings"
        whole = settings(
            block, autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=2, no_suspension=True
        )
        self.assertEqual((whole.autoscaling_limit_min_cu, whole.autoscaling_limit_max_cu), (0.5, 2))
        self.assertTrue(whole.no_suspension)
        leaf = settings(f"{block}.suspend_timeout_duration", suspend_timeout_duration=seconds(60))
        self.assertEqual((leaf.suspend_timeout_duration, leaf.no_suspension), (seconds(60), None))
        group = settings("spec.project_default_settings.suspension", no_suspension=True)
        self.assertTrue(group.no_suspension)
        self.assertEqual(group.autoscaling_limit_max_cu, 2)
        settings(f"{block}.pg_settings", pg_settings={"work_mem": "8MB"})
        branch = self.branch(name, "child")
        endpoint = self.w.postgres.get_endpoint(f"{branch.name}/endpoints/primary").status
        self.assertEqual(
            (endpoint.autoscaling_limit_min_cu, endpoint.autoscaling_limit_max_cu), (0.5, 2)
        )

    def test_the_default_branch_can_be_another_one(self) -> None:
        name = self.create("other-default").name
        other = self.branch(name, "main").name

        self.assertEqual(
            self.update(name, ["spec.default_branch"], default_branch=other).default_branch, other
        )

        self.assertTrue(self.w.postgres.get_branch(other).status.default)
        self.assertFalse(self.w.postgres.get_branch(f"{name}/branches/production").status.default)
        self.assertEqual(self.branch(name, "child").status.source_branch, other)
        with self.refused(BadRequest, "BAD_REQUEST", "default branch"):
            self.w.postgres.delete_branch(other)

    def test_wrong_masks_and_values_are_refused_and_change_nothing(self) -> None:
        name = self.create("refusing").name
        before = self.w.postgres.get_project(name).as_dict()
        wrong = [
            (["spec.colour"], {}, "Unknown field path in update_mask"),
            (["spec.display_name"], {}, "update_mask"),
            (["spec.pg_version"], {"pg_version": 16}, "pg_version"),
            (
                ["spec.history_retention_duration"],
                {"history_retention_duration": seconds(DAY)},
                "history_retention",
            ),
            (
                ["spec.history_retention_duration"],
                {"history_retention_duration": seconds(36 * DAY)},
                "history_retention",
            ),
            (["spec.display_name"], {"display_name": "n" * 257}, "display_name"),
        ]
        for mask, spec, text in wrong:
            with (
                self.subTest(mask, **spec),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", text),
            ):
                self.update(name, mask, **spec)
        for limits in (
            {"autoscaling_limit_min_cu": 0.25},
            {"autoscaling_limit_min_cu": 1, "autoscaling_limit_max_cu": 18},
            {"suspend_timeout_duration": seconds(59)},
            {"suspend_timeout_duration": seconds(604_801)},
            {"no_suspension": False},
            {"no_suspension": True, "suspend_timeout_duration": seconds(60)},
        ):
            settings = pg.ProjectDefaultEndpointSettings(**limits)
            with (
                self.subTest(**limits),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "cu|suspen"),
            ):
                self.update(
                    name, ["spec.default_endpoint_settings"], default_endpoint_settings=settings
                )
        self.assertEqual(self.w.postgres.get_project(name).as_dict(), before)
