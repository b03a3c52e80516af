"""The lab service: lists orders with their results and takes new orders."""

from __future__ import annotations

import database
import fields
import web

LIST = """
    select o.id, o.patient_id, o.test, o.ordered_at, r.value as result, r.reported_at
    from lab_order o
    left join lab_result r on r.order_id = o.id
    order by o.ordered_at desc, o.id
    limit %s
"""
INSERT = """
    insert into lab_order (patient_id, test)
    values (%s, %s)
    returning id, patient_id, test, ordered_at
"""


def list_orders(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from lab_order")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def order(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "patient_id", "test")
    values = [fields.identifier(body, "patient_id"), fields.text(body, "test", 120)]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/lab"): list_orders,
    ("POST", "/api/lab"): order,
    ("GET", "/api/lab/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
