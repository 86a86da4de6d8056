"""Telemetry records as producers write them, and damaged ones: by a grammar with mutations, the same for the same seed."""

from __future__ import annotations

import gzip
import json
import random
from typing import Final

from features.telemetry import COLUMNS, KEY_COLUMNS
from testkit.hostile.messages import Mutator, csv_seeds, json_seeds

NEEDED: Final = ("timestamp", "node_id", "peer_id")
NUMBERS: Final = tuple(name for name in COLUMNS if name not in (*KEY_COLUMNS, "timestamp"))
SAMPLE_MAX: Final = {"packet_loss": 1.0, "time_of_day": 24.0, "day_of_week": 6.0}
EDGES: Final = (
    "0", "-0", "-0.0", "-0e5", "1", "-1", "1e400", "-1e400", "1e-400", "-1e-400", "5e-324", "1.7976931348623157e308",
    "1.7976931348623159e308", "3.4028234663852886e38", "3.4028234663852888e38", "3.4028235677973366e38",
    "340282346638528859811704183484516925440",
    "340282346638528859811704183484516925441", "16777217", "0.1", "1E5", "1e+5", "0.000001", "9007199254740993", "18446744073709551615",
    "18446744073709551616", "-9223372036854775809", "9" * 40, "9" * 254, "9" * 255, "9" * 256, "-" + "9" * 255, "1e254", "1e255", "-1e255",
    "9.999999999999999e254", "9" * 309, "9" * 400, "9" * 4301, "1" + "0" * 308, "0." + "1" * 400, "123456789.25", "1e15", "1e16", "1.5e16",
    "0.0001", "0.00001", "1.0000000000000002", "0.99999999999999999", "1.0000001", "24", "24.0000001", "23.9999999999", "6", "6.5", "7",
    "NaN", "Infinity", "-Infinity", "nan", "01", "-01", ".5", "1.", "+1", "1_000", "0x10", "1e", "--1", "null", "true", "false", "[]", "{}",
    "[1]", '{"a":1}', '""', '"1"', '"x"', '" "', '"NaN"', "\u0661",
)  # fmt: skip
"""Tokens in the place of a number."""
TIME_EDGES: Final = (
    "631152000", "631151999.9999999", "631152000.0000001", "1e11", "100000000000.00002", "1767571200000", "-1", "0", "1e300",
    "1767571200.123456789", "1767657599.9999999", "1767657600", '"1767571200"',
)  # fmt: skip
DATES: Final = (
    "2026-01-05", "2024-02-29", "2023-02-29", "2100-02-29", "2000-02-29", "2026-02-30", "2026-06-31", "2026-13-01", "2026-00-10",
    "1990-01-01", "1989-12-31", "1989-12-30", "5138-11-16", "5138-11-17", "5139-01-01", "0000-01-01", "0001-01-01", "9999-12-31",
    "2255-06-05", "2300-12-31", "5000-01-05", "26-01-05", "2026-1-5", "+2026-01-05",
)  # fmt: skip
CLOCKS: Final = ("00:00:00", "12:34:56", "23:59:59", "09:46:40", "09:46:41", "24:00:00", "23:59:60", "23:60:00", "12:34", "1:02:03")
FRACTIONS: Final = (
    "", "", "", ".5", ".123456", ".1234565", ".1234575", ".12345649999999999", ".1234567890123", ".9999999", ".000001", ".", ",5", ".0",
)  # fmt: skip
ZONES: Final = (
    "Z",
    "Z",
    "Z",
    "z",
    "+00:00",
    "-00:00",
    "+05:30",
    "-0800",
    "+14:00",
    "-23:59",
    "+24:00",
    "+05",
    "+5:30",
    "+05:60",
    "",
    " Z",
    "Z ",
)
TEXTS: Final = (
    "a", "b", "core-2", "eu-1", "ä☃", "😀", " a", "a ", "\t", " ", "", "\x00", "a\x00b", "a,b", 'a"b', '"', "a\nb", "a\r", "\u2028",
    "\u00a0a", "\ufeff", "1", "1.0", "-0", "true", "null", "é" * 256, "e" * 256, "e" * 257, "😀" * 256, "😀" * 257, "x" * 3000, "[",
    "{" * 401, "\x7f",
)  # fmt: skip
STRINGS: Final = (
    rb'"\ud83d\ude00"', rb'"\ud800"', rb'"\ude00\ud83d"', rb'"\u0041"', rb'"\u0000"', rb'"\/"', rb'"\q"', rb'"\u12"', rb'"\\u0041"',
    b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\x01"', b'"a\tb"', b"'a'", b'"',
)  # fmt: skip
"""JSON strings as bytes that Python's encoder would not write."""
SPACES: Final = (b" ", b"\t", b"\r", b"\n", b"  ")
NO_SPACES: Final = (b"\x0c", b"\x0b", b"\xc2\xa0", b"\xef\xbb\xbf", b"\x00")
"""Bytes that look like white space but are not in JSON."""


class Grammar:
    """A source of JSON values and CSV lines, which follow from the seed alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._json_mutator = Mutator(json_seeds(), seed)
        self._csv_mutator = Mutator(csv_seeds(), seed)

    def json_value(self) -> bytes:
        """Return one message: a record in any of its spellings, often damaged."""
        rng, way = self._random, self._random.random()
        if way < 0.15:
            return bytes(self._json_mutator.message())
        value = self._object()
        if way < 0.35:
            value = bytes(Mutator([value], rng.getrandbits(32)).message())
        elif way < 0.4:
            value = self._wrapped(value)
        return value

    def header(self) -> tuple[str, ...]:
        """Return the columns of a CSV file in any order. The required ones are among them."""
        rng = self._random
        if rng.random() < 0.3:
            return COLUMNS
        names = [*NEEDED, rng.choice(("rtt_ms", "throughput_mbps", "latency_ms"))]
        names += [name for name in COLUMNS if name not in names and rng.random() < 0.5]
        rng.shuffle(names)
        return tuple(names)

    def csv_line(self, header: tuple[str, ...]) -> bytes:
        """Return one line under the header, often damaged."""
        rng, way = self._random, self._random.random()
        if way < 0.2 and header == COLUMNS:
            return bytes(self._csv_mutator.message())
        cells = [self._cell(name) for name in header]
        if way < 0.05:
            cells = cells[:-1] if rng.random() < 0.5 else [*cells, b""]
        line = b",".join(cells)
        return bytes(Mutator([line], rng.getrandbits(32)).message()) if way > 0.85 else line

    def _object(self) -> bytes:
        rng = self._random
        odd = rng.choice((0.0, 0.0, 0.01, 0.03, 0.1, 0.3))
        names = [name for name in COLUMNS if rng.random() < (0.99 if name in NEEDED else 0.4)]
        if rng.random() < 0.3:
            rng.shuffle(names)
        members = [self._member(name, odd) for name in names]
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            members.insert(rng.randrange(len(members) + 1), self._further(odd))
        if rng.random() < 0.08:  # a name that comes twice
            members.insert(rng.randrange(len(members) + 1), self._member(rng.choice(names or ["rtt_ms"]), rng.choice((0.0, 1.0))))
        space, comma = self._space(odd), rng.choice((b",", b", "))
        end = rng.choice((b"", b"", b"", b"\r", b"\n", b" ")) if rng.random() < 0.1 else b""
        return space + b"{" + comma.join(members) + b"}" + end

    def _member(self, name: str, odd: float) -> bytes:
        rng = self._random
        key = json.dumps(name).encode()
        if rng.random() < odd * 0.3:
            at = rng.randrange(len(name))
            escaped = name[:at] + f"\\u{ord(name[at]):04{rng.choice('xX')}}" + name[at + 1 :]
            key = b'"%s"' % rng.choice((escaped, name.upper(), name.capitalize(), f" {name}", f"{name} ", f"{name}\\u0000", "")).encode()
        return key + b":" + self._space(odd) + self._json_of(name, odd)

    def _space(self, odd: float) -> bytes:
        rng = self._random
        if rng.random() > 0.1:
            return b""
        return rng.choice(NO_SPACES if rng.random() < odd else SPACES)

    def _json_of(self, name: str, odd: float) -> bytes:
        rng = self._random
        if rng.random() < 0.02:
            return b"null"
        if name == "timestamp":
            return self._time(odd)
        if name in KEY_COLUMNS:
            if rng.random() < odd:
                return rng.choice(STRINGS) if rng.random() < 0.4 else rng.choice(EDGES).encode()
            return json.dumps(self._text(odd), ensure_ascii=rng.random() < 0.5).encode()
        return rng.choice(EDGES).encode() if rng.random() < odd else self._number(name).encode()

    def _number(self, name: str) -> str:
        rng = self._random
        value = rng.random() * SAMPLE_MAX.get(name, rng.choice((1.0, 500.0, 1e10)))
        return rng.choice((repr(value), f"{value:.3f}", str(int(value)), f"{value:e}", f"{value:.25g}"))

    def _time(self, odd: float) -> bytes:
        rng, way = self._random, self._random.random()
        if way < 0.5:
            return (
                rng.choice(TIME_EDGES).encode()
                if rng.random() < odd
                else repr(1.7e9 + rng.choice((rng.randrange(10**8), rng.random() * 1e8))).encode()
            )
        return b'"%s"' % self._time_text(odd).encode()

    def _time_text(self, odd: float) -> str:
        rng = self._random
        if rng.random() >= odd:
            day, clock = f"20{rng.randrange(10, 99)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}", f"{rng.randrange(24):02}:00:59"
            return f"{day}T{clock}{rng.choice(FRACTIONS[:8])}{rng.choice(ZONES[:9])}"
        return rng.choice(DATES) + rng.choice("TTTt _") + rng.choice(CLOCKS) + rng.choice(FRACTIONS) + rng.choice(ZONES)

    def _text(self, odd: float) -> str:
        return self._random.choice(TEXTS) if self._random.random() < 2 * odd else self._random.choice(TEXTS[:6])

    def _further(self, odd: float) -> bytes:
        """Return a field that is none of ours."""
        rng, way = self._random, self._random.random()
        key = json.dumps(rng.choice(("x", "RTT_MS", "Timestamp", "node_id ", "", "tags", "k" * 3000, "ä"))).encode()
        if way < 0.4:
            value = rng.choice(EDGES).encode() if rng.random() < odd else b'{"a":[1,{"b":null}]}'
        elif way < 0.7:
            value = rng.choice(STRINGS) if rng.random() < odd else json.dumps(rng.choice(TEXTS), ensure_ascii=False).encode()
        elif way < 0.72:
            depth = rng.choice((1, 50, 398, 399, 400, 401, 1500))
            opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
            value = opening * depth + b"1" + closing * (depth - (rng.random() < 0.05))
        elif way < 0.7201:
            value = b'"%s"' % (b"x" * rng.choice((1_048_000, 1_048_576, 1_049_000)))
        else:
            value = b"1"
        return key + b":" + value

    def _wrapped(self, value: bytes) -> bytes:
        """Return a whole value with the changes that producers make."""
        text = value.decode(errors="replace")
        ways = (
            lambda: b"\xef\xbb\xbf" + value, lambda: gzip.compress(value, 1), lambda: text.encode("utf-16"), lambda: b"[" + value + b"]",
            lambda: b"\x00\x00\x00\x00\x07" + value, lambda: json.dumps(text).encode(), lambda: value + value, lambda: value + b"," + value,
            lambda: value + b"\n" + value, lambda: value[:-1] + b",}", lambda: b"", lambda: b" ", lambda: b"\x0c", lambda: b"null",
            lambda: b"1", lambda: value[: len(value) // 2], lambda: value.replace(b'"', b"'"), lambda: text.encode("latin-1", "replace"),
            lambda: value + b"\x00", lambda: b"/* */" + value,
        )  # fmt: skip
        return self._random.choice(ways)()

    def _cell(self, name: str) -> bytes:
        rng = self._random
        odd = rng.choice((0.0, 0.0, 0.0, 0.2))
        if rng.random() < 0.1 and name not in NEEDED:
            text = rng.choice(("", "", " ", '""'))
        elif name == "timestamp":
            text = self._time(odd).decode().strip('"')
        elif name in KEY_COLUMNS:
            text = self._text(odd)
        else:
            text = rng.choice(EDGES) if rng.random() < odd else self._number(name)
        if ("," in text and rng.random() < 0.9) or rng.random() < 0.1:
            text = '"' + text.replace('"', '""') + '"'
        if rng.random() < 0.1:
            text = rng.choice((" ", "\t", "  ", "\u00a0", "")) + text + rng.choice((" ", "\t", "", "\r", "x"))
        return text.encode(errors="replace")
