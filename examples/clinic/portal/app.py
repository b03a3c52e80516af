"""The portal: shows the six services on one page and passes writes on to them."""

from __future__ import annotations

from html import escape
from typing import Any

import siblings
import web

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Clinic</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; }}
td, th {{ padding: 0.2rem 1.5rem 0.2rem 0; text-align: left; }}
</style>
<h1>Clinic</h1>
<table>
<tr><th>Service</th><th>Health</th><th>Rows</th></tr>
{rows}
</table>
</html>
"""


def well(reply: siblings.Reply) -> bool:
    return reply == (200, {"ok": True})


def reason(reply: siblings.Reply) -> str:
    content = reply.content if isinstance(reply.content, dict) else {}
    return str(content.get("why") or content.get("error") or f"status {reply.status}")


def total(reply: siblings.Reply) -> Any:
    """Returns a service's number of rows, or `None` when it could not be asked."""
    if reply.status != 200 or not isinstance(reply.content, dict):
        return None
    return reply.content.get("total")


def health(_: web.Request) -> web.Answer:
    ill = {
        service: reason(reply)
        for service, reply in siblings.call_all("/healthz").items()
        if not well(reply)
    }
    return web.Answer(503, {"ok": False, "why": ill}) if ill else web.Answer(200, {"ok": True})


def overview(_: web.Request) -> web.Answer:
    replies = siblings.call_all("?limit=1")
    failed = {service: reason(reply) for service, reply in replies.items() if total(reply) is None}
    if failed:
        return web.Answer(502, {"error": failed})
    return web.Answer(200, {service: total(reply) for service, reply in replies.items()})


def page(_: web.Request) -> web.Answer:
    healths = siblings.call_all("/healthz")
    lists = siblings.call_all("?limit=1")
    rows = "\n".join(row(name, healths[name], lists[name]) for name in siblings.SERVICES)
    return web.Answer(200, PAGE.format(rows=rows), "text/html")


def row(service: str, state: siblings.Reply, items: siblings.Reply) -> str:
    shown = "well" if well(state) else reason(state)
    count = total(items)
    cells = (service, shown, "unknown" if count is None else str(count))
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def passing_on(service: str) -> web.Route:
    """Returns the route that passes a write on to `service`."""

    def write(request: web.Request) -> web.Answer:
        if request.body is None:
            raise web.Refusal(400, "the body must be a JSON object")
        return web.Answer(*siblings.call(service, "", request.body))

    return write


ROUTES: web.Routes = {
    ("GET", "/"): page,
    ("GET", "/healthz"): health,
    ("GET", "/api/overview"): overview,
    **{("POST", f"/api/{service}"): passing_on(service) for service in siblings.SERVICES},
}

if __name__ == "__main__":
    web.serve(ROUTES)
