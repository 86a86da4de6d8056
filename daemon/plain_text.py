"""Foreign text (of documents, records, file names) made safe for a terminal."""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LINES: Final = re.compile(r"[\n\t]")


def printable(text: str, lines: bool = False) -> str:
    """Replace control characters, marks of direction and unpaired surrogates with U+FFFD.

    Args:
        text: any text.
        lines: keep line breaks and tabs.
    """
    if lines:
        return "".join(part if _LINES.fullmatch(part) else printable(part) for part in re.split(r"([\n\t])", text))
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "replace").decode())


def plain(text: str, lines: bool = False) -> str:
    """Return printable text in which rich sees no markup."""
    from rich.markup import escape

    return escape(printable(text, lines))
