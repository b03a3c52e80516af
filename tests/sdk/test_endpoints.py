"""Endpoints through the official SDK."""

from __future__ import annotations

import psycopg
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound
from databricks.sdk.service import postgres as pg

from workspace import Case, seconds

READ_WRITE = pg.EndpointType.ENDPOINT_TYPE_READ_WRITE


class Endpoints(Case):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.home = cls.project()
        cls.production = f"{cls.home}/branches/production"

    def update(self, branch: str, mask: list[str], **spec: object) -> pg.EndpointStatus:
        spec.setdefault("endpoint_type", READ_WRITE)
        endpoint = pg.Endpoint(spec=pg.EndpointSpec(**spec))
        name = f"{branch}/endpoints/primary"
        return self.w.postgres.update_endpoint(name, endpoint, FieldMask(mask)).wait().status

    def test_an_endpoint_has_a_host_and_the_state_of_its_compute(self) -> None:
        endpoint = self.w.postgres.get_endpoint(f"{self.production}/endpoints/primary")
        self.assertEqual((endpoint.parent, endpoint.spec), (self.production, None))
        self.assertRegex(endpoint.uid or "", "^ep-")
        status = endpoint.status
        self.assertEqual((status.endpoint_id, status.endpoint_type), ("primary", READ_WRITE))
        self.assertTrue(status.hosts.host)
        self.assertIsNone(status.pending_state)
        self.sql(self.production, "SELECT 1")
        awake = self.w.postgres.get_endpoint(endpoint.name).status
        self.assertEqual(awake.current_state, pg.EndpointStatusState.ACTIVE)
        self.workspace().strike("suspend", self.production)
        asleep = self.w.postgres.get_endpoint(endpoint.name).status
        self.assertEqual(asleep.current_state, pg.EndpointStatusState.IDLE)
        self.assertEqual(asleep.hosts.host, status.hosts.host)
        with self.refused(NotFound, "NOT_FOUND", r"^endpoint id not found \[TraceId: [0-9a-f]+\]$"):
            self.w.postgres.get_endpoint(f"{self.production}/endpoints/{endpoint.uid}")
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.w.postgres.get_endpoint(f"{self.home}/branches/nobody/endpoints/primary")

    def test_limits_and_suspension_are_changed_by_leaf_and_by_group(self) -> None:
        branch = self.branch(self.home, "limits").name
        both = ["spec.autoscaling_limit_min_cu", "spec.autoscaling_limit_max_cu"]
        limits = self.update(branch, both, autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=8)
        self.assertEqual(
            (limits.autoscaling_limit_min_cu, limits.autoscaling_limit_max_cu), (0.5, 8)
        )
        by_group = self.update(branch, ["spec.suspension"], suspend_timeout_duration=seconds(90))
        self.assertEqual(by_group.suspend_timeout_duration, seconds(90))
        self.assertEqual(by_group.autoscaling_limit_max_cu, 8, "what the mask does not name stays")
        self.assertIn(
            self.update(
                branch, ["spec.no_suspension"], no_suspension=True
            ).suspend_timeout_duration,
            (None, seconds(0)),
        )
        by_leaf = self.update(
            branch, ["spec.suspend_timeout_duration"], suspend_timeout_duration=seconds(60)
        )
        self.assertEqual(by_leaf.suspend_timeout_duration, seconds(60))
        settings = pg.EndpointSettings(pg_settings={"work_mem": "8MB"})
        self.assertEqual(
            self.update(branch, ["spec.settings"], settings=settings).settings, settings
        )
        group = pg.EndpointGroupSpec(min=1, max=1)
        self.assertEqual(self.update(branch, ["spec.group"], group=group).group.max, 1)

    def test_a_disabled_endpoint_lets_nobody_in_until_it_is_enabled(self) -> None:
        branch = self.branch(self.home, "disabled").name
        self.sql(branch, "SELECT 1")
        password = self.token(branch)

        disabled = self.update(branch, ["spec.disabled"], disabled=True)

        self.assertIs(disabled.disabled, True)
        with self.assertRaisesRegex(psycopg.OperationalError, "endpoint is disabled"):
            self.connect(branch, password=password)
        self.assertFalse(self.update(branch, ["spec.disabled"], disabled=False).disabled)
        self.assertEqual(self.sql(branch, "SELECT 1"), [(1,)])

    def test_wrong_values_and_masks_are_refused(self) -> None:
        for mask, spec in [
            ("spec.autoscaling_limit_min_cu", {"autoscaling_limit_min_cu": 0.25}),
            ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 400}),
            ("spec.autoscaling_limit_max_cu", {"autoscaling_limit_max_cu": 64}),
            ("spec.suspension", {"suspend_timeout_duration": seconds(59)}),
            ("spec.suspension", {"suspend_timeout_duration": seconds(604_801)}),
            ("spec.suspension", {"no_suspension": False}),
            ("spec.suspension", {"no_suspension": True, "suspend_timeout_duration": seconds(60)}),
            ("spec.colour", {}),
            ("spec.disabled", {}),
            ("spec.endpoint_type", {"endpoint_type": pg.EndpointType.ENDPOINT_TYPE_READ_ONLY}),
        ]:
            with (
                self.subTest(mask, **spec),
                self.refused(InvalidParameterValue, "INVALID_PARAMETER_VALUE", "."),
            ):
                self.update(self.production, [mask], **spec)

    def test_a_branch_has_one_read_write_endpoint(self) -> None:
        branch = self.branch(self.home, "single").name

        def create(
            id: str, replace: bool | None = None, **spec: object
        ) -> pg.CreateEndpointOperation:
            endpoint = pg.Endpoint(spec=pg.EndpointSpec(endpoint_type=READ_WRITE, **spec))
            return self.w.postgres.create_endpoint(branch, endpoint, id, replace_existing=replace)

        with self.refused(
            AlreadyExists, "ALREADY_EXISTS", "^endpoint with such id already exists$"
        ):
            create("primary")
        with self.refused(AlreadyExists, "ALREADY_EXISTS", "^read_write endpoint already exists$"):
            create("secondary")
        with self.refused(
            InvalidParameterValue, "INVALID_PARAMETER_VALUE", "^Field 'endpoint_id' is required"
        ):
            create("")
        replaced = create("primary", replace=True, autoscaling_limit_max_cu=4).wait()
        self.assertEqual(replaced.status.autoscaling_limit_max_cu, 4)

    def test_a_read_only_endpoint_is_read_listed_and_deleted(self) -> None:
        branch = self.branch(self.home, "read-only").name
        self.sql(branch, "CREATE TABLE seen AS SELECT 7 AS n")
        kind = pg.EndpointType.ENDPOINT_TYPE_READ_ONLY
        spec = pg.EndpointSpec(endpoint_type=kind)

        reader = self.w.postgres.create_endpoint(branch, pg.Endpoint(spec=spec), "reader").wait()

        self.assertEqual(
            (reader.name, reader.status.endpoint_type), (f"{branch}/endpoints/reader", kind)
        )
        hosts = reader.status.hosts
        self.assertEqual(hosts.read_only_host, hosts.host)
        self.assertEqual(
            {endpoint.endpoint_id for endpoint in self.w.postgres.list_endpoints(branch)},
            {"primary", "reader"},
        )
        password = self.w.postgres.generate_database_credential(reader.name).token
        where = {**self.address(branch, "reader"), "password": password}
        with self.connect(branch, **where) as connection:
            self.assertEqual(connection.execute("SELECT n FROM seen").fetchone(), (7,))
            with self.assertRaises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO seen VALUES (8)")
        self.assertIsNone(self.w.postgres.delete_endpoint(reader.name).wait())
        with self.refused(NotFound, "NOT_FOUND", "^endpoint id not found"):
            self.w.postgres.get_endpoint(reader.name)

    def test_the_read_write_endpoint_goes_with_its_branch_alone(self) -> None:
        name = f"{self.production}/endpoints/primary"
        text = rf"^Cannot delete read-write endpoint '{name}'\. Read-write endpoints cannot be deleted\.$"
        with self.refused(BadRequest, "BAD_REQUEST", text) as caught:
            self.w.postgres.delete_endpoint(name)
        info = caught.exception.get_error_details().error_info
        self.assertEqual(info.metadata, {"declarative_context": "MANAGED_BY_PARENT"})
        branch = self.branch(self.home, "with-endpoint").name
        self.w.postgres.delete_branch(branch).wait()
        with self.refused(NotFound, "NOT_FOUND", "^branch id not found"):
            self.w.postgres.get_endpoint(f"{branch}/endpoints/primary")
