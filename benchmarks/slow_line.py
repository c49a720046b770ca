"""A TCP relay that is as slow as a line one asks for; its arguments are PORT TARGET_PORT RTT_MS UP_MBIT.

It runs in a process of its own, so that it takes no time from what is measured.
"""
from __future__ import annotations

import asyncio
import sys

CHUNK = 16_384
MOST_WAITING = 262_144
"""Bytes on their way in one direction, as in the buffers of a real line; then the sender has to wait."""


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float,
                bits_per_second: float) -> None:
    """Each piece leaves when the line is free, and arrives ``delay_seconds`` later."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(2, MOST_WAITING // CHUNK))
    free = 0.0

    async def deliver() -> None:
        while True:
            at, data = await line.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            free = max(free, loop.time()) + (8 * len(data) / bits_per_second if bits_per_second else 0.0)
            await asyncio.sleep(max(0.0, free - loop.time() - 0.02))  # no more than its buffer ahead of the line
            await line.put((free + delay_seconds, data))
        await line.put((loop.time() + delay_seconds, b""))
        await delivery
    except ConnectionError:
        pass
    finally:
        delivery.cancel()
        writer.close()


async def serve(port: int, target: int, rtt_ms: float, up_mbit: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(relay(reader, behind_writer, rtt_ms / 2e3, up_mbit * 1e6),
                             relay(behind_reader, writer, rtt_ms / 2e3, 0.0))

    async with await asyncio.start_server(accept, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
