"""What agents ask, at the terminal: what is shown of it, and what a typed line answers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from kandev_host.cli.running.ask import Asker
from kandev_host.cli.running.asked import DIFF_LINES, lines_of
from kandev_host.cli.running.form import NotUnderstood, described, value_of

pytestmark = pytest.mark.anyio

OPTIONS = [
    {"optionId": "a", "name": "Always", "kind": "allow_always"},
    {"optionId": "n", "name": "No", "kind": "reject_once"},
    {"optionId": "y", "name": "Yes", "kind": "allow_once"},
]
FORM = {
    "mode": "form",
    "message": "Who are you?\x1b[2J",
    "requested_schema": {
        "properties": {
            "name": {"type": "string", "title": "Your name\x1b[31m"},
            "way": {"type": "string", "oneOf": [{"const": "k", "title": "Key"}, {"const": "p", "title": "Password"}]},
            "times": {"type": "integer", "default": 2, "maximum": 3},
            "note": {"type": "string"},
        },
        "required": ["name"],
    },
}


class Typed(Asker):
    """As if these lines were typed; `shown` is what the terminal got."""

    def __init__(self, *lines: str | None, terminal: bool = False) -> None:
        self.out = io.StringIO()
        super().__init__(Console(file=self.out, force_terminal=terminal, width=300), interactive=True)
        self.lines = list(lines)

    async def _line(self, question: str) -> str | None:
        self._say(question)
        return self.lines.pop(0)

    @property
    def shown(self) -> str:
        return self.out.getvalue()


def asked(**call: Any) -> dict[str, Any]:
    return {"digest": "d", "tool_call": {"toolCallId": "1", "title": "Do it", **call}, "options": OPTIONS}


def told(**call: Any) -> list[str]:
    return [text for text, _ in lines_of(asked(**call), OPTIONS)]


@pytest.mark.parametrize(
    ("raw_input", "shown"),
    [
        ({"command": "make test"}, "  $ make test"),
        ({"cmd": "make test"}, "  $ make test"),
        ({"command": ["/bin/bash", "-lc", "make test"]}, "  $ make test"),
        ({"command": ["/tmp/bash", "-lc", "make test"]}, "  $ /tmp/bash -lc 'make test'"),
        ({"command": ["rm", "a b"]}, "  $ rm 'a b'"),
    ],
)
def test_a_command_is_one_plain_line(raw_input: Any, shown: str) -> None:
    lines = told(kind="execute", rawInput=raw_input)
    assert shown in lines
    assert not any(line.startswith("  |") for line in lines)


def test_what_stands_beside_a_command_is_shown_too() -> None:
    assert '  |   "env": {' in told(rawInput={"command": "make", "env": {"LD_PRELOAD": "x"}})
    both = told(rawInput={"command": "ls", "cmd": "rm -r /"})
    assert '  |   "cmd": "rm -r /"' in both
    assert '  |   "command": "ls",' in both


async def test_a_command_of_several_lines_and_escapes_is_one_visible_line() -> None:
    asker = Typed("", terminal=True)
    await asker.ask(asked(rawInput={"command": "ls\nrm x\x1b[1A\u202e"}))
    assert r"$ ls\x0arm x\x1b[1A\u202e" in asker.shown


async def test_a_diff_is_coloured_only_at_a_terminal() -> None:
    content = [{"type": "diff", "path": "a.py", "oldText": "one\ntwo\n", "newText": "one\n2\x1b[0m\n"}]
    plain, coloured = Typed(""), Typed("", terminal=True)
    for asker in (plain, coloured):
        await asker.ask(asked(kind="edit", content=content))
    assert "  | -two\n  | +2\\x1b[0m\n" in plain.shown
    assert "\x1b" not in plain.shown
    assert "\x1b[32m  | +2\\x1b[0m" in coloured.shown
    assert "\x1b[31m  | -two" in coloured.shown


def test_a_diff_is_bounded_and_says_so() -> None:
    written = {"type": "diff", "path": "new", "newText": "line\n" * 1000}
    lines = told(content=[written])
    assert lines.count("  | +line") == DIFF_LINES
    assert "  | … 800 more lines" in lines
    long = told(content=[{"type": "diff", "path": "new", "newText": "x" * 10_000}])
    assert max(map(len, long)) < 600


def test_texts_that_are_too_large_are_not_compared() -> None:
    old, new = "\n".join("ab" * 3000), "\n".join("ba" * 3000)
    lines = told(content=[{"type": "diff", "path": "big", "oldText": old, "newText": new}])
    assert "  | too large to be compared: 6000 lines become 6000, of which the first are" in lines


@pytest.mark.parametrize("call", [{"content": 1, "locations": [1]}, {"content": [{"type": "diff"}]}, {"rawInput": [1]}])
def test_what_is_not_as_it_should_be_breaks_nothing(call: dict[str, Any]) -> None:
    assert told(**call)[0] == "? The agent asks: Do it"


def test_what_an_agent_remembers_is_marked() -> None:
    lines = told()
    assert "  1) Always  [allow_always]  [lasts beyond this time]" in lines
    assert "  3) Yes  [allow_once]" in lines


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("3\n", {"option_id": "y"}),
        ("r3\n", {"option_id": "y", "remember": "task"}),
        ("R 2\n", {"option_id": "n", "remember": "task"}),
        ("\n", {"option_id": "n"}),
        (None, {"option_id": "n"}),
    ],
)
async def test_a_line_answers_with_the_digest_of_what_was_shown(line: str | None, answer: dict[str, Any]) -> None:
    assert await Typed(line).ask(asked()) == answer | {"digest": "d"}


@pytest.mark.parametrize("line", ["r", "4", "y", "0", "-1", "r9", "²"])
async def test_what_is_no_choice_is_asked_again(line: str) -> None:
    asker = Typed(line, "3")
    assert (await asker.ask(asked()))["option_id"] == "y"
    assert f"There is no {line}" in asker.shown


async def test_a_form_is_filled_in_field_by_field() -> None:
    asker = Typed("Ada\n", "2\n", "\n", "\n", "y\n")
    answer = await asker.fill(FORM)
    assert answer == {"outcome": "accept", "content": {"name": "Ada", "way": "p", "times": 2}}


async def test_an_escape_in_a_title_is_shown_and_not_obeyed() -> None:
    asker = Typed("/cancel", terminal=True)
    await asker.fill(FORM)
    assert r"Who are you?\x1b[2J" in asker.shown
    assert r"Your name\x1b[31m" in asker.shown


async def test_what_does_not_fit_is_asked_again() -> None:
    asker = Typed("", "Ada", "3", "k", "9", "1", "", "yes")
    assert (await asker.fill(FORM))["content"] == {"name": "Ada", "way": "k", "times": 1}
    assert "This field is required" in asker.shown
    assert "There is no choice 3; 1 to 2." in asker.shown
    assert "at most 3" in asker.shown


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["/decline"], "decline"),
        (["/cancel"], "cancel"),
        ([None], "cancel"),
        (["Ada", "", "", "", "n"], "decline"),
        (["Ada", "", "", "", ""], "cancel"),
        (["Ada", "", "", "", None], "cancel"),
    ],
)
async def test_a_form_is_sent_only_after_a_yes(lines: list[str | None], outcome: str) -> None:
    assert await Typed(*lines).fill(FORM) == {"outcome": outcome}


@pytest.mark.parametrize(("line", "outcome"), [("y", "accept"), ("n", "decline"), ("", "cancel"), (None, "cancel")])
async def test_an_address_is_shown_and_agreed_to(line: str | None, outcome: str) -> None:
    asker = Typed(line)
    assert await asker.fill({"mode": "url", "message": "Log in", "url": "https://example.org/\u202e"}) == {
        "outcome": outcome
    }
    assert "https://example.org/\\u202e" in asker.shown


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "boolean"}, "Y", True),
        ({"type": "boolean"}, "false", False),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "array", "items": {"enum": ["x", "y"]}}, "2, x", ["y", "x"]),
        ({"type": "string", "enum": ["2", "1"]}, "1", "1"),
    ],
)
def test_a_line_is_read_as_its_field_says(field: dict[str, Any], text: str, value: Any) -> None:
    assert value_of(field, text) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"type": "boolean"}, "maybe"),
        ({"type": "number"}, "nan"),
        ({"type": "number"}, "1e999"),
        ({"type": "integer"}, "1.5"),
        ({"type": "array", "items": {"enum": ["x"]}}, "z"),
        ({"type": "_own"}, "z"),
    ],
)
def test_a_line_that_does_not_fit_is_not_understood(field: dict[str, Any], text: str) -> None:
    with pytest.raises(NotUnderstood):
        value_of(field, text)


def test_a_field_of_many_choices_is_bounded() -> None:
    field = {"type": "string", "enum": [str(n) for n in range(500)]}
    lines = [text for text, _ in described("n", field, required=True)]
    assert lines[-1] == "  … 450 more, by their values"


def test_why_somebody_is_asked_is_shown() -> None:
    permission = {**asked(), "reason": "x is protected\x1b[2J"}
    assert "  asked because: x is protected\x1b[2J" in [text for text, _ in lines_of(permission, OPTIONS)]
    assert not any("asked because" in line for line in told())
