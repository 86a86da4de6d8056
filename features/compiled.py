"""Compiled kernels, and the files that keep their code from one start to the next.

Numba has a cache of its own, which takes its files to be whole and its folder to be writable: an empty file, a full disk or a user without
a home ended the process at its first row. Here a file or folder that is missing, damaged, full or somebody else's costs a compilation and
is logged once. Numba still chooses the folder (NUMBA_CACHE_DIR, else `__pycache__` beside the source, else the user's cache folder).

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
from numba.core.caching import CompileResultCacheImpl, InTreeCacheLocator, NullCache, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.serialize import dumps, loads

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

SUFFIX: Final = ".nbc"
_PARTIAL_SUFFIX: Final = ".partial"
_PARTIAL_MAX_S: Final = 3_600.0
"""Seconds after which a half-written file was left behind by a process that is gone: a write takes milliseconds."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_SET_FOLDER: Final = "set NUMBA_CACHE_DIR to a folder that this user can write"
_told: set[str] = set()


def _file_of(location: Any) -> str:
    return str(location.filename)


numba.core.ir.Loc._get_path = _file_of  # type: ignore[method-assign]
"""Numba's own makes paths relative, which no compilation survives whose working directory has been deleted."""


def compiled(kernel: Kernel) -> Kernel:
    """Return the kernel, compiled at its first call (without the interpreter's lock), or loaded as an earlier process has compiled it."""
    dispatcher: Any = numba.njit(nogil=True)(kernel)
    if dispatcher is not kernel:  # NUMBA_DISABLE_JIT leaves Python functions as they are
        dispatcher._cache = KernelCache(kernel)
    return cast(Kernel, dispatcher)


class KernelCache(NullCache):
    """The compiled forms of one kernel, a file for each signature and processor: two digests (of the rest, of what it was compiled from)
    and the code. Only a file with both is loaded: machine code with one wrong byte would end the process."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        """Touches no file: the folder is chosen at the first call."""
        self._kernel = kernel
        self._impl: CompileResultCacheImpl | None = None

    @property
    def cache_path(self) -> str | None:
        return None if self._impl is None else str(self._impl.locator.get_cache_path())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form that was kept for a signature; None if there is none that can be used."""
        target_context.refresh()
        path = None
        try:
            impl = self._chosen()
            path, identity = self._place(impl, sig, target_context.codegen())
            code = _read(path, identity, Path(self._kernel.__code__.co_filename))
            return None if code is None else impl.rebuild(target_context, loads(code))
        except _NoFolderError:  # logged when the code is to be kept
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the kernel can be compiled anew
            _tell_once("damaged", f"{path}: compiled code cannot be used ({_what(error)}); it is compiled anew and replaced")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled form for the next start, if that is possible."""
        folder = None
        try:
            impl = self._chosen()
            folder = impl.locator.get_cache_path()
            if impl.check_cachable(data):
                path, identity = self._place(impl, sig, data.codegen)
                impl.locator.ensure_cache_path()
                _write(path, identity, dumps(impl.reduce(data)))
        except _NoFolderError as error:
            _tell_once("no folder", str(error))
        except Exception as error:  # noqa: BLE001 - the kernel is compiled, which is all that this run needs
            what = f"compiled code cannot be kept ({_what(error)}), and the next start compiles it anew"
            _tell_once("unwritable", f"{folder}: {what}; free space there, or {_SET_FOLDER}")

    def _chosen(self) -> CompileResultCacheImpl:
        """Raise _NoFolderError if no folder can hold compiled code."""
        if self._impl is None:
            self._impl = _Impl.of(self._kernel)
        return self._impl

    def _place(self, impl: CompileResultCacheImpl, sig: Any, codegen: Any) -> tuple[Path, bytes]:
        """The file of a signature on this processor, and the digest of all that its content follows from."""
        target = repr((sig, codegen.magic_tuple()))
        name = f"{impl.filename_base}.{_digest(target.encode()).hex()[:16]}{SUFFIX}"
        # A constant may come from another module: Numba compiles its value into the code, and looks at this kernel's file alone.
        constants = [
            (key, value) for key, value in sorted(self._kernel.__globals__.items())
            if isinstance(value, (bool, int, float, str, tuple)) and not key.startswith("__")
        ]  # fmt: skip
        source = repr((numba.__version__, impl.locator.get_source_stamp(), target, constants))
        return Path(impl.locator.get_cache_path()) / name, _digest(source.encode())


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
            what = "no folder can be written that could keep compiled code, so that each start compiles it anew, for up to a minute"
            raise _NoFolderError(f"{what}; {_SET_FOLDER}") from error


def _read(path: Path, identity: bytes, source: Path) -> bytes | None:
    """The code in a file; None if there is no such file, or if it was compiled from something else. Raises OSError, ValueError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_uid not in (0, os.geteuid(), source.stat().st_uid):  # loading it runs code of whoever wrote it
        raise ValueError(f"it belongs to user {status.st_uid}")
    if status.st_mode & 0o022:
        raise ValueError("others may write it")
    content = path.read_bytes()
    whole, rest = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if whole != _digest(rest):
        raise ValueError("it is damaged")
    return bytes(rest[_DIGEST_BYTES:]) if rest[:_DIGEST_BYTES] == identity else None


def _write(path: Path, identity: bytes, code: bytes) -> None:
    """Writes a file that a reader finds whole or not at all."""
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


def _tell_once(kind: str, message: str) -> None:
    """Each kind once in a process: what is true of one kernel's file is mostly true of all forty."""
    if kind not in _told:
        _told.add(kind)
        logging.getLogger(__name__).warning(message)
