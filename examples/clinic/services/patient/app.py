"""The patient service: lists and registers patients."""

from __future__ import annotations

from datetime import date

import database
import fields
import web

LIST = """
    select id, name, birth_date, phone, created_at
    from patient
    order by created_at desc, id
    limit %s
"""
INSERT = """
    insert into patient (name, birth_date, phone)
    values (%s, %s, %s)
    returning id, name, birth_date, phone, created_at
"""


def list_patients(request: web.Request) -> web.Answer:
    rows = database.query(LIST, [fields.limit(request.query)])
    total = database.query("select count(*) as total from patient")[0]["total"]
    return web.Answer(200, {"items": rows, "total": total})


def register(request: web.Request) -> web.Answer:
    body = fields.record(request.body, "name", "birth_date", "phone")
    birth_date = fields.day(body, "birth_date")
    if birth_date > date.today():
        raise web.Refusal(400, "birth_date must not be in the future")
    values = [fields.text(body, "name"), birth_date, fields.optional_text(body, "phone", 40)]
    return web.Answer(201, database.query(INSERT, values)[0])


ROUTES = {
    ("GET", "/api/patient"): list_patients,
    ("POST", "/api/patient"): register,
    ("GET", "/api/patient/healthz"): database.health,
}

if __name__ == "__main__":
    with database.POOL:
        web.serve(ROUTES)
