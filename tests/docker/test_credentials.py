"""git of an agent in a container, through the ssh of the host, which alone has the key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kandev_host import ProcessSpec
from kandev_host.models import new_id
from kandev_host.protocol.notifications import CredentialNotice
from kandev_host.services.credentials.grants import grant_of
from kandev_host.services.credentials.handed import Handed
from kandev_host.services.credentials.uses import Allowance, Uses
from kandev_host.services.forwarding.brokerage import Brokerage

from ..host.services.credentials.conftest import repositories, sshd  # noqa: F401

pytestmark = pytest.mark.anyio
WORK = """
git clone "$1" /tmp/clone && cat /tmp/clone/read.me && cd /tmp/clone
git -c user.name=a -c user.email=a@a commit --allow-empty -qm second && git push origin HEAD:main && echo went-through
cat /proc/[0-9]*/environ; env; find /workspace /home /tmp -type f -exec cat {} +
"""


@pytest.fixture
async def brokerage(anyio_backend: str) -> AsyncIterator[Brokerage]:
    async with Brokerage() as made:
        yield made


@pytest.mark.parametrize("push", [False, True])
async def test_git_of_a_container_works_and_holds_no_key(
    runtime: Any,
    sshd: Any,  # noqa: F811
    repositories: Path,  # noqa: F811
    brokerage: Brokerage,
    push: bool,
) -> None:
    notices: list[CredentialNotice] = []

    async def tell(notice: CredentialNotice) -> None:
        notices.append(notice)

    url = sshd.url(repositories / "team/app.git")
    brokered = await brokerage.open("a", [Uses(grant_of("app", url, push=push), new_id(), "a", tell, Allowance())])
    handed = Handed(git_config=brokered.config, allow=brokered.allow)
    result = await runtime.run(
        ProcessSpec(workspace_id="w1", command=("sh", "-c", WORK, "sh", url), env=handed.over({}), allow=handed.allow)
    )
    assert b"this is app" in result.stdout, result.stderr
    assert (b"went-through" in result.stdout) == push
    assert b"PRIVATE KEY" not in result.stdout
    assert b"SSH_AUTH_SOCK" not in result.stdout
    assert ("push", push) in {(notice.verb, notice.allowed) for notice in notices}
