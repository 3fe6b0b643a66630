"""Chromium without a window, driven by the DevTools protocol over a pipe: JSON, each message ended by a NUL.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 60
SWITCHES = (
    "--headless",
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-default-apps",
    "--no-first-run",
    # The browser's own walls around this machine's ports are newer than many a browser: the host's are looked at.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,Translate,OptimizationHints",
    "--remote-debugging-pipe",
    "about:blank",
)
# It reads commands from 3 and writes answers to 4; nothing between here and there may have these numbers.
PUT_IN_PLACE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
FIRST_FREE = 10
ICON = "/favicon.ico"

Json = dict[str, Any]


class Chromium:
    """One browser with an empty profile; `names` are hosts and the addresses they have."""

    def __init__(self, profile: Path, names: Mapping[str, str]) -> None:
        rules = ",".join(f"MAP {name} {address}" for name, address in names.items())
        switches = (*SWITCHES, f"--user-data-dir={profile}", f"--host-resolver-rules={rules}")
        reads, self._commands = _pipe()
        self._answers, writes = _pipe()
        launcher = [sys.executable, "-I", "-S", "-c", PUT_IN_PLACE, str(reads), str(writes)]
        with (profile / "log").open("w") as log:
            self._process = subprocess.Popen(
                [*launcher, "chromium", *switches], pass_fds=(reads, writes), stdout=log, stderr=log, cwd=profile
            )
        os.close(reads)
        os.close(writes)
        self._rest = b""
        self._sent = 0
        self.events: list[Json] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Json:
        """The result of one command. Events that come meanwhile are kept."""
        self._sent += 1
        message: Json = {"id": self._sent, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._sent:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _next(self, deadline: float) -> Json:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0], "no answer in time"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: Json = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    @contextmanager
    def profile(self) -> Iterator[str]:
        """Storage, cookies and history of their own, as of another person."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        yield context
        self.call("Target.disposeBrowserContext", browserContextId=context)

    def page(self, profile: str) -> Page:
        target = self.call("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        return Page(self, target, profile)

    def cookies(self, page: Page) -> list[Json]:
        """All that the person of this page has, of any server."""
        return list(self.call("Storage.getCookies", browserContextId=page.profile)["cookies"])

    def close(self) -> None:
        self.call("Browser.close")
        self._process.wait(DEADLINE_S)
        os.close(self._commands)
        os.close(self._answers)


class Page:
    """A tab. Paths of what it asked for, and with which outcome, are kept as the browser's network stack saw them."""

    def __init__(self, browser: Chromium, target: str, profile: str) -> None:
        self._browser = browser
        self.profile = profile
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Json:
        return self._browser.call(method, self.session, **params)

    def open(self, url: str) -> None:
        """Navigate, and wait until it is loaded, or until it is clear that it will not be."""
        before = len(self.events("Page.loadEventFired"))
        if "errorText" not in self.call("Page.navigate", url=url):
            self.wait_for(lambda: len(self.events("Page.loadEventFired")) > before)

    def run(self, script: str) -> Any:
        """What this body of an asynchronous function returns."""
        answer = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """The same, once it is true."""
        return self.wait_for(lambda: self.run(script))

    def wait_for(self, found: Any) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (value := found()):
            assert time.monotonic() < deadline, (found, self._browser.events[-20:])
            self.call("Runtime.evaluate", expression="0")  # takes what has come meanwhile
            time.sleep(0.01)
        return value

    def events(self, method: str) -> list[Json]:
        all_events = self._browser.events
        return [
            each["params"] for each in all_events if (each["method"], each.get("sessionId")) == (method, self.session)
        ]

    def forget(self) -> None:
        """What came so far is of another case."""
        self._browser.events.clear()

    def asked(self) -> dict[str, str]:
        """What was asked for since `forget`, sockets too: ids and addresses. Not the icon that browsers look for."""
        made = [(each["requestId"], each["request"]["url"]) for each in self.events("Network.requestWillBeSent")]
        made += [(each["requestId"], each["url"]) for each in self.events("Network.webSocketCreated")]
        return {id: url for id, url in made if not url.endswith(ICON)}

    def outcomes(self) -> list[int]:
        """Statuses of the answers to that, whether or not the page may know them."""
        ids = self.asked().keys()
        answers = [each for each in self.events("Network.responseReceivedExtraInfo") if each["requestId"] in ids]
        refused = [each["errorMessage"].rpartition(" ")[2] for each in self.events("Network.webSocketFrameError")]
        return [each["statusCode"] for each in answers] + [int(code) for code in refused if code.isdigit()]

    def history(self) -> list[str]:
        return [each["url"] for each in self.call("Page.getNavigationHistory")["entries"]]

    def frames(self) -> list[str]:
        """Addresses of what is framed by this page."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        return [each["frame"]["url"] for each in tree.get("childFrames", ())]

    def beside(self, url: str) -> Page:
        """The tab of this address that this one has opened."""

        def found() -> list[str]:
            targets = self._browser.call("Target.getTargets")["targetInfos"]
            here = [each for each in targets if each.get("browserContextId") == self.profile]
            return [each["targetId"] for each in here if (each["type"], each["url"]) == ("page", url)]

        return Page(self._browser, self.wait_for(found)[0], self.profile)

    def complaints(self) -> list[str]:
        """Errors and warnings in the console, whoever wrote them."""
        entries = [each["entry"] for each in self.events("Log.entryAdded")]
        thrown = [str(each["exceptionDetails"]) for each in self.events("Runtime.exceptionThrown")]
        told = [each for each in entries if each["level"] in {"error", "warning"}]
        return thrown + [each["text"] for each in told if not each.get("url", "").endswith(ICON)]


def _pipe() -> tuple[int, int]:
    numbers = os.pipe()
    high = tuple(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for number in numbers)
    for number in numbers:
        os.close(number)
    return high[0], high[1]
