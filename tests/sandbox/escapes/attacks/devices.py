"""Devices, terminals and the files of /proc and /sys that reach into the kernel."""

from __future__ import annotations

import fcntl
import os
import termios

from .kernel import NEWNS, attempt, mount, namespaces, read, write
from .table import World, case

DEVICES = (
    *("mem", "kmem", "port", "loop-control", "loop0", "fuse", "kvm", "net/tun", "vsock", "vhost-vsock", "vda", "sda"),
    *("console", "tty0", "tty1", "hwrng", "btrfs-control", "cpu_dma_latency", "snapshot", "uinput", "rtc0", "kmsg"),
)


@case(root=True)
def open_a_device(w: World) -> object:
    return attempt(*(lambda name=name: os.close(os.open(f"/dev/{name}", os.O_RDONLY | 0o4000)) for name in DEVICES))


@case(root=True)
def make_a_device(w: World) -> object:
    path = f"{w.workspace}/zero"
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    with open(path, "rb") as file:
        return file.read(1) == b"\0"


@case(root=True)
def make_a_device_as_root_of_a_namespace(w: World) -> object:
    attempt(lambda: namespaces(NEWNS))
    path = f"{w.workspace}/null"
    attempt(lambda: mount("tmpfs", w.workspace, "tmpfs"))
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    with open(path, "wb") as file:
        return file.write(b"x") == 1


@case()
def write_to_a_terminal_of_the_host(w: World) -> object:
    descriptor = os.open(w.terminal, os.O_RDWR | os.O_NOCTTY)
    return os.write(descriptor, b"escaped\n") > 0


@case(root=True)
def type_into_a_terminal_of_the_host(w: World) -> object:
    descriptor = os.open(w.terminal, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
    return True


@case(root=True, needs="seccomp")
def type_into_a_terminal_of_its_own(w: World) -> object:
    """What is typed into the terminal that a jail was started from runs outside."""
    _, slave = os.openpty()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        os._exit(0 if attempt(lambda: fcntl.ioctl(slave, termios.TIOCSTI, b"x")) else 1)
    return os.waitpid(pid, 0)[1] == 0


@case()
def read_the_kernels_symbols_list(w: World) -> object:
    return "T " in read("/proc/kallsyms", 4096) and os.path.exists(w.secret)


@case(root=True)
def know_the_kernels_addresses(w: World) -> object:
    return any(line.split()[0].strip("0") for line in read("/proc/kallsyms", 4096).splitlines()[:-1])


@case(root=True)
def set_who_handles_core_dumps(w: World) -> object:
    return write("/proc/sys/kernel/core_pattern", read("/proc/sys/kernel/core_pattern"))


@case(root=True)
def set_a_parameter_of_the_kernel(w: World) -> object:
    paths = ("kernel/hostname", "vm/overcommit_memory", "kernel/printk", "fs/pipe-max-size", "net/ipv4/ip_forward")
    return attempt(*(lambda path=f"/proc/sys/{path}": write(path, read(path)) for path in paths))


@case(root=True)
def open_other_files_of_the_kernel_for_writing(w: World) -> object:
    names = ("sysrq-trigger", "sys/kernel/modprobe", "irq/default_smp_affinity", "mtrr", "acpi/wakeup", "scsi/scsi")
    return attempt(*(lambda name=name: os.close(os.open(f"/proc/{name}", os.O_WRONLY)) for name in names))


@case()
def see_the_devices_of_the_host(w: World) -> object:
    return bool(os.listdir("/sys/class")) and os.path.isdir("/sys/devices")


@case(root=True)
def read_the_log_of_the_kernel(w: World) -> object:
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    return len(os.read(descriptor, 8192)) > 0


@case()
def read_the_logs_of_the_host(w: World) -> object:
    return bool(os.listdir("/var/lib")) and bool(os.listdir("/var/log"))
