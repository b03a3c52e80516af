"""The billing service: lists and issues invoices; amounts are in cents."""

from __future__ import annotations

import database
import fields
import web

LIST = """
    select id, patient_id, amount_cents, purpose, issued_at, paid_at
    from invoice
    order by issued_at desc, id
    limit %s
"""
INSERT = """
    insert into invoice (patient_id, amount_cents, purpose)
    values (%s, %s, %s)
    returning id, patient_id, amount_cents, purpose, issued_at, paid_at
"""


def list_invoices(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from invoice")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def issue(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "patient_id", "amount_cents", "purpose")
    values = [
        fields.identifier(body, "patient_id"),
        fields.number(body, "amount_cents", 1, 100_000_000),
        fields.text(body, "purpose"),
    ]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/billing"): list_invoices,
    ("POST", "/api/billing"): issue,
    ("GET", "/api/billing/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
