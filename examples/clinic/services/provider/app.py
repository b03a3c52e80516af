"""The provider service: lists and adds the people who treat patients."""

from __future__ import annotations

import database
import fields
import web

LIST = """
    select id, name, specialty, accepts_new_patients, created_at
    from provider
    order by name, id
    limit %s
"""
INSERT = """
    insert into provider (name, specialty)
    values (%s, %s)
    returning id, name, specialty, accepts_new_patients, created_at
"""


def list_providers(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from provider")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def add(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "name", "specialty")
    values = [fields.text(body, "name"), fields.text(body, "specialty", 80)]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/provider"): list_providers,
    ("POST", "/api/provider"): add,
    ("GET", "/api/provider/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
