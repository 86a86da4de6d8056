"""A signed version cannot be put back, a pin holds, and everything a person does with versions is reported."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import model.registry.versions as registry_module
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.training.triggers import TrainingFacts, TrainingPolicy, decide_training
from model.registry.choice import CHOICE_NAME, MOST_AHEAD, Choice, is_number, write_choice
from model.registry.importing import import_folder
from model.registry.versions import Registry, RegistryError
from model.version.manifest import IMPORTED, SIGNATURE_NAME, complete_manifest, read_manifest, sign_manifest, verify
from model.version.signing import SIGNING_KEY_NAME, VERIFY_KEY_NAME, SigningKey, VerifyKey, generate
from testkit import rig, scripted, versions
from testkit.versions import make_version

FIRST, SECOND, THIRD = "v20261123_101500", "v20261123_101501", "v20261124_000000"
Cli = Callable[..., tuple[int, str, str]]
Keys = tuple[SigningKey, VerifyKey]


def publish(registry: Registry, version: str, seed: int = 0) -> None:
    registry.root.mkdir(exist_ok=True)
    registry.publish(make_version(registry.candidate_folder("job"), version, seed=seed), version)


@pytest.fixture
def registry(tmp_path: Path, keys: Keys) -> Registry:
    """A registry with two signed versions, the second one live. It is the owner's."""
    registry = Registry(tmp_path / "models", *keys)
    publish(registry, FIRST)
    publish(registry, SECOND, seed=1)
    return registry


def reader(registry: Registry) -> Registry:
    """A reader with the public key that has seen nothing yet."""
    return Registry(registry.root, verify_key=registry.verify_key)


def set_current(registry: Registry, version: str) -> None:
    (registry.root / "CURRENT").write_text(f"{version}\n")


def test_numbers_rise(registry: Registry) -> None:
    """They rise from publication to publication and choice to choice, also within a second and after the clock was ahead once."""
    numbers = [read_manifest(registry.folder(version)).number for version in (FIRST, SECOND)]
    registry.rollback()
    write_choice(registry.root, Choice("unpinned", FIRST, int(time.time()) + 10**6, 0.0), registry.signing_key)
    publish(registry, THIRD)
    numbers.append(read_manifest(registry.folder(THIRD)).number)
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= time.time() - 600
    assert numbers[2] == int(numbers[2]) > time.time() + 10**5


def test_an_older_version_that_is_put_back_is_refused(registry: Registry) -> None:
    """Every reader that has seen the newer one refuses it; a person with the key can go back, and nobody without it."""
    follower = reader(registry)
    assert follower.current() == SECOND
    set_current(registry, FIRST)
    with pytest.raises(RegistryError, match=rf"{FIRST} is older than {SECOND}.*models rollback {FIRST}"):
        follower.current()
    with pytest.raises(RegistryError, match=r"changing the live version needs the signing key; .*models\.signing_key"):
        follower.rollback(FIRST)
    Registry(registry.root).rollback(FIRST)  # without keys, as an intruder might
    with pytest.raises(RegistryError, match="is older than"):
        follower.current()
    problem = follower.live.choice_problem()
    assert problem is not None
    assert "the signature of CHOICE" in problem
    registry.rollback(FIRST)
    assert follower.current() == FIRST
    set_current(registry, SECOND)
    assert follower.current() == FIRST, "a person's pin counts, whatever CURRENT names"


def test_what_a_person_said_once_cannot_be_put_back(registry: Registry) -> None:
    """An old CHOICE with its right signature, together with the CURRENT of then."""
    follower = reader(registry)
    registry.rollback(FIRST)
    said = (registry.root / CHOICE_NAME).read_bytes()
    registry.unpin()
    publish(registry, THIRD)
    assert follower.current() == THIRD
    (registry.root / CHOICE_NAME).write_bytes(said)
    assert follower.current() == THIRD
    set_current(registry, FIRST)
    with pytest.raises(RegistryError, match="is older than"):
        follower.current()


def test_a_copy_under_another_name_is_no_version(registry: Registry) -> None:
    """It is not live, verify says why, and neither names nor rollbacks go by it."""
    copy = registry.root / "v20991231_000000"
    shutil.copytree(registry.folder(FIRST), copy)
    assert verify(copy, registry.verify_key) == [f"it is a copy of version {FIRST} under another name"]
    set_current(registry, copy.name)
    for one in (registry, reader(registry)):
        with pytest.raises(RegistryError, match=f"copy of version {FIRST}"):
            one.current()
    with pytest.raises(RegistryError, match=f"copy of version {FIRST}"):
        Registry(registry.root).trusted_digests(copy.name)
    assert registry.new_version(0.0) == "v20261123_101502"
    assert registry.rollback() == SECOND


def test_versions_of_older_releases_are_in_the_order_of_their_names(registry: Registry) -> None:
    """They have no number. The newer one may follow the older one, not the other way round; what is published next is newer than both."""
    for version in (FIRST, SECOND):
        path = registry.folder(version) / "MANIFEST.json"
        document = json.loads(path.read_text())
        del document["number"]
        path.write_text(json.dumps(document))
        assert registry.signing_key is not None
        sign_manifest(registry.folder(version), registry.signing_key)
    old = Registry(registry.root, registry.signing_key, registry.verify_key)
    set_current(old, FIRST)
    assert old.current() == FIRST
    set_current(old, SECOND)
    assert old.current() == SECOND
    set_current(old, FIRST)
    with pytest.raises(RegistryError, match="is older than"):
        old.current()
    publish(old, THIRD)
    assert old.current() == THIRD
    assert (old.rollback(), old.current()) == (SECOND, SECOND)


def test_two_members_that_publish_at_once(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was numbered first comes last to CURRENT, and leaves it: otherwise who has seen the newer one would refuse it."""
    real, other = registry_module._sync_tree, "v20270101_000000"
    prepared = make_version(tmp_path / "other", other)

    def meanwhile(folder: Path) -> None:
        monkeypatch.setattr(registry_module, "_sync_tree", real)
        real(folder)
        registry.publish(prepared, other)

    monkeypatch.setattr(registry_module, "_sync_tree", meanwhile)
    publish(registry, THIRD)
    assert (registry.current(), registry.published()) == (other, [FIRST, SECOND, THIRD, other])


@pytest.mark.parametrize("signed", [False, True])
def test_nothing_is_published_over_a_pin(registry: Registry, signed: bool) -> None:
    """A rollback pins. What is published meanwhile is there and not live, and cannot be made live by writing CURRENT."""
    one = registry if signed else Registry(registry.root)
    assert (one.rollback(), one.live.pin() is not None) == (FIRST, True)
    publish(one, THIRD)
    assert (one.current(), one.published()) == (FIRST, [FIRST, SECOND, THIRD])
    assert one.prune(1) == [SECOND], "the pinned one stays"
    if signed:
        follower = reader(one)
        assert follower.current() == FIRST
        set_current(one, THIRD)
        assert follower.current() == FIRST
    one.unpin()
    assert (one.current(), one.live.pin()) == (FIRST, None)
    with pytest.raises(RegistryError, match="nothing is pinned"):
        one.unpin()
    publish(one, one.new_version(0.0))
    assert one.current() == one.published()[-1] != THIRD


def test_a_pin_is_not_lifted_without_the_key(registry: Registry, tmp_path: Path) -> None:
    """Neither by deleting CHOICE nor by what is written over it or into CURRENT: what is trained is published and not live."""
    registry.rollback()
    assert registry.current() == FIRST
    for content in (None, b"garbage\n"):
        (registry.root / CHOICE_NAME).unlink()
        if content is not None:
            (registry.root / CHOICE_NAME).write_bytes(content)
        for named in (FIRST, SECOND):
            set_current(registry, named)
            version = registry.new_version(0.0)
            publish(registry, version)
            assert (registry.live.named(), registry.published()[-1], read_manifest(registry.folder(version)).number) == (named, version, 0)
        with pytest.raises(RegistryError, match=f"is older than {FIRST}.*with the signing key"):
            import_folder(registry, make_version(tmp_path / f"trained{content}", "v20270101_000000"))
        registry.rollback(FIRST)
        assert registry.current() == FIRST
    registry.unpin()
    publish(registry, registry.new_version(0.0))
    assert registry.current() == registry.published()[-1]


@pytest.mark.parametrize("content", [None, b"junk\n", b"v20990101_000000\n"])
@pytest.mark.parametrize("signed", [False, True])
def test_a_pin_holds_without_current(registry: Registry, signed: bool, content: bytes | None) -> None:
    """CURRENT is gone or cannot be read: nothing is published over the pin, and its end makes its version live."""
    one = registry if signed else Registry(registry.root)
    one.rollback()
    (one.root / "CURRENT").unlink()
    if content is not None:
        (one.root / "CURRENT").write_bytes(content)
    publish(one, THIRD)
    assert (one.root / "CURRENT").exists() == (content is not None)
    assert content is None or (one.root / "CURRENT").read_bytes() == content
    assert one.live.pin() is not None
    assert (one.unpin(), one.current(), one.live.pin()) == (FIRST, FIRST, None)


def test_a_damaged_current_without_a_pin_is_healed(registry: Registry) -> None:
    """The next publication replaces it, as long as no person has chosen."""
    assert registry.current() == SECOND
    (registry.root / "CURRENT").write_text("junk")
    publish(registry, THIRD)
    assert registry.current() == THIRD


@pytest.mark.parametrize("signed", [False, True])
def test_the_version_before_an_import_is_the_one_to_go_back_to(registry: Registry, tmp_path: Path, signed: bool) -> None:
    """This holds if the imported one has an older name, too; and it is not pruned as an old one."""
    one = registry if signed else Registry(registry.root)
    hand = "v20250101_000000"
    import_folder(one, make_version(tmp_path / "trained", hand, seed=2))
    assert one.in_order() == [FIRST, SECOND, hand]
    assert (one.rollback(), one.current()) == (SECOND, SECOND)
    one.unpin()
    publish(one, THIRD)
    assert one.prune(2) == [FIRST]
    assert (one.rollback(), one.current()) == (hand, hand)


def _damage(folder: Path) -> None:
    (folder / "golden.json").write_text("{}")


@pytest.mark.parametrize("harm", [_damage, lambda folder: (folder / "MANIFEST.json").write_text("{"), shutil.rmtree])
@pytest.mark.parametrize("signed", [False, True])
def test_the_pin_of_a_damaged_version_can_be_ended(registry: Registry, harm: Callable[[Path], object], signed: bool) -> None:
    """Whatever has become of the version: what is trained next is live."""
    one = registry if signed else Registry(registry.root)
    one.pin_version()
    assert one.current() == SECOND
    harm(one.root / SECOND)
    assert one.unpin() == SECOND
    assert one.live.pin() is None
    publish(one, THIRD)
    assert one.current() == THIRD


@pytest.mark.parametrize("number", [2**53, 2**53 - 1, 2**40])
def test_a_number_that_nobody_gave(registry: Registry, number: int) -> None:
    """In CHOICE without a key, or in a manifest, it has no effect; a person's next choice has."""
    one = Registry(registry.root)
    write_choice(one.root, Choice("unpinned", SECOND, number, 0.0), None)
    problem = one.live.choice_problem()
    assert problem is not None
    assert "out of range; it has no effect" in problem
    complete_manifest(one.root / SECOND, number=number)
    assert one.published() == [FIRST]
    assert (one.rollback(FIRST), one.current(), one.live.pin() is not None) == (FIRST, FIRST, True)
    one.unpin()
    publish(one, THIRD)
    assert (one.current(), is_number(read_manifest(one.root / THIRD).number)) == (THIRD, True)


def test_where_no_number_is_left(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last number that can be read: an error that says so, and CURRENT stays. A second later the clock gives one more."""
    now_s = time.time()
    monkeypatch.setattr("model.registry.choice.time.time", lambda: now_s)
    one = Registry(registry.root)
    write_choice(one.root, Choice("unpinned", SECOND, int(now_s) + MOST_AHEAD, 0.0), None)
    with pytest.raises(RegistryError, match="no number is left"):
        one.rollback(FIRST)
    with pytest.raises(RegistryError, match="no number is left"):
        publish(one, THIRD)
    assert (one.current(), one.published()) == (SECOND, [FIRST, SECOND])
    now_s += 1
    assert (one.rollback(FIRST), one.current()) == (FIRST, FIRST)


def test_a_choice_that_does_not_read_back_leaves_current(registry: Registry, keys: Keys, tmp_path: Path) -> None:
    """A signing key that is not the verify key's."""
    other = SigningKey.read(generate(tmp_path / "other")[0])
    with pytest.raises(RegistryError, match=r"signature of CHOICE.*CURRENT is as it was"):
        Registry(registry.root, other, keys[1]).rollback(FIRST)
    assert registry.live.named() == SECOND


def test_what_was_put_back_is_not_pinned_by_default(registry: Registry) -> None:
    """The key must not sign it unless its name is given, whoever has seen the newer one or not."""
    set_current(registry, FIRST)
    owner = Registry(registry.root, registry.signing_key, registry.verify_key)
    with pytest.raises(RegistryError, match=f"{FIRST} is live although {SECOND} was published after it.*name the version"):
        owner.pin_version()
    assert not (registry.root / CHOICE_NAME).exists()
    assert (owner.pin_version(FIRST), owner.pin_version(), owner.current()) == (FIRST, FIRST, FIRST)


def models_of(registry: Registry, folder: Path, reported: list[tuple[str, dict[str, Any]]]) -> Models:
    return Models(registry, Journal(folder / "journal"), Observer(lambda event, fields: reported.append((event, fields))), 0.0)


def test_a_daemon_remembers_over_a_restart(registry: Registry, tmp_path: Path) -> None:
    """What was live once stands in its journal; an older one that is put back while it is stopped is refused, and the one before stays."""
    reported: list[tuple[str, dict[str, Any]]] = []
    assert models_of(registry, tmp_path, reported).follow(now=True) is not None
    set_current(registry, FIRST)
    models = models_of(reader(registry), tmp_path, reported)
    assert models.follow(now=True) is None
    assert (models.current(), models.live and models.live.version) == (SECOND, SECOND)
    assert [fields["problem"].count("is older than") for event, fields in reported if event == "model_unusable"] == [1]
    registry.rollback(FIRST)
    live = models.follow(now=True)
    assert live is not None
    assert (live.version, models.pinned) == (FIRST, FIRST)
    registry.unpin()
    models.follow(now=True)
    assert models.pinned is None
    (registry.root / CHOICE_NAME).unlink()
    again = models_of(reader(registry), tmp_path, reported)
    assert again.follow(now=True) is None
    assert f"the choice that made {FIRST} live" in reported[-1][1]["problem"], (
        "the choice is gone, and with it what allowed the older version"
    )
    assert again.current() == FIRST


def test_a_choice_that_has_no_effect_is_told_once(registry: Registry, tmp_path: Path) -> None:
    """Damaged, or a pipe: the live version stays."""
    (registry.root / CHOICE_NAME).write_bytes(b"garbage\n")
    reported: list[tuple[str, dict[str, Any]]] = []
    models = models_of(registry, tmp_path, reported)
    for _ in range(3):
        models.follow(now=True)
    assert [event for event, _ in reported] == ["choice_ignored", "model_live"]
    assert str(registry.root / CHOICE_NAME) in reported[0][1]["problem"]


def test_no_training_starts_under_a_pin() -> None:
    """Not on a drift nor on the schedule; the reason is for a person."""
    facts = TrainingFacts(False, True, 1000, 1000, True, 1000, None, False)
    policy = TrainingPolicy(1, 1, 1, 0.0)
    assert decide_training(0.0, facts, policy).start
    decision = decide_training(0.0, TrainingFacts(False, True, 1000, 1000, True, 1000, None, False, pinned=True), policy)
    assert (decision.start, "models unpin" in decision.waiting_for) == (False, True)


def test_what_a_person_does_is_announced(tmp_path: Path) -> None:
    """A rollback, its end, and an import while a daemon runs: each once on the models topic, and as an event."""
    versions.publish(tmp_path, rig.FIRST)
    registry = Registry(tmp_path / "models")
    second = "v20270101_000000"
    steps = {
        10: lambda: registry.pin_version(),
        14: lambda: registry.unpin(),
        18: lambda: import_folder(registry, make_version(tmp_path / "trained", second, seed=1)),
        24: lambda: registry.rollback(rig.FIRST),
    }

    def step(source: Any) -> None:
        if source.polls in steps:
            steps[source.polls]()

    made = rig.daemon_over(scripted.ScriptedSource(seed=1, on_poll=step), rig.config(tmp_path))
    made.run()
    lines = [json.loads(line) for line in (tmp_path / "state/events/models.ndjson").read_text().splitlines()]
    assert [(line["type"].removeprefix("dwcp.model."), line["subject"]) for line in lines] == [
        ("published", rig.FIRST), ("pinned", rig.FIRST), ("unpinned", rig.FIRST), ("published", second), ("rolled_back", rig.FIRST),
    ]  # fmt: skip
    assert [line["data"].get("pinned", line["data"].get("live")) for line in lines] == [True, True, False, True, True]
    assert len({line["id"] for line in lines}) == len(lines)
    assert made.parts.models.live.version == rig.FIRST
    again = rig.daemon_over(scripted.ScriptedSource(seed=1, records={}), rig.config(tmp_path))
    again.run()
    assert len((tmp_path / "state/events/models.ndjson").read_text().splitlines()) == len(lines), "a restart says none of it again"


def test_import(registry: Registry, tmp_path: Path) -> None:
    """A folder that was trained elsewhere becomes a signed, live version; the folder stays as it is, and what is wrong is named."""
    folder = make_version(tmp_path / "trained", THIRD, seed=2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert import_folder(registry, folder) == THIRD
    assert (registry.current(), reader(registry).current()) == (THIRD, THIRD)
    assert verify(registry.folder(THIRD), registry.verify_key) == []
    assert read_manifest(registry.folder(THIRD)).reason == IMPORTED
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(RegistryError, match="already a version of that name"):
        import_folder(registry, folder)
    registry.pin_version()
    other = make_version(tmp_path / "other", "v20270101_000000")
    with pytest.raises(RegistryError, match=rf"{THIRD} is pinned; `dwcp-learner models unpin` first"):
        import_folder(registry, other)
    registry.unpin()
    (other / "golden.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"golden\.json' is not what was published"):
        import_folder(registry, other)
    assert [path.name for path in registry.root.glob(".candidate-*")] == []


def test_an_import_is_signed_anew(registry: Registry, tmp_path: Path) -> None:
    """A signature by another key is replaced; without a key of one's own it is gone."""
    other = SigningKey.read(generate(tmp_path / "other")[0])
    for version, target in ((THIRD, registry), ("v20270101_000000", Registry(tmp_path / "unsigned"))):
        folder = make_version(tmp_path / f"from-{version}", version)
        sign_manifest(folder, other)
        target.root.mkdir(exist_ok=True)
        import_folder(target, folder)
        assert (target.folder(version) / SIGNATURE_NAME).exists() == (target.signing_key is not None)
    assert verify(registry.folder(THIRD), registry.verify_key) == []


def test_the_commands(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    """rollback, pin, unpin and import with keys and without: the version on standard output, what follows from it on standard error."""
    config = tmp_path / "dwcp.toml"
    config.write_text(
        f'[models]\ndirectory = "{registry.root}"\nsigning_key = "{tmp_path / "keys" / SIGNING_KEY_NAME}"\n'
        f'verify_key = "{tmp_path / "keys" / VERIFY_KEY_NAME}"\n'
    )
    code, out, err = cli("models", "rollback", "--config", config)
    assert (code, out) == (0, f"{FIRST}\n")
    assert "pinned: no training starts or publishes over it until `dwcp-learner models unpin`" in err
    assert reader(registry).current() == FIRST
    _, out, _ = cli("models", "list", "--config", config, "--json")
    assert [(row["version"], row["live"], row["pinned"]) for row in json.loads(out)] == [(FIRST, True, True), (SECOND, False, False)]
    assert "● pinned" in cli("models", "list", "--config", config)[1]
    assert cli("models", "unpin", "--config", config)[:2] == (0, f"{FIRST}\n")
    code, _, err = cli("models", "unpin", "--config", config)
    assert (code, "nothing is pinned" in err) == (1, True)
    assert cli("models", "pin", SECOND, "--config", config)[:2] == (0, f"{SECOND}\n")
    assert reader(registry).current() == SECOND
    cli("models", "unpin", "--config", config)
    folder = make_version(tmp_path / "trained", THIRD, seed=2)
    assert cli("models", "import", folder, "--config", config)[:2] == (0, f"{THIRD}\n")
    assert reader(registry).current() == THIRD
    code, _, err = cli("models", "import", tmp_path / "none", "--config", config)
    assert (code, "is not a version that can be used" in err) == (1, True)
    code, _, err = cli("models", "rollback", FIRST, "--models", registry.root)
    assert (code, "readers with the public key ignore it" in err) == (0, True)
    code, out, _ = cli("models", "import", folder, "--models", tmp_path / "new")
    assert (code, Registry(tmp_path / "new").current()) == (0, THIRD)
