"""Keeps the services alike and in step with the bundle: `python3 -m unittest discover tests`."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import threading
import unittest
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator
from unittest import mock

CLINIC = Path(__file__).resolve().parent.parent
SINGLE = CLINIC.parent / "single" / "app"
SERVICES = ("patient", "provider", "appointment", "lab", "prescription", "billing")
FOLDERS = {name: CLINIC / "services" / name for name in SERVICES}

sys.dont_write_bytecode = True


def load(folder: Path, module: str, **fakes: ModuleType) -> ModuleType:
    """Imports `module` from `folder` afresh, with stand-ins for what needs a database."""
    for name in ("app", "web", "fields", "siblings"):
        sys.modules.pop(name, None)
    with mock.patch.object(sys, "path", [str(folder), *sys.path]):
        with mock.patch.dict(sys.modules, fakes):
            return importlib.import_module(module)


def database(rows: list[dict[str, Any]]) -> ModuleType:
    """A stand-in that answers every query with `rows` and keeps what it was asked."""
    fake: Any = ModuleType("database")
    fake.asked = []
    fake.query = lambda *query: fake.asked.append(query) or rows
    fake.health = object()
    return fake


def app(service: str, fake: ModuleType | None = None) -> Any:
    return load(FOLDERS[service], "app", database=fake or database([]))


def section(text: str, key: str, indent: int) -> str:
    """Returns the lines of a YAML file below `key`, which stands at `indent`."""
    space = " " * indent
    found = re.search(rf"^{space}{key}:\n((?:{space} .*\n|\n)+)", text, re.MULTILINE)
    return found.group(1) if found else ""


class Files(unittest.TestCase):
    def test_shared_files_are_the_same_everywhere(self) -> None:
        services = [*FOLDERS.values(), SINGLE]
        for name in ("database.py", "fields.py", "web.py", "app.yaml", "requirements.txt"):
            folders = [*services, CLINIC / "portal"] if name == "web.py" else services
            with self.subTest(name):
                self.assertEqual(len({(folder / name).read_bytes() for folder in folders}), 1)

    def test_each_app_is_in_the_bundle_with_the_resources_its_app_yaml_names(self) -> None:
        apps = section((CLINIC / "resources" / "apps.yml").read_text(), "apps", 2)
        for name, folder in {**FOLDERS, "portal": CLINIC / "portal"}.items():
            with self.subTest(name):
                declared = section(apps, name, 4)
                wanted = re.findall(r"valueFrom: (\S+)", (folder / "app.yaml").read_text())
                self.assertEqual(re.findall(r"- name: (\S+)", declared), wanted)
                self.assertIn(f"source_code_path: ../{folder.relative_to(CLINIC)}\n", declared)

    def test_migrations_are_numbered_and_can_run_twice(self) -> None:
        for name, folder in FOLDERS.items():
            files = sorted((folder / "migrations").glob("*.sql"))
            self.assertEqual([file.name[:4] for file in files], ["001_", "002_"], name)
            for file in files:
                with self.subTest(file.name):
                    text = file.read_text().lower()
                    changes = re.findall(r"\b(?:create (?:table|index)|add column) (.*)", text)
                    self.assertTrue(changes)
                    for change in changes:
                        self.assertRegex(change, "^if not exists ")


class Routes(unittest.TestCase):
    def test_each_service_is_healthy_where_lakeforge_looks(self) -> None:
        apps = section((CLINIC / "lakeforge.yml").read_text(), "apps", 0)
        for name in SERVICES:
            with self.subTest(name):
                fake = database([])
                health = re.findall(r"health: (\S+)", section(apps, name, 2))
                self.assertEqual(health, [f"/api/{name}/healthz"])
                self.assertIs(app(name, fake).ROUTES["GET", health[0]], fake.health)

    def test_the_portal_calls_each_service_in_the_bundle(self) -> None:
        names = re.findall(r"name: (\w+)_APP", (CLINIC / "portal" / "app.yaml").read_text())
        self.assertEqual([name.lower() for name in names], list(SERVICES))

    def test_a_read_is_limited(self) -> None:
        for name in SERVICES:
            with self.subTest(name):
                fake: Any = database([{"total": 3}])
                module = app(name, fake)
                read = module.ROUTES["GET", f"/api/{name}"]
                answer = read(module.web.Request({"limit": "7"}, None))
                self.assertEqual((answer.status, answer.content["total"]), (200, 3))
                self.assertEqual(fake.asked[0][1], [7])
                for bad in ("0", "501", "-1", "many", "9" * 5000):
                    with self.assertRaises(module.web.Refusal):
                        read(module.web.Request({"limit": bad}, None))

    def test_a_write_is_checked_before_it_reaches_the_database(self) -> None:
        for name in SERVICES:
            fake: Any = database([{"id": 1}])
            module = app(name, fake)
            write = module.ROUTES["POST", f"/api/{name}"]
            for bad in (None, [], {}, {"surprise": 1}):
                with self.subTest(name, body=bad), self.assertRaises(module.web.Refusal) as refused:
                    write(module.web.Request({}, bad))
                self.assertEqual(refused.exception.status, 400)
            self.assertEqual(fake.asked, [])

    def test_a_good_write_is_answered_with_its_row(self) -> None:
        fake: Any = database([{"id": 1}])
        module = app("patient", fake)
        body = {"name": " Ada ", "birth_date": "1990-12-10"}
        answer = module.ROUTES["POST", "/api/patient"](module.web.Request({}, body))
        self.assertEqual((answer.status, answer.content), (201, {"id": 1}))
        self.assertEqual([str(value) for value in fake.asked[0][1]], ["Ada", "1990-12-10", "None"])


class Server(unittest.TestCase):
    def setUp(self) -> None:
        self.web: Any = load(FOLDERS["patient"], "web")
        routes = {
            ("GET", "/here"): lambda request: self.web.Answer(200, {"query": request.query}),
            ("POST", "/here"): lambda request: self.web.Answer(201, request.body),
            ("GET", "/broken"): lambda request: 1 / 0,
        }
        self.server = self.web.Server(("127.0.0.1", 0), routes)
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        self.connection = HTTPConnection(*self.server.server_address, timeout=5)
        for quiet in ("builtins.print", "traceback.print_exc"):
            silence = mock.patch(quiet)
            silence.start()
            self.addCleanup(silence.stop)
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.addCleanup(self.connection.close)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def test_routes_are_exact(self) -> None:
        self.assertEqual(self.ask("GET", "/here?a=1"), (200, {"query": {"a": "1"}}))
        self.assertEqual(self.ask("HEAD", "/here"), (200, None))
        self.assertEqual(self.ask("GET", "/here/"), (404, {"error": "no such path"}))
        self.assertEqual(self.ask("PUT", "/here"), (405, {"error": "only GET and POST here"}))

    def test_bodies_come_whole_or_in_chunks_and_are_bounded(self) -> None:
        def chunks(size: int) -> Iterator[bytes]:
            yield b'"'
            yield b"x" * size
            yield b'"'

        self.assertEqual(self.ask("POST", "/here", b'{"a":[1]}'), (201, {"a": [1]}))
        self.assertEqual(self.ask("POST", "/here", chunks(9)), (201, "x" * 9))
        self.assertEqual(self.ask("POST", "/here", b"{"), (400, {"error": "the body is not JSON"}))
        self.assertEqual(self.ask("POST", "/here", b"[" * 60_000)[0], 400)
        self.assertEqual(self.ask("POST", "/here", b" " * 70_000)[0], 413)

    def test_a_fault_of_ours_says_nothing_of_the_inside(self) -> None:
        self.assertEqual(self.ask("GET", "/broken"), (500, {"error": "internal error"}))
        self.assertEqual(self.ask("GET", "/here"), (200, {"query": {}}))


class Portal(unittest.TestCase):
    def setUp(self) -> None:
        sdk: Any = {name: ModuleType(name) for name in ("databricks", "databricks.sdk")}
        sdk.update({f"databricks.sdk.{name}": ModuleType(name) for name in ("core", "errors")})
        sdk["databricks.sdk"].WorkspaceClient = sdk["databricks.sdk.core"].Config = object
        sdk["databricks.sdk.errors"].DatabricksError = OSError
        names = {f"{name.upper()}_APP": name for name in SERVICES}
        with mock.patch.dict(os.environ, names):
            self.siblings: Any = load(CLINIC / "portal", "siblings", **sdk)
        self.app: Any = load(CLINIC / "portal", "app", siblings=self.siblings)

        self.replies: dict[str, Any] = {}
        routes = {("GET", f"/api/{name}/healthz"): self.reply for name in SERVICES}
        self.server = self.app.web.Server(("127.0.0.1", 0), routes)
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        workspace = mock.Mock()
        workspace.apps.get.return_value.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        workspace.config.authenticate.return_value = {"Authorization": "Bearer token"}
        for patch in (
            mock.patch.object(self.siblings, "workspace", lambda: workspace),
            mock.patch("builtins.print"),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def reply(self, _: Any) -> Any:
        return self.app.web.Answer(*self.replies["all"])

    def health_when_all_answer(self, *answer: Any) -> Any:
        self.replies["all"] = answer
        return self.app.health(None)

    def test_is_well_only_if_all_six_say_so_exactly(self) -> None:
        self.assertEqual(self.health_when_all_answer(200, {"ok": True})[:2], (200, {"ok": True}))
        for answer in ((503, {"ok": True}), (200, {"ok": True, "more": 1}), (200, [])):
            with self.subTest(answer):
                self.assertEqual(self.health_when_all_answer(*answer).status, 503)

    def test_a_login_page_is_no_answer(self) -> None:
        answer = self.health_when_all_answer(200, "<title>Sign In</title>", "text/html")
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.content["why"]["lab"], "lab: status 200 without JSON")

    def test_an_address_is_looked_up_once(self) -> None:
        self.health_when_all_answer(200, {"ok": True})
        self.health_when_all_answer(200, {"ok": True})
        self.assertEqual(self.siblings.workspace().apps.get.call_count, len(SERVICES))


if __name__ == "__main__":
    unittest.main()
