"""Text of somebody else for a terminal: what a document, a record or a file's name holds must not steer it."""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LINES: Final = re.compile(r"[\n\t]")


def printable(text: str, lines: bool = False) -> str:
    """The text with U+FFFD in place of control characters, marks of direction and halves of surrogate pairs. lines: it may have several."""
    if lines:
        return "".join(part if _LINES.fullmatch(part) else printable(part) for part in re.split(r"([\n\t])", text))
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "replace").decode())


def plain(text: str, lines: bool = False) -> str:
    """The same for rich: no markup either."""
    from rich.markup import escape

    return escape(printable(text, lines))
