"""A TCP relay that simulates the latency and bandwidth of a slow line. Arguments: PORT TARGET_PORT RTT_MS UP_MBIT.

It runs in its own process, so that it shares no GIL with the measurement.
"""
from __future__ import annotations

import asyncio
import sys

CHUNK = 16_384
MAX_BUFFERED = 262_144
"""Bytes in transit in one direction, as in the buffers of a real line; then the sender has to wait."""


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float,
                bits_per_second: float) -> None:
    """Copy data; each chunk leaves when the line is free, and arrives ``delay_seconds`` later."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(2, MAX_BUFFERED // CHUNK))
    free_at = 0.0

    async def deliver() -> None:
        while True:
            arrives_at, data = await line.get()
            await asyncio.sleep(max(0.0, arrives_at - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            free_at = max(free_at, loop.time()) + (8 * len(data) / bits_per_second if bits_per_second else 0.0)
            await asyncio.sleep(max(0.0, free_at - loop.time() - 0.02))  # read at most 20 ms ahead of the line
            await line.put((free_at + delay_seconds, data))
        await line.put((loop.time() + delay_seconds, b""))
        await delivery
    except ConnectionError:
        pass
    finally:
        delivery.cancel()
        writer.close()


async def serve(port: int, target: int, rtt_ms: float, up_mbit: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(relay(reader, target_writer, rtt_ms / 2e3, up_mbit * 1e6),
                             relay(target_reader, writer, rtt_ms / 2e3, 0.0))

    async with await asyncio.start_server(accept, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
