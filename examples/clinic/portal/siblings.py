"""Calls to the six services, as the portal's own service principal."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from functools import lru_cache
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from databricks.sdk.errors import DatabricksError

SERVICES = ("patient", "provider", "appointment", "lab", "prescription", "billing")
APPS = {service: os.environ[f"{service.upper()}_APP"] for service in SERVICES}
CALL_SECONDS = 20
ADDRESS_SECONDS = 300
ANSWER_LIMIT = 4 * 1024 * 1024

POOL = ThreadPoolExecutor(max_workers=24, thread_name_prefix="sibling")
ADDRESSES: dict[str, tuple[float, str]] = {}


class Reply(NamedTuple):
    """What a sibling answered; 502 with a reason when it gave no JSON answer."""

    status: int
    content: Any


class NoRedirects(HTTPRedirectHandler):
    """A redirect leads to a login page, which is no answer; it would also carry our token away."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


OPENER = build_opener(NoRedirects)


@lru_cache(maxsize=1)
def workspace() -> WorkspaceClient:
    return WorkspaceClient(config=Config(http_timeout_seconds=8, retry_timeout_seconds=10))


def address(service: str) -> str:
    """Returns the sibling's URL, looked up by the name that its app has here."""
    known = ADDRESSES.get(service)
    if known and time.monotonic() < known[0]:
        return known[1]
    url = workspace().apps.get(APPS[service]).url
    if not url:
        raise OSError("the app has no URL yet")
    ADDRESSES[service] = (time.monotonic() + ADDRESS_SECONDS, url.rstrip("/"))
    return ADDRESSES[service][1]


def call(service: str, path: str, body: Any = None) -> Reply:
    """Sends a GET, or a POST when there is a body, to `/api/<service><path>`."""
    try:
        with send(f"{address(service)}/api/{service}{path}", body) as answer:
            # A login page, too, has the status 200.
            if answer.headers.get_content_type() != "application/json":
                return Reply(502, {"error": f"{service}: status {answer.status} without JSON"})
            return Reply(answer.status, json.loads(answer.read(ANSWER_LIMIT)))
    except (OSError, HTTPException, ValueError, DatabricksError) as error:
        ADDRESSES.pop(service, None)
        return Reply(502, {"error": f"{service}: {getattr(error, 'reason', error)}"})


def send(url: str, body: Any) -> Any:
    request = Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={**workspace().config.authenticate(), "Content-Type": "application/json"},
    )
    try:
        return OPENER.open(request, timeout=CALL_SECONDS)
    except HTTPError as answer:
        return answer


def call_all(path: str) -> dict[str, Reply]:
    """Calls all six at once; a sibling that is too slow counts as failed."""
    calls = {service: POOL.submit(call, service, path) for service in SERVICES}
    deadline = time.monotonic() + CALL_SECONDS
    replies = {}
    for service, future in calls.items():
        try:
            replies[service] = future.result(max(0, deadline - time.monotonic()))
        except OutOfTime:
            future.cancel()
            replies[service] = Reply(504, {"error": f"no answer in {CALL_SECONDS} seconds"})
    return replies
