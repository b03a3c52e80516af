"""An embedded workspace for the tests, and the ways into it."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
import unittest
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterator

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service import postgres as pg
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = os.environ.get("LAKEFORGE_PROGRAM") or str(
    Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "lakeforge"
)
# How much room a folder in memory must have to be used.
ROOM = 8 << 30
NUMBERS = itertools.count(1)
# The project whose compute nobody uses.
SLEEPER = "sleeper"

# What the surroundings say of other workspaces and databases is not meant.
for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "LAKEFORGE_", "PG"))]:
    if name not in ("LAKEFORGE_POSTGRES_BIN", "LAKEFORGE_PYTHON"):
        del os.environ[name]


class Workspace:
    """A server of its own; it ends, and its folder goes, when this process does."""

    def __init__(self, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lakeforge-sdk-", dir=quick_folder()))
        # Postgres may run as another user, who must be able to pass through.
        self.folder.chmod(0o711)
        self.data = self.folder / "workspace"
        serve = ["-q", "local", "serve", "--port", "0", "--until-eof", "--data-dir", str(self.data)]
        self.server = subprocess.Popen(
            # The shell outlives the server and removes what it wrote, also when this process is killed.
            [
                "sh",
                "-c",
                'trap \'\' INT; "$@"; rm -rf "$0"',
                str(self.folder),
                PROGRAM,
                *serve,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout
        line = self.server.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), f"{PROGRAM} said {line!r}"
        self.host = line.split()[0]

    def client(self, profile: str = "local", **settings: Any) -> WorkspaceClient:
        """Logs in as one of the workspace's identities."""
        return WorkspaceClient(
            config_file=str(self.data / "databrickscfg"), profile=profile, **settings
        )

    def admin_route(self, method: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Sends a request to the route of the faults; returns the rules in force."""
        answer = self.client().api_client.do(method, "/lakeforge/faults", body=body)
        return answer["faults"]

    def strike(self, blow: str, branch: str) -> None:
        """Suspends or kills a compute at once."""
        self.admin_route("POST", {"compute": {blow: branch}})

    def certificate(self) -> str:
        return self.client().api_client.do("GET", "/lakeforge/status")["certificate_file"]

    def stop(self) -> None:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared() -> Workspace:
    """Returns the workspace that the tests share; each uses projects and apps of its own."""
    workspace = Workspace()
    atexit.register(workspace.stop)
    # Falling asleep takes a minute: it begins now, and is looked at by one of the last tests.
    settings = pg.ProjectDefaultEndpointSettings(suspend_timeout_duration=seconds(60))
    project = pg.Project(spec=pg.ProjectSpec(default_endpoint_settings=settings))
    workspace.client().postgres.create_project(project, SLEEPER).wait()
    return workspace


def quick_folder() -> str | None:
    """Returns a folder in memory where there is room."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > ROOM else None


def seconds(count: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=count))
    return duration


def moment(when: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(when)
    return timestamp


def when(timestamp: Timestamp | None) -> datetime:
    assert timestamp is not None
    return timestamp.ToDatetime(tzinfo=timezone.utc)


def in_(**distance: float) -> Timestamp:
    """Returns the moment that far from now: `in_(days=1)`, `in_(minutes=-5)`."""
    return moment(datetime.now(timezone.utc) + timedelta(**distance))


class Case(unittest.TestCase):
    """A test against a workspace: the shared one unless `workspace` says otherwise."""

    @classmethod
    def workspace(cls) -> Workspace:
        return shared()

    @classmethod
    def setUpClass(cls) -> None:
        cls.w = cls.workspace().client()
        cls.user = cls.workspace().client("local-user")

    @classmethod
    def project(cls, client: WorkspaceClient | None = None, **spec: Any) -> str:
        """Creates a project for a class of tests and returns its full name."""
        client = client or cls.w
        id = f"sdk-{next(NUMBERS)}"
        name = (
            client.postgres.create_project(pg.Project(spec=pg.ProjectSpec(**spec)), id).wait().name
        )
        cls.addClassCleanup(cls.purge, name)
        return name

    @classmethod
    def purge(cls, project: str) -> None:
        try:
            cls.w.postgres.delete_project(project, purge=True).wait()
        except DatabricksError:
            # A test may have done so, or have protected it: the workspace goes anyway.
            pass

    def branch(self, project: str, id: str, **spec: Any) -> pg.Branch:
        """Creates a branch without expiry, unless `spec` says otherwise, and waits for it."""
        if not {"ttl", "expire_time"} & spec.keys():
            spec.setdefault("no_expiry", True)
        return self.w.postgres.create_branch(
            project, pg.Branch(spec=pg.BranchSpec(**spec)), id
        ).wait()

    @contextmanager
    def refused(self, kind: type[DatabricksError], code: str, message: str) -> Iterator[Any]:
        """Expects a refusal of exactly this class and code, whose message matches."""
        with self.assertRaises(DatabricksError) as caught:
            yield caught
        self.assertEqual(
            (type(caught.exception).__name__, caught.exception.error_code),
            (kind.__name__, code),
            caught.exception,
        )
        self.assertRegex(str(caught.exception), message)

    def address(self, branch: str, endpoint: str = "primary") -> dict[str, Any]:
        """Returns where an endpoint listens.

        A system without loopback addresses of their own names a port, which the SDK drops.
        """
        path = f"/api/2.0/postgres/{branch}/endpoints/{endpoint}"
        hosts = self.w.api_client.do("GET", path)["status"]["hosts"]
        return {"host": hosts["host"], "port": hosts.get("port", 5432)}

    def token(self, branch: str, client: WorkspaceClient | None = None) -> str:
        """Mints a password for a branch."""
        minted = (client or self.w).postgres.generate_database_credential(
            f"{branch}/endpoints/primary"
        )
        assert minted.token
        return minted.token

    def connect(
        self, branch: str, client: WorkspaceClient | None = None, **settings: Any
    ) -> psycopg.Connection[Any]:
        """Connects to a branch with a fresh password of `client`."""
        client = client or self.w
        settings.setdefault("password", None)
        if settings["password"] is None:
            settings["password"] = self.token(branch, client)
        settings = {
            "user": client.current_user.me().user_name,
            "dbname": "databricks_postgres",
            "sslmode": "require",
            "autocommit": True,
            **self.address(branch),
            **settings,
        }
        return psycopg.connect(**settings)

    def sql(self, branch: str, statement: str, client: WorkspaceClient | None = None) -> list[Any]:
        """Runs a statement on a connection of its own and returns its rows."""
        with self.connect(branch, client) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def turned_away(self, message: str, branch: str, **settings: Any) -> None:
        """Expects that a login is refused with this sentence."""
        with self.assertRaisesRegex(psycopg.OperationalError, message):
            self.connect(branch, **settings).close()
