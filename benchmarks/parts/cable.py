"""The network between a daemon and its brokers, which can be cut: a SOCKS5 proxy on loopback, which clients of Kafka can use."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

CHUNK_BYTES: Final = 1 << 16
_NO_AUTHENTICATION: Final = b"\x05\x00"
_CONNECTED: Final = b"\x05\x00\x00\x01" + bytes(6)
_IPV4, _NAME = 1, 3


class Cable:
    """A proxy in a thread of its own.

    While it is cut, nothing passes in either direction, and no connection is closed. What either side has sent arrives when it is mended,
    as after the failure of a router.
    """

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cable", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result()
        self.url = f"socks5://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.set)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: RFC 1928 without authentication, CONNECT alone."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            await self._send(writer, _NO_AUTHENTICATION)
            _, _, _, kind = await reader.readexactly(4)
            length = (await reader.readexactly(1))[0] if kind == _NAME else {_IPV4: 4}.get(kind, 16)
            address = await reader.readexactly(length)
            host = address.decode() if kind == _NAME else ".".join(map(str, address))
            port = int.from_bytes(await reader.readexactly(2))
            far_reader, far_writer = await asyncio.open_connection(host, port)
            await self._send(writer, _CONNECTED)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await source.read(CHUNK_BYTES):
                await self._send(sink, content)
        sink.close()

    async def _send(self, sink: asyncio.StreamWriter, content: bytes) -> None:
        await self._whole.wait()
        sink.write(content)
        await sink.drain()
