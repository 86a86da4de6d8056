"""MANIFEST.json, the last file of a version: its name, parent, reason and verdict, and the SHA-256 of every other file.

If a signing key is configured, MANIFEST.json.sig beside it signs the manifest's bytes, and with them every file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from model.registry.choice import is_number
from model.registry.durable import atomic_write
from model.registry.plain_file import reason_of, sha256_of
from model.spec.verdict import Verdict
from model.version.contract import CONTRACTS, Contract, Declared, Graph, cut, first, problems
from model.version.documents import MOST_MESSAGE, DocumentError, parse_document, read_plain, write_document
from model.version.golden import GOLDEN_NAME, check_golden
from model.version.metadata import MOST_VERSION, VERSION_PATTERN, Metadata, metadata_name
from model.version.predictor import read_graph

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.version.signing import SigningKey, VerifyKey

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "MANIFEST.json"
SIGNATURE_NAME: Final = "MANIFEST.json.sig"
IMPORTED: Final = "imported"
"""reason of a version that was trained by hand and brought in by `dwcp-learner models import`."""
MOST_SIGNATURE_BYTES: Final = 2**10
MOST_MANIFEST_BYTES: Final = 2**20
"""Limit of a manifest, bytes: a hundred times its size, and little enough to be read at any moment."""
MOST_FILE_BYTES: Final = 256 * 2**20
"""Limit of a file, bytes: seventy times a core graph, the largest kind of file in a version."""
MOST_PATH: Final = 1000
"""Limit of a path inside a version's folder, characters."""
MOST_ENTRIES: Final = 1000
"""Limit of files and folders of a version, which has some twenty."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of a manifest.

    files: SHA-256 and size of each file, by path relative to the folder. verdict: of the gate, as Verdict.to_json returns it.
    parent: version that training started from; None for a first one. libraries: name and version of each that built it.
    number: higher than that of every version and choice before it; 0 if its publication did not make it live (see model.registry.choice).
    """

    version: str
    parent: str | None
    reason: str
    created_at_s: float
    verdict: Mapping[str, Any] | None
    libraries: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    number: int = 0

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file, by path relative to the folder."""
        return {name: str(entry.get("sha256")) for name, entry in self.files.items()}


def write_manifest(
    folder: Path, *, version: str, parent: str | None, reason: str, created_at_s: float, verdict: Verdict | None,
    libraries: Mapping[str, str],
) -> Path:  # fmt: skip
    """Write MANIFEST.json over every file in the folder, when all of them are there.

    Args:
        folder: of the version.
        version: its name.
        parent: version that its training started from; None for a first one.
        reason: why it was trained.
        created_at_s: UTC seconds.
        verdict: of the gate; None if there was none.
        libraries: name and version of each that built it.
    Returns:
        The path of the manifest.

    Raises:
        ValueError: if `version` is not a version's name, or a file is neither plain nor a folder.
    """
    if not VERSION_PATTERN.fullmatch(version):
        raise ValueError(f"{version!r} is not a version: vYYYYMMDD_HHMMSS")
    files = {}
    for name, path in _walk(folder):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"{path} is neither a regular file nor a folder")
        if name not in (MANIFEST_NAME, SIGNATURE_NAME):
            files[name] = {"sha256": sha256_of(path, MOST_FILE_BYTES), "bytes": path.stat().st_size}
    target = folder / MANIFEST_NAME
    write_document(
        target,
        {
            "schema": SCHEMA_VERSION,
            "version": version,
            "parent": parent,
            "reason": reason,
            "created_at_s": created_at_s,
            "verdict": None if verdict is None else verdict.to_json(),
            "libraries": dict(libraries),
            "files": dict(sorted(files.items())),
        },
    )
    return target


def complete_manifest(folder: Path, **entries: object) -> None:
    """Add entries to a manifest, replacing those of the same name, and remove its signature. Raises DocumentError, OSError."""
    document = parse_document(MANIFEST_NAME, read_plain(folder / MANIFEST_NAME, MOST_MANIFEST_BYTES))
    write_document(folder / MANIFEST_NAME, document | entries)
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)


def sign_manifest(folder: Path, key: SigningKey) -> Path:
    """Write MANIFEST.json.sig over the manifest as it is. Raises DocumentError if the manifest cannot be read."""
    path = folder / SIGNATURE_NAME
    atomic_write(path, key.sign(read_plain(folder / MANIFEST_NAME, MOST_MANIFEST_BYTES)))
    return path


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest without looking at its files. Raises DocumentError if it is missing, damaged or of a newer release."""
    return _parsed(read_plain(folder / MANIFEST_NAME, MOST_MANIFEST_BYTES))


def _parsed(content: bytes) -> Manifest:
    document = parse_document(MANIFEST_NAME, content)
    schema = document.get("schema")
    if type(schema) is not int or not 1 <= schema <= MOST_VERSION:
        raise DocumentError(f"{MANIFEST_NAME}: schema is {cut(repr(schema))}, which is not a whole number from 1")
    if schema > SCHEMA_VERSION:
        raise DocumentError(f"{MANIFEST_NAME} was written by a newer release (schema {schema}, this one reads {SCHEMA_VERSION})")
    version, parent, reason, created_at_s = (document.get(key) for key in ("version", "parent", "reason", "created_at_s"))
    verdict, libraries, files = (document.get(key) for key in ("verdict", "libraries", "files"))
    number = document.get("number", 0)
    if not isinstance(version, str) or not VERSION_PATTERN.fullmatch(version):
        raise DocumentError(f"{MANIFEST_NAME} says version {cut(repr(version))}")
    if not (
        isinstance(parent, str | None)
        and isinstance(reason, str)
        and isinstance(created_at_s, int | float)
        and isinstance(verdict, dict | None)
        and isinstance(libraries, dict)
        and isinstance(files, dict)
        and is_number(number)
    ):
        raise DocumentError(f"{MANIFEST_NAME} lacks parent, reason, created_at_s, verdict, libraries or files, or one is of another type")
    try:
        return Manifest(version, parent, reason, float(created_at_s), verdict, libraries, files, number)
    except OverflowError as error:
        raise DocumentError(f"{MANIFEST_NAME}: created_at_s is not a time") from error


def verify(folder: Path, key: VerifyKey | None = None) -> list[str]:
    """Return why the version in the folder must not be used; empty if it is whole and ONNX Runtime reproduces its golden samples.

    A file is read only after the signature is right, and a graph is loaded only after every hash is. Never raises, whatever the folder
    holds.

    Args:
        folder: of the version.
        key: must have signed the manifest; None: a signature is not looked at.
    """
    manifest, problems = check_files(folder, key)
    if manifest is None or problems:
        return problems
    try:
        return _content_problems(folder, manifest)
    except (DocumentError, OSError) as error:
        return [str(error)]


def check_files(folder: Path, key: VerifyKey | None = None) -> tuple[Manifest | None, list[str]]:
    """Check signature, name and hashes: the first half of `verify`, which costs no more than reading the files. Never raises.

    Returns:
        The manifest that was checked (None if it cannot be read), and the problems.
    """
    try:
        manifest = signed_manifest(folder, key)
        return manifest, first(_file_problems(folder, manifest), "{} more files are not what was published")
    except (DocumentError, OSError) as error:
        return None, [str(error)]


def signed_manifest(folder: Path, key: VerifyKey | None = None) -> Manifest:
    """Return the manifest of a version without looking at its files.

    Args:
        folder: has the name of its version, or a name that no version has.
        key: must have signed the manifest; None: a signature is not looked at.

    Raises:
        DocumentError: if it is missing, damaged, of a newer release or of another version, or not signed by the key.
    """
    content = read_plain(folder / MANIFEST_NAME, MOST_MANIFEST_BYTES)
    if key is not None and (problem := _signature_problem(folder, content, key)):
        raise DocumentError(problem)
    manifest = _parsed(content)
    if VERSION_PATTERN.fullmatch(folder.name) and folder.name != manifest.version:
        raise DocumentError(f"it is a copy of version {manifest.version} under another name")
    return manifest


def _signature_problem(folder: Path, content: bytes, key: VerifyKey) -> str | None:
    if not (folder / SIGNATURE_NAME).is_symlink() and not (folder / SIGNATURE_NAME).exists():
        return f"it is not signed ({SIGNATURE_NAME} is missing), and a verify key is configured"
    problem = key.problem(content, read_plain(folder / SIGNATURE_NAME, MOST_SIGNATURE_BYTES))
    return None if problem is None else f"{SIGNATURE_NAME} {problem}"


def _file_problems(folder: Path, manifest: Manifest) -> list[str]:
    present = dict(_walk(folder))
    unlisted = present.keys() - manifest.files.keys() - {MANIFEST_NAME, SIGNATURE_NAME}
    problems = [f"{name!r} is not in {MANIFEST_NAME}" for name in sorted(unlisted)]
    for name, entry in manifest.files.items():
        pure = PurePosixPath(name)
        if len(name) > MOST_PATH:
            problems.append(f"{MANIFEST_NAME} names {cut(repr(name))}, which is longer than any path")
        elif pure.is_absolute() or str(pure) != name or ".." in pure.parts or "\0" in name:
            problems.append(f"{MANIFEST_NAME} names {name!r}, which is not a path inside the folder")
        elif name not in present:
            problems.append(f"{name!r} is missing")
        elif not stat.S_ISREG(present[name].lstat().st_mode):
            problems.append(f"{name!r} is not a regular file")
        elif (problem := _difference(present[name], entry)) is not None:
            problems.append(f"{name!r} {problem}")
    needed = metadata_name(manifest.version), GOLDEN_NAME
    return problems + [f"{MANIFEST_NAME} does not name {name}" for name in needed if name not in manifest.files]


def _difference(path: Path, entry: object) -> str | None:
    """Return why a regular file does not match its entry; a file of another size is not read. Raises OSError if it cannot be read."""
    if not isinstance(entry, dict):
        return "is not what was published (its entry is not one)"
    size = path.lstat().st_size
    if isinstance(entry.get("bytes"), int) and entry["bytes"] != size:
        return f"is not what was published ({size:,} bytes instead of {entry['bytes']:,})"
    try:
        digest = sha256_of(path, MOST_FILE_BYTES)
    except OSError as error:
        return reason_of(error)
    return None if entry.get("sha256") == digest else "is not what was published (its SHA-256 differs)"


def _content_problems(folder: Path, manifest: Manifest) -> list[str]:
    metadata = Metadata.read(folder)
    if metadata.version != manifest.version:
        return [f"the metadata are of {metadata.version}, {MANIFEST_NAME} of {manifest.version}"]
    declared = {kind: metadata.graph(kind) for kind in CONTRACTS}
    found = [f"{MANIFEST_NAME} does not name {graph.file}" for graph in declared.values() if graph.file not in manifest.files]
    kinds = {graph.file: kind for kind, graph in declared.items()}
    for name in manifest.files:
        if name.endswith(".onnx"):
            kind = kinds.get(name)
            contract = None if kind is None else CONTRACTS[kind](metadata.window_rows)
            graph = Declared() if kind is None else declared[kind]
            found += [f"{name} {problem}" for problem in graph_problems(folder / name, manifest.version, contract, graph)]
    return first(found, "{} more files do not keep their contract") or check_golden(folder, metadata)


def graph_problems(path: Path, version: str, contract: Contract | None, declared: Declared) -> list[str]:
    """Return why an ONNX file is not the graph of a version, each as the rest of a sentence that begins with its name: it does not keep its
    contract (see `model.version.contract.problems`), or names another version than this one."""
    import onnx  # here, because ingest needs it only when a version arrives: 0.1 s and 11 MB

    try:
        model = onnx.load_from_string(read_graph(path))
    except Exception as error:  # noqa: BLE001  # protobuf's errors have no common base with a documented place
        return [f"is not an ONNX model ({cut(str(error), MOST_MESSAGE)})"]
    of_version = {entry.value for entry in model.metadata_props if entry.key == "version"} - {version}
    return [
        *(f"names version {cut(repr(other))}, {MANIFEST_NAME} {version!r}" for other in sorted(of_version)),
        *problems(Graph.of_model(model), contract, declared),
    ]


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the relative POSIX path and the path of everything in the folder that is not a folder itself; links are not followed.

    Raises DocumentError if there is more in it than in any version, OSError if it cannot be read.
    """
    waiting, entries = [folder], 0
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entries > MOST_ENTRIES:
                    raise DocumentError(f"{folder.name} holds more than {MOST_ENTRIES:,} files, more than any version")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(folder).as_posix(), Path(entry.path)
