"""Logging in to a branch with psycopg: which passwords are taken, and what the others are told."""

from __future__ import annotations

import base64
import json

import psycopg
from databricks.sdk.errors import InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as pg
from google.protobuf.duration_pb2 import Duration

from workspace import Case, Workspace, in_, seconds, when

NOT_JWT = "Provided authentication token is not a valid JWT encoding"
FOREIGN = "External authorization failed"
ELSEWHERE = "OAuth: User is not authorized"


class Credentials(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project()
        cls.production = f"{cls.home}/branches/production"
        cls.endpoint = f"{cls.production}/endpoints/primary"

    def mint(self, **options: object) -> pg.DatabaseCredential:
        return self.w.postgres.generate_database_credential(self.endpoint, **options)

    def test_a_credential_lives_an_hour_or_as_long_as_is_asked(self) -> None:
        now = when(in_())
        for options, life in [
            ({}, 3600),
            ({"ttl": seconds(300)}, 300),
            ({"expire_time": in_(minutes=10)}, 600),
        ]:
            with self.subTest(**options):
                credential = self.mint(**options)
                left = when(credential.expire_time) - now
                # However slow the machine is: never more than was asked for, give or take the clock's grain.
                self.assertGreater(left.total_seconds(), life - 5)
                self.assertLess(left.total_seconds(), life + 120)
                header, claims, _ = (credential.token or "").split(".")
                held = json.loads(base64.urlsafe_b64decode(claims + "=="))
                self.assertEqual(held["exp"], int(when(credential.expire_time).timestamp()))
                self.assertEqual(held["sub"], self.w.current_user.me().user_name)
        for options in (
            {"ttl": seconds(200)},
            {"ttl": seconds(3700)},
            {"expire_time": in_(minutes=-1)},
            {"expire_time": in_(hours=2)},
            {"ttl": Duration(seconds=300), "expire_time": in_(minutes=5)},
        ):
            with (
                self.subTest(**options),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "expire_time"),
            ):
                self.mint(**options)

    def test_a_credential_names_an_endpoint_that_is_there(self) -> None:
        uid = self.w.postgres.get_endpoint(self.endpoint).uid
        for name, kind in [
            (f"{self.production}/endpoints/{uid}", "endpoint"),
            (f"{self.home}/branches/nobody/endpoints/primary", "branch"),
            ("projects/nobody/branches/production/endpoints/primary", "project"),
            ("nonsense", "endpoint"),
        ]:
            with self.subTest(name), self.refused(NotFound, "NOT_FOUND", f"^{kind} id not found"):
                self.w.postgres.generate_database_credential(name)
        with self.refused(
            InvalidParameterValue, "INVALID_PARAMETER_VALUE", "^Field 'endpoint' is required"
        ):
            self.w.postgres.generate_database_credential("")

    def test_a_minted_password_opens_the_database_over_verified_tls(self) -> None:
        with self.connect(
            self.production, sslmode="verify-full", sslrootcert=self.workspace().certificate()
        ) as connection:
            user = connection.execute(
                "SELECT current_user::text, current_database()::text"
            ).fetchone()
        self.assertEqual(user, (self.w.current_user.me().user_name, "databricks_postgres"))
        with self.assertRaisesRegex(psycopg.OperationalError, "(?i)ssl|tls"):
            self.connect(self.production, sslmode="disable")

    def test_passwords_that_are_none_are_refused_in_the_platforms_words(self) -> None:
        pat = self.user.config.token
        self.turned_away(NOT_JWT, self.production, password=pat)
        self.turned_away(NOT_JWT, self.production, password="secret")

        token = self.token(self.production)
        header, claims, signature = token.split(".")
        held = json.loads(base64.urlsafe_b64decode(claims + "=="))
        held["exp"] += 3600
        forged = base64.urlsafe_b64encode(json.dumps(held).encode()).decode().rstrip("=")
        self.turned_away(FOREIGN, self.production, password=f"{header}.{forged}.{signature}")
        flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
        self.turned_away(FOREIGN, self.production, password=f"{header}.{claims}.{flipped}")

    def test_a_password_is_for_one_identity_and_one_endpoint(self) -> None:
        other = self.branch(self.home, "other").name
        self.turned_away(ELSEWHERE, other, password=self.token(self.production))
        self.turned_away(
            ELSEWHERE,
            self.production,
            user="developer@lakeforge.test",
            password=self.token(self.production),
        )
        access = self.w.config.oauth_token().access_token
        self.turned_away(ELSEWHERE, self.production, password=access)
        again = self.project()
        self.turned_away(
            ELSEWHERE, f"{again}/branches/production", password=self.token(self.production)
        )

    def test_a_valid_password_of_somebody_without_a_role_opens_nothing(self) -> None:
        user = self.user.current_user.me().user_name
        self.turned_away(
            f'role "{user}" does not exist',
            self.production,
            user=user,
            password=self.token(self.production, self.user),
        )

    def test_a_suspended_compute_wakes_for_a_client_that_merely_waits(self) -> None:
        self.sql(self.production, "CREATE TABLE slept AS SELECT 7 AS n")
        for blow in ("suspend", "kill"):
            with self.subTest(blow):
                self.workspace().strike(blow, self.production)
                self.assertEqual(self.sql(self.production, "SELECT n FROM slept"), [(7,)])
                state = self.w.postgres.get_endpoint(self.endpoint).status.current_state
                self.assertEqual(state, pg.EndpointStatusState.ACTIVE)


class Foreign(Case):
    def test_a_password_of_another_workspace_is_foreign(self) -> None:
        home = self.project()
        other = Workspace()
        self.addCleanup(other.stop)
        client = other.client()
        name = home.removeprefix("projects/")
        client.postgres.create_project(pg.Project(), name).wait()
        token = client.postgres.generate_database_credential(
            f"{home}/branches/production/endpoints/primary"
        ).token
        self.turned_away(FOREIGN, f"{home}/branches/production", password=token)
