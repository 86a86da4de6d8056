"""dwcp-learner models: list, show, verify, roll back, pin and import versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from daemon.commands.options import ConfigOption, JsonOption
from daemon.config import load as configuration
from daemon.config.keys import registry_with_keys, verify_key_from
from daemon.errors import EXIT_CODES, DaemonError
from daemon.plain_text import plain, printable
from model.registry.importing import import_folder
from model.registry.versions import CURRENT_NAME, Registry, RegistryError
from model.version.documents import DocumentError
from model.version.manifest import MANIFEST_NAME, SIGNATURE_NAME, read_manifest, verify
from model.version.metadata import RawMetadata

UNPIN: Final = "dwcp-learner models unpin"

app = typer.Typer(no_args_is_help=True, help="List, show, verify, roll back, pin and import versions.", epilog=EXIT_CODES)
FolderOption = Annotated[Path | None, typer.Option("--models", help="Models folder, instead of the configuration's.")]


def _registry(config: Path | None, models: Path | None, public_key: Path | None = None) -> Registry:
    """Open the registry to read. The configuration counts with --models too: its verify key decides what may become live."""
    section = configuration.load(config).models
    folder = models or section.directory
    if not folder.is_dir():
        raise DaemonError(f"{folder}: there is no models folder; it appears with the first version (see models.directory)")
    key = verify_key_from(section.verify_key, "models.verify_key") if public_key is None else verify_key_from(public_key, "--public-key")
    return Registry(folder, verify_key=key)


def _publishing_registry(config: Path | None, models: Path | None) -> Registry:
    """Open the registry to decide, with the signing key if the configuration has one: decisions are signed as publications are."""
    loaded = configuration.load(config)
    if models is not None:
        loaded = loaded.model_copy(update={"models": loaded.models.model_copy(update={"directory": models})})
    if loaded.models.signing_key is None:  # a reader's configuration may have the public key alone; the registry reports what is missing
        return _registry(config, models)
    _registry(config, models)
    return registry_with_keys(loaded)


def _note(text: str) -> None:
    """Print a line for a person on standard error: standard output has the version alone."""
    Console(stderr=True).print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _described(registry: Registry, version: str, live: str | None) -> dict[str, Any]:
    try:
        manifest = asdict(read_manifest(registry.folder(version)))
    except (DocumentError, OSError) as error:
        return {"version": version, "live": version == live, "problem": str(error)}
    pin = registry.live.pin()
    pinned = pin is not None and pin.version == version
    described = {key: manifest.get(key) for key in ("parent", "reason", "verdict", "number", "files")}
    return {"version": version, "live": version == live, "pinned": pinned, "encoder": _encoder(registry, version), **described}


def _encoder(registry: Registry, version: str) -> str | None:
    """Return the encoder that the metadata name; None if they cannot be read, which `models verify` explains."""
    try:
        return RawMetadata.read(registry.folder(version)).encoder
    except (DocumentError, OSError):
        return None


def _live(registry: Registry) -> tuple[str | None, str | None]:
    """Return the version that CURRENT names, and what is wrong with CURRENT."""
    try:
        return registry.current(), None
    except RegistryError as error:
        return None, str(error)


@app.command("list", epilog=EXIT_CODES)
def list_versions(config: ConfigOption = None, models: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the published versions, oldest first; the live one is marked. Exit code 1 if CURRENT names none of them."""
    registry = _registry(config, models)
    live, problem = _live(registry)
    rows = [_described(registry, version, live) for version in registry.versions()]
    if as_json:
        print(json.dumps([{key: value for key, value in row.items() if key not in ("files", "verdict")} for row in rows], indent=2))
    else:
        columns = [Column(name, no_wrap=True) for name in ("version", "live", "encoder", "reason", "parent")]  # whole names can be copied
        table = Table(*columns, Column("problem", overflow="fold"))
        for row in rows:
            cells = (row.get(key) for key in ("encoder", "reason", "parent", "problem"))
            live_mark = "● pinned" if row.get("pinned") and row["live"] else "●" if row["live"] else ""
            table.add_row(row["version"], live_mark, *(plain(cell) if cell else None for cell in cells))
        if rows:
            Console().print(table)
    if not rows and problem is None:
        text = f"{registry.root}: there is no version yet; a daemon publishes its first when it has training.rows_min rows"
        Console(stderr=True).print(plain(text), highlight=False, soft_wrap=True)
    if problem is not None:
        raise DaemonError(problem)


@app.command(epilog=EXIT_CODES)
def show(version: str, config: ConfigOption = None, models: FolderOption = None) -> None:
    """Print a version's manifest with the gate's verdict, as JSON. Exit code 1 if it cannot be read."""
    registry = _registry(config, models)
    registry.folder(version)
    described = _described(registry, version, _live(registry)[0])
    print(json.dumps(described, indent=2))
    if "problem" in described:
        raise DaemonError(f"{registry.root / version}: {described['problem']}; see dwcp-learner models verify {version}")


@app.command(epilog=EXIT_CODES)
def rollback(
    version: Annotated[str | None, typer.Argument(help="Default: the one published before the live one.")] = None,
    config: ConfigOption = None,
    models: FolderOption = None,
) -> None:
    """Make an older version live again, and pin it. A running daemon follows within seconds; consumers follow CURRENT.

    If versions are signed, the configuration has to name models.signing_key: otherwise readers with the public key do not follow.
    """
    registry = _publishing_registry(config, models)
    print(registry.rollback(version))
    _note(f"It is live and pinned: no training starts or publishes over it until `{UNPIN}`.{_unsigned(registry)}")


@app.command(epilog=EXIT_CODES)
def pin(
    version: Annotated[str | None, typer.Argument(help="Default: the live one. Another one is made live.")] = None,
    config: ConfigOption = None,
    models: FolderOption = None,
) -> None:
    """Keep a version live: no training starts or publishes over it, until `models unpin`."""
    registry = _publishing_registry(config, models)
    print(registry.pin_version(version))
    _note(f"It is live and pinned until `{UNPIN}`.{_unsigned(registry)}")


@app.command(epilog=EXIT_CODES)
def unpin(config: ConfigOption = None, models: FolderOption = None) -> None:
    """Let trainings start and publish again. The version stays live until then."""
    print(_publishing_registry(config, models).unpin())
    _note("Trainings start and publish again. It stays live until one is better.")


@app.command("import", epilog=EXIT_CODES)
def import_version(
    folder: Annotated[Path, typer.Argument(help="Output folder of `dwcp-learner train`.")],
    config: ConfigOption = None,
    models: FolderOption = None,
) -> None:
    """Publish a version that was trained by hand, and make it live. It is verified and signed, but not compared with the live one.

    A running daemon follows within seconds, announces it, and begins its next training with it. `models rollback` goes back.
    """
    target = models or configuration.load(config).models.directory
    try:
        target.mkdir(parents=True, exist_ok=True)
        print(import_folder(_publishing_registry(config, models), folder))
    except OSError as error:
        raise DaemonError(f"{folder} cannot be brought into {target} ({error.strerror}: {error.filename})") from error


def _unsigned(registry: Registry) -> str:
    """Return a warning if versions are signed and this decision is not."""
    live = registry.live.named()
    if registry.signing_key is not None or live is None or not (registry.root / live / SIGNATURE_NAME).exists():
        return ""
    todo = "Use a configuration with models.signing_key (--config)."
    return f" Versions here are signed, but this choice is not: readers with the public key ignore it. {todo}"


@app.command("verify", epilog=EXIT_CODES)
def verify_versions(
    version: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    config: ConfigOption = None,
    models: FolderOption = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Public key (PEM) of the signature; default: models.verify_key, if it is set.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check signature, hashes, golden vectors and operators of one version or all, and CURRENT. Exit code 1 if something is wrong.

    --models may also name the output folder of a training, which is then checked as a version.
    """
    registry = _registry(config, models, public_key)
    alone = version is None and (registry.root / MANIFEST_NAME).is_file()
    names = [version] if version else registry.versions()
    folders = {registry.root.name: registry.root} if alone else {name: registry.folder(name) for name in names}
    problems = {name: verify(folder, registry.verify_key) for name, folder in folders.items()}
    current_problem = None if alone else _live(registry)[1]
    if current_problem is not None:
        problems[CURRENT_NAME] = [current_problem]
    elif not folders:
        raise DaemonError(f"{registry.root}: there is no version to verify; is it the folder that models.directory names?")
    sound = "sound and signed" if registry.verify_key is not None else "sound; the signature was not checked: no --public-key"
    if as_json:
        print(json.dumps(problems, indent=2))
    else:
        for name, found in problems.items():
            text = f"[red]{plain('; '.join(found))}[/red]" if found else f"[green]{sound}[/green]"
            Console().print(f"{plain(name)}: {text}", soft_wrap=True)
    if any(problems.values()):
        raise typer.Exit(1)
