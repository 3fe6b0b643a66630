"""Write the tables and examples of docs/protocol.md: `python docs/generate.py`. A test holds the page to them.

They come from the types (by way of the schema) and from docs/examples/story.json, which a test plays on a real host.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.protocol.reference import CLOSE_CODES, ERRORS, LIMITS, MAY_CHANGE, MAY_NOT_CHANGE
from kandev_host.protocol.schema import OFFERS, document
from kandev_host.settings import GatewaySettings

PAGE = Path(__file__).parent / "protocol.md"
STORY = Path(__file__).parent / "examples/story.json"
WIDTH = 116
FEW = 2
SHOWN = {"repository": "/home/ada/website", "token": "kdv_…", "session": "0199a5b0-7c00-7000-8000-0000000000ff"}
SHOWN |= {
    "backup_name": "kandev-20260110T103000Z.zip",
    "backup_path": "/home/ada/.kandev/backups/kandev-20260110T103000Z.zip",
}

Json = dict[str, Any]


class Reference:
    """The parts of the page that are made, by the name of their markers."""

    def __init__(self) -> None:
        self._document = document(OFFERS)
        self._schemas: dict[str, Json] = self._document["components"]["schemas"]
        self._story: list[Json] = json.loads(STORY.read_text())
        self._ids: dict[str, str] = {}

    def parts(self) -> dict[str, str]:
        makers: dict[str, Callable[[], Iterable[str]]] = {
            "errors": self._errors,
            "close codes": lambda: table(("code", "meaning"), ((str(code), why) for code, why in CLOSE_CODES.items())),
            "limits": _limits,
            "stability": _stability,
            "actions": self._overview,
            "reference": self._actions,
            "types": self._types,
            "notifications": self._notifications,
            "payloads": self._payloads,
        }
        # In the order of the page: the examples' ids are numbered as they appear.
        return {name: "\n".join(make()) + "\n" for name, make in makers.items()}

    def _errors(self) -> Iterator[str]:
        rows = []
        for each in ERRORS.values():
            details = "; ".join(f"`{name}`: {meaning}" for name, meaning in each.details.items())
            rows.append((each.code, each.summary, details))
        yield from table(("code", "when", "details"), rows)
        step = next(step for step in self._story if "error" in step)
        yield ""
        yield f"So an old `expected_version` in `{step['request']}` is answered with"
        yield ""
        yield from self._block(step["error"])

    def _overview(self) -> Iterator[str]:
        rows = [(link(name), each.summary, f"`{each.scope}`" if each.scope else "") for name, each in OFFERS.items()]
        yield from table(("action", "what it does", "scope"), rows)

    def _actions(self) -> Iterator[str]:
        for name, offer in OFFERS.items():
            request = self._schemas[offer.request.__name__]
            yield f"### {name}\n"
            yield sentences(offer.summary, described(request)) + "\n"
            yield from self._fields("Payload", request, defaults=True)
            yield ""
            if offer.response is not None:
                response = self._schemas[offer.response.__name__]
                yield from self._fields("Response", response)
                if text := described(response):
                    yield "\n" + text
            step = next((step for step in self._story if step.get("request") == name and "response" in step), None)
            if step is not None:
                yield "\nAn example, and its answer:\n"
                yield from self._block(step["payload"])
                yield ""
                yield from self._block(step["response"])
            yield ""

    def _types(self) -> Iterator[str]:
        named = {offer.request.__name__ for offer in OFFERS.values()}
        named |= {offer.response.__name__ for offer in OFFERS.values() if offer.response is not None}
        named |= {each.payload.__name__ for each in NOTIFICATIONS.values()}
        for name, schema in self._schemas.items():
            if name not in named:
                yield f"### {name}\n"
                if text := described(schema):
                    yield text + "\n"
                yield from self._fields("Fields", schema, defaults=name.endswith("Input"))
                yield ""

    def _notifications(self) -> Iterator[str]:
        rows = []
        for each in NOTIFICATIONS.values():
            topics = ", ".join(f"`{topic}`" for topic in each.topics)
            rows.append((link(each.name), each.summary, topics, f"`{each.scope}`", "no" if each.transient else "yes"))
        yield from table(("notification", "when", "topics", "scope", "kept"), rows)

    def _payloads(self) -> Iterator[str]:
        for name, each in NOTIFICATIONS.items():
            schema = self._schemas[each.payload.__name__]
            yield f"### {name}\n"
            yield sentences(each.summary, described(schema)) + "\n"
            yield from self._fields("Payload", schema)
            step = next((step for step in self._story if step.get("notification") == name), None)
            if step is not None:
                yield ""
                yield from self._block(step["payload"])
            yield ""

    def _fields(self, title: str, schema: Json, *, defaults: bool = False) -> Iterator[str]:
        """In a line if there are few, else as a table. `defaults` are for what a client may leave out."""
        required = schema.get("required", [])
        rows = []
        for name, part in schema["properties"].items():
            text = words(part)
            if name not in required:
                default = "" if "default" not in part or not defaults else f"; default {shown(part['default'])}"
                text += f"{default or ('; may be absent' if not defaults else '; optional')}"
            rows.append((f"`{name}`", text))
        if len(rows) <= FEW:
            yield f"{title}: {'; '.join(f'{name}, {text}' for name, text in rows) or 'no fields'}."
        else:
            yield from table((title.lower(), "type"), rows)

    def _block(self, value: Any) -> Iterator[str]:
        yield "```json"
        yield pretty(self._filled(value))
        yield "```"

    def _filled(self, value: Any) -> Any:
        """With something that looks like an id for every `$name`."""
        if isinstance(value, dict):
            return {key: self._filled(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._filled(part) for part in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        return re.sub(r"\$(\w+)", lambda match: self._named(match[1]), value)

    def _named(self, name: str) -> str:
        return SHOWN.get(name) or self._ids.setdefault(name, f"0199a5b0-7c00-7000-8000-{len(self._ids) + 1:012x}")


def sentences(*parts: str) -> str:
    """One after the other, each with its full stop."""
    return " ".join(part if part.endswith((".", "?")) else f"{part}." for part in parts if part)


def link(name: str) -> str:
    return f"[{name}](#{slug(name)})"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def listed(items: Iterable[str]) -> Iterator[str]:
    *others, last = items
    yield from (f"- {each};" for each in others)
    yield f"- {last}."


def described(schema: Json) -> str:
    return " ".join(schema.get("description", "").split())


def shown(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def words(schema: Json) -> str:
    """A schema's type and bounds, for people."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(words(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(shown(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        bound = bounds(schema, "minItems", "maxItems")
        return f"list of {words(schema.get('items', {}))}" + (f" ({bound} items)" if bound else "")
    if kind == "string":
        if schema.get("format") == "date-time":
            return "time"
        bound = bounds(schema, "minLength", "maxLength")
        pattern = f", matching `{schema['pattern']}`" if "pattern" in schema else ""
        return "string" + (f", {bound} characters" if bound else "") + pattern
    if kind in {"integer", "number"}:
        bound = bounds(schema, "minimum", "maximum")
        return f"{kind}" + (f", {bound}" if bound else "")
    return {"boolean": "true or false", "null": "null", "object": "object", None: "any JSON"}.get(kind, str(kind))


def bounds(schema: Json, low: str, high: str) -> str:
    least, most = schema.get(low), schema.get(high)
    if most is None or most > 2**53:
        return "" if least is None else f"at least {least:,}"
    return f"at most {most:,}" if least is None else f"{least:,} to {most:,}"


def pretty(value: Any, indent: int = 0) -> str:
    """JSON in few lines: broken only where a line would be too long."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, list):
        parts = [pretty(part, indent + 2) for part in value]
        if any(isinstance(part, dict | list) for part in value):
            return "[\n" + ",\n".join(pad + part for part in parts) + f"\n{' ' * indent}]"
        return "[\n" + ",\n".join(_packed(parts, indent + 2)) + f"\n{' ' * indent}]"
    members = [f"{json.dumps(key)}: {pretty(part, indent + 2)}" for key, part in value.items()]
    return "{\n" + ",\n".join(_packed(members, indent + 2)) + f"\n{' ' * indent}}}"


def _packed(members: Iterable[str], indent: int) -> Iterator[str]:
    """As many in a line as fit."""
    line = ""
    for member in members:
        if line and (len(line) + len(member) + 2 > WIDTH or "\n" in member or "\n" in line):
            yield line
            line = ""
        line = f"{line}, {member}" if line else " " * indent + member
    if line:
        yield line


def _limits() -> Iterator[str]:
    fields = {field.name: field for field in msgspec.inspect.type_info(GatewaySettings).fields}  # type: ignore[attr-defined]
    rows = []
    for name in LIMITS:
        meta = (fields[name].type.extra_json_schema or {}).get("description", "")
        rows.append((f"`{name}`", f"{fields[name].default:,}", meta))
    yield from table(("setting of `[gateway]`", "default", "meaning"), rows)


def _stability() -> Iterator[str]:
    yield "These stay as they are for as long as the subprotocol is called `kandev.v1`:\n"
    yield from listed(MAY_NOT_CHANGE)
    yield "\nThese may come or change in any version, and a client must live with it:\n"
    yield from listed(MAY_CHANGE)


def generated(page: str) -> str:
    """The page with every part made anew. Raises `ValueError` for a part that the page has no place for."""
    for name, text in Reference().parts().items():
        start, end = f"<!-- {name}: made by docs/generate.py -->\n", f"<!-- end of {name} -->"
        if start not in page or end not in page:
            raise ValueError(f"docs/protocol.md has no place for: {name}")
        head, _, rest = page.partition(start)
        page = head + start + text + end + rest.partition(end)[2]
    return page


def main() -> int:
    PAGE.write_text(generated(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
