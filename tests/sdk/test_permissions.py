"""What somebody may do who may do nothing at first: with CAN_USE, with CAN_MANAGE, as an owner."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import BadRequest, PermissionDenied, ResourceDoesNotExist
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


class Files(Case):
    """Homes, the shared folder, and folders that were granted."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.member = cls.workspace().client("local-member")

    def path(self, who: str, name: str) -> str:
        return f"/Workspace/Users/{who}/{name}"

    def write(self, client: WorkspaceClient, path: str, text: str = "text") -> None:
        path = path.lstrip("/").replace("/", "%2F")
        client.api_client.do(
            "POST",
            f"/api/2.0/workspace-files/import-file/{path}",
            query={"overwrite": "true"},
            data=text.encode(),
        )

    def read(self, client: WorkspaceClient, path: str) -> str:
        answer = client.workspace.export(path)
        return base64.b64decode(answer.content or "").decode()

    def denied(self) -> AbstractContextManager[Any]:
        return self.refused(PermissionDenied, "PERMISSION_DENIED", "does not have .* permissions on")

    def hidden(self) -> AbstractContextManager[Any]:
        return self.refused(
            ResourceDoesNotExist, "RESOURCE_DOES_NOT_EXIST", r"^Path \(.*\) doesn't exist"
        )

    def test_a_home_is_its_owners_alone(self) -> None:
        theirs, user = self.path(self.user.current_user.me().user_name or "", "own"), self.user
        user.workspace.mkdirs(theirs)
        self.write(user, f"{theirs}/app.py", "print(1)")
        w = self.member.workspace
        for look in (
            lambda: w.get_status(theirs),
            lambda: list(w.list(theirs)),
            lambda: w.export(f"{theirs}/app.py"),
        ):
            with self.hidden():
                look()
        for change in (
            lambda: w.mkdirs(f"{theirs}/more"),
            lambda: w.delete(theirs, recursive=True),
            lambda: w.delete(f"{theirs}/nothing"),
            lambda: self.write(self.member, f"{theirs}/app.py"),
            lambda: self.write(self.member, f"{theirs}/new.py"),
            lambda: w.mkdirs("/Workspace/Team"),
            lambda: w.mkdirs("/Workspace/Users/somebody"),
        ):
            with self.denied():
                change()
        self.assertEqual(self.read(self.user, f"{theirs}/app.py"), "print(1)")
        homes = [found.path for found in w.list("/Workspace/Users")]
        self.assertNotIn(f"/Workspace/Users/{self.user.current_user.me().user_name}", homes)

    def test_everybody_shares_the_shared_folder(self) -> None:
        folder = "/Workspace/Shared/sdk-permissions"
        self.member.workspace.mkdirs(folder)
        self.write(self.member, f"{folder}/a.txt", "one")
        self.write(self.user, f"{folder}/a.txt", "two")
        self.assertEqual(self.read(self.member, f"{folder}/a.txt"), "two")
        self.member.workspace.delete(folder, recursive=True)
        with self.refused(PermissionDenied, "PERMISSION_DENIED", "administrator"):
            self.member.workspace.delete("/Workspace/Shared", recursive=True)

    def test_a_member_deploys_a_bundle_with_permissions_into_a_folder_of_its_own(self) -> None:
        """Sends what the Databricks CLI sends for `permissions:` at the top of a bundle."""
        root = self.path(MEMBER, ".bundle/mine/dev")
        w, p = self.member.workspace, self.member.permissions
        w.mkdirs(f"{root}/files")
        self.write(self.member, f"{root}/files/app.py")
        id = str(w.get_status(root).object_id)
        entries = [
            iam.AccessControlRequest(
                user_name=MEMBER, permission_level=iam.PermissionLevel.CAN_MANAGE
            ),
            iam.AccessControlRequest(
                group_name="users", permission_level=iam.PermissionLevel.CAN_READ
            ),
        ]
        set_ = p.set("directories", id, access_control_list=entries)
        self.assertEqual((set_.object_id, set_.object_type), (f"/directories/{id}", "directory"))
        held = {
            (entry.user_name or entry.group_name): [
                (permission.permission_level, bool(permission.inherited))
                for permission in entry.all_permissions or []
            ]
            for entry in p.get("directories", id).access_control_list or []
            if not (entry.all_permissions or [])[0].inherited
        }
        manage, read = iam.PermissionLevel.CAN_MANAGE, iam.PermissionLevel.CAN_READ
        self.assertEqual(held, {MEMBER: [(manage, False)], "users": [(read, False)]})
        levels = p.get_permission_levels("directories", id).permission_levels or []
        self.assertIn(read, {level.permission_level for level in levels})
        with self.assertRaises(BadRequest):
            wrong = iam.AccessControlRequest(
                user_name=MEMBER, permission_level=iam.PermissionLevel.CAN_USE
            )
            p.set("directories", id, access_control_list=[wrong])
        w.delete(root, recursive=True)
        with self.refused(ResourceDoesNotExist, "RESOURCE_DOES_NOT_EXIST", id):
            p.get("directories", id)

    def test_what_was_granted_on_a_folder_goes_with_it(self) -> None:
        user = self.user.current_user.me().user_name or ""
        folder = self.path(user, "granted")
        inside = f"{folder}/deep/er"
        file = f"{inside}/a.txt"

        def grant(level: str | None) -> None:
            entries = [
                iam.AccessControlRequest(
                    user_name=MEMBER, permission_level=iam.PermissionLevel(level)
                )
                for level in [level]
                if level
            ]
            id = str(self.user.workspace.get_status(folder).object_id)
            self.user.permissions.set("directories", id, access_control_list=entries)

        self.user.workspace.mkdirs(inside)
        self.write(self.user, file, "one")
        with self.hidden():
            self.read(self.member, file)
        grant("CAN_READ")
        self.assertEqual(self.read(self.member, file), "one")
        with self.denied():
            self.write(self.member, file)
        grant("CAN_EDIT")
        self.write(self.member, file, "two")
        for change in (
            lambda: self.write(self.member, f"{inside}/new.txt"),
            lambda: self.member.workspace.delete(file),
            lambda: self.member.permissions.set(
                "directories",
                str(self.member.workspace.get_status(inside).object_id),
                access_control_list=[],
            ),
        ):
            with self.denied():
                change()
        grant("CAN_MANAGE")
        self.member.workspace.delete(inside, recursive=True)
        self.user.workspace.delete(folder, recursive=True)
        self.user.workspace.mkdirs(inside)
        self.write(self.user, file, "three")
        with self.hidden():
            self.read(self.member, file)
