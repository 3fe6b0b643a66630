"""The AsyncAPI document, read by the official parser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.protocol.schema import OFFERS, encoded

pytestmark = pytest.mark.schema
TIMEOUT_S = 300
# The parser recommends the newest version of the specification; ours says 3.0, which more tools read.
ACCEPTED = {"asyncapi-latest-version"}


@pytest.fixture(scope="module")
def read(asyncapi: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the parser makes of `kandev-host schema`."""
    file = tmp_path_factory.mktemp("schema") / "kandev.json"
    file.write_bytes(encoded(OFFERS))
    done = subprocess.run(
        ["node", "check.mjs", str(file)], cwd=asyncapi, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_parser_finds_neither_errors_nor_warnings(read: dict[str, Any]) -> None:
    assert [each for each in read["diagnostics"] if each["code"] not in ACCEPTED] == []
    assert read["version"] == "3.0.0"


@pytest.mark.parametrize("name", OFFERS)
def test_an_action_receives_its_request_and_replies_with_its_response_or_an_error(
    read: dict[str, Any], name: str
) -> None:
    operation = read["operations"][name]
    assert operation["action"] == "receive"
    assert operation["messages"] == [f"{name}.request"]
    assert operation["reply"] == [f"{name}.response", "error"]


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_a_notification_is_sent(read: dict[str, Any], name: str) -> None:
    operation = read["operations"][f"notification.{name}"]
    assert (operation["action"], operation["messages"]) == ("send", [name])
