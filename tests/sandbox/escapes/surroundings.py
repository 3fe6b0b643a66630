"""What there is to be had outside of a jail: secrets, victims, services, and a place for the jail itself."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .attacks.catalogue import CASES
from .attacks.environment import ADD_KEY, JOIN_SESSION, KEYCTL, LINK, SESSION, UNLINK, USER
from .attacks.kernel import LIBC, call, check
from .attacks.table import World

UNTOUCHED = "untouched"
LIMITS = {
    "open_files": 64,
    "file_bytes": 1 << 20,
    "locked_bytes": 1 << 20,
    "processes": 40,
    "tree_processes": 40,
    "pending_signals": 64,
    "memory_bytes": 64 << 20,
    "disk_bytes": 32 << 20,
    "inodes": 500,
}
VICTIM = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)
held = ctypes.create_string_buffer(os.environ["SECRET"].encode(), 64)
file = open(sys.argv[1])
print(ctypes.addressof(held), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Place:
    """The world as the host knows it, and the token that no jail may get."""

    world: World
    token: str
    tmp: Path
    inherited: int
    program: Path


@contextmanager
def surroundings(base: Path, owner: int) -> Iterator[Place]:
    """Set it up below `base`, the writable folders belonging to `owner`; all of it is gone afterwards."""
    token, word = secrets.token_hex(16), f"kandev-{secrets.token_hex(6)}"
    with ExitStack() as stack:
        outside, library = base / "outside", base / "library"
        targets = _outside(outside, token)
        _library(library)
        workspace, home, tmp = (_own(base / "data" / name, owner) for name in ("workspace", "home", "tmp"))
        (outside / "key").write_text(token)
        victim, address = _victim(stack, outside, token, word)
        inherited = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, inherited)
        os.set_inheritable(inherited, True)
        unix, port, udp_port = _services(stack, outside, word, token)
        _keys(stack, word, token)
        master, slave = os.openpty()
        stack.callback(os.close, master)
        stack.callback(os.close, slave)
        with _environment(HOST_SECRET=token, SSH_AUTH_SOCK=unix):
            yield Place(
                World(
                    workspace=str(workspace),
                    home=str(home),
                    outside=str(outside),
                    secret=str(outside / "key"),
                    library=str(library),
                    handle=_handle(outside / "key"),
                    victim=victim,
                    address=address,
                    port=port,
                    udp_port=udp_port,
                    unix=unix,
                    abstract=word,
                    shm_id=_segment(stack, token),
                    shm_file=_shared_file(stack, word, token),
                    queue=_queue(stack, word, token),
                    user=next(
                        user.pw_name for user in pwd.getpwall() if user.pw_name not in ("root", "agent", "nobody")
                    ),
                    node=os.uname().nodename,
                    terminal=os.ttyname(slave),
                    word=word,
                    targets=targets,
                    victims=_sleepers(stack, outside),
                    limits=LIMITS,
                ),
                token,
                tmp,
                inherited,
                outside / "sleep",
            )


def _outside(folder: Path, token: str) -> dict[str, str]:
    folder.mkdir(mode=0o700)
    found = {}
    for case in CASES.values():
        if case.trace == "file":
            path = folder / case.name
            path.write_text(UNTOUCHED)
            found[case.name] = str(path)
    return found


def _library(folder: Path) -> None:
    """Everybody may write in it: only the jail's mount is in the way."""
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "file").write_text("text")
    (folder / "file").chmod(0o666)
    if os.geteuid() == 0:
        shutil.copy("/usr/bin/id", folder / "set-uid")
        os.chown(folder / "set-uid", 65534, 65534)
        (folder / "set-uid").chmod(0o4755)


def _own(folder: Path, owner: int) -> Path:
    folder.mkdir(mode=0o700, parents=True)
    if folder.name == "workspace":
        subprocess.run(["git", "init", "-q", folder], check=True)
        (folder / ".git" / "hooks").mkdir(exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner if os.geteuid() == 0 else -1)
    return folder


def _victim(stack: ExitStack, outside: Path, token: str, word: str) -> tuple[int, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(outside / "key"), word, token],
        env={"SECRET": token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdout is not None
    return process.pid, int(process.stdout.readline())


def _sleepers(stack: ExitStack, outside: Path) -> dict[str, int]:
    program = outside / "sleep"
    shutil.copy("/bin/sleep", program)
    found = {}
    for case in CASES.values():
        if case.trace == "death":
            process = subprocess.Popen([program, "600"], start_new_session=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            found[case.name] = process.pid
    return found


def _services(stack: ExitStack, outside: Path, word: str, token: str) -> tuple[str, int, int]:
    """Each says the token to whoever comes."""
    unix = str(outside / "socket")
    tcp = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    named, abstract = (
        stack.enter_context(socket.socket(socket.AF_UNIX)),
        stack.enter_context(socket.socket(socket.AF_UNIX)),
    )
    named.bind(unix)
    abstract.bind("\0" + word)
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    for server in (tcp, named, abstract):
        server.listen()
        threading.Thread(target=_greet, args=(server, token), daemon=True).start()
        stack.callback(server.shutdown, socket.SHUT_RDWR)
    thread = threading.Thread(target=_answer, args=(udp, token))
    thread.start()
    stack.callback(thread.join)
    stack.callback(udp.sendto, b"", udp.getsockname())
    return unix, tcp.getsockname()[1], udp.getsockname()[1]


def _greet(server: socket.socket, token: str) -> None:
    while True:
        try:
            with server.accept()[0] as peer:
                peer.sendall(token.encode())
        except OSError:
            return


def _answer(server: socket.socket, token: str) -> None:
    while True:
        asked, peer = server.recvfrom(100)
        if not asked:
            return
        server.sendto(token.encode(), peer)


def _keys(stack: ExitStack, word: str, token: str) -> None:
    """In the session's keyring, which every child inherits, and in the user's."""
    call(KEYCTL, JOIN_SESSION, None)
    call(KEYCTL, LINK, USER, SESSION)
    for ring in (SESSION, USER):
        text = token.encode()
        key = call(
            ADD_KEY, ctypes.c_char_p(b"user"), ctypes.c_char_p(word.encode()), ctypes.c_char_p(text), len(text), ring
        )
        stack.callback(call, KEYCTL, UNLINK, key, ring)


def _segment(stack: ExitStack, token: str) -> int:
    number = check(LIBC.shmget(0, 4096, 0o600))
    place = check(LIBC.shmat(number, None, 0))
    ctypes.memmove(place, token.encode(), len(token))
    check(LIBC.shmdt(ctypes.c_void_p(place)))
    stack.callback(LIBC.shmctl, number, 0, None)
    return number


def _shared_file(stack: ExitStack, word: str, token: str) -> str:
    path = Path(f"/dev/shm/{word}-secret")
    path.write_text(token)
    stack.callback(path.unlink)
    return str(path)


def _queue(stack: ExitStack, word: str, token: str) -> str:
    name = f"/{word}-secret"
    queue = check(LIBC.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o600, None))
    stack.callback(LIBC.mq_unlink, name.encode())
    stack.callback(os.close, queue)
    check(LIBC.mq_send(queue, token.encode(), len(token), 0))
    return name


def _handle(path: Path) -> str:
    """name_to_handle_at(2)."""
    room = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(4 + 128))
    mount_id = ctypes.c_int()
    check(LIBC.name_to_handle_at(-100, os.fsencode(path), room, ctypes.byref(mount_id), 0))
    size, kind = int.from_bytes(room.raw[:4], "little"), int.from_bytes(room.raw[4:8], "little", signed=True)
    return f"{kind}:{room.raw[8 : 8 + size].hex()}"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
