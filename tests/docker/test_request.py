"""Golden requests, and what may never be in one whoever asks for it."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kandev_docker.check import Allowed, Refused, check
from kandev_docker.owned import labels_of
from kandev_docker.request import Container, Folders, asked_mounts, create_request, own_mounts
from kandev_docker.seccomp import profile, written
from kandev_host import Mount, ProcessSpec
from kandev_sandbox import Limits, Owner
from kandev_sandbox.syscalls import ABSENT, NESTING, NEVER

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
FOLDERS = Folders(*(Path(f"/data/containers/w1/{name}") for name in ("workspace", "home", "tmp", "snapshots")))
LIMITS = Limits(memory_bytes=1 << 30, swap_bytes=1 << 20, tree_processes=512, cpus=1.5)
SOCKET = "/var/run/docker.sock"


def container(**fields: Any) -> Container:
    spec = ProcessSpec(**{"workspace_id": "w1", "command": ("agent", "--acp"), **fields.pop("spec", {})})
    return Container(
        **{
            "name": "kandev-0-1",
            "spec": spec,
            "image": "sha256:0",
            "user": "1879048192:1879048192",
            "limits": LIMITS,
            "folders": FOLDERS,
            "marker": "kandev: kandev-0-1",
            "labels": {"kandev.owner": "0"},
            **fields,
        }
    )


def allowed(made: Container, **fields: Any) -> Allowed:
    own, asked = own_mounts(made.spec, made.folders), asked_mounts(made.spec)
    return Allowed(**{"own": own, "asked": asked, "closed": ("/data",), "sockets": (SOCKET,), **fields})


def judged(request: Any, may: Allowed, links: dict[str, str] | None = None, same: dict[str, int] | None = None) -> None:
    """`links` are where paths really lead, `same` the inodes of those that have names beside their own."""

    def resolve(path: str) -> str:
        return (links or {}).get(path, "/" + os.path.normpath(path).lstrip("/"))

    check(request, may, resolve=resolve, identify=lambda path: (1, (same or {}).get(path, hash(path))))


CASES = {
    "agent": container(adoptable=True, log_bytes=64 << 20),
    "git": container(spec={"command": ("git", "status"), "read_only": True, "env": {"A": "b"}}),
    "beside a workspace": container(
        spec={"command": ("cat",), "cwd": "/", "read_only": True}, user="1879113728:1879113728"
    ),
    "snapshot": container(spec={"snapshots": True, "cwd": "/"}),
    "host network, a mount and a volume": container(
        spec={"network": "host", "mounts": (Mount("/home/ada/.login", "~/.login"),)}, volumes=("/var/lib/it",)
    ),
    "look into the image": container(folders=None, user="65534:65534"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_request_is_the_golden_one(name: str) -> None:
    found = create_request(CASES[name])
    assert found["HostConfig"]["SecurityOpt"].pop() == f"seccomp={profile()}"
    assert found == GOLDEN[name]


@pytest.mark.parametrize("name", CASES)
def test_what_is_requested_passes_the_check(name: str) -> None:
    judged(create_request(CASES[name]), allowed(CASES[name], host_network=CASES[name].spec.network == "host"))


OF_PODMAN: dict[str, Any] = {
    "seccomp": "/data/seccomp.json", "user_processes": 512, "unasked": ("container", "http_proxy", "https_proxy")
}  # fmt: skip


def test_a_request_for_podman_names_the_file_of_the_filter_and_drops_what_podman_adds() -> None:
    made = container(**OF_PODMAN, spec={"env": {"https_proxy": "http://127.0.0.1:1"}})
    found = create_request(made)
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges", "seccomp=/data/seccomp.json"]
    assert {"Name": "nproc", "Soft": 512, "Hard": 512} in found["HostConfig"]["Ulimits"]
    assert found["Entrypoint"][2].startswith("unset container http_proxy; ")
    judged(found, allowed(made, seccomp="/data/seccomp.json"))


@pytest.mark.parametrize("own", [None, "/data/seccomp.json"])
def test_a_filter_from_another_file_is_refused(own: str | None) -> None:
    made = container(**OF_PODMAN | {"seccomp": "/workspace/mine.json"})
    with pytest.raises(Refused, match="filter"):
        judged(create_request(made), allowed(made, seccomp=own))


def test_the_file_of_the_filter_is_made_anew_where_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "seccomp.json"
    for before in (None, "{}", profile()):
        if before is not None:
            path.write_text(before)
        assert written(path) == str(path)
        assert path.read_text() == profile()
    assert [each.name for each in tmp_path.iterdir()] == ["seccomp.json"]


def test_the_filter_closes_what_the_jails_closes() -> None:
    rules = json.loads(profile())
    plain = {name for rule in rules["syscalls"] if not rule["args"] for name in rule["names"]}
    assert plain == {*NEVER, *NESTING, *ABSENT}
    assert {"io_uring_setup", "mount", "bpf", "unshare"} <= plain
    families = [rule["args"][0] for rule in rules["syscalls"] if "socket" in rule["names"]]
    assert {"index": 0, "op": "SCMP_CMP_GT", "value": 16, "valueTwo": 0} in families  # AF_VSOCK is 40


def _with(path: str, value: Any) -> Any:
    request = copy.deepcopy(create_request(container()))
    *above, last = path.split(".")
    inner = request
    for key in above:
        inner = inner[key]
    inner[last] = value
    return request


BAD: dict[str, Any] = {
    "HostConfig.Privileged": True,
    "HostConfig.Binds": ["/:/host"],
    "HostConfig.CapAdd": ["SYS_ADMIN"],
    "HostConfig.CapDrop": [],
    "HostConfig.Devices": [{"PathOnHost": "/dev/sda"}],
    "HostConfig.DeviceRequests": [{}],
    "HostConfig.DeviceCgroupRules": ["a *:* rwm"],
    "HostConfig.VolumesFrom": ["other"],
    "HostConfig.PidMode": "host",
    "HostConfig.IpcMode": "host",
    "HostConfig.UTSMode": "host",
    "HostConfig.UsernsMode": "host",
    "HostConfig.CgroupnsMode": "host",
    "HostConfig.CgroupParent": "/",
    "HostConfig.NetworkMode": "host",
    "HostConfig.SecurityOpt": ["seccomp=unconfined"],
    "HostConfig.ReadonlyRootfs": False,
    "HostConfig.Init": False,
    "HostConfig.Init ": True,
    "HostConfig.Memory": 0,
    "HostConfig.MemorySwap": -1,
    "HostConfig.PidsLimit": -1,
    "HostConfig.Runtime": "other",
    "HostConfig.Sysctls": {"kernel.msgmax": "1"},
    "HostConfig.Ulimits": [],
    "HostConfig.LogConfig": {"Type": "syslog", "Config": {}},
    "HostConfig.RestartPolicy": {"Name": "always"},
    "HostConfig.OomKillDisable": True,
    "HostConfig.MaskedPaths": [],
    "HostConfig.ReadonlyPaths": [],
    "HostConfig.ExtraHosts": ["a:1.2.3.4"],
    "HostConfig.Tmpfs": {"/run": "rw,exec,suid,dev,size=1,mode=1777"},
    "HostConfig.GroupAdd": ["docker"],
    "User": "0:0",
    "Volumes": {"/x": {}},
    "ExposedPorts": {"80/tcp": {}},
    "NetworkingConfig": {"EndpointsConfig": {"bridge": {}}},
    "MacAddress": "02:42:ac:11:00:02",
}


@pytest.mark.parametrize("path", BAD)
def test_options_that_no_container_has_are_refused(path: str) -> None:
    may = allowed(container())
    with pytest.raises(Refused):
        judged(_with(path, BAD[path]), may)


@pytest.mark.parametrize("user", ["root", "0", "0:1000", "1000:0", "00:00", "1000", "", "agent:agent", "1000:1000\n"])
def test_no_container_runs_as_root_or_as_somebody_of_the_image(user: str) -> None:
    with pytest.raises(Refused):
        judged(_with("User", user), allowed(container()))


SOURCES = [
    SOCKET, "/var/run/docker.sock/", "/var/run/../run/docker.sock", "//var/run/docker.sock", "/run/docker.sock",
    "/var/run", "/run", "/var", "/", "//", "/home", "/root", "/etc", "/proc/1/root", "/proc", "/sys", "/dev/sda",
    "/data", "/data/token", "/data/containers/w2/home", "/", "/home/ada/../../run", "relative", "",
    "/tmp/podman.sock", "/run/user/1000/docker.sock", "/var/lib/docker/volumes",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_no_mount_shows_what_a_container_may_not_see(source: str) -> None:
    made = container(spec={"mounts": (Mount(source, "/there", read_only=False),)})
    with pytest.raises(Refused):
        judged(create_request(made), allowed(made))


def test_no_link_or_other_name_leads_to_the_engine() -> None:
    made = container(spec={"mounts": (Mount("/home/ada/innocent", "/there"),)})
    request = create_request(made)
    judged(request, allowed(made))
    for real in (SOCKET, "/run/docker.sock", "/run", "/", "/data"):
        with pytest.raises(Refused):
            judged(request, allowed(made), {"/home/ada/innocent": real})
    with pytest.raises(Refused, match="engine's socket"):
        judged(request, allowed(made), same={"/home/ada/innocent": 7, SOCKET: 7})
    elsewhere = allowed(made, sockets=("/home/ada/innocent/deep/engine",))
    with pytest.raises(Refused, match="engine's socket"):
        judged(request, elsewhere)


def test_a_mount_is_only_what_was_asked_for() -> None:
    made = container(spec={"mounts": (Mount("/home/ada/notes", "/there"),)})
    request = create_request(made)
    mounts = request["HostConfig"]["Mounts"]
    for change in (
        {"Source": "/home/ada/other"},
        {"Target": "/elsewhere"},
        {"ReadOnly": False},
        {"Type": "volume"},
        {"BindOptions": {"Propagation": "rshared"}},
        {"VolumeOptions": {}},
    ):
        request["HostConfig"]["Mounts"] = [*mounts[:-1], {**mounts[-1], **change}]
        with pytest.raises(Refused):
            judged(request, allowed(made))


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/proc",
        "/proc/x",
        "/etc/passwd",
        "/dev/x",
        "rel",
        "/a/../proc",
        "/workspace",
        "//",
        "//proc",
        "//etc/passwd",
        "//workspace",
    ],
)
def test_no_mount_covers_what_is_the_containers_own(target: str) -> None:
    made = container(spec={"mounts": (Mount("/home/ada/notes", target),)})
    with pytest.raises(Refused):
        judged(create_request(made), allowed(made))


def test_the_places_folders_are_no_links() -> None:
    made = container()
    with pytest.raises(Refused):
        judged(create_request(made), allowed(made), {str(FOLDERS.workspace): "/root"})


def test_the_hosts_network_is_only_for_whom_it_was_allowed() -> None:
    made = container(spec={"network": "host"})
    with pytest.raises(Refused):
        judged(create_request(made), allowed(made))
    judged(create_request(made), allowed(made, host_network=True))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner) | st.dictionaries(
        st.text(max_size=12), inner
    ), max_leaves=6,
)  # fmt: skip
_KEYS = sorted(create_request(container())["HostConfig"])


@settings(deadline=None)
@given(key=st.sampled_from(_KEYS) | st.text(max_size=20), value=_JSON)
def test_no_other_value_of_any_option_gets_through(key: str, value: Any) -> None:
    good = create_request(container())
    request = copy.deepcopy(good)
    request["HostConfig"][key] = value
    harmless = {"Memory", "MemorySwap", "PidsLimit", "ShmSize", "NanoCpus", "NetworkMode", "Mounts", "Tmpfs"}
    if key in good["HostConfig"] and (value == good["HostConfig"][key] or key in harmless):
        return
    with pytest.raises(Refused):
        judged(request, allowed(container()))


_PARTS = st.sampled_from(
    ["var", "run", "docker.sock", "..", ".", "", "proc", "home", "data", "ada", "etc", "lib", "docker"]
)


@settings(deadline=None)
@given(parts=st.lists(_PARTS, max_size=8), absolute=st.booleans())
def test_no_spelling_of_a_path_leads_to_a_socket_or_the_hosts_data(parts: list[str], absolute: bool) -> None:
    source = ("/" if absolute else "") + "/".join(parts)
    made = container(spec={"mounts": (Mount(source, "/there"),)})
    try:
        judged(create_request(made), allowed(made))
    except Refused:
        return
    real = Path("/" + os.path.normpath(source).lstrip("/"))
    assert source.startswith("/")
    for closed in map(Path, ("/var/run/docker.sock", "/run", "/data", "/proc", "/var/lib/docker")):
        assert not closed.is_relative_to(real)
        assert not real.is_relative_to(closed)


def test_what_may_adopt_a_container_is_told_of_no_service_that_ends_with_this_host() -> None:
    passing = "127.0.0.1:40001"
    spec = ProcessSpec(
        workspace_id="w",
        command=("agent",),
        allow=("pypi.org", passing, "127.0.0.1:8377"),
        passing=frozenset({passing}),
    )
    labels = labels_of(Owner.here("0"), "kandev-0-1", spec, adoptable=True)
    assert labels["kandev.allow"].split() == ["pypi.org", "127.0.0.1:8377"]
    assert not any("40001" in value for value in labels.values())
