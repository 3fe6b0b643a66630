"""No known secret and nothing that looks like a key is written down, however it comes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kandev_host.interfaces import AgentType
from kandev_host.secrets import MARK, Redactor
from kandev_host.sessions.capture_lines import Framer
from kandev_host.sessions.known_secrets import known_secrets

AT = "2026-11-21T12:00:00.000Z"
CANARY = 'c4nary/is+not=to&be"seen\\é'
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
secrets = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=6, max_size=60)
Spelling = Callable[[str, str, str], bytes]
SPELLINGS: dict[str, Spelling] = {
    "plain": lambda before, secret, after: (before + secret + after).encode(),
    "JSON": lambda before, secret, after: json.dumps({"a": before + secret + after}).encode(),
    "JSON that is not ASCII": lambda before, secret, after: json.dumps(
        {before + secret: [after]}, ensure_ascii=False
    ).encode(),
    "JSON in JSON": lambda before, secret, after: json.dumps([json.dumps(secret), before, after]).encode(),
    "base64": lambda before, secret, after: json.dumps(
        base64.b64encode((before + secret + after).encode()).decode()
    ).encode(),
    "base64 for URLs": lambda before, secret, after: base64.urlsafe_b64encode((before + secret + after).encode()),
    "URL": lambda before, secret, after: f"https://h/?k={quote(before + secret + after, safe='')}".encode(),
    "form": lambda before, secret, after: f"k={quote_plus(before + secret + after)}".encode(),
}


def framed(data: bytes, secret: str, cuts: list[int], direction: Any = "out") -> bytes:
    """What is written of data that comes in these pieces."""
    framer = Framer(direction, Redactor([secret]))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = (data[start:end] for start, end in pairwise(edges))
    return b"".join(framer.feed(piece, AT) for piece in pieces) + framer.finish(AT)


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield from (key, *strings(item))
        case list():
            for item in value:
                yield from strings(item)


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=150, deadline=None)
@given(before=texts, secret=secrets, after=texts, cuts=st.lists(st.integers(0, 500), max_size=6), data=st.data())
def test_a_secret_is_in_nothing_that_is_written_however_it_is_spelled_and_split(
    spelling: str, before: str, secret: str, after: str, cuts: list[int], data: Any
) -> None:
    assume(secret == secret.strip())
    assume(secret not in MARK)
    spelled = SPELLINGS[spelling](before, secret, after)
    line = spelled.replace(b"\n", b" ")
    record = {"at": AT, "dir": "out", "line": ""}
    assume(secret not in json.dumps(record))
    written = framed(line + b"\n", secret, cuts)
    alone = SPELLINGS[spelling]("", secret, "").strip(b'"')
    for found in map(json.loads, written.splitlines()):
        assert not any(secret in text for text in strings(found))
    if "base64" not in spelling and "JSON" not in spelling:
        assert alone not in written


@settings(max_examples=300, deadline=None)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(st.characters(exclude_categories=["Cs"]))
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ),
    secret=secrets,
)
def test_json_stays_json(value: Any, secret: str) -> None:
    line = json.dumps(value).encode()
    clean = Redactor([secret]).clean_json(line)
    json.loads(clean)
    assert secret.encode() not in clean


@pytest.mark.parametrize(
    ("line", "secret", "kept"),
    [
        ('{"a": "x\\nfoo123"}', "nfoo123", MARK),  # its n is the escape's
        ('{"n": 12345678}', "12345678", {"n": MARK}),
        ('{"n": 12345678, "m": 1}', "234567", {"n": MARK, "m": 1}),
        ('{"a":{"b":1}}', '"a":{"b"', MARK),
        ('{"a": true}', 'a": true', {"a": True}),
    ],
)
def test_a_secret_that_is_part_of_the_syntax_breaks_no_json(line: str, secret: str, kept: Any) -> None:
    assert json.loads(framed(line.encode() + b"\n", secret, []))["line"] == kept


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-abcdefghijklmnop",
        "ghp_0123456789abcdefABCDEF0123456789abcd",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLg",
    ],
)
@pytest.mark.parametrize("around", ["{}", "key={}", "line\\n{}", '"{}"', "({})"])
def test_what_looks_like_a_key_is_taken_out(key: str, around: str) -> None:
    assert Redactor().clean(around.format(key).encode()) == around.format(MARK).encode()


def test_a_bearer_token_is_taken_out_and_named() -> None:
    assert Redactor().clean(b"Authorization: Bearer abc.def-123456") == b"Authorization: Bearer [redacted]"


@pytest.mark.parametrize(
    "text", ["task-0123456789abcdef0123", "the bearer of news", "sk-short", "disk-usage-of-everything"]
)
def test_words_stay(text: str) -> None:
    assert Redactor().clean(text.encode()) == text.encode()


def test_each_line_of_a_secret_of_several_is_one() -> None:
    pem = "-----BEGIN KEY-----\nMIIBVQIBADANBgkqhkiG\n-----END KEY-----\n"
    written = framed(pem.encode(), pem, [], "err") + framed(json.dumps(pem).encode() + b"\n", pem, [])
    assert b"MIIBVQIBADANBgkqhkiG" not in written


def test_values_from_the_environment_and_those_with_telling_names_are_secrets() -> None:
    agent_type = AgentType(name="a", command=("a",), env_required=("NEEDED",), env_optional=("MAYBE",))
    env = {"NEEDED": "one-value", "DEEP_API_KEY": "two-value", "MY_TOKEN": "three-value", "EDITOR": "plain-value"}
    assert known_secrets(agent_type, env, ["of-a-server"]) == {"one-value", "two-value", "three-value", "of-a-server"}


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("MAX_TOKENS", "100000", False),
        ("NEEDED", "100000", False),
        ("NEEDED", "production", False),
        ("NEEDED", "/etc/agent/conf", False),
        ("NEEDED", "https://api.example.org/v1", False),
        ("NEEDED", "https://hooks.example.org/T00000000/B0000000000/abcdefghijklmnopqrstuvwx", True),
        ("LLM_MODEL", "gpt-5-2026", False),
        ("LLM_PASSWORD", "production", True),
    ],
)
def test_what_configures_an_agent_and_opens_nothing_is_no_secret(name: str, value: str, secret: bool) -> None:
    agent_type = AgentType(name="a", command=("a",), env_optional=("NEEDED", "LLM_MODEL"))
    assert known_secrets(agent_type, {name: value}) == ({value} if secret else frozenset())


def test_options_of_its_command_with_telling_names_are_secrets() -> None:
    command = ("a", "--api-key", "one-value", "--token=two-value", "--max-tokens", "100000", "--auth-file", "/x/y")
    assert known_secrets(AgentType(name="a", command=command), {}) == {"one-value", "two-value"}


def test_what_is_shorter_than_a_secret_stays() -> None:
    assert Redactor(["1", "true", ""]).clean(b'{"a": true, "n": 1}') == b'{"a": true, "n": 1}'


def test_a_secret_at_the_cut_of_a_long_line_is_not_half_there() -> None:
    secret = "s3cr3t-" * 20
    for at in range((1 << 20) - 200, (1 << 20) + 5000, 997):
        framer = Framer("out", Redactor([secret]))
        framer.feed(b"x" * at + secret.encode() + b"y" * 9000, AT)
        assert b"s3cr3t-s3cr3t-" not in framer.feed(b"\n", AT)
