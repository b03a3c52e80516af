"""Checks of what a caller sent; each returns the value or refuses with 400 and its name."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Mapping
from uuid import UUID

from web import Refusal

Record = Mapping[str, Any]


def record(body: Any, *names: str) -> Record:
    """A JSON object with no other fields than `names`."""
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    unknown = sorted(set(body) - set(names))
    if unknown:
        raise Refusal(400, f"unknown field {unknown[0]!r}; known: {', '.join(names)}")
    return body


def text(body: Record, name: str, longest: int = 200) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise Refusal(400, f"{name} must be a line of text")
    if len(value) > longest:
        raise Refusal(400, f"{name} must have at most {longest} characters")
    return value.strip()


def optional_text(body: Record, name: str, longest: int = 200) -> str | None:
    return None if body.get(name) is None else text(body, name, longest)


def number(body: Record, name: str, least: int, most: int) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refusal(400, f"{name} must be a whole number from {least} to {most}")
    return value


def identifier(body: Record, name: str) -> UUID:
    try:
        return UUID(str(body.get(name)))
    except ValueError:
        raise Refusal(400, f"{name} must be a UUID") from None


def day(body: Record, name: str) -> date:
    try:
        return date.fromisoformat(str(body.get(name)))
    except ValueError:
        raise Refusal(400, f"{name} must be a date such as 1980-02-29") from None


def moment(body: Record, name: str) -> datetime:
    try:
        # Before Python 3.11 `fromisoformat` does not know `Z`.
        value = datetime.fromisoformat(str(body.get(name)).replace("Z", "+00:00"))
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise Refusal(400, f"{name} must be a time with a zone such as 2030-01-31T09:00:00Z")
    return value


def limit(query: Mapping[str, str]) -> int:
    """How many rows a list may have: `?limit=`, 50 unless told, never above 500."""
    value = query.get("limit", "50")
    if not value.isdecimal() or not 1 <= int(value[:9]) <= 500:
        raise Refusal(400, "limit must be a whole number from 1 to 500")
    return int(value)
