"""What a decoding child may still ask of the kernel once it is ready: memory, its socket, its two files.

A seccomp filter (man 2 seccomp): the system calls on the list are allowed, all others fail with EPERM. No
file can be opened, no socket made, no process started, signalled, traced or read, and no new code mapped:
whoever takes over a decoder holds a processor, bounded memory, and the pictures it is given. It needs no
privilege, only ``no_new_privs``, and works inside containers. Linux on x86-64 and arm64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# Classic BPF, as <linux/bpf_common.h> has it, over <linux/seccomp.h>'s struct seccomp_data.
_LOAD, _RETURN, _IF_EQUAL, _IF_BITS = 0x20, 0x06, 0x15, 0x45
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_PROT_EXEC, _CLONE_THREAD = 4, 0x10000


# By machine: AUDIT_ARCH_* of <linux/audit.h>, the number of seccomp(2), and which column below is its own.
_MACHINES = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}
# The commonest first: the filter is run from its top.
_CALLS = {
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "mprotect": (10, 226),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "setitimer": (38, 103),
    "futex": (202, 98),
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "sched_yield": (24, 124),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "tgkill": (234, 131),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "restart_syscall": (219, 128),
    "clone": (56, 220),
    "clone3": (435, 435),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_getaffinity": (204, 123),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict_system_calls() -> bool:
    """Allow this process, all its threads, only what is on the list, for good; false where that cannot be."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _MACHINES or sys.maxsize < 2**32:
        return False
    audit, seccomp, column = _MACHINES[machine]
    program = _filter(audit, column)
    words = _Program(len(program) // 8, program)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Zero, or why not: an errno as -1, or the id of a thread that could not be brought along.
    return bool(libc.syscall(seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(words)) == 0)


def _filter(audit: int, column: int) -> bytes:
    checks = {
        # Code comes from the libraries that are loaded already, and from nowhere else.
        "mmap": _unless_bits(2, _PROT_EXEC),
        "mprotect": _unless_bits(2, _PROT_EXEC),
        # Threads, no processes. The newer call's flags cannot be seen: the C library falls back to the older.
        "clone": _only_bits(0, _CLONE_THREAD),
        "clone3": _step(_RETURN, _ERRNO | errno.ENOSYS),
        # abort() signals its own process; no other can be signalled.
        "tgkill": _only_value(0, os.getpid()),
    }
    program = _load(_ARCHITECTURE_AT) + _step(_IF_EQUAL, audit, 1, 0) + _step(_RETURN, _KILL)
    program += _load(_NUMBER_AT)
    for name, numbers in _CALLS.items():
        verdict = checks.get(name, _step(_RETURN, _ALLOW))
        program += _step(_IF_EQUAL, numbers[column], 0, len(verdict) // 8) + verdict
    return program + _refuse()


def _unless_bits(argument: int, bits: int) -> bytes:
    return _argument(argument) + _step(_IF_BITS, bits, 1, 0) + _step(_RETURN, _ALLOW) + _refuse()


def _only_bits(argument: int, bits: int) -> bytes:
    return _argument(argument) + _step(_IF_BITS, bits, 0, 1) + _step(_RETURN, _ALLOW) + _refuse()


def _only_value(argument: int, value: int) -> bytes:
    return _argument(argument) + _step(_IF_EQUAL, value, 0, 1) + _step(_RETURN, _ALLOW) + _refuse()


def _refuse() -> bytes:
    return _step(_RETURN, _ERRNO | errno.EPERM)


def _argument(number: int) -> bytes:
    """Load the lower half of an argument; both architectures are little-endian."""
    return _load(_ARGUMENTS_AT + 8 * number)


def _load(offset: int) -> bytes:
    return _step(_LOAD, offset)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; jumps count the instructions passed over."""
    return struct.pack("<HBBI", code, if_true, if_false, value)
