"""What an agent says in several message chunks: no secret is in what is told, joined; all else goes out as it came."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kandev_host.events import Event
from kandev_host.interfaces import Commit
from kandev_host.models import AgentInstance, now
from kandev_host.protocol import acp
from kandev_host.redaction import clean_commits
from kandev_host.secrets import MARK, known, register
from kandev_host.sessions.speech import HELD_CHUNKS, Piece, Speech
from kandev_host.sessions.updates import Voice

SECRET = "c4nary-0123456789-abcdef"
LETTERS = "c4nary-0123456789-abcdefsgAe: ü"
_params = msgspec.json.Decoder(acp.SessionUpdate)
_known = msgspec.json.Decoder(acp.Known)


def a_speech() -> Speech:
    return Speech(Voice(AgentInstance(task_id="t", agent_type="a", runtime="r")))


def piece(text: str, kind: str = "agent_message_chunk", more: str = "") -> Piece:
    update = f'{{"sessionUpdate": "{kind}", {more} "content": {{"type": "text", "text": {json.dumps(text)}}}}}'
    params = _params.decode(f'{{"sessionId": "s", "update": {update}}}'.encode())
    chunk = _known.decode(params.update)
    assert isinstance(chunk, acp.Chunk)
    return Piece(params, chunk, kind, None, now())


def say(speech: Speech, *pieces: Piece) -> list[Event]:
    """As the intake does."""
    told: list[Event] = []
    for each in pieces:
        if speech.free(each.chunk.content.text):
            told.append(Voice(AgentInstance(task_id="t", agent_type="a", runtime="r")).chunk(
                each.params, each.chunk, each.kind, each.turn_id, each.at
            ))  # fmt: skip
        else:
            told += speech.take(each)
    return told


def text_of(told: list[Event]) -> str:
    """As the journal writes it."""
    clean_commits([Commit(told)])
    payloads = [json.loads(bytes(each.payload)) for each in told]
    assert all(payload["message"] == payload["update"]["content"]["text"] for payload in payloads)
    return "".join(payload["message"] for payload in payloads)


def cut(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(each % (len(text) + 1) for each in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=300, deadline=None)
@given(
    before=st.text(LETTERS, max_size=20),
    after=st.text(LETTERS, max_size=20),
    cuts=st.lists(st.integers(0, 70), max_size=30),
)
def test_no_secret_is_told_in_several_chunks(before: str, after: str, cuts: list[int]) -> None:
    with known.in_use():
        register(SECRET, "of a test")
        speech, pieces = a_speech(), cut(f"{before} {SECRET}{after}", cuts)
        told = say(speech, *map(piece, pieces)) + speech.end()
        assert SECRET not in text_of(told)
        assert len(told) == len(pieces)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(LETTERS, max_size=12), max_size=12), pauses=st.booleans())
def test_without_a_secret_every_chunk_is_told_as_it_came(texts: list[str], pauses: bool) -> None:
    with known.in_use():
        register(SECRET, "of a test")
        assume(not known.found("".join(texts).encode()))
        speech, told = a_speech(), []
        for text in texts:
            told += say(speech, piece(text))
            told += speech.pause() if pauses else []
        told += speech.end()
        assert [json.loads(bytes(each.payload))["message"] for each in told] == texts


def test_of_a_secret_that_paused_in_its_middle_the_rest_is_not_told() -> None:
    with known.in_use():
        register(SECRET, "of a test")
        speech = a_speech()
        told = say(speech, piece(f"it is {SECRET[:10]}")) + speech.pause()
        told += say(speech, piece(SECRET[10:14]), piece(SECRET[14:] + " so")) + speech.end()
        assert text_of(told) == f"it is {SECRET[:10]}{MARK} so"


@pytest.mark.parametrize("other", [piece("x", "agent_thought_chunk"), piece("x", more='"messageId": "2",')])
def test_another_message_ends_the_wait(other: Piece) -> None:
    speech = a_speech()
    assert say(speech, piece("yes")) == []
    assert text_of(say(speech, other)) == "yesx"


def test_what_waits_is_bounded() -> None:
    with known.in_use():
        register("a" * (2 * HELD_CHUNKS), "of a test")
        speech = a_speech()
        told = [say(speech, piece("a")) for _ in range(HELD_CHUNKS + 1)]
        assert [len(each) for each in told[-2:]] == [0, HELD_CHUNKS + 1]
