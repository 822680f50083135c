"""A process without network: what a hostile model file might bring to run has nobody to talk to.

A filter in the kernel (seccomp) refuses this process and its children every socket but those of the own machine's file
system (AF_UNIX), and io_uring, which could open one past the filter. It needs no rights and cannot be taken off again.
Libraries of models are told beside it not to look for a hub.
"""

import ctypes
import errno
import logging
import os
import platform
import struct
import sys

from headrace.config import Settings

_log = logging.getLogger("headrace.isolation")

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRACKERS_ELSEWHERE = ("wandb", "mlflow")

_MACHINES = {"x86_64": (0xC000003E, 41, 317), "aarch64": (0xC00000B7, 198, 277)}
"""Machine to its number in the kernel (linux/audit.h), and those of its calls `socket` and `seccomp`."""
_IO_URING_SETUP = 425
_X32 = 0x40000000  # calls of another form under x86_64's own number, which has no x32 here
_AF_UNIX = 1
_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/filter.h: BPF_LD|W|ABS, JMP|JEQ, JMP|JGE, RET
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # places in struct seccomp_data; both machines are little-endian


def may_reach_others(settings: Settings) -> bool:
    """Whether jobs under these settings need another machine, or may reach any."""
    has_store = bool(settings.store.url) and not settings.store.url.startswith("sqlite")
    has_artifacts = "://" in settings.artifacts.url and not settings.artifacts.url.startswith("file://")
    has_tracker = settings.finetune.tracker in _TRACKERS_ELSEWHERE
    return settings.jobs.network == "allowed" or has_store or has_artifacts or has_tracker


def leave_network() -> bool:
    """Take the network from this process, its threads and its children, for good; whether the kernel did so.

    Where it cannot, that is logged, and the process goes on.
    """
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    problem = _filtered() if sys.platform == "linux" else f"{sys.platform} has no such filter"
    if problem:
        _log.warning("this process keeps its network: %s", problem)
    return not problem


def _filtered() -> str:
    """Install the filter; what prevented it, or nothing."""
    machine = platform.machine()
    if machine not in _MACHINES:
        return f"no filter is known for {machine}"
    number, socket, seccomp = _MACHINES[machine]
    program = _program(number, socket)
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = ctypes.c_ulong(0)
    if libc.prctl(_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), nothing, nothing, nothing):
        return os.strerror(ctypes.get_errno())
    if libc.syscall(ctypes.c_long(seccomp), ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_ALL_THREADS), head):
        return os.strerror(ctypes.get_errno())
    return ""


def _program(machine: int, socket: int) -> bytes:
    """The filter, as the kernel's eight bytes an instruction: operation, steps if true, steps if false, value."""
    refuse = _REFUSE | errno.EACCES
    lines = [
        (_LOAD, 0, 0, _MACHINE),
        (_IF_EQUAL, 0, 6, machine),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 4, 0, _X32),
        (_IF_EQUAL, 3, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 3, socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
