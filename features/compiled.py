"""Compiled kernels, and the files that keep their code from one start to the next.

Numba has a cache of its own, which expects whole files and a writable folder: an empty file, a full disk or a user without a home ended
the process at its first row. Here a file or folder that is missing, damaged, full or owned by another user costs a compilation and is
logged once. Numba still chooses the folder (NUMBA_CACHE_DIR, else `__pycache__` beside the source, else the user's cache folder).

This is the only module of `features` and `drift` that touches files and the log.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, TypeVar, cast

import numba
import numba.core.ir
import numpy as np
from numba.core.caching import CompileResultCacheImpl, InTreeCacheLocator, NullCache, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.serialize import dumps, loads

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

SUFFIX: Final = ".nbc"
_PARTIAL_SUFFIX: Final = ".partial"
_PARTIAL_MAX_S: Final = 3_600.0
"""Age in seconds from which a half-written file counts as left behind by a dead process: a write takes milliseconds."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_SET_FOLDER: Final = "set NUMBA_CACHE_DIR to a folder that this user can write"
_logged: set[str] = set()


def _file_of(location: Any) -> str:
    return str(location.filename)


numba.core.ir.Loc._get_path = _file_of  # type: ignore[method-assign]
"""Numba's own makes paths relative, and fails if the working directory has been deleted."""


def compiled(kernel: Kernel) -> Kernel:
    """Return the kernel as Numba compiles it at its first call, or loads it as an earlier process compiled it.

    It runs without the interpreter's lock. Numbers, texts and tuples of its module are compiled in as constants.
    """
    dispatcher: Any = numba.njit(nogil=True)(kernel)
    if dispatcher is not kernel:  # NUMBA_DISABLE_JIT leaves Python functions as they are
        dispatcher._cache = KernelCache(kernel)
    return cast(Kernel, dispatcher)


class KernelCache(NullCache):
    """The compiled forms of one kernel, a file for each signature and processor.

    A file holds two digests (of the rest, and of what the code was compiled from) and the code. It is loaded only if both are right:
    machine code with one wrong byte would end the process.

    >>> def double(value):
    ...     return 2 * value
    >>> KernelCache(double).cache_path is None  # chosen at the first call
    True
    """

    def __init__(self, kernel: Callable[..., Any]) -> None:
        """Touch no file: the folder is chosen at the first call.

        Args:
            kernel: The Python function that is compiled.
        """
        self._kernel = kernel
        self._impl: CompileResultCacheImpl | None = None

    @property
    def cache_path(self) -> str | None:
        """Folder of the files; None before the first call."""
        return None if self._impl is None else str(self._impl.locator.get_cache_path())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form for a signature, or None if there is no file that can be used."""
        target_context.refresh()
        path = None
        try:
            impl = self._chosen()
            path, identity = self._place(impl, sig, target_context.codegen())
            code = _read(path, identity, Path(self._kernel.__code__.co_filename))
            return None if code is None else impl.rebuild(target_context, loads(code))
        except _NoFolderError:  # logged when the code is saved
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the kernel can be compiled anew
            _log_once("damaged", f"{path}: compiled code cannot be used ({_what(error)}); it is compiled anew and replaced")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled form for the next start. If that is not possible, log it once."""
        folder = None
        try:
            impl = self._chosen()
            folder = impl.locator.get_cache_path()
            if impl.check_cachable(data):
                path, identity = self._place(impl, sig, data.codegen)
                impl.locator.ensure_cache_path()
                _write(path, identity, dumps(impl.reduce(data)))
        except _NoFolderError as error:
            _log_once("no folder", str(error))
        except Exception as error:  # noqa: BLE001 - the kernel is compiled, which is all that this run needs
            what = f"compiled code cannot be saved ({_what(error)}); the next start compiles it anew"
            _log_once("unwritable", f"{folder}: {what}; free space there, or {_SET_FOLDER}")

    def _chosen(self) -> CompileResultCacheImpl:
        """Return the cache's files. Raise _NoFolderError if no folder can hold compiled code."""
        if self._impl is None:
            self._impl = _Impl.of(self._kernel)
        return self._impl

    def _place(self, impl: CompileResultCacheImpl, sig: Any, codegen: Any) -> tuple[Path, bytes]:
        """Return the file of a signature on this processor, and the digest of everything that its content follows from."""
        target = repr((sig, codegen.magic_tuple()))
        name = f"{impl.filename_base}.{_digest(target.encode()).hex()[:16]}{SUFFIX}"
        source = repr((numba.__version__, impl.locator.get_source_stamp(), target, _compiled_in(self._kernel, frozenset())))
        return Path(impl.locator.get_cache_path()) / name, _digest(source.encode())


def _compiled_in(kernel: Callable[..., Any], seen: frozenset[str]) -> list[tuple[Any, ...]]:
    """Return the values that Numba compiles into a kernel from other files: it checks only the kernel's own file for changes.

    These are the constants that its module has (they may come from another module, such as the table of columns), and the kernels of
    other modules that it may call, with their files and constants.
    """
    found: list[tuple[Any, ...]] = []
    for name, value in sorted(kernel.__globals__.items()):
        if name.startswith("__"):
            continue
        if isinstance(value, bool | int | float | str | tuple | np.generic):
            found.append((name, value))
        elif (callee := getattr(value, "py_func", None)) is not None and callee.__module__ not in seen | {kernel.__module__}:
            status = Path(callee.__code__.co_filename).stat()
            found.append((name, status.st_mtime_ns, status.st_size, _compiled_in(callee, seen | {kernel.__module__})))
    return found


class _NoFolderError(Exception):
    """No folder can hold compiled code."""


class _UserWide(UserWideCacheLocator):
    def ensure_cache_path(self) -> None:
        path: Any = self.get_cache_path()  # type: ignore[no-untyped-call]  # Numba's
        if not Path(path).is_absolute():  # a user without a home: "~" would become a folder of that name
            raise NotADirectoryError(path)
        super().ensure_cache_path()  # type: ignore[no-untyped-call]  # Numba's


class _Impl(CompileResultCacheImpl):
    _locator_classes: list[Any] = [UserProvidedCacheLocator, InTreeCacheLocator, _UserWide]  # noqa: RUF012 - it is Numba's attribute

    @classmethod
    def of(cls, kernel: Callable[..., Any]) -> _Impl:
        try:
            return cls(kernel)
        except Exception as error:
            what = "there is no writable folder for compiled code; each start compiles it anew, for up to a minute"
            raise _NoFolderError(f"{what}; {_SET_FOLDER}") from error


def _read(path: Path, identity: bytes, source: Path) -> bytes | None:
    """Return the code in a file, or None if there is no file or it was compiled from something else. Raises OSError, ValueError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_uid not in (0, os.geteuid(), source.stat().st_uid):  # loading it runs code of whoever wrote it
        raise ValueError(f"it belongs to user {status.st_uid}")
    if status.st_mode & 0o022:
        raise ValueError("other users can write it")
    content = path.read_bytes()
    whole, rest = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if whole != _digest(rest):
        raise ValueError("it is damaged")
    return bytes(rest[_DIGEST_BYTES:]) if rest[:_DIGEST_BYTES] == identity else None


def _write(path: Path, identity: bytes, code: bytes) -> None:
    """Write a file that a reader finds whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL_SUFFIX}")
    try:
        partial.touch(mode=0o644)
        partial.write_bytes(_digest(identity + code) + identity + code)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    written_s = path.stat().st_mtime
    for left in path.parent.glob(f"{path.name}.*{_PARTIAL_SUFFIX}"):
        with suppress(OSError):
            if written_s - left.stat().st_mtime > _PARTIAL_MAX_S:
                left.unlink()


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _what(error: Exception) -> str:
    return str((error.strerror if isinstance(error, OSError) else None) or error or type(error).__name__)


def _log_once(kind: str, message: str) -> None:
    """Log each kind once in a process: a problem of one kernel's file is mostly a problem of all forty."""
    if kind not in _logged:
        _logged.add(kind)
        logging.getLogger(__name__).warning(message)
