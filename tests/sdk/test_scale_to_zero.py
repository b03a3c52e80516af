"""A compute that nobody uses goes to sleep by itself, and wakes for whoever comes."""

from __future__ import annotations

import time

from databricks.sdk.service import postgres as pg

from workspace import SLEEPER, Case


class ScaleToZero(Case):
    def test_an_idle_compute_is_suspended_after_its_timeout_and_wakes_for_a_client(self) -> None:
        branch = f"projects/{SLEEPER}/branches/production"
        endpoint = f"{branch}/endpoints/primary"
        end = time.monotonic() + 300
        while (
            status := self.w.postgres.get_endpoint(endpoint).status
        ).current_state != pg.EndpointStatusState.IDLE:
            self.assertLess(time.monotonic(), end, "it is still awake")
            time.sleep(1)
        self.assertEqual(status.suspend_timeout_duration.seconds, 60)

        self.assertEqual(self.sql(branch, "SELECT 1"), [(1,)])

        awake = self.w.postgres.get_endpoint(endpoint).status.current_state
        self.assertEqual(awake, pg.EndpointStatusState.ACTIVE)
