"""Text that is no request, or not one that is served: each with its code; the socket goes on.

Before the code stands the id that the answer must name: "1" where the host can read it, None where it cannot.
"""

from __future__ import annotations

from .wire import asking

BAD, INVALID, UNKNOWN, MISSING = "BAD_REQUEST", "VALIDATION_ERROR", "UNKNOWN_ACTION", "NOT_FOUND"
Messages = dict[str, tuple[bytes, str | None, str]]
DEEP = 65
CREATE = "board.create"


def named(json: str) -> bytes:
    return asking(CREATE, f'{{"name":{json}}}')


JSON: Messages = {
    **{
        name: (text, None, BAD)
        for name, text in {
            "empty": b"",
            "blank": b" \n\t ",
            "no-json": b"hello",
            "open": b"{",
            "closed": b"}",
            "null": b"null",
            "a-number": b"7",
            "a-text": b'"request"',
            "a-list": b"[" + asking("health.check") + b"]",
            "two": asking("health.check") + asking("health.check"),
            "comment": b"/**/" + asking("health.check"),
            "single-quotes": asking("health.check").replace(b'"', b"'"),
            "comma-behind": asking("health.check").replace(b"}}", b"},}"),
            "marked": b"\xef\xbb\xbf" + asking("health.check"),
            "utf-16": asking("health.check").decode().encode("utf-16"),
            "not-utf-8": b"\xff\xfe",
            "overlong": b'{"id":"\xc0\xaf"}',
            "torn": asking("health.check")[:-4] + b"\xf0\x9f",
            "yaml": b"id: 1",
            "backslashes": b'"' + b"\\" * 1000 + b'"',
            "lists-in-lists": b"[" * 60_000,
            "objects-in-objects": b'{"a":' * 12_000,
            "nested-too-deep": asking(CREATE, "[" * DEEP + "]" * DEEP),
            "objects-too-deep": asking(CREATE, '{"a":' * DEEP + "1" + "}" * DEEP),
            "deep-beside": asking("health.check")[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
        }.items()
    },
    "nan": (named("NaN"), None, BAD),
    "infinite": (named("-Infinity"), None, BAD),
    "leading-zero": (named("01"), None, BAD),
    "plus": (named("+1"), None, BAD),
    "hexadecimal": (named("0x10"), None, BAD),
    "control-character": (named('"a\nb"'), None, BAD),
    "bad-escape": (named(r'"\x41"'), None, BAD),
    "half-a-pair": (named(r'"\ud800"'), "1", BAD),
    "other-half": (named(r'"\udfffx"'), "1", BAD),
    "half-a-pair-as-key": (asking(CREATE, r'{"\ud800":1}'), "1", BAD),
    "huge-integer": (named("9" * 5000), "1", INVALID),
    "huge-exponent": (named("1e999"), "1", INVALID),
    "huge-fraction": (named("0." + "1" * 5000), "1", INVALID),
    "not-utf-8-inside": (named('"?"').replace(b"?", b"\xff"), "1", INVALID),
    "many-keys": (asking(CREATE, "{" + ",".join(f'"k{at}":0' for at in range(5000)) + "}"), "1", INVALID),
    "key-twice": (asking(CREATE, '{"name":"a","name":7}'), "1", INVALID),
}
ENVELOPES: Messages = {
    "no-id": (b'{"type":"request","action":"health.check"}', None, BAD),
    "no-type": (b'{"id":"1","action":"health.check"}', "1", BAD),
    "no-action": (b'{"id":"1","type":"request"}', "1", BAD),
    "type-list": (b'{"id":"1","type":["request"],"action":"health.check"}', "1", BAD),
    "type-capital": (b'{"id":"1","type":"Request","action":"health.check"}', "1", BAD),
    **{
        f"type-{kind}": (f'{{"id":"1","type":"{kind}","action":"health.check"}}'.encode(), "1", BAD)
        for kind in ("response", "error", "notification", "hello")
    },
    **{
        f"action-{name}": (f'{{"id":"1","type":"request","action":{action}}}'.encode(), "1", BAD)
        for name, action in (
            ("null", "null"), ("number", "7"), ("list", "[]"), ("empty", '""'), ("long", f'"{"x" * 129}"'),
        )
    },
    **{
        f"action-{name}": (asking(action), "1", UNKNOWN)
        for name, action in {
            "unknown": "config.apply",
            "capital": "Board.List",
            "space": "board.list ",
            "dots": "board..list",
            "python": "__class__",
            "attribute": "board.list.__globals__",
            "path": "../board.list",
            "wildcard": "board.*",
            "pattern": "(board.)+list",
            "look-alike": "b\u043eard.list",
            "nul": r"board.list\u0000",
            "line": r"board.list\n",
            "query": "board.list?token=x",
        }.items()
    },
    "action-half-a-pair": (asking(r"\ud800"), "1", BAD),
    **{
        f"payload-{name}": (asking(CREATE, payload), "1", INVALID)
        for name, payload in {"null": "null", "number": "7", "text": '"{}"', "list": "[]", "true": "true"}.items()
    },
    "payload-missing": (b'{"id":"1","type":"request","action":"board.create"}', "1", INVALID),
    "field-unknown": (asking(CREATE, '{"name":"x","owner":"root"}'), "1", INVALID),
    "field-prototype": (asking(CREATE, '{"name":"x","__proto__":{}}'), "1", INVALID),
    "field-scopes": (asking("auth.login", '{"token":"x","scopes":["*"]}'), "1", INVALID),
    "principal-forged": (
        asking("auth.login", '{"token":"x"}')[:-1] + b',"principal":{"id":"local","kind":"user"}}', "1", "UNAUTHORIZED",
    ),
    "id-twice": (b'{"id":"2","id":"1","type":"request","action":"x"}', "1", UNKNOWN),
    "action-twice": (b'{"id":"1","type":"request","action":"health.check","action":"x"}', "1", UNKNOWN),
}  # fmt: skip
IDS: Messages = {
    **{
        f"id-{name}": (asking("health.check", id=id), None, BAD)
        for name, id in {
            "null": "null", "number": "1", "fraction": "1.5", "huge": "1e999", "true": "true", "list": '["1"]',
            "object": '{"a":"1"}', "empty": '""', "long": f'"{"x" * 129}"', "half-a-pair": r'"\ud800"',
        }.items()
    },
    **{
        f"task-{name}": (asking("task.get", f'{{"task_id":{id}}}'), "1", code)
        for name, (id, code) in {
            "nobody": ('"00000000-0000-7000-8000-00000000dead"', MISSING),
            "path": ('"../../etc/passwd"', MISSING),
            "path-escaped": ('"%2e%2e%2ftoken"', MISSING),
            "absolute": ('"/etc/passwd"', MISSING),
            "nul": (r'"a\u0000b"', MISSING),
            "line": (r'"a\r\nb"', MISSING),
            "sql": ('"\' OR 1=1 --"', MISSING),
            "wildcard": ('"%"', MISSING),
            "star": ('"*"', MISSING),
            "option": ('"--help"', MISSING),
            "template": ('"{{7*7}}${7*7}"', MISSING),
            "right-to-left": ('"\u202etxt"', MISSING),
            "digits-of-others": ('"\u0661\u0662"', MISSING),
            "emoji": ('"\U0001f600"', MISSING),
            "blank": ('" "', MISSING),
            "empty": ('""', INVALID),
            "long": (f'"{"x" * 10_000}"', INVALID),
            "null": ("null", INVALID),
            "number": ("1", INVALID),
            "list": ('["a"]', INVALID),
            "object": ('{"$ne":null}', INVALID),
        }.items()
    },
    "cursor-forged": (asking("task.list", '{"cursor":"W10="}'), "1", INVALID),
    "topic-path": (asking("events.subscribe", '{"topics":["task:../../token"]}'), "1", MISSING),
    "topic-kind": (asking("events.subscribe", '{"topics":["secret:1"]}'), "1", INVALID),
    "limit-negative": (asking("task.list", '{"limit":-1}'), "1", INVALID),
    "limit-huge": (asking("task.list", '{"limit":9223372036854775808}'), "1", INVALID),
    "seq-negative": (asking("events.subscribe", '{"after_seq":-1}'), "1", INVALID),
    "agent-nobody": (asking("agent.prompt", '{"agent_id":"../x","prompt":"hi"}'), "1", MISSING),
    "shell-nobody": (asking("shell.run", '{"shell_id":"../x","command":"id"}'), "1", MISSING),
    "permission-nobody": (
        asking("permission.respond", '{"permission_id":"../x","outcome":"cancelled"}'), "1", MISSING,
    ),
    "file-outside": (asking("workspace.read", '{"task_id":"../..","path":"../../token"}'), "1", MISSING),
    "repository-option": (
        asking(
            "task.create",
            '{"board_id":"x","title":"t","description":"","repository_url":"--upload-pack=touch /tmp/x"}',
        ),
        "1", INVALID,
    ),
    "repository-program": (
        asking("task.create", '{"board_id":"x","title":"t","description":"","repository_url":"ext::sh -c id"}'),
        "1", INVALID,
    ),
}  # fmt: skip
MESSAGES: Messages = {**JSON, **ENVELOPES, **IDS}
