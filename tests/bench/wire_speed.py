"""How fast the stream is, alone: two processes, a socket that blasts at the source, one that swallows at the target.

    .venv/bin/python -m tests.bench.wire_speed [GIGABYTES]

Prints the rate, what the agents' loops and heartbeats saw meanwhile, and both processes' own memory and CPU time (the blasting and
the swallowing thread included).
"""

import asyncio
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from teleport.wire.transfer_client import TransferClient
from teleport.wire.transfer_server import TransferServer
from tests.fakes.transfer_target import EPOCH, FakeTarget

ROOT = Path(__file__).parents[2]
_BUFFER_BYTES = 1 << 20


def big_socketpair() -> tuple[socket.socket, socket.socket]:
    """As `teleport.host.pipe` makes QEMU's."""
    pair = socket.socketpair()
    for one in pair:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    return pair


def usage() -> str:
    """This process's memory and CPU time so far."""
    anonymous = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return f"RssAnon {int(anonymous.split()[1]) >> 10} MB, CPU {used.ru_utime + used.ru_stime:.1f} s"


class Swallowing(FakeTarget):
    """Reads its channels to their end."""

    async def channel(self, epoch: str, number: int) -> socket.socket:
        carried, ours = big_socketpair()

        def swallow() -> None:
            buffer = bytearray(_BUFFER_BYTES)
            while ours.recv_into(buffer):
                pass
            ours.close()

        threading.Thread(target=swallow, daemon=True).start()
        return carried


async def serve() -> None:
    """The target's process: its port on stdout, and its usage when stdin ends."""
    server = TransferServer(Swallowing(), address="localhost", port=0, insecure=False)
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(usage(), flush=True)
    await server.stop()


async def blast(port: int, total_bytes: int) -> None:
    """The source's process."""
    client = TransferClient("localhost", port)
    await client.connect(timeout_seconds=10, insecure=False)
    await client.query(EPOCH, "")
    ours, carried = big_socketpair()

    def feed() -> None:
        chunk = bytes(_BUFFER_BYTES)
        for _ in range(total_bytes // len(chunk)):
            ours.sendall(chunk)
        ours.close()

    late_ms: list[float] = []
    answered_ms: list[float] = []

    async def watch_loop() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            late_ms.append((time.monotonic() - began - 0.01) * 1e3)

    async def beat() -> None:
        while True:
            began = time.monotonic()
            await client.query(EPOCH, "")
            answered_ms.append((time.monotonic() - began) * 1e3)
            await asyncio.sleep(0.1)

    began = time.monotonic()
    carrier = client.carry(EPOCH, 0, carried)
    feeding = threading.Thread(target=feed)
    feeding.start()
    watchers = [asyncio.ensure_future(each) for each in (watch_loop(), beat())]
    await carrier.wait()
    seconds = time.monotonic() - began
    for watcher in watchers:
        watcher.cancel()
    feeding.join()
    late_ms.sort()
    answered_ms.sort()
    print(f"{carrier.sent_bytes / seconds / 1e9:.2f} GB/s ({carrier.sent_bytes >> 20} MiB in {seconds:.1f} s)")
    print(f"the source's loop was late by {late_ms[len(late_ms) // 2]:.1f} ms (median), {late_ms[-1]:.1f} ms (worst)")
    print(f"heartbeats took {answered_ms[len(answered_ms) // 2]:.1f} ms (median), {answered_ms[-1]:.1f} ms (worst)")
    print(f"source: {usage()}")
    await client.close_channel()


def main() -> None:
    """The source's process starts the target's."""
    total_bytes = int(float(sys.argv[1] if len(sys.argv) > 1 else "4") * 1e9)
    command = [sys.executable, "-m", "tests.bench.wire_speed", "serve"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdin
        assert target.stdout
        try:
            asyncio.run(blast(int(target.stdout.readline()), total_bytes))
            target.stdin.close()
            print(f"target: {target.stdout.read().strip()}")
        finally:
            target.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
