"""Exceptions as a person sees them: one line with the type and what to do, and a traceback only on request."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config.load import ConfigError
from daemon.errors import DaemonError, StateError
from daemon.failures import describe
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.sink import SinkError
from streams.source import SourceError
from testkit.paths import ROOT

Cli = Callable[..., tuple[int, str, str]]
FORESEEN = {
    ConfigError("no [such] key"): 3,
    DaemonError("no folder"): 1,
    StateError("no state"): 4,
    SourceError("no topic"): 5,
    SinkError("no broker"): 5,
}
UNFORESEEN = [
    EOFError("Ran out of input"), EOFError(), BrokenPipeError(32, "Broken pipe"), KeyError("x"), MemoryError(), RecursionError("too deep"),
    OSError(28, "No space left on device", "/some/[file]"), UnicodeEncodeError("latin-1", "\u6771", 0, 1, "not in range"), AssertionError(),
    RuntimeError("two\nlines"), NotImplementedError(), StopIteration(), ImportError("no module"), ValueError(), ZeroDivisionError("[red]"),
]  # fmt: skip


def raising(error: BaseException) -> Callable[..., None]:
    def write_simulation(*_arguments: object) -> None:
        raise error

    return write_simulation


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: f"{type(error).__name__} {error}")
def test_an_exception_that_nobody_foresaw(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Exit code 1, and one line with its type, its text, its place and how to see its traceback."""
    monkeypatch.setattr("daemon.commands.simulate.write_simulation", raising(error))
    code, out, err = cli("simulate", "folder")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {type(error).__name__}: ")
    assert " ".join(str(error.strerror if isinstance(error, OSError) else error).split()) in err
    assert "/some/[file]: No space" in err or getattr(error, "filename", None) is None
    assert "daemon/cli.py:" in err
    assert "DWCP_LOG__LEVEL=debug" in err
    monkeypatch.setenv("DWCP_LOG__LEVEL", "debug")
    code, _, err = cli("simulate", "folder")
    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
    assert "in write_simulation" in err
    assert err.splitlines()[-1].startswith(f"error: {type(error).__name__}: ")


@pytest.mark.parametrize("error", FORESEEN, ids=lambda error: type(error).__name__)
def test_an_exception_whose_message_says_all(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Only its message is printed, with its exit code."""
    monkeypatch.setattr("daemon.commands.simulate.write_simulation", raising(error))
    assert cli("simulate", "folder") == (FORESEEN[error], "", f"error: {error}\n")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(7), 7)])
def test_an_end_that_was_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    """Nothing is printed."""
    monkeypatch.setattr("daemon.commands.simulate.write_simulation", raising(error))
    assert cli("simulate", "folder") == (code, "", "")


def test_the_words_of_our_own_value_errors_are_enough() -> None:
    """Their messages are written for a person; those of a library are not."""
    with pytest.raises(ValueError, match="bootstrap_servers") as ours:
        KafkaOptions.from_mapping({"bootstrap_servers": "no port:x"})
    assert describe(ours.value) == str(ours.value)
    with pytest.raises(ValueError, match="invalid literal") as foreign:
        marshal.loads(marshal.dumps(int("x")))
    assert describe(foreign.value).startswith("ValueError: invalid literal for int")


PROGRAM = """
import sys
sys.path[:0] = {path!r}
from daemon.entry import main
def command():
    import fragile
    print("value", fragile.VALUE)
main(command)
"""


@pytest.mark.parametrize("left", [16, 20, 60], ids=lambda left: f"{left} bytes")
def test_compiled_python_that_a_full_disk_has_cut_off(tmp_path: Path, left: int) -> None:
    """Python would end with EOFError at each start: the file is removed, and the command starts again."""
    (tmp_path / "fragile.py").write_text("VALUE = 42\n")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(path=[str(tmp_path), str(ROOT)]))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120, env=environment)

    assert run().stdout == "value 42\n"
    [compiled] = (tmp_path / "__pycache__").glob("fragile.*.pyc")
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[:left])
    done = run()
    assert (done.returncode, done.stdout) == (0, "value 42\n")
    assert f"{compiled} was damaged" in done.stderr
    assert compiled.read_bytes() == whole
