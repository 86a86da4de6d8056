"""What the tests bring along and belongs to no package, by its path: the brokers and the rigs. The tests load them by this as well."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[2] / "tests"


@cache
def module(name: str) -> ModuleType:
    """module("broker/broker"): tests/broker/broker.py. `tests` is no package, and another distribution installs one of that name."""
    spec = importlib.util.spec_from_file_location(f"dwcp_tests_{Path(name).name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up by its name
    spec.loader.exec_module(loaded)
    return loaded
