"""The filter of system calls as a program: interpreted here for both machines, whatever this one is."""

from __future__ import annotations

import errno
import struct

import pytest

from kandev_sandbox import JailUnavailable
from kandev_sandbox.seccomp import assemble
from kandev_sandbox.syscalls import ABSENT, LAST, MACHINES, NESTING, NEVER, STRICT

ALLOWED, KILLED = "allowed", "killed"
BOTH = pytest.mark.parametrize("machine", sorted(MACHINES))
I386, ARM = 0x4000_0003, 0x4000_0028


def interpret(program: bytes, number: int, arch: int, *arguments: int) -> str:
    """What seccomp(2) does with this call: every instruction that the filter uses, and no other."""
    data = struct.pack("=IIQ6Q", number & 0xFFFF_FFFF, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:  # BPF_RET | BPF_K
            return _told(value)
        else:
            tests = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}
            at += yes if tests[code] else no


def _told(value: int) -> str:
    if value & 0xFFFF_0000 == 0x0005_0000:
        return errno.errorcode[value & 0xFFFF]
    return {0x7FFF_0000: ALLOWED, 0x8000_0000: KILLED}[value]


def answer(machine: str, name: str, *arguments: int, nested: bool = False, strict: bool = False) -> str:
    known = MACHINES[machine]
    program = assemble("strict" if strict else "default", nested, machine)
    return interpret(program, known.numbers[name], known.audit_arch, *arguments)


def on(machine: str, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in MACHINES[machine].numbers]


@BOTH
def test_every_call_that_is_never_needed_is_refused(machine: str) -> None:
    assert {answer(machine, name, nested=nested) for name in on(machine, NEVER) for nested in (False, True)} == {
        "EPERM"
    }


@BOTH
def test_every_call_that_programs_can_do_without_does_not_exist(machine: str) -> None:
    assert {answer(machine, name, nested=nested) for name in on(machine, ABSENT) for nested in (False, True)} == {
        "ENOSYS"
    }


@BOTH
def test_a_jail_can_be_made_only_in_a_nested_one(machine: str) -> None:
    assert {answer(machine, name) for name in on(machine, NESTING)} == {"EPERM"}
    assert {answer(machine, name, nested=True) for name in on(machine, NESTING)} == {ALLOWED}


@BOTH
def test_debuggers_are_refused_in_strict_alone(machine: str) -> None:
    assert {answer(machine, name) for name in on(machine, STRICT)} == {ALLOWED}
    assert {answer(machine, name, strict=True) for name in on(machine, STRICT)} == {"EPERM"}


@BOTH
@pytest.mark.parametrize("namespace", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_makes_no_namespace(machine: str, namespace: int) -> None:
    assert answer(machine, "clone", namespace | 17) == "EPERM"
    assert answer(machine, "clone", namespace | 17, nested=True) == ALLOWED


@BOTH
def test_clone_makes_threads_and_processes(machine: str) -> None:
    assert {answer(machine, "clone", flags) for flags in (0x3D0F00, 0x1200011, 17, 0x4111)} == {ALLOWED}


@BOTH
@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x5423])
def test_what_types_into_a_terminal_is_refused_whatever_is_in_the_upper_half(machine: str, request_number: int) -> None:
    assert answer(machine, "ioctl", 0, request_number) == "EPERM"
    assert answer(machine, "ioctl", 0, request_number | 0xDEAD_BEEF << 32) == "EPERM"


@BOTH
def test_other_requests_of_a_terminal_work(machine: str) -> None:
    assert {answer(machine, "ioctl", 0, number) for number in (0x5401, 0x5413, 0x5414, 0x540E)} == {ALLOWED}


@BOTH
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_only_four_families_of_sockets_exist(machine: str, call: str) -> None:
    found = {family for family in range(-1, 64) if answer(machine, call, family & 0xFFFF_FFFF, 1, 0) == ALLOWED}
    assert found == {1, 2, 10, 16}
    assert answer(machine, call, 40, 1, 0) == "EAFNOSUPPORT"


@BOTH
def test_a_family_hides_in_no_upper_half(machine: str) -> None:
    assert answer(machine, "socket", 40 | 1 << 32, 1, 0) == "EAFNOSUPPORT"


@BOTH
def test_netlink_is_routes_diagnosis_and_device_events(machine: str) -> None:
    assert {number for number in range(32) if answer(machine, "socket", 16, 3, number) == ALLOWED} == {0, 4, 15}
    assert answer(machine, "socket", 16, 3, 12) == "EPROTONOSUPPORT"


@BOTH
def test_a_personality_that_weakens_memory_is_refused(machine: str) -> None:
    assert answer(machine, "personality", 0x0400000) == "EPERM"
    assert {answer(machine, "personality", value) for value in (0, 8, 0xFFFF_FFFF)} == {ALLOWED}


@BOTH
@pytest.mark.parametrize(
    ("call", "before"), [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1), ("mknod", 1),
                         ("mknodat", 2)],
)  # fmt: skip
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6000])
def test_no_file_becomes_set_id(machine: str, call: str, before: int, mode: int) -> None:
    if call in MACHINES[machine].numbers:
        assert answer(machine, call, *[0] * before, mode) == "EPERM"
        assert answer(machine, call, *[0] * before, 0o1777) == ALLOWED


@BOTH
@pytest.mark.parametrize(("call", "before"), [("open", 1), ("openat", 2)])
def test_no_file_is_made_set_id_and_an_open_that_makes_none_is_not_looked_at(
    machine: str, call: str, before: int
) -> None:
    if call in MACHINES[machine].numbers:
        results = {answer(machine, call, *[0] * before, flags, 0o4755) for flags in (0o101, 0o20200002)}
        assert results == {"EPERM"}
        assert answer(machine, call, *[0] * before, 0, 0xFFFF) == ALLOWED
        assert answer(machine, call, *[0] * before, 0o101, 0o644) == ALLOWED


@BOTH
def test_what_is_newer_than_the_list_does_not_exist(machine: str) -> None:
    known = MACHINES[machine]
    program = assemble("default", False, machine)
    answers = {interpret(program, number, known.audit_arch) for number in (LAST + 1, 600, 0x4000_0027, -1)}
    assert answers == {"ENOSYS"}
    assert interpret(program, LAST, known.audit_arch) == ALLOWED


@BOTH
@pytest.mark.parametrize("arch", [I386, ARM, 0])
def test_another_architecture_is_killed(machine: str, arch: int) -> None:
    assert interpret(assemble("default", True, machine), 0, arch) == KILLED


@BOTH
def test_no_other_call_is_touched(machine: str) -> None:
    """Every number of the list that no table names is allowed, with all bits of all arguments set."""
    known = MACHINES[machine]
    program = assemble("strict", False, machine)
    named = set(known.numbers.values())
    ones = [0xFFFF_FFFF_FFFF_FFFF] * 6
    others = {interpret(program, number, known.audit_arch, *ones) for number in range(LAST + 1) if number not in named}
    assert others == {ALLOWED}


def test_a_machine_without_a_table_gets_no_jail() -> None:
    with pytest.raises(JailUnavailable, match="no jail is made without one") as caught:
        assemble("default", False, "riscv64")
    assert "aarch64" in str(caught.value.fix)
