"""Work in a forked child that stops at every system call, and can be killed at any of them: ptrace(2), Linux only.

A kill has the effect of a crash. At the entry of a call, the call was never made; at its exit, it was made and nothing more.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
_OPTIONS: Final = 0x1 | 0x100000
"""PTRACE_O_TRACESYSGOOD: a stop at a call differs from a signal. PTRACE_O_EXITKILL: no child outlives its tracer."""
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_AT_FDCWD: Final = 2**32 - 100
"""AT_FDCWD in the lower half of a register: a descriptor is an int."""
_STRING_MAX: Final = 4096
"""PATH_MAX"""

# Number: name, place of the file descriptor of its folder (None: the path is relative to the working directory), places of its paths.
_PATHS_X86: Final = {
    2: ("open", None, (0,)), 76: ("truncate", None, (0,)), 82: ("rename", None, (0, 1)), 83: ("mkdir", None, (0,)),
    84: ("rmdir", None, (0,)), 85: ("creat", None, (0,)), 86: ("link", None, (0, 1)), 87: ("unlink", None, (0,)),
    88: ("symlink", None, (1,)), 90: ("chmod", None, (0,)), 257: ("openat", 0, (1,)), 258: ("mkdirat", 0, (1,)),
    263: ("unlinkat", 0, (1,)), 264: ("renameat", 0, (1, 3)), 268: ("fchmodat", 0, (1,)), 316: ("renameat2", 0, (1, 3)),
}  # fmt: skip
_PATHS_ARM: Final = {
    34: ("mkdirat", 0, (1,)), 35: ("unlinkat", 0, (1,)), 38: ("renameat", 0, (1, 3)), 45: ("truncate", None, (0,)),
    53: ("fchmodat", 0, (1,)), 56: ("openat", 0, (1,)), 276: ("renameat2", 0, (1, 3)),
}  # fmt: skip
_FILES_X86: Final = {1: "write", 18: "pwrite64", 20: "writev", 40: "sendfile", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 91: "fchmod"}
_FILES_ARM: Final = {46: "ftruncate", 52: "fchmod", 64: "write", 66: "writev", 68: "pwrite64", 71: "sendfile", 82: "fsync", 83: "fdatasync"}
_TABLES: Final = {"x86_64": (_PATHS_X86, _FILES_X86), "aarch64": (_PATHS_ARM, _FILES_ARM)}
_OPENS: Final = ("open", "openat", "creat")


class TraceError(Exception):
    """The child did something else than its work."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of the child at the entry or exit of a call.

    Args:
        name: of the call; empty if it names and changes no file.
        at: entry or exit.
        paths: files that the call names, or the file of its descriptor.
        writes: whether it opens a file to write.
        failed: whether it failed; known at the exit only.
    """

    name: str
    at: Literal["entry", "exit"]
    paths: tuple[Path, ...] = ()
    writes: bool = False
    failed: bool = False

    @property
    def changes(self) -> bool:
        """True if the call can change the content of the disk, or how durable it is."""
        return bool(self.name) and (self.writes if self.name in _OPENS else True)


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, with the 56 bytes of `entry` in place of its union."""

    _fields_ = (
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32), ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64), ("words", ctypes.c_uint64 * 7), ("rest", ctypes.c_uint64 * 2),
    )  # fmt: skip


def why_not() -> str | None:
    """Return the reason why no child can be traced here; None if one can."""
    if sys.platform != "linux" or platform.machine() not in _TABLES:
        return f"system calls are traced on Linux on {' and '.join(_TABLES)} only"
    try:
        run_traced(lambda: None, lambda _stop: False)
    except (OSError, TraceError) as error:
        return f"ptrace is not permitted here ({error})"
    return None


def run_traced(work: Callable[[], object], kill_at: Callable[[Stop], bool]) -> bool:
    """Run work in a forked child. The calling process has to have one thread.

    Args:
        work: what the child does.
        kill_at: called at every stop; kills the child if it returns True.

    Returns:
        Whether the work was done, and not killed.

    Raises:
        TraceError: the child failed.
    """
    child = os.fork()
    if child == 0:
        _be_traced(work)
    try:
        _wait_for_mark(child)
        _ptrace(_SETOPTIONS, child, _OPTIONS)
        done = _follow(child, kill_at)
        if done:
            _ptrace(_CONT, child, 0)
            _wait_for_end(child)
        return done
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _be_traced(work: Callable[[], object]) -> None:
    code = 1
    try:
        _ptrace(_TRACEME, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)  # the first mark
        work()
        os.kill(os.getpid(), signal.SIGSTOP)  # the second
        code = 0
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
        traceback.print_exc()
    finally:
        os._exit(code)


def _follow(child: int, kill_at: Callable[[Stop], bool]) -> bool:
    """Follow the child from the first mark to the second, or to the kill."""
    entered, deliver = Stop("", "entry"), 0
    while True:
        _ptrace(_SYSCALL, child, deliver)
        stopped_by, deliver = _wait(child), 0
        if stopped_by == signal.SIGSTOP:
            return True
        if stopped_by != _SYSCALL_STOP:
            deliver = stopped_by
            continue
        stop = entered = _stop(child, entered)
        if kill_at(stop):
            return False


def _stop(child: int, entered: Stop) -> Stop:
    info = _Info()
    _ptrace(_GET_SYSCALL_INFO, child, ctypes.sizeof(info), ctypes.addressof(info))
    if info.op == 2:
        return Stop(entered.name, "exit", entered.paths, entered.writes, failed=bool(info.words[1] & 0xFF))
    number, arguments = info.words[0], info.words[1:7]
    with_paths, with_files = _TABLES[platform.machine()]
    if number in with_files:
        return Stop(with_files[number], "entry", (_open_file(child, arguments[0]),))
    if number not in with_paths:
        return Stop("", "entry")
    name, folder_at, places = with_paths[number]
    paths = tuple(_path(child, arguments[place], None if folder_at is None else arguments[place - 1]) for place in places)
    flags = arguments[places[0] + 1]
    return Stop(name, "entry", paths, writes=name == "creat" or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)))


def _path(child: int, address: int, folder: int | None) -> Path:
    descriptor = os.open(f"/proc/{child}/mem", os.O_RDONLY)
    try:
        text = b""
        while b"\0" not in text and len(text) < _STRING_MAX:  # in small steps: the page after it may not be there
            text += os.pread(descriptor, 64 - (address + len(text)) % 64, address + len(text))
    finally:
        os.close(descriptor)
    name = os.fsdecode(text.partition(b"\0")[0])
    base = f"/proc/{child}/cwd" if folder is None or folder & 0xFFFFFFFF == _AT_FDCWD else f"/proc/{child}/fd/{folder}"
    return Path(name) if name.startswith("/") else Path(base).readlink() / name


def _open_file(child: int, descriptor: int) -> Path:
    try:
        return Path(f"/proc/{child}/fd/{descriptor}").readlink()
    except OSError:
        return Path("closed")


def _wait_for_mark(child: int) -> None:
    if (stopped_by := _wait(child)) != signal.SIGSTOP:
        raise TraceError(f"the child stopped by signal {stopped_by} before its work")


def _wait_for_end(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0:
        raise TraceError(f"the child ended with status {status} after its work")


def _wait(child: int) -> int:
    """Wait until the child stops, and return the signal."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise TraceError(f"the child ended with status {status} in its work")
    return os.WSTOPSIG(status)


def _ptrace(request: int, child: int, data: int, into: int | None = None) -> None:
    """Call ptrace(2). data: a signal or options; for a request with an answer, the size of the memory at `into`."""
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes, library.ptrace.restype = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p), ctypes.c_long
    address, value = (data, into) if into is not None else (0, data)
    if library.ptrace(request, child, address, value) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
