"""Objects that the tests of a file share, made anew after a failed test. A pytest plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, Final

import pytest

FAILED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep with a test whether it has failed, for its fixtures."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


class Renewed:
    """Something that the tests of a file share while none of them fails.

    Args:
        start: returns a context manager over what is shared.
    """

    def __init__(self, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self._start, self._stack, self._made = start, ExitStack(), None

    @contextmanager
    def of(self, test: pytest.Item, usable: Callable[[Any], bool]) -> Iterator[Any]:
        """Lend what is shared to one test.

        Args:
            test: what is shared is closed if it fails.
            usable: whether the tests before have left it usable. If not, a new one is made.
        """
        if self._made is None or not usable(self._made):
            self.close()
            self._made = self._stack.enter_context(self._start())
        yield self._made
        if test.stash.get(FAILED, False):
            self.close()

    def close(self) -> None:
        """Close what is shared, if there is any."""
        self._made = None
        self._stack.close()


@pytest.fixture(scope="session")
def renewed() -> Callable[..., AbstractContextManager[Renewed]]:
    """renewed(start): a Renewed for a fixture of a file, closed at its end."""
    return lambda start: closing(Renewed(start))
