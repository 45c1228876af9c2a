"""The two monitors of a QEMU and its process: how it is asked, heard, and seen to end.

The main monitor is for everything, the second one for out-of-band `yank`, which QEMU's monitor thread answers even when its main loop
is stuck (a stalled tunnel in migration state `device`, tried). A QMP monitor takes one client at a time.

The process's death is seen by pidfd; the last lines of its stderr file are what it had to say.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from teleport.errors import HypervisorError
from teleport.host.process import ProcessWatch
from teleport.model import QemuProcess

# Every end of a QEMU is an EOF that qemu.qmp logs as an error; what matters of it arrives as an exception.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

COMMAND_SECONDS = 30.0  # an answer takes milliseconds; this long says that QEMU's main loop is stuck
STORAGE_SECONDS = 120.0  # commands that wait for disks: stop drains and flushes, cont and blockdev-set-active open and lock
_STDERR_TAIL_BYTES = 4096


class QemuGoneError(HypervisorError):
    """QEMU died or closed its monitor; `why` is what it last wrote to stderr."""


class QemuStuckError(HypervisorError):
    """QEMU did not answer in time: its main loop is stuck. It may still do what it was asked to, later; `yank` may free it."""


def stderr_tail(path: Path) -> str:
    """The last lines that a QEMU wrote to its stderr file (at most 4 KiB), in one line; "" when there are none."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - _STDERR_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())


def _remedy(words: str) -> str:
    """What helps after QEMU said that and left; "" where that isn't known."""
    if found := re.search(r"Image is not in (\w+) format", words):
        return (
            "a conversion of that disk was cut off, or it was replaced: "
            f"`teleport modifymedium disk FILE --format {found[1].upper()}` finishes it"
        )
    return ""


class EventSubscription:
    """QMP events from the moment of `Monitors.events` on, each a mapping with `event`, `data`, `timestamp`; ends when QEMU is gone."""

    def __init__(self, monitors: "Monitors", names: tuple[str, ...]) -> None:
        self._monitors = monitors
        self._names = names
        self._queue: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # ended for every later look too
            raise StopAsyncIteration
        return event

    def close(self) -> None:
        """No more events."""
        self._monitors._forget(self)
        self.offer(None)

    def offer(self, event: Mapping[str, Any] | None) -> None:
        """Takes one event if it is of a kind that was asked for; None ends the subscription."""
        if event is None or not self._names or event["event"] in self._names:
            self._queue.put_nowait(event)


class _Dispatcher(EventListener):
    """Hands each event on at once; the library's own listener would keep a history without end."""

    def __init__(self, monitors: "Monitors") -> None:
        super().__init__()
        self._monitors = monitors

    async def put(self, event: Message) -> None:
        self._monitors._on_event(event)


class Monitors:
    """Both monitors of one live QEMU, and its process.

    All methods raise HypervisorError with QEMU's own words (QemuGoneError once it is gone).
    """

    def __init__(self, process: QemuProcess, stderr_path: Path) -> None:
        self.process = process
        self._stderr_path = stderr_path
        self._watch = ProcessWatch(process)
        self._main = self._client()
        self._oob = self._client()
        self._main.register_listener(_Dispatcher(self))
        self._subscriptions: list[EventSubscription] = []
        self._resumes = 0  # RESUME events seen
        self._fd_lock = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    @staticmethod
    def _client() -> QMPClient:
        client = QMPClient()
        client.events.event_filter = lambda _: False  # the default listener would keep every event for ever
        return client

    @classmethod
    async def connect(
        cls,
        qmp_path: Path,
        oob_path: Path,
        process: QemuProcess,
        stderr_path: Path,
        *,
        timeout_seconds: float = COMMAND_SECONDS,
    ) -> Self:
        """Connects both monitors of a QEMU that may still be starting.

        Raises QemuGoneError when it dies meanwhile, HypervisorError when it does not answer in time (or another client holds a monitor).
        """
        monitors = cls(process, stderr_path)
        try:
            async with asyncio.timeout(timeout_seconds):
                await monitors._greet(monitors._main, qmp_path)
                await monitors._greet(monitors._oob, oob_path)
        except BaseException as error:
            await monitors.close()
            if isinstance(error, TimeoutError):
                raise HypervisorError(
                    f"QEMU {process.label} (pid {process.pid})",
                    f"did not answer on its monitor within {timeout_seconds:g} s",
                    "another program may hold the monitor, or the machine is overloaded",
                ) from error
            raise
        monitors._following = asyncio.create_task(monitors._follow_connection(), name=f"monitor of {process.label}")
        return monitors

    async def _follow_connection(self) -> None:
        """Ends the subscriptions when the monitor has been read to its end: QEMU's last events come just before it."""
        while self._main.runstate is Runstate.RUNNING:
            await self._main.runstate_changed()
        for subscription in tuple(self._subscriptions):
            subscription.close()

    async def _greet(self, client: QMPClient, path: Path) -> None:
        while True:
            if not self._watch.alive:
                raise self._gone("start")
            greeting = asyncio.ensure_future(client.connect(str(path)))
            death = asyncio.ensure_future(self._watch.wait())
            try:
                await asyncio.wait({greeting, death}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                death.cancel()
                if not greeting.done():
                    greeting.cancel()
                result = (await asyncio.gather(greeting, death, return_exceptions=True))[0]
            if result is None:
                return
            if not isinstance(result, QMPError):
                if isinstance(result, asyncio.CancelledError):
                    continue  # it died while we waited
                raise result
            await asyncio.sleep(0.005)  # the socket is not there yet

    async def close(self) -> None:
        """Lets the monitors go; QEMU lives on."""
        for client in (self._main, self._oob):
            with contextlib.suppress(QMPError, EOFError, OSError):  # how it ended does not matter any more
                await client.disconnect()
        self._watch.close()
        if self._following is not None:
            await self._following

    # -- any command

    async def execute(self, command: str, /, *, timeout_seconds: float = COMMAND_SECONDS, **arguments: object) -> Any:
        """Runs a QMP command and returns its answer. Underscores in argument names become hyphens (QAPI's names have no others)."""
        return await self._ask(self._main, command, arguments, timeout_seconds=timeout_seconds)

    async def hmp(self, line: str) -> str:
        """Runs a line of the human monitor and returns what it prints (an error too: HMP knows no other way)."""
        return str(await self.execute("human-monitor-command", command_line=line))

    async def _ask(
        self, client: QMPClient, command: str, arguments: Mapping[str, object], *, timeout_seconds: float, oob: bool = False
    ) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            async with asyncio.timeout(timeout_seconds):
                return await client.execute(command, named, oob=oob)
        except ExecuteError as error:
            raise HypervisorError(f"QEMU {self.process.label}: {command}", str(error)) from error
        except TimeoutError as error:
            raise QemuStuckError(
                f"QEMU {self.process.label}: {command}",
                f"no answer within {timeout_seconds:g} s: its main loop is stuck",
                "look for storage that hangs, or for a migration whose connection stalled",
            ) from error
        except (QMPError, OSError) as error:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # the monitor closes a moment before the process is gone
                    await self._watch.wait()
            raise self._gone(command) from error

    def _gone(self, doing: str) -> QemuGoneError:
        words = stderr_tail(self._stderr_path) or "it left no last words on stderr"
        end = "closed its monitor" if self._watch.alive else "is gone"
        return QemuGoneError(f"QEMU {self.process.label} (pid {self.process.pid}) {end} ({doing})", words, _remedy(words))

    # -- events

    def events(self, *names: str) -> EventSubscription:
        """Events of these names (none: all) from now on: SHUTDOWN, RESET, GUEST_PANICKED, STOP, RESUME, POWERDOWN, …"""
        subscription = EventSubscription(self, names)
        self._subscriptions.append(subscription)
        if self._main.runstate is not Runstate.RUNNING:
            subscription.close()
        return subscription

    def _forget(self, subscription: EventSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "RESUME":
            self._resumes += 1
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)

    async def give_fd(self, name: str, fd: int) -> None:
        """Passes a descriptor into QEMU under `name`, for `fd:NAME` (the caller keeps and closes its own)."""
        async with self._fd_lock:  # getfd takes the descriptor that came last
            try:
                self._main.send_fd_scm(fd)
            except (OSError, AssertionError) as error:  # the library asserts that it is connected
                raise self._gone("getfd") from error
            await self.execute("getfd", fdname=name)

    # -- end

    @property
    def alive(self) -> bool:
        """Whether the process lived when the event loop last looked."""
        return self._watch.alive

    async def quit(self) -> None:
        """Asks QEMU to leave, and returns when it is gone; kills it when it does not within 10 s."""
        with contextlib.suppress(HypervisorError):  # it may be gone before it answers, or stuck: then it is killed
            await self.execute("quit", timeout_seconds=5.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10.0):
                await self._watch.wait()
        await self.kill()

    def last_words(self) -> str:
        """What QEMU wrote to stderr so far (its last lines): a failed load's real reason stands only there."""
        return stderr_tail(self._stderr_path)

    async def kill(self) -> None:
        """SIGKILL, and returns when the process is gone."""
        await self._watch.kill()

    async def wait_dead(self) -> str:
        """Returns when the process is gone, with its last words on stderr."""
        await self._watch.wait()
        return stderr_tail(self._stderr_path)
