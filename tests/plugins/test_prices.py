"""The prices of genai-prices: which names of models it knows, and that it asks nobody."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kandev_host import Environment, Price, Use
from kandev_host.errors import PluginError
from kandev_host.host import Host
from kandev_host.plugins import load_plugins
from kandev_host.selection import check_selected
from kandev_host.settings import ServerSettings, Settings, UseSettings
from kandev_prices import kandev_prices, open_prices
from kandev_prices.listed import ListedPrices, names

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 1, tzinfo=UTC)


def use(model: str, *, cached: int | None = 400, provider: str | None = None) -> Use:
    return Use(model=model, provider=provider, input_tokens=2400, output_tokens=68, cached_read_tokens=cached)


async def test_cached_tokens_cost_what_cached_tokens_cost() -> None:
    async with open_prices(None, Environment("/nowhere", "0")) as prices:
        whole, part = [await prices.price(use("claude-opus-4-5", cached=cached), AT) for cached in (None, 400)]
    # $5 the million read, $0.50 from the cache, $25 written.
    assert (whole, part) == (Price("0.0137", "USD"), Price("0.0119", "USD"))


@pytest.mark.parametrize(
    "model",
    ["anthropic/claude-opus-4-5", "anthropic:claude-opus-4-5", "openrouter/anthropic/claude-opus-4.5"],
)
async def test_a_model_is_found_under_the_names_that_agents_give_it(model: str) -> None:
    assert await ListedPrices().price(use(model), AT) == Price("0.0119", "USD")


async def test_the_effort_behind_a_models_name_changes_nothing() -> None:
    prices = ListedPrices()
    plain = await prices.price(use("gpt-5"), AT)
    assert plain is not None
    assert [await prices.price(use(name), AT) for name in ("gpt-5[high]", "openai/gpt-5[low]")] == [plain, plain]


@pytest.mark.parametrize(
    "model", ["opus[1m]", "default", "auto", "fake-model", "ollama/gpt-5", "ollama/llama3", "", "/", "x" * 9000]
)
async def test_an_unknown_model_has_no_price(model: str) -> None:
    """Above all none of another provider: who runs a model at home pays nobody for it."""
    assert await ListedPrices().price(use(model), AT) is None


async def test_a_use_that_cannot_be_has_no_price() -> None:
    assert await ListedPrices().price(use("gpt-5", cached=9999), AT) is None


async def test_of_a_known_provider_only_its_own_models_are_tried() -> None:
    assert next(iter(names(use("gpt-5", provider="anthropic")))) == ("anthropic", "gpt-5")
    assert await ListedPrices().price(use("gpt-5", provider="anthropic"), AT) is None


SEALED = """
import socket, sys
def denied(*_, **__):
    raise SystemExit("a connection was tried")
for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, denied)
socket.getaddrinfo = denied
import anyio, threading
from datetime import UTC, datetime
from kandev_host import Use
from kandev_prices.listed import ListedPrices
async def main():
    for model in ("claude-opus-4-5", "unknown-model"):
        print(await ListedPrices().price(Use(model=model, input_tokens=1000, output_tokens=0), datetime.now(UTC)))
anyio.run(main)
print(sorted(thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name))
"""


async def test_prices_open_no_connection() -> None:
    """Nor start a thread that might, neither when they are imported nor when they are asked."""
    done = subprocess.run([sys.executable, "-c", SEALED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Price(amount='0.005', currency='USD')", "None", "['MainThread']"]


async def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, kandev_prices, kandev_prices.listed; print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


async def test_without_the_library_the_provider_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kandev_prices.find_spec", lambda _: None)
    (provider,) = kandev_prices()
    assert (provider.name, provider.missing) == ("genai", "kandev-host[prices]")


async def test_a_host_starts_without_the_library_and_leaves_turns_unpriced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kandev_prices.find_spec", lambda _: None)
    settings = Settings(server=ServerSettings(port=0))
    check_selected(load_plugins(), settings)
    async with Host(settings, tmp_path / "data", queue=False) as host:
        (listed,) = [info for info in host.plugins.infos if info.name == "prices"]
    assert listed.state == "unavailable"
    assert "pip install 'kandev-host[prices]'" in caplog.text


async def test_prices_that_nobody_provides_stop_the_start() -> None:
    with pytest.raises(PluginError, match="no plugin provides it; there are genai, none"):
        check_selected(load_plugins(), Settings(use=UseSettings(prices="gnai")))
