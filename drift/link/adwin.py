"""River's ADWIN and PageHinkley, without the rest of River.

`import river.drift` also imports its example data sets, and through them scikit-learn, SciPy and pandas: 150 MB of every daemon's
memory and a second of its start, for two classes that need none of it. So their modules are imported past the start of their package,
which stays as it is for anybody else who wants it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

import river

__all__ = ["ADWIN", "PageHinkley"]

_PACKAGE: Final = "river.drift"


@contextmanager
def _hollow_package() -> Iterator[None]:
    """A package that finds the modules of river.drift and runs nothing of its own; where the real one is loaded already, that."""
    if _PACKAGE in sys.modules:
        yield
        return
    hollow = ModuleType(_PACKAGE)
    hollow.__path__ = [f"{folder}/drift" for folder in river.__path__]
    sys.modules[_PACKAGE] = hollow
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


with _hollow_package():
    from river.drift.adwin import ADWIN
    from river.drift.page_hinkley import PageHinkley
