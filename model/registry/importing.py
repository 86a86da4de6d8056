"""Import of a version that was trained elsewhere: the output folder of `dwcp-learner train`, or a version of another models folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.registry.candidates import reserve
from model.registry.versions import Registry, RegistryError
from model.version.documents import DocumentError
from model.version.manifest import IMPORTED, complete_manifest, read_manifest, verify
from model.version.predictor import Predictor, PredictorError


def import_folder(registry: Registry, folder: Path) -> str:
    """Publish a copy of a folder as the version that its manifest names, make it live, and return its name.

    Raises:
        RegistryError: if it is not whole, not for this release's features and windows, or there already; or if a version is pinned.
        OSError: if it cannot be copied.
    """
    if problems := verify(folder):
        raise RegistryError(f"{folder} is not a version that can be used: {'; '.join(problems)}")
    try:
        version = read_manifest(folder).version
        Predictor.load(folder)
    except (DocumentError, PredictorError) as error:
        raise RegistryError(f"{folder} cannot be used by this release: {error}") from error
    if (obstacle := registry.live.obstacle()) is not None:
        raise RegistryError(obstacle)
    candidate = reserve(registry.candidate_folder(version), version)
    if candidate is None:
        raise RegistryError(f"{registry.root}: {version} is being built or imported now; try again in a minute")
    try:
        shutil.copytree(folder, candidate.folder, symlinks=True, dirs_exist_ok=True)
        complete_manifest(candidate.folder, reason=IMPORTED)
        registry.publish(candidate.folder, version)
    except BaseException:
        registry.discard(candidate)
        raise
    candidate.release()
    return version
