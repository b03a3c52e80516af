"""Roles and databases through the official SDK: what the API says and what Postgres has."""

from __future__ import annotations

import psycopg
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as pg

from workspace import Case

PASSWORD = pg.RoleAuthMethod.PG_PASSWORD_SCRAM_SHA_256
OAUTH = pg.RoleAuthMethod.LAKEBASE_OAUTH_V1
SUPERUSER = pg.RoleMembershipRole.DATABRICKS_SUPERUSER


class Catalog(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project(enable_pg_native_login=True)
        cls.production = f"{cls.home}/branches/production"

    def role(
        self, postgres_role: str, id: str | None = None, replace: bool | None = None, **spec: object
    ) -> pg.Role:
        role = pg.Role(spec=pg.RoleRoleSpec(postgres_role=postgres_role, **spec))
        return self.w.postgres.create_role(
            self.production, role, role_id=id, replace_existing=replace
        ).wait()

    def database(
        self, postgres_database: str, role: str, id: str | None = None, replace: bool | None = None
    ) -> pg.Database:
        spec = pg.DatabaseDatabaseSpec(postgres_database=postgres_database, role=role)
        return self.w.postgres.create_database(
            self.production, pg.Database(spec=spec), database_id=id, replace_existing=replace
        ).wait()


class Roles(Catalog):
    def update(self, name: str, mask: list[str], **spec: object) -> pg.RoleRoleStatus:
        return (
            self.w.postgres.update_role(
                name, pg.Role(spec=pg.RoleRoleSpec(**spec)), FieldMask(mask)
            )
            .wait()
            .status
        )

    def test_a_plain_role_logs_in_with_the_password_that_was_revealed(self) -> None:
        role = self.role("reader", "reader")
        self.assertEqual(
            (role.name, role.parent), (f"{self.production}/roles/reader", self.production)
        )
        status = role.status
        self.assertEqual(
            (status.role_id, status.postgres_role, status.auth_method),
            ("reader", "reader", PASSWORD),
        )
        self.assertIsNone(status.identity_type, "it stands for nobody")
        password = self.w.postgres.reveal_role_password(role.name).password
        with self.connect(self.production, user="reader", password=password) as connection:
            self.assertEqual(connection.execute("SELECT current_user").fetchone(), ("reader",))
        self.turned_away(
            "password authentication failed", self.production, user="reader", password="wrong"
        )
        self.assertEqual(self.w.postgres.get_role(role.name).as_dict(), role.as_dict())

    def test_an_identity_has_a_role_that_takes_its_own_credential(self) -> None:
        user = self.user.current_user.me().user_name
        role = self.role(user, identity_type=pg.RoleIdentityType.USER)
        self.assertEqual(role.name, f"{self.production}/roles/{user.split('@')[0]}")
        self.assertEqual(
            (role.status.auth_method, role.status.identity_type), (OAUTH, pg.RoleIdentityType.USER)
        )
        self.assertEqual(
            self.sql(self.production, "SELECT current_user::text", self.user), [(user,)]
        )
        with self.refused(BadRequest, "BAD_REQUEST", "password"):
            self.w.postgres.reveal_role_password(role.name)

    def test_memberships_and_attributes_are_in_postgres(self) -> None:
        role = self.role(
            "builder",
            "builder",
            membership_roles=[SUPERUSER],
            attributes=pg.RoleAttributes(createdb=True),
        )
        facts = """SELECT rolcreatedb, rolcreaterole, rolbypassrls,
            pg_has_role('builder', 'databricks_superuser', 'MEMBER') FROM pg_roles WHERE rolname = 'builder'"""
        self.assertEqual(self.sql(self.production, facts), [(True, False, False, True)])
        status = self.update(
            role.name,
            ["spec.attributes"],
            attributes=pg.RoleAttributes(createrole=True, bypassrls=True, createdb=False),
        )
        self.assertEqual(status.membership_roles, [SUPERUSER])
        self.assertEqual(self.sql(self.production, facts), [(False, True, True, True)])
        self.update(
            role.name, ["spec.attributes.createdb"], attributes=pg.RoleAttributes(createdb=True)
        )
        self.assertEqual(self.sql(self.production, facts), [(True, True, True, True)])
        status = self.update(role.name, ["spec.membership_roles"], membership_roles=[])
        self.assertFalse(status.membership_roles)
        self.assertEqual(self.sql(self.production, facts), [(True, True, True, False)])
        for mask, spec in [
            ("spec.postgres_role", {"postgres_role": "other"}),
            ("spec.auth_method", {"auth_method": OAUTH}),
        ]:
            with (
                self.subTest(mask),
                self.refused(
                    InvalidParameterValue,
                    "INVALID_PARAMETER_VALUE",
                    "Unknown field path in update_mask",
                ),
            ):
                self.update(role.name, [mask], **spec)

    def test_a_taken_role_is_refused_unless_it_is_to_be_replaced(self) -> None:
        self.role("twice", "twice", membership_roles=[SUPERUSER])
        with self.refused(BadRequest, "BAD_REQUEST", "^role with that name already exists$"):
            self.role("twice", "twice")
        self.assertFalse(self.role("twice", "twice", replace=True).status.membership_roles)

    def test_ids_are_made_of_the_name_or_checked(self) -> None:
        self.assertEqual(self.role("made_of_name").status.role_id, "made-of-name")
        for id in ("abc", "Reader", "1reader", "r" * 64):
            with (
                self.subTest(id),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "role_id"),
            ):
                self.role("never", id)
        with self.refused(
            InvalidParameterValue,
            "INVALID_PARAMETER_VALUE",
            r"^Field 'role\.spec\.postgres_role' is required",
        ):
            self.role("", "never")

    def test_a_role_that_owns_something_goes_when_somebody_takes_it(self) -> None:
        owner, heir = self.role("owner", "owner"), self.role("heir", "heir")
        password = self.w.postgres.reveal_role_password(owner.name).password
        self.sql(self.production, "GRANT ALL ON SCHEMA public TO owner")
        with self.connect(self.production, user="owner", password=password) as connection:
            connection.execute("CREATE TABLE owned (n int)")
        with self.assertRaisesRegex(Exception, "owns|depend|reassign_owned_to"):
            self.w.postgres.delete_role(owner.name).wait()
        self.assertIsNone(
            self.w.postgres.delete_role(owner.name, reassign_owned_to=heir.name).wait()
        )
        with self.refused(NotFound, "NOT_FOUND", "^role id not found"):
            self.w.postgres.get_role(owner.name)
        self.assertEqual(
            self.sql(self.production, "SELECT tableowner FROM pg_tables WHERE tablename = 'owned'"),
            [("heir",)],
        )

    def test_a_role_made_with_sql_is_in_the_list_and_one_made_with_the_api_is_in_a_branch(
        self,
    ) -> None:
        self.sql(self.production, "CREATE ROLE by_sql NOLOGIN")
        listed = {
            role.status.postgres_role: role.status
            for role in self.w.postgres.list_roles(self.production)
        }
        self.assertEqual(listed["by_sql"].auth_method, pg.RoleAuthMethod.NO_LOGIN)
        self.role("inherited", "inherited")
        branch = self.branch(self.home, "inheriting").name
        self.assertEqual(
            self.w.postgres.get_role(f"{branch}/roles/inherited").status.postgres_role, "inherited"
        )

    def test_passwords_are_refused_where_they_are_switched_off(self) -> None:
        home = self.project()
        branch = f"{home}/branches/production"
        role = pg.Role(spec=pg.RoleRoleSpec(postgres_role="reader"))
        created = self.w.postgres.create_role(branch, role, role_id="reader").wait()
        password = self.w.postgres.reveal_role_password(created.name).password
        with self.assertRaisesRegex(
            psycopg.OperationalError, "native postgres login is disabled for this endpoint"
        ):
            self.connect(branch, user="reader", password=password)


class Databases(Catalog):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        role = pg.Role(spec=pg.RoleRoleSpec(postgres_role="keeper"))
        cls.keeper = cls.w.postgres.create_role(cls.production, role, role_id="keeper").wait().name

    def update(self, name: str, mask: list[str], **spec: object) -> pg.DatabaseDatabaseStatus:
        spec.setdefault("role", self.keeper)
        database = pg.Database(spec=pg.DatabaseDatabaseSpec(**spec))
        return self.w.postgres.update_database(name, database, FieldMask(mask)).wait().status

    def test_a_database_is_created_renamed_given_away_and_deleted(self) -> None:
        database = self.database("ledger", self.keeper, "ledger")
        self.assertEqual(
            (database.name, database.parent),
            (f"{self.production}/databases/ledger", self.production),
        )
        self.assertEqual(
            (database.status.postgres_database, database.status.role), ("ledger", self.keeper)
        )
        with self.connect(self.production, dbname="ledger") as connection:
            self.assertEqual(
                connection.execute("SELECT current_database()").fetchone(), ("ledger",)
            )
        renamed = self.update(database.name, ["spec.postgres_database"], postgres_database="book")
        self.assertEqual((renamed.database_id, renamed.postgres_database), ("ledger", "book"))
        other = self.role("other_keeper", "other-keeper").name
        self.assertEqual(self.update(database.name, ["spec.role"], role=other).role, other)
        owner = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'book'"
        self.assertEqual(self.sql(self.production, owner), [("other_keeper",)])
        self.assertEqual(
            self.w.postgres.get_database(database.name).status.postgres_database, "book"
        )
        self.assertIsNone(self.w.postgres.delete_database(database.name).wait())
        with self.refused(NotFound, "NOT_FOUND", "^database id not found"):
            self.w.postgres.get_database(database.name)
        self.assertEqual(self.sql(self.production, owner), [])

    def test_what_is_missing_or_taken_is_refused(self) -> None:
        text = r"""^Field 'database\.spec\.role' is required, expected non-default value \(not ""\)!$"""
        with self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", text):
            self.database("nobodys", "", "nobodys")
        with self.refused(NotFound, "NOT_FOUND", "^role id not found"):
            self.database("nobodys", f"{self.production}/roles/nobody", "nobodys")
        self.database("taken", self.keeper, "taken")
        with self.refused(BadRequest, "BAD_REQUEST", "^database with that name already exists$"):
            self.database("taken", self.keeper, "taken")
        self.assertEqual(
            self.database("taken", self.keeper, "taken", replace=True).status.role, self.keeper
        )
        with self.refused(
            InvalidParameterValue, "INVALID_PARAMETER_VALUE", "Unknown field path in update_mask"
        ):
            self.update(f"{self.production}/databases/taken", ["spec.colour"])
        self.assertEqual(self.database("id_of_name", self.keeper).status.database_id, "id-of-name")

    def test_a_database_made_with_sql_is_in_the_list(self) -> None:
        self.sql(self.production, "CREATE DATABASE by_sql")
        listed = [
            database.status.postgres_database
            for database in self.w.postgres.list_databases(self.production)
        ]
        self.assertIn("by_sql", listed)
