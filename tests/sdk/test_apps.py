"""Apps through the official SDK: real processes behind a gateway."""

from __future__ import annotations

import json
import time
import urllib.request
from urllib.error import HTTPError

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    AlreadyExists,
    BadRequest,
    InvalidParameterValue,
    NotFound,
    OperationFailed,
    PermissionDenied,
    ResourceDoesNotExist,
)
from databricks.sdk.service import apps

from workspace import Case

PROGRAM = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        names = ("GREETING", "DATABRICKS_APP_NAME", "PGHOST", "PGUSER", "PGDATABASE", "DATABRICKS_CLIENT_ID")
        body = {name: os.environ.get(name) for name in names}
        body["email"] = self.headers.get("X-Forwarded-Email")
        body["token"] = self.headers.get("X-Forwarded-Access-Token")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

HTTPServer(("127.0.0.1", int(os.environ["DATABRICKS_APP_PORT"])), Answer).serve_forever()
"""
MANIFEST = 'command: ["python", "app.py"]\nenv:\n  - {name: GREETING, value: hello}\n'


class Apps(Case):
    def upload(self, name: str, program: str = PROGRAM) -> str:
        """Puts the source of an app into the workspace and returns its folder."""
        folder = f"/Workspace/Users/{self.user.current_user.me().user_name}/apps/{name}"
        self.w.workspace.mkdirs(folder)
        for file, text in (("app.py", program), ("app.yaml", MANIFEST)):
            self.w.api_client.do(
                "POST",
                f"/api/2.0/workspace-files/import-file/{(folder + '/' + file).lstrip('/').replace('/', '%2F')}",
                query={"overwrite": "true"},
                data=text.encode(),
            )
        return folder

    def create(self, name: str, no_compute: bool | None = None, **parts: object) -> apps.App:
        app = self.w.apps.create_and_wait(apps.App(name=name, **parts), no_compute=no_compute)
        self.addCleanup(self.remove, name)
        return app

    def remove(self, name: str) -> None:
        try:
            self.w.apps.delete(name)
        except (NotFound, BadRequest):
            # The test has done so.
            pass

    def deploy(self, name: str, program: str = PROGRAM, **parts: object) -> apps.AppDeployment:
        deployment = apps.AppDeployment(
            source_code_path=self.upload(name, program),
            mode=apps.AppDeploymentMode.SNAPSHOT,
            **parts,
        )
        return self.w.apps.deploy_and_wait(name, deployment)

    def ask(self, url: str | None, token: str | None = None) -> str:
        request = urllib.request.Request(f"{url}/")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            self.assertEqual(answer.status, 200)
            return answer.read().decode()

    def test_an_app_is_created_deployed_stopped_started_and_deleted(self) -> None:
        created = self.w.apps.create(apps.App(name="whole-life", description="Says hello"))
        self.addCleanup(self.remove, "whole-life")
        self.assertEqual(created.response.name, "whole-life")
        app = created.result()
        me = self.w.current_user.me().user_name
        self.assertEqual((app.name, app.description, app.creator), ("whole-life", "Says hello", me))
        self.assertEqual(app.compute_status.state, apps.ComputeState.ACTIVE)
        self.assertRegex(app.service_principal_client_id or "", "^[0-9a-f-]{36}$")
        self.assertTrue(
            app.service_principal_id and app.service_principal_name and app.id and app.url
        )
        self.assertEqual(self.w.apps.get("whole-life").as_dict(), app.as_dict())

        deployment = self.deploy("whole-life")

        self.assertEqual(deployment.status.state, apps.AppDeploymentState.SUCCEEDED)
        self.assertEqual(deployment.mode, apps.AppDeploymentMode.SNAPSHOT)
        running = self.w.apps.get("whole-life")
        self.assertEqual(running.app_status.state, apps.ApplicationState.RUNNING)
        self.assertEqual(running.active_deployment.deployment_id, deployment.deployment_id)
        self.assertEqual(running.default_source_code_path, deployment.source_code_path)
        found = self.w.apps.get_deployment("whole-life", deployment.deployment_id or "")
        self.assertEqual((found.creator, found.source_code_path), (me, deployment.source_code_path))
        token = self.w.config.oauth_token().access_token
        self.assertIn('"GREETING": "hello"', self.ask(app.url, token))
        self.assertIn(f'"email": "{me}"', self.ask(app.url, token))
        self.assertIn("Sign In", self.ask(app.url))

        stopped = self.w.apps.stop_and_wait("whole-life")
        self.assertEqual(stopped.compute_status.state, apps.ComputeState.STOPPED)
        self.assertEqual(stopped.app_status.state, apps.ApplicationState.UNAVAILABLE)
        with self.assertRaises(HTTPError) as away:
            self.ask(app.url, token)
        away.exception.close()
        self.assertEqual(away.exception.code, 502)
        with self.assertRaises(BadRequest):
            self.w.apps.deploy(
                "whole-life", apps.AppDeployment(source_code_path=deployment.source_code_path)
            )
        started = self.w.apps.start_and_wait("whole-life")
        self.assertEqual(started.compute_status.state, apps.ComputeState.ACTIVE)
        self.until(
            lambda: self.w.apps.get("whole-life").app_status.state == apps.ApplicationState.RUNNING
        )
        self.assertIn("hello", self.ask(app.url, token))

        self.assertEqual(
            self.w.apps.delete("whole-life").compute_status.state, apps.ComputeState.DELETING
        )
        self.until(lambda: "whole-life" not in [app.name for app in self.w.apps.list()])
        with self.refused(
            ResourceDoesNotExist,
            "RESOURCE_DOES_NOT_EXIST",
            "^Resource apps.App not found: whole-life$",
        ):
            self.w.apps.get("whole-life")

    def until(self, done: object) -> None:
        end = time.monotonic() + 120
        while not done():
            self.assertLess(time.monotonic(), end, "it did not come true")
            time.sleep(0.1)

    def test_a_forwarded_token_is_its_users_and_good_for_what_the_app_asked_for(self) -> None:
        self.project()
        me = self.w.current_user.me().user_name
        mine = self.w.config.oauth_token().access_token
        for name, scopes, reaches in (("scoped", ["sql"], False), ("allowed", ["postgres"], True)):
            app = self.create(name, user_api_scopes=scopes)
            self.deploy(name)
            forwarded = json.loads(self.ask(app.url, mine))["token"]
            client = WorkspaceClient(host=self.w.config.host, token=forwarded, auth_type="pat")
            self.assertNotEqual(forwarded, mine)
            self.assertEqual(client.current_user.me().user_name, me)
            if reaches:
                self.assertTrue(list(client.postgres.list_projects()))
                continue
            lacking = "^Provided OAuth token does not have required scopes: postgres"
            with self.refused(PermissionDenied, "PERMISSION_DENIED", lacking):
                list(client.postgres.list_projects())

    def test_an_app_without_compute_is_stopped_until_it_is_started(self) -> None:
        with self.assertRaises(OperationFailed):
            # The SDK's own waiter takes a stopped app as a failure.
            self.create("no-compute", no_compute=True)
        self.addCleanup(self.remove, "no-compute")
        app = self.w.apps.get("no-compute")
        self.assertEqual(
            (app.compute_status.state, app.compute_status.message, app.app_status.state),
            (
                apps.ComputeState.STOPPED,
                "App compute is stopped.",
                apps.ApplicationState.UNAVAILABLE,
            ),
        )
        self.assertEqual(
            self.w.apps.start("no-compute").result().compute_status.message,
            "App compute is active.",
        )
        self.assertEqual(
            self.w.apps.stop("no-compute").result().compute_status.state, apps.ComputeState.STOPPED
        )

    def test_names_are_checked_and_taken_once(self) -> None:
        self.create("taken-app")
        text = "^An app with the same name already exists: taken-app$"
        with self.assertRaisesRegex(AlreadyExists.__mro__[1], text) as caught:
            self.w.apps.create(apps.App(name="taken-app"))
        self.assertEqual(caught.exception.error_code, "RESOURCE_ALREADY_EXISTS")
        with self.refused(
            InvalidParameterValue,
            "INVALID_PARAMETER_VALUE",
            "App name must be between 2 and 30 characters",
        ):
            self.w.apps.create(apps.App(name="a" * 31))
        for name in ("Upper", "under_score"):
            with self.subTest(name), self.assertRaises(BadRequest):
                self.w.apps.create(apps.App(name=name))

    def test_an_app_reaches_its_database_with_an_identity_of_its_own(self) -> None:
        branch = f"{self.project()}/branches/production"
        postgres = apps.AppResourcePostgres(
            branch=branch,
            database=f"{branch}/databases/databricks-postgres",
            permission=apps.AppResourcePostgresPostgresPermission.CAN_CONNECT_AND_CREATE,
        )
        app = self.create(
            "with-database", resources=[apps.AppResource(name="database", postgres=postgres)]
        )
        self.assertEqual(app.resources[0].postgres, postgres)
        self.deploy("with-database")
        answer = self.ask(app.url, self.w.config.oauth_token().access_token)
        self.assertIn(f'"PGUSER": "{app.service_principal_client_id}"', answer)
        self.assertIn(f'"PGHOST": "{self.address(branch)["host"]}"', answer)
        self.assertIn('"PGDATABASE": "databricks_postgres"', answer)
        roles = [role.status.postgres_role for role in self.w.postgres.list_roles(branch)]
        self.assertIn(app.service_principal_client_id, roles)

    def test_deployments_are_listed_newest_first_in_pages_and_one_that_fails_says_why(self) -> None:
        self.create("deployed-often")
        first, second = self.deploy("deployed-often"), self.deploy("deployed-often")
        with self.assertRaises(OperationFailed):
            self.deploy("deployed-often", program="raise SystemExit('cannot begin')\n")
        listed = list(self.w.apps.list_deployments("deployed-often", page_size=1))
        self.assertEqual(len(listed), 3)
        failed = listed[0]
        self.assertEqual(
            [one.deployment_id for one in listed[1:]], [second.deployment_id, first.deployment_id]
        )
        self.assertEqual(failed.status.state, apps.AppDeploymentState.FAILED)
        self.assertTrue(failed.status.message)
        with self.assertRaises(NotFound):
            self.w.apps.get_deployment("deployed-often", "nobody")
        with self.assertRaises(NotFound):
            self.w.apps.deploy(
                "deployed-often", apps.AppDeployment(source_code_path="/Workspace/nothing/here")
            )

    def test_variables_of_a_deployment_reach_the_process_and_only_names_come_back(self) -> None:
        app = self.create("variables")
        variables = [apps.EnvVar(name="GREETING", value="good evening")]
        deployment = self.deploy("variables", env_vars=variables, command=["python", "app.py"])
        self.assertIn("good evening", self.ask(app.url, self.w.config.oauth_token().access_token))
        found = self.w.apps.get_deployment("variables", deployment.deployment_id or "")
        self.assertEqual(
            [(variable.name, variable.value) for variable in found.env_vars or []],
            [("GREETING", None)],
        )
        self.assertEqual(found.command, ["python", "app.py"])

    def test_an_update_replaces_an_app_and_one_with_a_mask_only_what_it_names(self) -> None:
        self.create("updated", description="first", user_api_scopes=["sql"])
        update = self.w.apps.create_update_and_wait(
            "updated",
            "description",
            app=apps.App(name="updated", description="second", user_api_scopes=[]),
        )
        self.assertEqual(update.status.state, apps.AppUpdateUpdateStatusUpdateState.SUCCEEDED)
        self.assertEqual(self.w.apps.get_update("updated").description, "second")
        app = self.w.apps.get("updated")
        self.assertEqual((app.description, app.user_api_scopes), ("second", ["sql"]))
        sized = self.w.apps.create_update(
            "updated",
            "compute_size",
            app=apps.App(name="updated", compute_size=apps.ComputeSize.LARGE),
        ).result()
        self.assertEqual(sized.compute_size, apps.ComputeSize.LARGE)

        replaced = self.w.apps.update("updated", apps.App(name="updated", description="third"))

        self.assertEqual((replaced.description, replaced.user_api_scopes or []), ("third", []))
        self.assertEqual(self.w.apps.get("updated").user_api_scopes or [], [])

    def test_permissions_of_an_app_are_kept(self) -> None:
        self.create("permitted")
        user = self.user.current_user.me().user_name
        levels = self.w.apps.get_permission_levels("permitted").permission_levels or []
        self.assertEqual(
            {level.permission_level for level in levels},
            {apps.AppPermissionLevel.CAN_USE, apps.AppPermissionLevel.CAN_MANAGE},
        )

        def entry(level: str, **who: str) -> apps.AppAccessControlRequest:
            return apps.AppAccessControlRequest(
                permission_level=apps.AppPermissionLevel(level), **who
            )

        def held() -> dict[str, list[str]]:
            listed = self.w.apps.get_permissions("permitted")
            self.assertEqual(listed.object_id, "/apps/permitted")
            return {
                entry.user_name
                or entry.group_name
                or entry.service_principal_name
                or "": [
                    permission.permission_level.value for permission in entry.all_permissions or []
                ]
                for entry in listed.access_control_list or []
            }

        self.w.apps.set_permissions(
            "permitted", access_control_list=[entry("CAN_USE", user_name=user)]
        )
        self.assertEqual(held()[user], ["CAN_USE"])
        self.w.apps.update_permissions(
            "permitted", access_control_list=[entry("CAN_USE", group_name="users")]
        )
        self.assertEqual((held()[user], held()["users"]), (["CAN_USE"], ["CAN_USE"]))
        self.w.apps.set_permissions("permitted", access_control_list=[])
        self.assertNotIn(user, held())

    def test_apps_are_listed_in_pages(self) -> None:
        for name in ("paged-a", "paged-b"):
            self.create(name)
        names = [app.name for app in self.w.apps.list()]
        self.assertLessEqual({"paged-a", "paged-b"}, set(names))
        self.assertEqual([app.name for app in self.w.apps.list(page_size=1)], names)
