from __future__ import annotations

from collections.abc import Iterator

import pytest

from kandev_host.secrets import in_use


@pytest.fixture(autouse=True)
def secrets_of_one_test() -> Iterator[None]:
    """A process has one list of secrets: what one test registers is not looked for in the next."""
    with in_use():
        yield
