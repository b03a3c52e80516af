"""How the official SDK bears what goes wrong on demand, and what a wrong clock does to tokens."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta, timezone

from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import (
    AlreadyExists,
    InvalidParameterValue,
    Unauthenticated,
)
from databricks.sdk.service import postgres as pg

from workspace import Case, Workspace, in_, seconds, when

EXPIRED = "External authorization failed: the token has expired"
EARLY = "External authorization failed: the token is not valid yet"


class Faults(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project()
        cls.path = f"/api/2.0/postgres/{cls.home}"

    def on(self, method: str, path: str, fault: object, times: int = 1) -> None:
        rule = {"method": method, "path": path, "fault": fault, "times": times}
        self.workspace().admin_route("POST", rule)

    def left(self) -> list[object]:
        """What is left of the rules for this class's project."""
        rules = self.workspace().admin_route("GET")
        return [rule for rule in rules if rule.get("path", "").startswith(self.path)]

    def test_the_sdk_asks_a_busy_service_again(self) -> None:
        for refusal in ({"status": 429, "retry_after": 1}, {"status": 503}):
            self.on("GET", self.path, {"refuse": refusal})
        self.assertEqual(self.w.postgres.get_project(self.home).name, self.home)
        self.assertEqual(self.left(), [])

    def test_the_sdk_gives_up_when_its_time_is_over(self) -> None:
        token, host = self.user.config.token, self.workspace().host
        config = Config(host=host, token=token, config_file="/dev/null", retry_timeout_seconds=1)
        impatient = WorkspaceClient(config=config)
        self.on(
            "GET", self.path, {"refuse": {"status": 429, "retry_after": 2, "message": "slow down"}}
        )
        try:
            with self.assertRaises(TimeoutError):
                impatient.postgres.get_project(self.home)
        finally:
            self.workspace().admin_route("DELETE")

    def test_a_change_whose_answer_is_lost_is_made_once_and_met_as_taken(self) -> None:
        self.on("POST", f"{self.path}/branches", "lost_reply")
        branch = pg.Branch(spec=pg.BranchSpec(ttl=seconds(3600)))
        with self.refused(AlreadyExists, "ALREADY_EXISTS", "^branch with such id already exists$"):
            # The SDK sends it again, and the first one is there.
            self.w.postgres.create_branch(self.home, branch, "lost")
        again = self.w.postgres.create_branch(
            self.home, branch, "lost", replace_existing=True
        ).wait()
        self.assertEqual(self.sql(again.name, "SELECT 1"), [(1,)])

    def test_a_compute_dies_with_a_request_and_the_next_connection_wakes_it(self) -> None:
        production = f"{self.home}/branches/production"
        for blow in ("suspend", "kill"):
            with self.subTest(blow), self.connect(production) as held:
                self.on("GET", f"{self.path}/branches", {blow: production})
                list(self.w.postgres.list_branches(self.home))
                with self.assertRaises(Exception):
                    held.execute("SELECT 1")
                self.assertEqual(self.sql(production, "SELECT 1"), [(1,)])


@functools.cache
def skewed() -> Workspace:
    return Workspace()


class Clock(Case):
    """On a workspace of its own, because a clock is everybody's."""

    @classmethod
    def workspace(cls) -> Workspace:
        return skewed()

    @classmethod
    def setUpClass(cls) -> None:
        cls.addClassCleanup(skewed().stop)
        super().setUpClass()
        cls.production = f"{cls.project()}/branches/production"
        # A personal access token knows no time.
        cls.w = cls.user

    def setUp(self) -> None:
        role = pg.Role(
            spec=pg.RoleRoleSpec(
                postgres_role="developer@lakeforge.test", identity_type=pg.RoleIdentityType.USER
            )
        )
        self.w.postgres.create_role(self.production, role, replace_existing=True).wait()
        self.addCleanup(self.clear)

    def clear(self) -> None:
        self.w.api_client.do("DELETE", "/lakeforge/faults")

    def skew(self, length: str) -> None:
        self.clear()
        self.w.api_client.do("POST", "/lakeforge/faults", body={"fault": {"clock_skew": length}})

    def test_an_expired_password_is_refused_and_an_open_connection_lives_on(self) -> None:
        endpoint = f"{self.production}/endpoints/primary"
        brief = self.w.postgres.generate_database_credential(endpoint, ttl=seconds(300)).token
        with self.connect(self.production, password=brief) as held:
            self.skew("301s")
            self.turned_away(EXPIRED, self.production, password=brief)
            self.assertEqual(held.execute("SELECT 1").fetchone(), (1,))
            self.assertEqual(self.sql(self.production, "SELECT 1"), [(1,)], "with a new one")
            self.clear()
            self.connect(self.production, password=brief).close()

    def test_a_password_of_a_clock_that_is_ahead_is_too_early_for_the_right_one(self) -> None:
        self.skew("600s")
        token = self.token(self.production)
        self.connect(self.production, password=token).close()
        self.clear()
        self.turned_away(EARLY, self.production, password=token)

    def test_expiry_is_told_by_the_clock_of_the_workspace(self) -> None:
        endpoint = f"{self.production}/endpoints/primary"
        self.skew("-7200s")
        minted = self.w.postgres.generate_database_credential(endpoint)
        now = datetime.now(timezone.utc)
        self.assertLess(when(minted.expire_time), now - timedelta(minutes=50))
        self.connect(self.production, password=minted.token).close()
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "expire_time"):
            self.w.postgres.generate_database_credential(endpoint, expire_time=in_(minutes=30))

    def test_access_tokens_expire_and_a_client_that_logs_in_again_goes_on(self) -> None:
        machine = self.workspace().client("local")
        machine.current_user.me()
        self.skew("3700s")
        with self.refused(Unauthenticated, "UNAUTHENTICATED", "^Invalid access token"):
            machine.current_user.me()
        again = self.workspace().client("local")
        self.assertEqual(again.current_user.me().user_name, machine.config.client_id)
        # The way back is open for either.
        for client in (machine, again):
            client.api_client.do("GET", "/lakeforge/faults")
