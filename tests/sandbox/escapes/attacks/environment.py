"""What the host's processes carry: environments, arguments, keys, agents of logins."""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress

from .kernel import ARM, attempt, call, pids, read
from .table import World, case

ADD_KEY, KEYCTL = (217, 219) if ARM else (248, 250)
GET_KEYRING_ID, JOIN_SESSION, LINK, UNLINK, SEARCH, READ = 0, 1, 8, 9, 10, 11
SESSION, USER = -3, -4


@case()
def read_its_environment(w: World) -> object:
    return str(dict(os.environ))


@case()
def read_the_environment_of_others(w: World) -> object:
    return _of_all("environ", w)


@case()
def read_the_arguments_of_others(w: World) -> object:
    return _of_all("cmdline", w)


def _of_all(name: str, w: World) -> str:
    found = ""
    for pid in (w.victim, os.getppid(), *pids()):
        with suppress(OSError):
            found += read(f"/proc/{pid}/{name}", 65536)
    return found


@case()
def use_the_users_login_agent(w: World) -> object:
    """As ssh-agent's socket, or D-Bus's: named in the environment."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(os.environ.get("SSH_AUTH_SOCK") or w.unix)
        return peer.recv(100).decode()


@case(needs="seccomp")
def read_a_key_of_the_session(w: World) -> object:
    return _key(SESSION, w.word)


@case(needs="seccomp")
def read_a_key_of_the_user(w: World) -> object:
    return _key(USER, w.word)


@case(needs="seccomp")
def keep_a_key_for_the_next_jail(w: World) -> object:
    name, text = ctypes.c_char_p(f"{w.word}-planted".encode()), ctypes.c_char_p(b"planted")
    key = call(ADD_KEY, ctypes.c_char_p(b"user"), name, text, 7, USER)
    call(KEYCTL, UNLINK, key, USER)
    return True


@case(nested=False)
def list_the_keys_of_the_user(w: World) -> object:
    return w.word in read("/proc/keys") and os.path.exists(w.secret)


def _key(ring: int, name: str) -> str:
    attempt(lambda: call(KEYCTL, GET_KEYRING_ID, ring, 0))
    key = call(KEYCTL, SEARCH, ring, ctypes.c_char_p(b"user"), ctypes.c_char_p(name.encode()), 0)
    text = ctypes.create_string_buffer(256)
    size = call(KEYCTL, READ, key, text, 256)
    return text.raw[:size].decode()
