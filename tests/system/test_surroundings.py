"""Each command in surroundings that nobody has prepared: other encodings, closed or full outputs, no home, no user entry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.paths import ROOT
from testkit.versions import publish

EVENT = (
    '{"specversion":"1.0","id":"1","type":"dwcp.drift.opened","source":"s","subject":"r","time":"2026-01-05T07:10:00Z",'
    '"data":{"incident":"i","summary":"東京: RTT +18 ms","severity":"warning","since_s":1767571200,"opened_s":1767571200,'
    '"signals":[{"signal":"rtt_ms","change":"level","size":18,"size_sigma":2,"links":3}]}}\n'
)
TELEMETRY = "timestamp,node_id,peer_id,rtt_ms,region\n1767571200,a,b,20,東京\n1767571260,a,b,●,東京\n"
VERSION = "v20260101_000000"


@dataclass(frozen=True)
class Command:
    """Arguments, with the words that its output has in any encoding."""

    arguments: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 0


COMMANDS = {
    "help": Command(("--help",), ("Usage", "replay", "check-config", "Exit codes")),
    "help of a command": Command(("replay", "--help"), ("--speed", "--json")),
    "wrong usage": Command(("replay",), (), 2),
    "check-config": Command(("check-config",), ("valid", "topic", "dwcp.telemetry")),
    "schema": Command(("schema", "alerts"), ("Drift alert",)),
    "models list": Command(("models", "list", "--models", "{folder}/models"), (VERSION, "live", "*")),
    "models show": Command(("models", "show", VERSION, "--models", "{folder}/models"), (VERSION, "verdict")),
    "models verify": Command(("models", "verify", "--models", "{folder}/models"), (VERSION, "sound")),
    "alerts follow": Command(("alerts", "follow", "--once", "--file", "{folder}/drift.ndjson"), ("opened", "??: RTT +18 ms")),
    "alerts explain": Command(("alerts", "explain", "i", "--file", "{folder}/drift.ndjson"), ("RTT +18 ms", "level", "no telemetry")),
    "replay": Command(("replay", "{folder}/telemetry.csv", "--no-train"), ("1 accepted, 1 rejected", "rtt_ms")),
    "replay --json": Command(("replay", "{folder}/telemetry.csv", "--no-train", "--json"), ('"accepted": 1',)),
    "simulate": Command(
        ("simulate", "{folder}/simulated", "--links-per-region", "1", "--hours", "0.1"), ("telemetry.csv",),
    ),
    "keys": Command(("keys", "generate", "--folder", "{folder}/keys"), ("Private, mode 0600",)),
}  # fmt: skip
NAMESPACE = ("unshare", "--user", "--map-user=54321")
"""A user that has no entry: what a container with a foreign uid is."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("surroundings")
    publish(made, VERSION)
    (made / "drift.ndjson").write_text(EVENT, "utf-8")
    (made / "telemetry.csv").write_text(TELEMETRY, "utf-8")
    return made


def arguments(command: Command, folder: Path, *prefix: str) -> list[str]:
    shutil.rmtree(folder / "keys", ignore_errors=True)  # which are never replaced
    return [*prefix, sys.executable, "-m", "daemon.cli", *(text.format(folder=folder) for text in command.arguments)]


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("DWCP_")}
    return kept | {"PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1"} | changed


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bare_container(folder: Path, tmp_path: Path, name: str) -> None:
    """Everything is printed, with the right exit code, in a bare container.

    It has no home, user entry, variable or column, an unknown zone and locale, a deleted working directory, no place for compiled code, and
    an encoding without the characters.
    """
    command = COMMANDS[name]
    variables = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "TZ": ":/no/zone", "LC_ALL": "C", "LANGUAGE": "xx",
        "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "0", "LINES": "0", "TERM": "", "NUMBA_CACHE_DIR": "/proc/none",
        "MPLCONFIGDIR": "/proc/none",
    }  # fmt: skip
    (tmp_path / "gone").mkdir()
    inside = ["sh", "-c", 'cd "$0" && rmdir "$0" && umask 077 && exec "$@"', str(tmp_path / "gone")]
    prefix = NAMESPACE if has_namespaces() else ()
    done = subprocess.run(arguments(command, folder, *inside, *prefix), env=variables, capture_output=True, check=False, timeout=300)
    out, err = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert done.returncode == command.code, err
    assert "Traceback" not in out + err
    for words in command.words:
        assert words in out


@pytest.mark.parametrize("name", COMMANDS)
def test_closed_streams(folder: Path, name: str) -> None:
    """Nobody reads, and only the text is lost: the exit code shows the result."""
    command = COMMANDS[name]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run(arguments(command, folder, *closed), env=environment(), check=False, timeout=300, cwd=folder)
    assert done.returncode == command.code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(folder: Path, name: str) -> None:
    """A lost output is not a success: one line reports it. A full disk under standard error changes nothing."""
    command = COMMANDS[name]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            arguments(command, folder), env=environment(), stdout=full, stderr=subprocess.PIPE, check=False, timeout=300, cwd=folder
        )
        err = done.stderr.decode()
        assert done.returncode == (command.code or 1)
        assert "Traceback" not in err
        assert command.code or "error: standard output cannot be written (No space left on device)" in err
        if name in ("models list", "replay", "wrong usage"):
            done = subprocess.run(
                arguments(command, folder), env=environment(), stdout=subprocess.PIPE, stderr=full, check=False, timeout=300, cwd=folder
            )
            assert done.returncode == command.code
            assert bool(done.stdout) == bool(command.words)


@pytest.mark.parametrize("name", ["help", "models list", "alerts follow", "replay"])
def test_a_reader_that_is_gone(folder: Path, name: str) -> None:
    """Nothing is printed, as after `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        arguments(COMMANDS[name], folder), env=environment(), stdout=writing, stderr=subprocess.PIPE, check=False, timeout=300, cwd=folder
    )
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.decode()
    assert "error:" not in done.stderr.decode()
