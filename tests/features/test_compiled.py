"""Compiled kernels and their files: whatever is wrong with a file or a folder costs a compilation, never a run."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from features import compiled
from testkit.paths import ROOT

SOURCE = """
from features.compiled import compiled

FACTOR = {factor}

@compiled
def scaled(value):
    return value * FACTOR

@compiled
def summed(values):
    total = 0.0
    for index in range(len(values)):
        total += values[index]
    return total
"""
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Start:
    """A new process as far as kernels are concerned: start(factor) gives the kernel, compiled by nobody yet and with an empty log."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it is known by its second and size, and two starts may share both
    source = tmp_path / "code" / "kernel.py"
    source.parent.mkdir()

    def begin(factor: float = 3.0) -> Any:
        text = SOURCE.format(factor=factor)
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        monkeypatch.setattr(compiled, "_logged", set())
        caplog.clear()
        caplog.set_level(logging.WARNING, "features.compiled")  # whatever commands in this process have asked for
        caplog.set_level(logging.WARNING)
        spec = importlib.util.spec_from_file_location("kernel", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.scaled

    return begin


def kept(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def loaded(kernel: Any) -> int:
    """Return how many compiled forms came from a file."""
    return sum(kernel.stats.cache_hits.values())


def test_the_second_start_loads_what_the_first_has_compiled(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One file for each signature; nothing is logged."""
    for hits in (0, 1):
        kernel = start()
        assert (kernel(2.0), loaded(kernel)) == (6.0, hits)
    assert len(kept(tmp_path)) == 1
    kernel = start()
    assert (kernel(2), loaded(kernel)) == (6.0, 0)
    assert len(kept(tmp_path)) == 2
    assert caplog.text == ""


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "within the digests": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "half written": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "the last byte is missing": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zeros, as after a power cut": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one wrong bit in the machine code": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
        + bytes([path.read_bytes()[path.stat().st_size // 2] ^ 1])
        + path.read_bytes()[path.stat().st_size // 2 + 1 :]
    ),
    "a pickle of something else": lambda path: path.write_bytes(b"\x80\x04N."),
    "a folder": folder,
    "a pipe": pipe,
    "a link to itself": loop,
    "one that others may write": lambda path: path.chmod(0o666),
    "somebody else's": lambda path: os.chown(path, 12345, -1),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_compiled_anew(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """It is logged once, with the file, and the start after it finds a whole one (unless something lies there that is not ours)."""
    if how == "somebody else's" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    start()(2.0)
    [path] = kept(tmp_path)
    DAMAGE[how](path)
    kernel = start()
    assert (kernel(2.0), kernel(2)) == (6.0, 6.0)
    assert loaded(kernel) == 0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in warnings[0].getMessage()
    assert "compiled anew" in warnings[0].getMessage()
    assert len(warnings) == (2 if how == "a folder" else 1)
    kernel = start()
    assert (kernel(2.0), loaded(kernel)) == (6.0, 0 if how == "a folder" else 1)
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.parametrize("size", range(0, 12_000, 397))
def test_every_length_of_a_file_is_survived(start: Start, tmp_path: Path, size: int) -> None:
    """A write that ended anywhere."""
    start()(2.0)
    [path] = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert start()(2.0) == 6.0


def test_code_of_another_source_or_constant_is_not_loaded(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that has been upgraded compiles anew, over the older file, and says nothing about it."""
    assert start(3.0)(2.0) == 6.0
    kernel = start(4.0)
    assert (kernel(2.0), loaded(kernel)) == (8.0, 0)
    assert len(kept(tmp_path)) == 1
    kernel = start(4.0)
    kernel.py_func.__globals__["FACTOR"] = 5.0  # as a constant of another module, whose file is not this kernel's
    assert (kernel(2.0), loaded(kernel)) == (10.0, 0)
    assert caplog.text == ""


CALLER = """
from features.compiled import compiled
from parts_of_it import half

@compiled
def caller(value):
    return 1.0 + half(value)
"""
CALLEE = """
from features.compiled import compiled

DIVISOR = {divisor}

@compiled
def half(value):
    return value / DIVISOR
"""


def test_a_kernel_that_calls_one_of_another_file_follows_that_file(tmp_path: Path) -> None:
    """Numba links the code of the callee into that of the caller, whose own file is the same."""
    (tmp_path / "calls_it.py").write_text(CALLER)
    show = "from calls_it import caller; print(caller(8.0), sum(caller.stats.cache_hits.values()))"
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(compiled.__file__).parents[1])])
    said = []
    for divisor in (2.0, 2.0, 4.0, 4.0):
        text = CALLEE.format(divisor=divisor)
        if not said or text != (tmp_path / "parts_of_it.py").read_text():
            (tmp_path / "parts_of_it.py").write_text(text)
        said.append(subprocess.run([sys.executable, "-c", show], env=env, capture_output=True, text=True, check=True).stdout.split())
    assert said == [["5.0", "0"], ["5.0", "1"], ["3.0", "0"], ["3.0", "1"]]


def test_without_any_folder_code_is_compiled_in_memory(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without a home and a program that is somebody else's. The log says once what to set, and nothing is made where it runs."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user that has no entry
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/proc/nowhere")
    (tmp_path / "code/__pycache__").write_text("in the way")
    kernel = start()
    assert (kernel(2.0), kernel(2)) == (6.0, 6.0)
    [record] = caplog.records
    assert "set NUMBA_CACHE_DIR to a folder that this user can write" in record.getMessage()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]


def test_a_folder_that_disappears_or_a_full_disk_costs_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Code that cannot be written is not saved: it is logged once, with the folder, and no part of a file is left."""
    start()(2.0)
    shutil.rmtree(tmp_path / "cache")
    assert start()(2.0) == 6.0
    assert len(kept(tmp_path)) == 1
    [path] = kept(tmp_path)
    path.unlink()
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        real(path, content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    kernel = start()
    assert (kernel(2.0), kernel(2)) == (6.0, 6.0)
    [record] = caplog.records
    assert f"{path.parent}: compiled code cannot be saved (No space left on device)" in record.getMessage()
    assert kept(tmp_path) == []


def test_nobody_else_may_write_what_is_kept(start: Start, tmp_path: Path) -> None:
    """This holds for any umask of the process."""
    before = os.umask(0)
    try:
        start()(2.0)
    finally:
        os.umask(before)
    [path] = kept(tmp_path)
    assert path.stat().st_mode & 0o022 == 0
    kernel = start()
    assert (kernel(2.0), loaded(kernel)) == (6.0, 1)


def test_half_written_files_of_dead_processes_are_removed(start: Start, tmp_path: Path) -> None:
    """Those of another process that may still be writing are left alone."""
    start()(2.0)
    [path] = kept(tmp_path)
    old, new = (path.with_name(f"{path.name}.{pid}.partial") for pid in (99999998, 99999999))
    for partial in (old, new):
        partial.write_bytes(b"")
    os.utime(old, (0, 0))
    path.unlink()
    assert start()(2.0) == 6.0
    assert kept(tmp_path) == [path, new]


def test_a_file_that_cannot_be_read_is_compiled_anew(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced, which needs only the folder."""
    start()(2.0)

    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        kernel = start()
        assert (kernel(2.0), loaded(kernel)) == (6.0, 0)
    kernel = start()
    assert (kernel(2.0), loaded(kernel)) == (6.0, 1)
    assert len(kept(tmp_path)) == 1


def test_code_is_compiled_in_a_folder_that_has_been_deleted(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon outlives the folder that it was started in, and compiles when a kernel is first needed."""
    kernel = start()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert kernel.py_func.__globals__["summed"](np.arange(4.0)) == 6.0


KERNEL_MODULES = (
    "features.event_time",
    "features.kernels",
    "drift.link.cusum",
    "drift.link.fault_kernels",
    "streams.kafka.records",
    "model.judge.metrics",
)


IDENTITIES = f"""
import importlib
from numba.core.registry import cpu_target
from features.compiled import KernelCache
codegen = cpu_target.target_context.codegen()
for name in {KERNEL_MODULES!r}:
    for kernel in vars(importlib.import_module(name)).values():
        cache = getattr(kernel, "_cache", None)
        if isinstance(cache, KernelCache):
            print(name, *cache._place(cache._chosen(), (), codegen))
"""


def test_what_a_kernel_was_compiled_from_is_the_same_in_every_process() -> None:
    """Else no start would find what the one before it has kept: a constant must not show where it lies in memory."""
    command = [sys.executable, "-c", IDENTITIES]
    said = {subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1
    assert {line.split()[0] for line in said.pop().splitlines()} == set(KERNEL_MODULES)


def test_every_kernel_is_compiled_in_the_same_way() -> None:
    """Numba's own cache ends a process whose cache is damaged."""
    root = ROOT
    found = {
        str(path.relative_to(root))
        for package in ("daemon", "drift", "features", "model", "streams")
        for path in (root / package).rglob("*.py")
        if "njit" in path.read_text(encoding="utf-8")
    }
    assert found == {"features/compiled.py"}
