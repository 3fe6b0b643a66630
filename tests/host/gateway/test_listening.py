"""Where the gateway listens: Unix sockets for their user alone, other machines only over TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.errors import SettingsError, StartupError
from kandev_host.gateway.certificate import Certificate
from kandev_host.gateway.listening import Address, check_address, check_authentication
from kandev_host.settings import GatewaySettings, ServerSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir(mode=0o700)
    return made


async def test_a_unix_socket_is_its_users_alone_and_goes_with_the_host(open_house: Any, folder: Path) -> None:
    path = folder / "host.sock"
    async with open_house(server=ServerSettings(unix_socket=str(path))) as house:
        assert house.url == f"unix://{path}"
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        async with house.client() as client:
            assert (await client.call("health.check"))["status"] == "ok"
            assert (await client.call("auth.ticket"))["url"] is None
        with pytest.raises(ClientError, match="UNAUTHORIZED"):
            async with Client.connect(house.url, "wrong"):
                pass
    assert not path.exists()


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 421), ("127.0.0.1", 421), ("", 421)])
async def test_names_and_origins_are_checked_on_a_unix_socket_too(
    open_house: Any, folder: Path, host: str, status: int
) -> None:
    path = folder / "host.sock"
    async with (
        open_house(server=ServerSettings(unix_socket=str(path))) as house,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
    ):
        async with session.get("http://localhost/health", headers={"Host": host}) as answer:
            assert answer.status == status
        headers = {"Origin": "http://localhost", "Authorization": f"Bearer {house.token}"}
        async with session.get("http://localhost/health", headers=headers) as answer:
            assert answer.status == 403


ASK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
print(peer.makefile().readline())
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that others see into, as none below pytest's is."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused_even_where_the_file_lets_him(
    open_house: Any, becoming: Any, shared: Path
) -> None:
    path = shared / "host.sock"
    async with open_house(server=ServerSettings(unix_socket=str(path))):
        os.chmod(path, 0o666)
        done = await anyio.run_process([*becoming(65534, shared), sys.executable, "-c", ASK, str(path)], check=False)
    assert b" 403 " in done.stdout, done.stderr


async def test_what_a_dead_host_left_is_replaced(open_house: Any, folder: Path) -> None:
    path = folder / "host.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_house(server=ServerSettings(unix_socket=str(path))) as house, house.client() as client:
        assert (await client.call("health.check"))["status"] == "ok"


async def test_a_socket_in_use_is_left_to_its_host(open_house: Any, folder: Path) -> None:
    path = folder / "host.sock"
    async with open_house(server=ServerSettings(unix_socket=str(path))) as house:
        with pytest.raises(StartupError, match="listens on"):
            async with open_house(server=ServerSettings(unix_socket=str(path))):
                pass
        async with house.client() as client:
            assert (await client.call("health.check"))["status"] == "ok"


async def test_a_file_is_never_replaced_by_a_socket(open_house: Any, folder: Path) -> None:
    path = folder / "notes"
    path.write_text("mine")
    with pytest.raises(StartupError, match="no socket of yours"):
        async with open_house(server=ServerSettings(unix_socket=str(path))):
            pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o722])
async def test_a_folder_that_others_write_is_no_place_for_it(open_house: Any, folder: Path, mode: int) -> None:
    os.chmod(folder, mode)
    with pytest.raises(StartupError, match="only you can write"):
        async with open_house(server=ServerSettings(unix_socket=str(folder / "host.sock"))):
            pass


async def test_a_path_that_is_too_long_says_so(open_house: Any, folder: Path) -> None:
    with pytest.raises(StartupError, match="too long"):
        async with open_house(server=ServerSettings(unix_socket=str(folder / ("x" * 100)))):
            pass


# Other machines.

REMOTE = {"host": "192.0.2.1", "allow_remote": True, "tls_certificate": "/c", "tls_key": "/k"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow_remote": False}, "--allow-remote"),
        ({"tls_certificate": None, "tls_key": None}, "tls_certificate"),
        ({"host": "0.0.0.0", "allow_remote": False}, "loopback"),
        ({"host": "127.0.0.1.evil.example", "allow_remote": False}, "loopback"),
    ],
)
def test_other_machines_need_leave_and_tls(changes: dict[str, Any], said: str) -> None:
    check_address(ServerSettings(**REMOTE))
    with pytest.raises(SettingsError, match=said):
        check_address(ServerSettings(**{**REMOTE, **changes}))


def test_other_machines_need_authentication_that_is_made_for_them() -> None:
    check_authentication(ServerSettings(**REMOTE), "jwt", remote=True)
    check_authentication(ServerSettings(), "local", remote=False)
    check_authentication(ServerSettings(unix_socket="/s"), "local", remote=False)
    with pytest.raises(SettingsError, match=r"\[authenticator\.local\] remote = true"):
        check_authentication(ServerSettings(**REMOTE), "local", remote=False)
    with pytest.raises(SettingsError, match="'mine' is for this one alone"):
        check_authentication(ServerSettings(**REMOTE), "mine", remote=False)


@pytest.mark.parametrize(
    ("address", "others", "served", "refused"),
    [
        (Address("http", "127.0.0.1", 80), (), {"127.0.0.1", "localhost:80", "[::1]"}, {"0.0.0.0"}),
        (Address("https", "0.0.0.0", 8443), ("a.example",), {"a.example", "a.example:8443"}, {"0.0.0.0:8443"}),
        (Address("https", "192.0.2.1", 443), ("a.example:9",), {"a.example:9", "192.0.2.1"}, {"a.example"}),
        (Address("https", "2001:db8::1", 8443), (), {"[2001:db8::1]:8443"}, {"[2001:db8::1]", "2001:db8::1:8443"}),
        (Address("unix", "/run/host.sock"), ("a.example",), {"localhost", "a.example"}, {"127.0.0.1", ""}),
    ],
)
def test_a_host_answers_to_its_names(address: Address, others: Any, served: set[str], refused: set[str]) -> None:
    names = address.hosts(others)
    assert served <= names
    assert not refused & names


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (GatewaySettings, {"origins": ["https://board.example/"]}),
        (GatewaySettings, {"origins": ["*"]}),
        (GatewaySettings, {"origins": ["null"]}),
        (GatewaySettings, {"origins": ["board.example"]}),
        (GatewaySettings, {"hosts": ["https://board.example"]}),
        (GatewaySettings, {"hosts": ["*.example"]}),
        (GatewaySettings, {"hosts": ["Board.example"]}),
        (ServerSettings, {"tls_key": "/k"}),
        (ServerSettings, {"unix_socket": "relative"}),
        (ServerSettings, {"unix_socket": "/s", "tls_key": "/k", "tls_certificate": "/c"}),
    ],
)
def test_what_could_never_match_is_refused(table: Any, values: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, table)


# TLS.


class Pem:
    """A certificate and its key, in two files."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        self.renew()

    def renew(self) -> None:
        """Another one, under the same names."""
        new = [f"{path}.new" for path in (self.certificate, self.key)]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", "/CN=kandev", "-days", "2", "-out", new[0], "-keyout", new[1]],
            check=True, capture_output=True,
        )  # fmt: skip
        os.chmod(new[1], 0o600)
        for path, made in zip((self.certificate, self.key), new, strict=True):
            os.replace(made, path)

    @property
    def settings(self) -> ServerSettings:
        return ServerSettings(port=0, tls_certificate=str(self.certificate), tls_key=str(self.key))


@pytest.fixture(scope="module")
def openssl() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt-get install openssl")


@pytest.fixture
def pem(openssl: None, folder: Path) -> Pem:
    return Pem(folder)


async def test_over_tls_whoever_has_another_certificate_gets_no_token(
    open_house: Any, pem: Pem, tmp_path: Path
) -> None:
    certificate = Certificate.of(pem.settings)
    other = tmp_path / "other"
    other.mkdir()
    wrong = Pem(other)
    async with open_house(server=pem.settings, certificate=certificate) as house:
        assert house.url.startswith("https://127.0.0.1:")
        async with Client.connect(f"{house.url}#certificate={pem.certificate}", house.token) as client:
            assert (await client.call("health.check"))["status"] == "ok"
            assert (await client.call("auth.ticket"))["url"].startswith("https://127.0.0.1:")
        with pytest.raises(ClientError, match="another certificate"):
            async with Client.connect(f"{house.url}#certificate={wrong.certificate}", house.token):
                pass
        with pytest.raises(ClientError, match="certificate"):
            async with Client.connect(house.url, house.token):
                pass


async def is_served(url: str, token: str) -> bool:
    try:
        async with Client.connect(url, token) as client:
            return bool((await client.call("health.check"))["status"] == "ok")
    except ClientError:
        return False


async def test_a_renewed_certificate_is_served_without_a_restart(open_house: Any, pem: Pem) -> None:
    certificate = Certificate.of(pem.settings)
    async with open_house(server=pem.settings, certificate=certificate) as house:
        url = f"{house.url}#certificate={pem.certificate}"
        async with Client.connect(url, house.token) as before:
            pem.renew()
            while not await is_served(url, house.token):
                await anyio.sleep(0.05)
            assert (await before.call("health.check"))["status"] == "ok"


async def test_a_bad_certificate_is_not_served_and_the_old_one_stays(
    open_house: Any, pem: Pem, tmp_path: Path, caplog: Any
) -> None:
    certificate = Certificate.of(pem.settings)
    kept = tmp_path / "kept.pem"
    shutil.copy(pem.certificate, kept)
    async with open_house(server=pem.settings, certificate=certificate) as house:
        pem.certificate.write_text("nothing of the kind")
        while "stays the old one" not in caplog.text:
            await anyio.sleep(0.01)
        async with Client.connect(f"{house.url}#certificate={kept}", house.token) as client:
            assert (await client.call("health.check"))["status"] == "ok"
    assert caplog.text.count("stays the old one") == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_read_is_refused(pem: Pem, mode: int) -> None:
    pem.key.chmod(mode)
    with pytest.raises(StartupError, match="chmod 600"):
        Certificate.of(pem.settings)


def test_a_key_of_another_certificate_is_refused(pem: Pem, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(Pem(other).certificate, pem.certificate)
    with pytest.raises(StartupError, match="do not belong together"):
        Certificate.of(pem.settings)


def test_a_key_that_is_not_there_is_named(pem: Pem) -> None:
    pem.key.unlink()
    with pytest.raises(StartupError, match=r"key\.pem cannot be read"):
        Certificate.of(pem.settings)


def test_a_key_with_a_password_asks_nobody(pem: Pem) -> None:
    command = ["openssl", "pkcs8", "-topk8", "-in", str(pem.key), "-out", f"{pem.key}.locked", "-passout", "pass:word"]
    subprocess.run(command, check=True, capture_output=True)
    os.replace(f"{pem.key}.locked", pem.key)
    pem.key.chmod(0o600)
    with pytest.raises(StartupError, match="without one"):
        Certificate.of(pem.settings)


async def test_a_tls_handshake_that_never_ends_is_dropped(open_house: Any, pem: Pem) -> None:
    certificate = Certificate.of(pem.settings)
    async with open_house(server=pem.settings, certificate=certificate, handshake_timeout_s=0.05) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
        writer.write(b"\x16\x03\x01")
        assert await reader.read() == b""
        writer.close()
