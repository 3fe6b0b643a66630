"""The parts of the host's root that every jail sees, and the generated files of its /etc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox.policy import HOME, Policy

# What programs need of /etc to start, and to find certificates, fonts and the time. Never a whole /etc/ssl or /etc/pki:
# private keys lie there, and a user may be in the group that reads them.
ETC = (
    *("alternatives", "ca-certificates", "crypto-policies", "fonts", "ld.so.cache", "localtime"),
    *("os-release", "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf", "protocols"),
    *("ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf"),
)
UID = 1000
_MASKED = (
    *("cmdline", "interrupts", "kallsyms", "kcore", "key-users", "keys", "kmsg", "latency_stats", "sched_debug"),
    *("sysrq-trigger", "timer_list", "timer_stats"),
)
_HIDDEN = ("acpi", "asound", "scsi")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Layout:
    """How /bin, /lib… exist here: as links into /usr (name → target), or as folders of their own.

    `masked` are the files, `hidden` the folders of this kernel's /proc that tell or do too much; `etc` is what of /etc
    is shown.
    """

    links: Mapping[str, str]
    folders: tuple[str, ...]
    masked: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    etc: tuple[str, ...] = ()

    @classmethod
    def detect(cls) -> Layout:
        links = {f"/{name}": os.readlink(f"/{name}") for name in _MERGED if os.path.islink(f"/{name}")}
        folders = tuple(f"/{name}" for name in _MERGED if f"/{name}" not in links and os.path.isdir(f"/{name}"))
        masked, hidden = (
            tuple(f"/proc/{name}" for name in names if os.path.exists(f"/proc/{name}")) for names in (_MASKED, _HIDDEN)
        )
        java = sorted(name for name in os.listdir("/etc") if name.startswith("java-") and name.endswith("-openjdk"))
        etc = tuple(path for name in (*ETC, *java) if os.path.lexists(path := f"/etc/{name}"))
        return cls(links, folders, masked, hidden, etc)


def etc_files(policy: Policy) -> dict[str, bytes]:
    """Path inside → content. Nothing of the host's users reaches the jail; name servers only with its network."""
    name = policy.hostname
    resolver = _host_file("resolv.conf") if policy.network == "host" else b"# no network\n"
    hosts_order = "files dns" if policy.network == "host" else "files"
    texts = {
        "passwd": (
            f"root:x:0:0::/:/bin/false\nagent:x:{UID}:{UID}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
        ),
        "group": f"root:x:0:\nagent:x:{UID}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {name}\n::1 localhost ip6-localhost\n",
        "nsswitch.conf": f"passwd: files\ngroup: files\nhosts: {hosts_order}\nservices: files\n",
        "hostname": f"{name}\n",
    }
    generated = {f"/etc/{file}": text.encode() for file, text in texts.items()}
    return generated | {"/etc/resolv.conf": resolver, "/etc/services": _host_file("services")}


def _host_file(name: str) -> bytes:
    try:
        return Path(f"/etc/{name}").read_bytes()[:65536]
    except OSError:
        return f"# the host has no /etc/{name}\n".encode()
