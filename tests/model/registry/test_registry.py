"""The registry: whole or not at all, whatever dies when; and CURRENT, which only ever names a verified version."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from model.registry.versions import REFUSAL_NAME, REFUSED_KEPT, Registry, RegistryError
from model.spec.verdict import Verdict
from model.version.predictor import Predictor
from testkit.paths import ROOT
from testkit.versions import make_version

FIRST, SECOND, THIRD = "v20261123_101500", "v20261123_101501", "v20261124_000000"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with two versions, the second one live."""
    registry = Registry(tmp_path / "models")
    for number, version in enumerate((FIRST, SECOND)):
        registry.publish(make_version(registry.candidate_folder(f"job-{number}"), version, seed=number), version)
    return registry


def test_an_empty_registry_has_no_version(tmp_path: Path) -> None:
    """Before the first publication nothing is live, and nothing has to exist."""
    registry = Registry(tmp_path / "models")
    assert (registry.current(), registry.versions(), registry.refused()) == (None, [], [])


def test_a_published_version_is_live_and_loads(registry: Registry) -> None:
    """After publication CURRENT names the version, its folder is complete, and no candidate is left."""
    assert (registry.current(), registry.versions()) == (SECOND, [FIRST, SECOND])
    assert (registry.root / "CURRENT").read_text() == f"{SECOND}\n"
    assert Predictor.load(registry.folder(SECOND)).version == SECOND
    assert sorted(path.name for path in registry.root.iterdir()) == ["CURRENT", FIRST, SECOND]


def test_what_is_not_whole_is_not_published(registry: Registry) -> None:
    """A candidate with a changed file, of another version, or of a name that exists leaves CURRENT and the versions as they were."""
    candidate = make_version(registry.candidate_folder("job-2"), THIRD)
    with pytest.raises(RegistryError, match="it is version v20261124_000000"):
        registry.publish(candidate, "v20261124_000001")
    with pytest.raises(RegistryError, match="already a version"):
        registry.publish(candidate, FIRST)
    (candidate / "golden.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"golden\.json' is not what was published"):
        registry.publish(candidate, THIRD)
    with pytest.raises(RegistryError, match=r"MANIFEST\.json is missing"):
        registry.publish(registry.candidate_folder("nothing"), THIRD)
    assert (registry.current(), registry.versions()) == (SECOND, [FIRST, SECOND])


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.rename", "model.registry.versions.sync_folder"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_at_any_step_leaves_a_verified_current(registry: Registry, step: str, call: int) -> None:
    """Killed before any fsync or rename of a publication, CURRENT still names a whole version, and the next attempt succeeds."""
    candidate = make_version(registry.candidate_folder("job-2"), THIRD)
    code = f"""
        import os, pathlib
        import model.registry.versions
        from model.registry.versions import Registry
        calls, real = [0], {step}
        def dying(*args):
            calls[0] += 1
            if calls[0] == {call}:
                os._exit(9)
            return real(*args)
        {step} = dying
        Registry(pathlib.Path({str(registry.root)!r})).publish(pathlib.Path({str(candidate)!r}), {THIRD!r})
    """
    code_of = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False).returncode
    assert code_of in (0, 9)  # 0: the step is not called that often
    live = registry.current()
    assert live in (SECOND, THIRD)
    assert Predictor.load(registry.folder(live)).version == live
    registry.recover()
    assert sorted(path.name for path in registry.root.iterdir()) == ["CURRENT", *registry.versions()]
    again = registry.new_version(0.0)
    registry.publish(make_version(registry.candidate_folder("job-3"), again), again)
    assert registry.current() == again


def test_names_are_times_and_always_grow(registry: Registry) -> None:
    """A version is named by its UTC second; where the clock stands still or goes back, a second after the newest ever given."""
    assert registry.new_version(1_795_516_200.9) == "v20261124_103000"
    assert registry.new_version(0.0) == "v20261123_101502"
    refused = make_version(registry.candidate_folder("job-2"), "v20261123_101559")
    registry.refuse(refused, "v20261123_101559", Verdict(False, ("worse",), 1))
    assert registry.new_version(0.0) == "v20261123_101600"
    (registry.root / "v20260230_999999").mkdir()
    assert registry.new_version(0.0) == "v20261123_101600"


def test_refused_candidates_are_kept_with_their_reasons(registry: Registry) -> None:
    """The newest few refused candidates stay with their verdict; they are no versions and never live."""
    for second in range(REFUSED_KEPT + 2):
        version = f"v20261125_00000{second}"
        folder = registry.refuse(make_version(registry.candidate_folder("j"), version), version, Verdict(False, (f"worse by {second}",), 9))
    assert json.loads((folder / REFUSAL_NAME).read_text())["verdict"]["reasons"] == [f"worse by {REFUSED_KEPT + 1}"]
    assert registry.refused() == [f"v20261125_00000{second}" for second in range(2, REFUSED_KEPT + 2)]
    assert (registry.current(), registry.versions()) == (SECOND, [FIRST, SECOND])


@pytest.mark.parametrize(
    ("name", "document"),
    [
        *[
            (name, text)
            for name in ("v99991231_235958", "v99991231_235959", "v29990101_000000")
            for text in (None, "{", '{"version": "%s"}')
        ],
        *[("v20261123_235959", text) for text in (None, "{", '{"version": "v20261123_101500"}')],
    ],
)
def test_what_only_looks_like_a_refused_candidate(registry: Registry, name: str, document: str | None) -> None:
    """It names no version, ends no training, and pushes no candidate out; nor does one of a time to come."""
    for second in range(REFUSED_KEPT + 1):
        junk = registry.root / "refused" / f"{name[:-1]}{(int(name[-1]) + second) % 10}"
        junk.mkdir(parents=True)
        if document is not None:
            (junk / REFUSAL_NAME).write_text(document.replace("%s", junk.name))
    assert (registry.new_version(0.0), registry.refused()) == ("v20261123_101502", [])
    candidate = registry.reserve(0.0)
    candidate.release()
    kept = registry.refuse(make_version(candidate.folder, candidate.version), candidate.version, Verdict(False, ("worse",), 1))
    assert kept.exists()
    assert candidate.version in registry.refused()


def test_rollback_goes_one_back_or_where_it_is_told(registry: Registry) -> None:
    """The default is the version before the live one; a named one may also be later; a version that is not whole cannot be chosen."""
    assert (registry.rollback(), registry.current()) == (FIRST, FIRST)
    with pytest.raises(RegistryError, match="no version before"):
        registry.rollback()
    assert (registry.rollback(SECOND), registry.current()) == (SECOND, SECOND)
    (registry.folder(FIRST) / "golden.json").unlink()
    with pytest.raises(RegistryError, match="missing"):
        registry.rollback()
    for unknown in ("v20990101_000000", "../models", "", "refused"):
        with pytest.raises(RegistryError, match="there is no version"):
            registry.rollback(unknown)
    assert registry.current() == SECOND


def test_prune_never_removes_the_live_version(registry: Registry) -> None:
    """The newest ones and the live one stay, also when the live one is the oldest."""
    registry.publish(make_version(registry.candidate_folder("job-2"), THIRD), THIRD)
    registry.rollback(FIRST)
    assert registry.prune(keep=1) == [SECOND]
    assert (registry.versions(), registry.current()) == ([FIRST, THIRD], FIRST)
    with pytest.raises(ValueError, match="at least 1"):
        registry.prune(keep=0)
    assert sorted(path.name for path in registry.root.iterdir()) == ["CHOICE", "CURRENT", FIRST, THIRD]


def test_recover_removes_what_a_crash_left(registry: Registry) -> None:
    """Candidates that nobody builds, half-removed versions and half-written files go; versions, candidates of others and the rest stay."""
    make_version(registry.candidate_folder("dead"), THIRD)
    alive = registry.reserve(0.0)
    (registry.root / f".removing-{FIRST}").mkdir()
    (registry.root / ".CURRENT.0123456789abcdef").write_text("v2026")
    (registry.root / ".CHOICE.partial").write_text("{")
    (registry.root / "notes").write_text("of a person")
    assert registry.recover().removed == [".CHOICE.partial", ".CURRENT.0123456789abcdef", ".candidate-dead", f".removing-{FIRST}"]
    assert sorted(path.name for path in registry.root.iterdir()) == [alive.folder.name, "CURRENT", "notes", FIRST, SECOND]
    alive.release()
    assert registry.recover().removed == [alive.folder.name], "its builder is gone"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"../../etc", b"v20990101_000000", b"v20261123_101500" * 1_000_000, b"refused"])
def test_a_damaged_current_is_refused(registry: Registry, content: bytes) -> None:
    """Whatever stands in CURRENT, it names a version that is there or an error says how to choose one."""
    (registry.root / "CURRENT").write_bytes(content)
    with pytest.raises(RegistryError, match="dwcp-learner models rollback VERSION"):
        registry.current()
    assert registry.rollback(SECOND) == registry.current()


@pytest.mark.parametrize("job", ["", "../x", "a/b", ".", "..", "a\0", "x" * 101, "-rf"])
def test_job_ids_stay_in_the_registry(tmp_path: Path, job: str) -> None:
    """A job id becomes part of a path, so it is letters, digits and little else."""
    with pytest.raises(ValueError, match="job id"):
        Registry(tmp_path).candidate_folder(job)
