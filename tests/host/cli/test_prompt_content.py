"""Images, files and links that go with a prompt, as content blocks."""

from __future__ import annotations

import base64
from pathlib import Path

import click
import pytest
from acp import schema

from kandev_host.cli.inputs import said


def blocks(image: tuple[str, ...] = (), file: tuple[str, ...] = (), link: tuple[str, ...] = ()) -> object:
    return said("Look.", blocks=False, image=image, file=file, link=link)


def test_without_files_a_prompt_stays_a_text() -> None:
    assert blocks() == "Look."


def test_files_and_links_follow_the_text_as_valid_blocks(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"\x89PNG")
    (tmp_path / "notes.md").write_text("Be brief.")
    (tmp_path / "data").write_bytes(b"\xff")
    found = blocks(
        (str(tmp_path / "a b.png"),), (str(tmp_path / "notes.md"), str(tmp_path / "data")), ("file:///workspace/x",)
    )
    assert found == [
        {"type": "text", "text": "Look."},
        {"type": "image", "mimeType": "image/png", "data": base64.b64encode(b"\x89PNG").decode()},
        {
            "type": "resource",
            "resource": {"uri": "attachment:///notes.md", "mimeType": "text/markdown", "text": "Be brief."},
        },
        {"type": "resource", "resource": {"uri": "attachment:///data", "blob": "/w=="}},
        {"type": "resource_link", "uri": "file:///workspace/x", "name": "x"},
    ]
    schema.PromptRequest.model_validate({"sessionId": "s", "prompt": found})


@pytest.mark.parametrize(
    ("given", "told"),
    [({"image": ("x.txt",)}, "no image"), ({"file": ("no-such",)}, "No such file"), ({"link": ("x",)}, "no URI")],
)
def test_what_cannot_be_sent_is_said_with_its_option(given: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(click.UsageError, match=told):
        blocks(**given)
