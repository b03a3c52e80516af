"""What somebody may do who may do nothing at first: with CAN_USE, with CAN_MANAGE, as an owner."""

from __future__ import annotations

from collections.abc import Callable

from databricks.sdk import WorkspaceClient
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import BadRequest, PermissionDenied
from databricks.sdk.service import apps, iam, postgres as pg

from workspace import Case, seconds

MEMBER = "member@lakeforge.test"


class Permissions(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.member = cls.workspace().client("local-member")

    def setUp(self) -> None:
        self.home = self.project()
        self.production = f"{self.home}/branches/production"

    def grant(self, level: str, client: WorkspaceClient | None = None) -> iam.ObjectPermissions:
        entry = iam.AccessControlRequest(
            user_name=MEMBER, permission_level=iam.PermissionLevel(level)
        )
        return (client or self.w).permissions.update(
            "database-projects", self.home.removeprefix("projects/"), access_control_list=[entry]
        )

    def changes(self) -> list[Callable[[], object]]:
        """What changes a project, tried by the member."""
        p = self.member.postgres
        branch = pg.Branch(spec=pg.BranchSpec(ttl=seconds(3600)))
        role = pg.Role(spec=pg.RoleRoleSpec(postgres_role="intruder"))
        database = pg.Database(
            spec=pg.DatabaseDatabaseSpec(
                postgres_database="loot", role=f"{self.production}/roles/x"
            )
        )
        protect = pg.Branch(spec=pg.BranchSpec(is_protected=True))
        disable = pg.Endpoint(
            spec=pg.EndpointSpec(
                endpoint_type=pg.EndpointType.ENDPOINT_TYPE_READ_WRITE, disabled=True
            )
        )
        rename = pg.Project(spec=pg.ProjectSpec(display_name="Mine"))
        endpoint = f"{self.production}/endpoints/primary"
        return [
            lambda: p.create_branch(self.home, branch, "mine"),
            lambda: p.update_branch(self.production, protect, FieldMask(["spec.is_protected"])),
            lambda: p.delete_branch(self.production),
            lambda: p.undelete_branch(f"{self.home}/branches/gone"),
            lambda: p.update_endpoint(endpoint, disable, FieldMask(["spec.disabled"])),
            lambda: p.delete_endpoint(endpoint),
            lambda: p.create_role(self.production, role, role_id="intruder"),
            lambda: p.create_database(self.production, database),
            lambda: p.update_project(self.home, rename, FieldMask(["spec.display_name"])),
            lambda: p.delete_project(self.home),
            lambda: self.grant("CAN_MANAGE", self.member),
        ]

    def cannot_change(self) -> None:
        for number, change in enumerate(self.changes()):
            with (
                self.subTest(number),
                self.refused(PermissionDenied, "PERMISSION_DENIED", "'Can Manage' permission"),
            ):
                change()

    def test_whoever_is_in_the_workspace_sees_projects_and_no_more(self) -> None:
        self.assertIn(self.home, [project.name for project in self.member.postgres.list_projects()])
        self.assertEqual(self.member.postgres.get_branch(self.production).name, self.production)
        self.cannot_change()
        with self.refused(
            PermissionDenied, "PERMISSION_DENIED", "'Can Use' permission on database project"
        ):
            self.member.postgres.generate_database_credential(
                f"{self.production}/endpoints/primary"
            )

    def test_can_use_mints_credentials_and_changes_nothing(self) -> None:
        answer = self.grant("CAN_USE")
        [entry] = [entry for entry in answer.access_control_list or [] if entry.user_name == MEMBER]
        self.assertEqual(
            [p.permission_level for p in entry.all_permissions or []], [iam.PermissionLevel.CAN_USE]
        )
        role = pg.Role(
            spec=pg.RoleRoleSpec(postgres_role=MEMBER, identity_type=pg.RoleIdentityType.USER)
        )
        self.w.postgres.create_role(self.production, role).wait()
        self.assertEqual(
            self.sql(self.production, "SELECT current_user::text", self.member), [(MEMBER,)]
        )
        self.cannot_change()
        self.assertEqual(
            [b.name for b in self.w.postgres.list_branches(self.home)], [self.production]
        )

    def test_can_manage_changes_everything(self) -> None:
        self.grant("CAN_MANAGE")
        p = self.member.postgres
        branch = p.create_branch(
            self.home, pg.Branch(spec=pg.BranchSpec(no_expiry=True)), "mine"
        ).wait()
        endpoint = pg.Endpoint(
            spec=pg.EndpointSpec(
                endpoint_type=pg.EndpointType.ENDPOINT_TYPE_READ_WRITE, autoscaling_limit_max_cu=2
            )
        )
        p.update_endpoint(
            f"{branch.name}/endpoints/primary",
            endpoint,
            FieldMask(["spec.autoscaling_limit_max_cu"]),
        ).wait()
        role = p.create_role(
            branch.name, pg.Role(spec=pg.RoleRoleSpec(postgres_role="theirs"))
        ).wait()
        spec = pg.DatabaseDatabaseSpec(postgres_database="theirs", role=role.name)
        p.delete_database(p.create_database(branch.name, pg.Database(spec=spec)).wait().name).wait()
        p.generate_database_credential(f"{branch.name}/endpoints/primary")
        p.delete_branch(branch.name).wait()
        p.undelete_branch(branch.name).wait()
        p.update_project(
            self.home,
            pg.Project(spec=pg.ProjectSpec(display_name="Theirs")),
            FieldMask(["spec.display_name"]),
        ).wait()
        self.grant("CAN_USE", self.member)
        p.delete_project(self.home).wait()
        p.undelete_project(self.home).wait()

    def test_a_grant_added_never_takes_away_and_one_that_replaces_does(self) -> None:
        id = self.home.removeprefix("projects/")
        self.grant("CAN_MANAGE")
        self.grant("CAN_USE")
        self.member.postgres.create_branch(
            self.home, pg.Branch(spec=pg.BranchSpec(ttl=seconds(3600))), "still-mine"
        ).wait()
        entry = iam.AccessControlRequest(
            user_name=MEMBER, permission_level=iam.PermissionLevel.CAN_USE
        )
        self.w.permissions.set("database-projects", id, access_control_list=[entry])
        self.cannot_change()
        self.w.permissions.set("database-projects", id, access_control_list=[])
        with self.refused(PermissionDenied, "PERMISSION_DENIED", "'Can Use' permission"):
            self.member.postgres.generate_database_credential(
                f"{self.production}/endpoints/primary"
            )
        listed = self.w.permissions.get("database-projects", id)
        self.assertEqual(listed.object_id, f"/database-projects/{id}")
        self.assertNotIn(MEMBER, [entry.user_name for entry in listed.access_control_list or []])

    def test_only_levels_of_projects_can_be_granted(self) -> None:
        id = self.home.removeprefix("projects/")
        levels = (
            self.w.permissions.get_permission_levels("database-projects", id).permission_levels
            or []
        )
        self.assertEqual(
            {level.permission_level for level in levels},
            {iam.PermissionLevel.CAN_USE, iam.PermissionLevel.CAN_MANAGE},
        )
        for level in ("CAN_CREATE", "CAN_RUN", "IS_OWNER"):
            with self.subTest(level), self.assertRaises(BadRequest):
                self.grant(level)

    def test_whoever_creates_a_project_owns_it(self) -> None:
        mine = self.project(self.member)
        project = self.member.postgres.get_project(mine)
        self.assertEqual(project.status.owner, MEMBER)
        self.assertEqual(
            self.sql(f"{mine}/branches/production", "SELECT current_user::text", self.member),
            [(MEMBER,)],
        )
        self.member.postgres.delete_project(mine, purge=True).wait()

    def test_faults_and_the_workspace_itself_are_for_administrators(self) -> None:
        for method, path in [
            ("GET", "/lakeforge/faults"),
            ("DELETE", "/lakeforge/faults"),
            ("POST", "/lakeforge/stop"),
        ]:
            with self.subTest(path), self.assertRaises(PermissionDenied):
                self.member.api_client.do(method, path)

    def test_somebody_without_a_grant_changes_no_app(self) -> None:
        name = self.home.replace("/", "-")[-20:]
        with self.assertRaises(PermissionDenied):
            self.member.apps.create(apps.App(name=name))
        self.w.apps.create(apps.App(name=name), no_compute=True)
        self.addCleanup(self.w.apps.delete, name)
        self.assertEqual(self.member.apps.get(name).name, name)
        a = self.member.apps
        for change in (
            lambda: a.delete(name),
            lambda: a.start(name),
            lambda: a.stop(name),
            lambda: a.update(name, apps.App(name=name, description="mine")),
            lambda: a.deploy(name, apps.AppDeployment(source_code_path="/Workspace/any")),
            lambda: a.set_permissions(name, access_control_list=[]),
        ):
            with self.assertRaises(PermissionDenied):
                change()
        entry = apps.AppAccessControlRequest(
            user_name=MEMBER, permission_level=apps.AppPermissionLevel.CAN_MANAGE
        )
        self.w.apps.update_permissions(name, access_control_list=[entry])
        self.assertEqual(
            a.update(name, apps.App(name=name, description="mine")).description, "mine"
        )
