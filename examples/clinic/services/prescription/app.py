"""The prescription service: lists and writes prescriptions."""

from __future__ import annotations

import database
import fields
import web

LIST = """
    select id, patient_id, drug, dose, refills, prescribed_at
    from prescription
    order by prescribed_at desc, id
    limit %s
"""
INSERT = """
    insert into prescription (patient_id, drug, dose, refills)
    values (%s, %s, %s, %s)
    returning id, patient_id, drug, dose, refills, prescribed_at
"""


def list_prescriptions(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from prescription")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def prescribe(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "patient_id", "drug", "dose", "refills")
    values = [
        fields.identifier(body, "patient_id"),
        fields.text(body, "drug", 120),
        fields.text(body, "dose", 80),
        fields.number(body, "refills", 0, 12),
    ]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/prescription"): list_prescriptions,
    ("POST", "/api/prescription"): prescribe,
    ("GET", "/api/prescription/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
