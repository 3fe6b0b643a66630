"""The protocol as one AsyncAPI 3.0 document, made of the types: `kandev-host schema`, and `GET /schema.json`.

The document describes the host. So an action is an operation that *receives* a request and replies to it, and a
notification is one that *sends*. The same types give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.actions.auth import Login, LoginReply, Logout, LogoutReply, Refresh, Ticket, TicketReply
from kandev_host.protocol.components import ANYTHING, Components, Json
from kandev_host.protocol.envelope import ACTION_LIMIT_CHARS, ID_LIMIT_CHARS
from kandev_host.protocol.notifications import NOTIFICATIONS, Notification
from kandev_host.protocol.reference import (
    CLOSE_CODES,
    ERRORS,
    MAY_CHANGE,
    MAY_NOT_CHANGE,
    PROTOCOL_VERSION,
    SUBPROTOCOL,
)
from kandev_host.version import __version__

ADDRESS = "127.0.0.1:8080"
DESCRIPTION = (
    "One WebSocket carries everything that happens between a front end and kandev-host. "
    "The document describes the host: an action is an operation that receives a request and replies to it with a "
    "response or an error of the same `id`; a notification is an operation that sends. "
    "docs/protocol.md of the project says the rest in prose, with an example of each."
)


class Offer(msgspec.Struct, frozen=True):
    """One action that is served. Without a `response` its reply is not described."""

    request: type
    response: type | None
    scope: str
    summary: str

    @property
    def reads(self) -> bool:
        return self.scope.endswith(":read")


OFFERS: Mapping[str, Offer] = {
    "auth.login": Offer(Login, LoginReply, "", "Who am I? Checks a token, or a name and its password"),
    "auth.refresh": Offer(Refresh, LoginReply, "", "A new token for a refresh token"),
    "auth.ticket": Offer(Ticket, TicketReply, "", "A link to log in with, once"),
    "auth.logout": Offer(Logout, LogoutReply, "", "End this session"),
    **{name: Offer(shape.request, shape.response, shape.scope, shape.summary) for name, shape in ACTIONS.items()},
}


def encoded(offers: Mapping[str, Offer], *, address: str = ADDRESS, limits: Mapping[str, Any] | None = None) -> bytes:
    """The document as JSON for people and programs, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(document(offers, address=address, limits=limits)), indent=2) + b"\n"


def document(offers: Mapping[str, Offer], *, address: str = ADDRESS, limits: Mapping[str, Any] | None = None) -> Json:
    """AsyncAPI 3.0 of these actions and of all notifications. `address` is host:port, `limits` the gateway's."""
    replies = [offer.response for offer in offers.values() if offer.response is not None]
    payloads = [each.payload for each in NOTIFICATIONS.values()]
    parts = Components([offer.request for offer in offers.values()], [*replies, *payloads])
    messages = {"error": _error()}
    for name, offer in offers.items():
        messages[f"{name}.request"] = _request(name, offer, parts)
        messages[f"{name}.response"] = _response(name, offer, parts)
    for each in NOTIFICATIONS.values():
        messages[each.name] = _notification(each, parts)
    operations = {name: _serving(name, offer) for name, offer in offers.items()}
    operations |= {f"notification.{each.name}": _telling(each) for each in NOTIFICATIONS.values()}
    return {
        "asyncapi": "3.0.0",
        "info": _info(offers),
        "defaultContentType": "application/json",
        "servers": {"host": _server(address)},
        "channels": {"socket": _channel(messages)},
        "operations": operations,
        "components": {"messages": messages, "schemas": parts.schemas, "securitySchemes": _security()},
        "x-protocol": {"version": PROTOCOL_VERSION, "subprotocol": SUBPROTOCOL},
        "x-limits": dict(limits or {}),
        "x-errors": {each.code: {"summary": each.summary, "details": dict(each.details)} for each in ERRORS.values()},
        "x-close-codes": {str(code): summary for code, summary in CLOSE_CODES.items()},
        "x-stability": {"may-change": list(MAY_CHANGE), "may-not-change": list(MAY_NOT_CHANGE)},
    }


def _info(offers: Iterable[str]) -> Json:
    return {
        "title": "kandev-host",
        "version": __version__,
        "description": DESCRIPTION,
        "license": {"name": "MIT", "url": "https://spdx.org/licenses/MIT.html"},
        "tags": [{"name": name} for name in sorted({_group(name) for name in (*offers, *NOTIFICATIONS)})],
    }


def _server(address: str) -> Json:
    return {
        "host": address,
        "protocol": "ws",
        "description": "A host on this machine; it answers to its own address only",
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _security()],
    }


def _security() -> dict[str, Json]:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The header of the handshake"},
        "subprotocol": {
            "type": "httpApiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": f"For browsers, which can send no other header: `{SUBPROTOCOL}, bearer.TOKEN`",
        },
        "login": {"type": "userPassword", "description": "`auth.login` as the first message"},
    }


def _channel(messages: Mapping[str, Json]) -> Json:
    return {
        "address": "/ws",
        "title": "The socket",
        "description": "Text frames, one JSON object each",
        "servers": [{"$ref": "#/servers/host"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _serving(name: str, offer: Offer) -> Json:
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/socket"},
        "title": name,
        "summary": offer.summary or name,
        "tags": [{"name": _group(name)}],
        "messages": [_on_channel(f"{name}.request")],
        "reply": {
            "channel": {"$ref": "#/channels/socket"},
            "messages": [_on_channel(f"{name}.response"), _on_channel("error")],
        },
        "x-scope": offer.scope or None,
        "x-reads": offer.reads,
    }


def _telling(each: Notification) -> Json:
    return {
        "action": "send",
        "channel": {"$ref": "#/channels/socket"},
        "title": each.name,
        "summary": each.summary,
        "tags": [{"name": _group(each.name)}],
        "messages": [_on_channel(each.name)],
        "x-topics": [*each.topics, "*"],
        "x-durable": not each.transient,
    }


def _group(name: str) -> str:
    return name.partition(".")[0]


def _on_channel(message: str) -> Json:
    return {"$ref": f"#/channels/socket/messages/{message}"}


def _request(name: str, offer: Offer, parts: Components) -> Json:
    payload = parts.request(offer.request)
    required = ["id", "type", "action"]
    if parts.schemas.get(payload.get("$ref", "").rpartition("/")[2], {}).get("required"):
        required.append("payload")
    properties = {
        "id": _id("The client's own; a mutation repeated with the same UUID has one effect and one answer"),
        "type": {"const": "request"},
        "action": _named(name),
        "payload": payload,
        "timestamp": {"type": "string", "description": "Not read"},
        "traceparent": {"type": "string", "description": "W3C Trace Context: the trace that this is part of"},
        "tracestate": {"type": "string", "description": "W3C Trace Context"},
    }
    return _message(f"{name}.request", offer.summary or name, properties, required)


def _response(name: str, offer: Offer, parts: Components) -> Json:
    payload = ANYTHING if offer.response is None else parts.reply(offer.response)
    properties = {
        "id": _id("The request's"),
        "type": {"const": "response"},
        "action": _named(name),
        "payload": payload,
        "timestamp": _sent(),
    }
    required = list(properties)
    if offer.reads:
        properties["seq"] = _seq("The journal's head when it was read: subscribe with it as after_seq")
        required.append("seq")
    return _message(f"{name}.response", f"The answer to {name}", properties, required)


def _error() -> Json:
    payload: Json = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": list(ERRORS)},
            "message": {"type": "string", "description": "For people"},
            "details": {"type": "object", "description": "For programs; x-errors says which come with which code"},
        },
        "required": ["code", "message", "details"],
    }
    properties: dict[str, Json] = {
        "id": {"anyOf": [_id("The request's"), {"type": "null"}], "description": "Null when it could not be read"},
        "type": {"const": "error"},
        "action": {"anyOf": [{"type": "string", "maxLength": ACTION_LIMIT_CHARS}, {"type": "null"}]},
        "payload": payload,
        "timestamp": _sent(),
    }
    return _message("error", "A request was refused or failed", properties, list(properties))


def _notification(each: Notification, parts: Components) -> Json:
    properties = {
        "id": {"type": "string", "format": "uuid", "description": "The event's"},
        "type": {"const": "notification"},
        "action": _named(each.name),
        "payload": parts.reply(each.payload),
        "timestamp": _sent(),
    }
    required = list(properties)
    if not each.transient:
        properties["seq"] = _seq("Grows from event to event; come back with the last one handled as after_seq")
        required.append("seq")
    return _message(each.name, each.summary, properties, required, correlated=False)


def _message(
    name: str, summary: str, properties: Mapping[str, Json], required: list[str], *, correlated: bool = True
) -> Json:
    message: Json = {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": "application/json",
        "payload": {"type": "object", "properties": dict(properties), "required": required},
    }
    if correlated:
        message["correlationId"] = {"location": "$message.payload#/id"}
    return message


def _id(description: str) -> Json:
    return {"type": "string", "minLength": 1, "maxLength": ID_LIMIT_CHARS, "description": description}


def _named(name: str) -> Json:
    return {"const": name}


def _sent() -> Json:
    return {"type": "string", "format": "date-time", "description": "UTC"}


def _seq(description: str) -> Json:
    return {"type": "integer", "minimum": 0, "description": description}
