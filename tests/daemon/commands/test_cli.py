"""The command line: what each command prints, its exit codes, and how it handles signals."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from daemon.state.snapshot import SCHEMA_VERSION
from features.telemetry import COLUMNS
from model.version.metadata import core_name
from testkit import remains
from testkit.paths import ROOT
from testkit.versions import publish
from testkit.waiting import wait_for

Cli = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., subprocess.Popen[str]]
COMMAND = [sys.executable, "-m", "daemon.cli"]
COMMANDS = {
    (): ("run", "replay", "backtest", "demo", "ledger", "simulate", "check-config", "models", "alerts", "keys", "schema"),
    ("run",): ("Consume telemetry from Kafka", "SIGTERM", "--config", "DWCP_CONFIG"),
    ("replay",): ("recorded telemetry", "prequential", "--speed", "--keep", "--merged", "--json"),
    ("demo",): ("about five minutes", "--folder", "--kafka", "--seed"),
    ("simulate",): ("planted events", "--event", "KIND:REGION:HOUR"),
    ("check-config",): ("Check a configuration", "--json"),
    ("schema",): ("telemetry, alerts, asyncapi or config",),
    ("models",): ("list", "show", "rollback", "pin", "unpin", "import", "verify"),
    ("models", "list"): ("the live one is marked", "--json"),
    ("models", "show"): ("manifest",),
    ("models", "rollback"): ("Make an older version live again",),
    ("models", "pin"): ("Keep a version live",),
    ("models", "unpin"): ("Let trainings start",),
    ("models", "import"): ("trained by hand",),
    ("models", "verify"): ("Exit code 1", "--public-key"),
    ("alerts",): ("follow", "explain"),
    ("alerts", "follow"): ("as they come", "--once", "--new", "--json"),
    ("alerts", "explain"): ("training buffer", "--html", "--file"),
    ("keys",): ("generate",),
    ("keys", "generate"): ("never replaced", "--folder"),
}
CODES = ["0 done", "1 failed", "2 wrong usage", "3 invalid configuration", "4 the state directory", "5 the source"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(cli: Cli, command: tuple[str, ...]) -> None:
    """Names what the command does and its options. The exit codes are documented where an author of scripts looks for them."""
    code, out, _ = cli(*command, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0
    for words in COMMANDS[command]:
        assert words in text
    assert all(words in text for words in CODES)


def test_wrong_usage(cli: Cli) -> None:
    """An unknown command, a missing argument and an unknown kind of schema are exit code 2, with the possible values."""
    assert cli("fly")[0] == cli("replay")[0] == cli("simulate", "x", "--hours", "soon")[0] == 2
    code, _, err = cli("schema", "nothing")
    assert code == 2
    assert "'nothing' is not a document; use one of telemetry, alerts, asyncapi, config" in " ".join(err.replace("│", " ").split())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A registry with two versions, the second one live."""
    publish(tmp_path, "v20260101_000000")
    publish(tmp_path, "v20260102_000000", seed=1)
    return tmp_path / "models"


def test_models_list(cli: Cli, models: Path) -> None:
    """All versions, oldest first, for a person and for a program."""
    code, out, _ = cli("models", "list", "--models", models, "--json")
    assert code == 0
    assert [(row["version"], row["live"], row["reason"]) for row in json.loads(out)] == [
        ("v20260101_000000", False, "test"),
        ("v20260102_000000", True, "test"),
    ]
    code, out, _ = cli("models", "list", "--models", models)
    assert code == 0
    assert [("●" in line) for line in out.splitlines() if "v2026" in line] == [False, True]


def test_what_a_document_says_does_not_steer_the_terminal(cli: Cli, models: Path) -> None:
    """Escapes and marks of direction in a manifest or an error are shown as U+FFFD, and markup is text."""
    path = models / "v20260101_000000/MANIFEST.json"
    document = json.loads(path.read_text())
    hostile = "x\x1b[31mRED\x9b\u202e[bold]"
    path.write_text(json.dumps(document | {"reason": hostile}))
    _, out, err = cli("models", "list", "--models", models)
    assert "x\ufffd[31mRED\ufffd\ufffd[bold]" in out
    path.write_text(json.dumps(document | {"files": {hostile: {"sha256": "0", "bytes": 1}}}))
    said = [cli("models", *command, "--models", models) for command in (["verify"], ["rollback", "v20260101_000000"], ["show", hostile])]
    assert all(code == 1 for code, _, _ in said)
    assert not any(mark in text for texts in ((0, out, err), *said) for text in texts[1:] for mark in "\x1b\x9b\u202e")


def test_models_list_with_a_damaged_version(cli: Cli, models: Path) -> None:
    """It is in the list, with its problem."""
    (models / "v20260101_000000/MANIFEST.json").write_text("{")
    code, out, _ = cli("models", "list", "--models", models, "--json")
    assert code == 0
    assert [bool(row.get("problem")) for row in json.loads(out)] == [True, False]


def broken_current(models: Path, how: str) -> None:
    (models / "CURRENT").unlink()
    if how == "a folder":
        (models / "CURRENT").mkdir()
    else:
        (models / "CURRENT").write_bytes({"garbage": b"\x00\xff[red]", "another version": b"v20270101_000000\n", "empty": b""}[how])


@pytest.mark.parametrize("how", ["garbage", "a folder", "another version", "empty"])
def test_a_broken_current(cli: Cli, models: Path, how: str) -> None:
    """The versions are listed and shown all the same. The problem of CURRENT is printed with what to do, and it is not a success."""
    broken_current(models, how)
    for arguments in (("list",), ("list", "--json"), ("verify",), ("verify", "v20260101_000000")):
        code, out, err = cli("models", *arguments, "--models", models)
        assert code == 1
        assert "v20260101_000000" in out
        assert "CURRENT" in out + err
        assert "dwcp-learner models rollback VERSION" in out + err
    code, out, _ = cli("models", "show", "v20260101_000000", "--models", models)
    assert (code, json.loads(out)["live"]) == (0, False)
    code, _, err = cli("models", "rollback", "--models", models)
    assert code == 1
    assert "models rollback VERSION" in err
    code, _, err = cli("models", "rollback", "v20260102_000000", "--models", models)
    if how == "a folder":
        assert code == 1
        assert "CURRENT is a folder, so nothing can be made live; remove it" in err
        (models / "CURRENT").rmdir()
        code, _, _ = cli("models", "rollback", "v20260102_000000", "--models", models)
    assert code == 0
    assert cli("models", "verify", "--models", models)[0] == 0


def test_models_show_of_a_damaged_version(cli: Cli, models: Path) -> None:
    """It is not a success, and names what to look at."""
    (models / "v20260101_000000/MANIFEST.json").write_text("{")
    code, out, err = cli("models", "show", "v20260101_000000", "--models", models)
    assert code == 1
    assert "MANIFEST.json is not a JSON document" in json.loads(out)["problem"]
    assert "models verify v20260101_000000" in err


@pytest.mark.parametrize("command", ["verify", "show", "rollback"])
def test_only_names_of_versions_are_taken(cli: Cli, models: Path, tmp_path: Path, command: str) -> None:
    """Nothing outside the folder is read, and a missing version is reported as missing, not as damaged."""
    shutil.copytree(models / "v20260101_000000", tmp_path / "v20260101_000000")
    for name in ("../v20260101_000000", tmp_path / "v20260101_000000", "refused", ".", "v20260109_000000"):
        code, out, err = cli("models", command, name, "--models", models)
        assert code == 1
        assert f"there is no version '{name}'" in err
        assert out == ""


def test_a_models_folder_without_a_version(cli: Cli, tmp_path: Path) -> None:
    """Nothing was verified, which is not a success. A rollback has no target."""
    (tmp_path / "models").mkdir()
    code, _, err = cli("models", "verify", "--models", tmp_path / "models")
    assert code == 1
    assert "there is no version to verify" in err
    code, _, err = cli("models", "rollback", "--models", tmp_path / "models")
    assert code == 1
    assert "there is no version in" in err
    assert "None" not in err


def test_rollback_without_current(cli: Cli, models: Path) -> None:
    """Nothing is live, so there is no version before it: the possible ones are shown."""
    (models / "CURRENT").unlink()
    code, _, err = cli("models", "rollback", "--models", models)
    assert code == 1
    assert "name one of v20260101_000000, v20260102_000000" in err


def test_models_show(cli: Cli, models: Path) -> None:
    """The manifest of one version. An unknown one is exit code 1, with where to look."""
    code, out, _ = cli("models", "show", "v20260101_000000", "--models", models)
    assert json.loads(out)["encoder"] == "lstm"
    assert code == 0
    assert core_name("v20260101_000000") in json.dumps(json.loads(out)["files"])
    code, _, err = cli("models", "show", "v20260103_000000", "--models", models)
    assert code == 1
    assert "there is no version 'v20260103_000000'" in err
    assert "models list" in err


def test_models_rollback(cli: Cli, models: Path) -> None:
    """To the version before, or to a named one. If there is none before, CURRENT stays and the exit code is 1."""
    assert cli("models", "rollback", "--models", models)[:2] == (0, "v20260101_000000\n")
    assert (models / "CURRENT").read_text() == "v20260101_000000\n"
    code, _, err = cli("models", "rollback", "--models", models)
    assert code == 1
    assert "no version before v20260101_000000" in err
    assert cli("models", "rollback", "v20260102_000000", "--models", models)[:2] == (0, "v20260102_000000\n")
    assert cli("models", "rollback", "v20260109_000000", "--models", models)[0] == 1
    assert (models / "CURRENT").read_text() == "v20260102_000000\n"


def test_models_verify(cli: Cli, models: Path) -> None:
    """All sound, or exit code 1 with the problems by version. A damaged one cannot be made live either."""
    assert cli("models", "verify", "--models", models)[0] == 0
    graph = models / "v20260101_000000" / core_name("v20260101_000000")
    graph.write_bytes(graph.read_bytes()[:-1])
    code, out, _ = cli("models", "verify", "--models", models, "--json")
    problems = json.loads(out)
    assert code == 1
    assert problems["v20260102_000000"] == []
    assert core_name("v20260101_000000") in " ".join(problems["v20260101_000000"])
    assert cli("models", "verify", "v20260102_000000", "--models", models)[0] == 0
    code, _, err = cli("models", "rollback", "--models", models)
    assert code == 1
    assert "cannot be made live" in err


def test_verify_an_unknown_version(cli: Cli, models: Path) -> None:
    """It is not called sound, and named."""
    code, out, err = cli("models", "verify", "v20260109_000000", "--models", models)
    assert code == 1
    assert "v20260109_000000" in out + err


def test_no_models_yet(cli: Cli, tmp_path: Path) -> None:
    """The message names when the folder appears."""
    code, _, err = cli("models", "list", "--models", tmp_path / "[models]")
    assert code == 1
    assert f"{tmp_path}/[models]: there is no models folder; it appears with the first version" in err


def test_simulate(cli: Cli, tmp_path: Path) -> None:
    """Telemetry of the 22 columns beside the truth about the planted events. The same seed makes the same bytes."""
    arguments = ("--links-per-region", 2, "--hours", 0.5, "--event", "reroute:eu-west-1:0.25:0.5:4")
    code, out, _ = cli("simulate", tmp_path / "a", *arguments)
    assert code == 0
    written = Path(out.strip())
    rows = list(csv.DictReader(written.open()))
    assert tuple(rows[0]) == COLUMNS
    assert 200 < len(rows) < 260  # 8 links, 30 minutes, a few records missing, late or twice
    (event,) = json.loads((tmp_path / "a/ground_truth.json").read_text())["events"]
    assert (event["kind"], event["region"], len(event["links"])) == ("reroute", "eu-west-1", 1)
    again = Path(cli("simulate", tmp_path / "b", *arguments)[1].strip())
    assert again.read_bytes() == written.read_bytes()
    as_json = Path(cli("simulate", tmp_path / "c", *arguments, "--format", "ndjson")[1].strip())
    assert len(as_json.read_text().splitlines()) == len(rows)


def words(err: str) -> str:
    """Return a message without the box around it."""
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--event", "reroute"), "is not KIND:REGION:HOUR[:SHARE[:SIZE_SD]]"),
        (("--event", "bogus"), "is not KIND:REGION:HOUR[:SHARE[:SIZE_SD]]"),
        (("--event", "quake:eu-west-1:1"), "kind 'quake' is unknown: use one of step, ramp, variance, loss_burst, reroute"),
        (("--event", "step:atlantis:1"), "an event is planted in region 'atlantis': the fleet has us-east-1"),
        (("--event", "step:eu-west-1:1:2"), "a share above 0, at most 1"),
        (("--hours", "1", "--event", "step:eu-west-1:500"), "hour 500 is not within the 1 hours of the run"),
        (("--hours", "1", "--event", "step:eu-west-1:1"), "hour 1 is not within the 1 hours of the run"),
        (("--event", "step:eu-west-1:nan"), "hour nan is not within"),
        (("--format", "parquet"), "csv or ndjson"),
        (("--hours", "1000000"), "records from the future would be refused"),
        (("--hours", "1e9"), "records from the future would be refused"),
        (("--hours", "nan"), "--hours"),
        (("--interval-s", "inf"), "interval_s is inf"),
        (("--seed", "-5"), "--seed"),
    ],
)
def test_simulate_refuses(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage, exit code 2: the message has the right values, and nothing is written."""
    code, _, err = cli("simulate", tmp_path / "a", *arguments)
    assert code == 2
    assert message in words(err)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulate", "FILE"), "is a file"),
        (("demo", "--folder", "FILE"), "'--folder'"),
        (("demo", "--seed", "-1"), "'--seed'"),
        (("demo", "--kafka", "http://x"), "--kafka: bootstrap_servers: 'http://x' is not host:port"),
        (("replay", "FILE", "--speed", "inf"), "--speed: inf is not a multiple of recorded time"),
        (("replay", "FILE", "--speed", "0"), "'--speed'"),
        (("replay", "FILE", "--keep", "FILE"), "'--keep'"),
    ],
)
def test_wrong_usage_names_the_flag(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2 and nothing is done. The file in the place of a folder is still there."""
    Path("file.csv").write_text("x")
    code, _, err = cli(*("file.csv" if one == "FILE" else one for one in arguments))
    assert code == 2
    assert message in words(err)
    assert Path("file.csv").read_text() == "x"
    assert [path.name for path in Path().iterdir()] == ["file.csv"]


def test_simulate_into_a_folder_that_cannot_be(cli: Cli) -> None:
    """The message names the folder and what to do."""
    Path("file").write_text("x")
    code, _, err = cli("simulate", "file/x", "--hours", 1)
    assert code == 1
    assert "file/x: cannot be written (Not a directory); name another folder" in err


def test_schema(cli: Cli) -> None:
    """Three documents, each valid JSON of its kind."""
    code, out, _ = cli("schema")
    telemetry = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(telemetry)
    assert code == 0
    assert set(COLUMNS) <= set(telemetry["properties"])
    assert json.loads(cli("schema", "asyncapi")[1])["asyncapi"].startswith("3.")
    assert "kafka" in json.loads(cli("schema", "config")[1])["properties"]


def test_check_config(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows the result of file, environment and defaults, but no password, wherever it was set."""
    path = tmp_path / "c.toml"
    path.write_text(
        "[kafka]\ntopic = 'mine'\n[kafka.options]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'\n"
        "sasl_plain_username = 'dwcp'\nsasl_plain_password = 'hunter2'\n"
    )
    monkeypatch.setenv("DWCP_KAFKA__OPTIONS__SSL_PASSWORD", "hunter3")
    for arguments in (("--json",), ()):
        code, out, err = cli("check-config", "--config", path, *arguments)
        assert code == 0
        assert "mine" in out
        assert "hunter" not in out + err
    shown = json.loads(cli("check-config", "--config", path, "--json")[1])
    assert shown["kafka"]["options"]["ssl_password"] == shown["kafka"]["options"]["sasl_plain_password"] == "***"
    assert shown["training"]["rows_min"] == 20_000
    monkeypatch.setenv("DWCP_CONFIG", str(path))
    assert json.loads(cli("check-config", "--json")[1])["kafka"]["topic"] == "mine"


def test_exit_code_of_an_invalid_configuration(cli: Cli, tmp_path: Path) -> None:
    """3, and the message as it is, with its brackets."""
    path = tmp_path / "c.toml"
    path.write_text("[kafak]\ntopic = 'x'\n")
    for command in (("check-config",), ("run",), ("replay", path)):
        code, _, err = cli(*command, "--config", path)
        assert code == 3
        assert "kafak: there is no such setting; did you mean kafka?" in err
        assert "dwcp-learner schema config" in err


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of 12 links."""
    folder = tmp_path_factory.mktemp("recording")
    made = [*COMMAND, "simulate", str(folder), "--links-per-region", "3", "--hours", "2"]
    return Path(subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip())


def test_replay(cli: Cli, recording: Path, tmp_path: Path) -> None:
    """It has the outcome of each record and the measured errors; a second replay continues a kept folder, and nothing is read twice."""
    arguments = ("replay", recording, "--no-train", "--keep", tmp_path / "kept", "--json")
    code, out, _ = cli(*arguments)
    report = json.loads(out)
    rows = len(recording.read_text().splitlines()) - 1
    assert code == 0
    assert report["links"] == 12
    assert report["records"]["consumed"] == rows
    assert sum(report["records"][outcome] for outcome in ("accepted", "rejected", "duplicate", "late")) == rows
    for metric, missing in report["missing"].items():
        assert missing + report["measured"][metric] == report["records"]["accepted"]
    assert report["versions"] == []
    assert (report["interrupted"], report["already_replayed"], report["rejections"]) == (None, False, {})
    again = json.loads(cli(*arguments)[1])
    assert (again["records"]["consumed"], again["links"], again["already_replayed"]) == (0, 12, True)
    assert f"already replayed: {tmp_path / 'kept'} has all of its records" in cli(*arguments[:-1])[1]
    assert json.loads(cli("replay", recording, "--no-train", "--merged", "--json")[1])["links"] == 1


def test_replay_for_a_person(cli: Cli, recording: Path) -> None:
    """A line of counts and a table with every target on standard output, progress on standard error.

    Without a version there are no errors to show, and the measured values are shown.
    """
    code, out, _ = cli("replay", recording, "--no-train")
    assert code == 0
    assert "accepted" in out
    for target in ("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms"):
        assert target in out


def test_replay_of_standard_input(recording: Path) -> None:
    """It reads a pipe, as a program would feed it."""
    with recording.open("rb") as piped:
        made = subprocess.run([*COMMAND, "replay", "-", "--no-train", "--json"], stdin=piped, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["links"] == 12


def test_state_of_a_newer_release_is_exit_code_4(cli: Cli, recording: Path, tmp_path: Path) -> None:
    """The message has what to do."""
    arguments = ("replay", recording, "--no-train", "--keep", tmp_path / "kept")
    assert cli(*arguments)[0] == 0
    newest, _ = remains.newest(tmp_path / "kept/state")
    manifest = json.loads((newest / "MANIFEST.json").read_bytes())
    (newest / "MANIFEST.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    code, _, err = cli(*arguments)
    assert code == 4
    versions = f"(state version 99, this one reads {SCHEMA_VERSION})"
    assert f"written by a newer release {versions}; install that release, or start with another" in err


def started(spawn: Spawn, arguments: list[object], until: str = "") -> subprocess.Popen[str]:
    """A process that has printed some text."""
    process = spawn([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    printed = ""
    while until not in printed:
        read = os.read(process.stdout.fileno(), 1 << 16).decode(errors="replace")
        assert read, f"ended without {until!r}: {printed}"
        printed += read
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_stream(spawn: Spawn, recording: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The replay ends with a checkpoint of what it has read, and a report."""
    config = tmp_path / "c.toml"
    config.write_text("[state]\ncheckpoint_interval_s = 0.1\n")
    arguments = ["replay", recording, "--no-train", "--speed", "60", "--config", config, "--keep", tmp_path / "kept"]
    process = started(spawn, arguments)
    checkpoints = tmp_path / "kept/state/checkpoints"
    wait_for(lambda: list(checkpoints.glob("0*")), "a checkpoint", alive=lambda: process.poll() is None)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 128 + number
    assert f"interrupted by {number.name}: the following covers a part of the recording" in out
    assert "accepted" in out
    _, manifest = remains.newest(tmp_path / "kept/state")
    rows = len(recording.read_text().splitlines()) - 1
    assert 0 < (manifest.parts[0].offset or 0) < rows


def test_sigterm_in_the_middle_of_a_training(spawn: Spawn, recording: Path, tmp_path: Path) -> None:
    """The child ends with the daemon. The streamed records are in the checkpoint."""
    config = tmp_path / "c.toml"
    config.write_text("[training.expert]\nwindows_min = 1\ngate_windows_min = 1\n")
    process = started(spawn, ["replay", recording, "--config", config, "--keep", tmp_path / "kept"], "(first)")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert "interrupted by SIGTERM" in out
    assert process.returncode == 143
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    _, manifest = remains.newest(tmp_path / "kept/state")
    assert (manifest.parts[0].offset or 0) > 0


def test_replay_on_a_disk_that_is_full(recording: Path, tmp_path: Path) -> None:
    """The state is not kept: the report is printed, and the exit code shows it (here, no file may be larger than 20 kB)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [*COMMAND, "replay", str(recording), "--no-train", "--keep", str(tmp_path / "kept")]
    made = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert made.returncode == 4, made.stderr
    assert "the state was not written" in made.stdout
    assert "the state of this replay is not kept" in words(made.stderr)
    assert "free space there, and replay again" in words(made.stderr)
    assert "Traceback" not in made.stderr


def test_each_thing_is_told_once(cli: Cli, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is a line for a person, or an event of the log if no lines are shown. Without training nothing waits for rows."""
    config = tmp_path / "c.toml"
    config.write_text("[training.expert]\nwindows_min = 1_000_000\n[log]\nformat = 'json'\n")
    monkeypatch.setattr("daemon.commands.replay.POLLS_MIN", 1)  # one training is enough
    _, _, err = cli("replay", recording, "--config", config)
    assert err.count("refused v") >= 1
    assert "model_refused" not in err
    _, _, err = cli("replay", recording, "--config", config, "--json")
    assert err.count("model_refused") >= 1
    assert "refused v" not in err
    assert "4,611,686" not in cli("replay", recording, "--no-train")[2]


HANGING = """
import sys, threading
from types import SimpleNamespace
import daemon.wiring
from daemon.cli import main
from daemon.errors import EventsError
from streams.source import SourceError

def run():
    threading.Thread(target=threading.Event().wait).start()
    {end}

made = SimpleNamespace(loop=SimpleNamespace(stop=None), run=run, hangs=True)
daemon.wiring.build, daemon.wiring.kafka_source = lambda *_: made, lambda *_: None
sys.argv = ["dwcp-learner", "run"]
main()
"""


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("raise SourceError('the topic is gone')", 5, "error: the topic is gone\n"),
        ("raise EventsError('no [broker]')", 5, "error: no [broker]\n"),
        ("raise OSError(28, 'No space left')", 1, "error: OSError: [Errno 28] No space left"),
        ("pass", 4, ""),
    ],
)
def test_a_thread_that_hangs_does_not_hold_up_the_end(end: str, code: int, message: str) -> None:
    """The error is printed with its exit code, and nobody waits for a disk that does not answer."""
    command = [sys.executable, "-c", HANGING.format(end=end)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr[: len(message)], len(done.stderr.splitlines())) == (code, message, min(1, len(message)))
