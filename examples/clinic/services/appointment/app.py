"""The appointment service: lists and books appointments; a provider has one at a time."""

from __future__ import annotations

import database
import fields
import web

LIST = """
    select id, patient_id, provider_id, starts_at, reason, status
    from appointment
    order by starts_at desc, id
    limit %s
"""
INSERT = """
    insert into appointment (patient_id, provider_id, starts_at, reason)
    values (%s, %s, %s, %s)
    returning id, patient_id, provider_id, starts_at, reason, status
"""


def list_appointments(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from appointment")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def book(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "patient_id", "provider_id", "starts_at", "reason")
    values = [
        fields.identifier(body, "patient_id"),
        fields.identifier(body, "provider_id"),
        fields.moment(body, "starts_at"),
        fields.text(body, "reason"),
    ]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/appointment"): list_appointments,
    ("POST", "/api/appointment"): book,
    ("GET", "/api/appointment/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
