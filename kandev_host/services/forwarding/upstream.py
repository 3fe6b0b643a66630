"""git's smart HTTP to one repository over verified TLS, with the user's log-in. No secret is in what comes back.

Source of the paths and content types: gitprotocol-http(5).
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from anyio import to_thread
from yarl import URL

from kandev_host.errors import KandevError
from kandev_host.services.credentials.grants import Grant
from kandev_host.services.credentials.logins import Login, authorities_for, login_at

CONNECT_S = 20.0
SILENCE_S = 300.0
TRANSFER_S = 3600.0
CONNECTIONS = 8
AGENT = "git/kandev-host"
_REFUSED = frozenset({401, 403})


class UpstreamError(KandevError):
    """The repository's server did not answer as git's servers do; the message is for the agent, with no secret."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, passes: bool = False) -> None:
        """`passes`: the next time it may be otherwise."""
        super().__init__(message)
        self.passes = passes


class Upstream:
    """Use as an async context manager."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._base = URL(grant.url, encoded=True)
        self._login: Login | None = None
        self._stack = AsyncExitStack()
        self._client: aiohttp.ClientSession

    async def __aenter__(self) -> Upstream:
        authorities = await authorities_for(self._grant.url)
        context = await to_thread.run_sync(_trust, authorities)
        self._client = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=TRANSFER_S, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def advertised(self, service: str, version: Mapping[str, str]) -> AsyncIterator[aiohttp.StreamReader]:
        """What the server has. A refused log-in is asked for once more, and one move to or from .git is followed.

        Raises `UpstreamError`.
        """
        suffix, kind = f"/info/refs?service={service}", f"application/x-{service}-advertisement"
        for attempt in range(3):
            async with self._asked("GET", suffix, kind, version) as answer:
                if attempt < 2 and await self._again(answer, suffix):
                    continue
                yield self._checked(answer, kind)
                return

    @asynccontextmanager
    async def served(
        self, service: str, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes]
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The answer to one request of git's. Raises `UpstreamError`."""
        headers = {**headers, "Content-Type": f"application/x-{service}-request"}
        kind = f"application/x-{service}-result"
        async with self._asked("POST", f"/{service}", kind, headers, body) as answer:
            yield self._checked(answer, kind)

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        suffix: str,
        accept: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        own = {"User-Agent": AGENT, "Accept": accept, "Accept-Encoding": "identity"}
        url = URL(str(self._base) + suffix, encoded=True)
        try:
            async with self._client.request(
                method,
                url,
                headers={**headers, **own, **await self._authorization()},
                data=body,
                allow_redirects=False,
                proxy=_proxy(self._grant.host),
            ) as answer:
                yield answer
        except aiohttp.ClientConnectorCertificateError as error:
            raise UpstreamError(f"The certificate of {self._grant.authority} is not to be trusted") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamError(
                f"{self._grant.authority} does not answer ({type(error).__name__})", passes=True
            ) from error

    async def _authorization(self) -> dict[str, str]:
        if self._login is None:
            self._login = await login_at(self._grant.authority, self._grant.path)
        if self._login is None:
            return {}
        pair = f"{self._login.username}:{self._login.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    async def _again(self, answer: aiohttp.ClientResponse, suffix: str) -> bool:
        """Is it worth another try: with a fresh log-in, or at the same repository with or without .git?"""
        if answer.status == 401 and self._login is not None:
            old, self._login = self._login, None
            await self._authorization()
            return self._login != old
        if answer.status not in {301, 302, 303, 307, 308}:
            return False
        moved = urlsplit(urljoin(str(self._base) + suffix, answer.headers.get("Location", "")))
        here = urlsplit(str(self._base))
        path = moved.path.removesuffix("/info/refs")
        same = (moved.scheme, moved.netloc) == (here.scheme, here.netloc)
        if not same or path == here.path or path.removesuffix(".git") != here.path.removesuffix(".git"):
            return False
        self._base = self._base.with_path(path, encoded=True)
        return True

    def _checked(self, answer: aiohttp.ClientResponse, kind: str) -> aiohttp.StreamReader:
        url = self._grant.url
        if answer.status in _REFUSED:
            if self._login is None:
                raise UpstreamError(
                    f"{url} wants a log-in, and the git of kandev-host's user knows none for it: "
                    "see `git credential fill` on the host"
                )
            raise UpstreamError(f"{url} refused the log-in of kandev-host's user ({answer.status})")
        if answer.status == 404:
            raise UpstreamError(f"{url} is not there, or the log-in of kandev-host's user may not see it")
        if 300 <= answer.status < 400:
            raise UpstreamError(f"{url} has moved; name its new URL in the settings or the task")
        told = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if answer.status != 200 or told != kind or answer.headers.get("Content-Encoding", "identity") != "identity":
            told = f"{url} did not answer as git's smart HTTP does (status {answer.status})"
            raise UpstreamError(told, passes=answer.status == 429 or answer.status >= 500)
        return answer.content


def _trust(authorities: str | None) -> ssl.SSLContext:
    """The system's authorities, or those that the user's git has for this server; never none."""
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise UpstreamError(f"http.sslCAInfo of git's configuration cannot be read: {error}") from error
    # Python 3.13 refuses authorities without all of RFC 5280's extensions; the user's git trusts them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _proxy(host: str) -> str | None:
    """The proxy of the host's environment, which its user's git would take as well."""
    proxies = getproxies()
    return None if proxy_bypass(host) else proxies.get("https")
