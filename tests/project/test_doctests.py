"""The examples of the pure core are run, and every public class of it has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

PACKAGES = ("features", "drift")


def modules(package: str) -> list[str]:
    """The names of all modules of a package."""
    root = importlib.import_module(package)
    return [package, *(found.name for found in pkgutil.walk_packages(root.__path__, f"{package}."))]


def classes(module: ModuleType) -> list[type]:
    """The public classes that a module defines."""
    return [
        each
        for name, each in vars(module).items()
        if inspect.isclass(each) and each.__module__ == module.__name__ and not name.startswith("_") and not issubclass(each, Exception)
    ]


@pytest.mark.parametrize("name", [name for package in PACKAGES for name in modules(package)])
def test_examples_are_true(name: str) -> None:
    """The results in a docstring are those of the code."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_has_an_example(package: str) -> None:
    found = [each for name in modules(package) for each in classes(importlib.import_module(name))]
    assert found
    assert [each.__qualname__ for each in found if ">>>" not in (inspect.getdoc(each) or "")] == []
