"""The shop: lists and adds products."""

from __future__ import annotations

import database
import fields
import web

LIST = "select id, name, price_cents from product order by name limit %s"
INSERT = """
    insert into product (name, price_cents)
    values (%s, %s)
    returning id, name, price_cents
"""


def list_products(request: web.Request) -> web.Answer:
    return web.Answer(200, {"items": database.query(LIST, [fields.limit(request.query)])})


def add(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "name", "price_cents")
    values = [fields.text(body, "name"), fields.number(body, "price_cents", 0, 100_000_000)]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/products"): list_products,
    ("POST", "/api/products"): add,
    ("GET", "/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
