"""One QEMU through QMP: the `teleport.ports.Guest` that is real.

Two monitors: the main one for everything, a second one for out-of-band `yank`, which QEMU's monitor thread answers even when
its main loop is stuck (a stalled tunnel in migration state `device`, tried). A QMP monitor takes one client at a time.

Events are lost while nobody listens, so that waiting always asks (`query-migrate`, `query-status`) and takes events as a wake-up.
The process's death is seen by pidfd; the last lines of its stderr file are what it had to say.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from teleport.errors import HypervisorError
from teleport.host.facts import live_facts
from teleport.host.priority import hurry, put_back, put_first, threads_named
from teleport.host.process import ProcessWatch
from teleport.model import Fact, MigrationInfo, QemuProcess

# Every end of a QEMU is an EOF that qemu.qmp logs as an error; what matters of it arrives as an exception.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

COMMAND_SECONDS = 30.0  # an answer takes milliseconds; this long says that QEMU's main loop is stuck
_MIGRATION_THREADS = "mig/src"  # QEMU's own names, with debug-threads=on
STORAGE_SECONDS = 120.0  # commands that wait for disks: stop drains and flushes, cont and blockdev-set-active open and lock
_POLL_SECONDS = 0.25  # the backstop behind migration events
_SETTLING_SECONDS = 10.0
_STDERR_TAIL_BYTES = 4096
_FINAL = frozenset({"completed", "failed", "cancelled"})


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
    """QMP events from the moment of `QmpGuest.events` on, each a mapping with `event`, `data`, `timestamp`; ends when QEMU is gone."""

    def __init__(self, guest: "QmpGuest", names: tuple[str, ...]) -> None:
        self._guest = guest
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
        self._guest._forget(self)
        self.offer(None)

    def offer(self, event: Mapping[str, Any] | None) -> None:
        """Takes one event if it is of a kind that was asked for; None ends the subscription."""
        if event is None or not self._names or event["event"] in self._names:
            self._queue.put_nowait(event)


class _Dispatcher(EventListener):
    """Hands each event on at once; the library's own listener would keep a history without end."""

    def __init__(self, guest: "QmpGuest") -> None:
        super().__init__()
        self._guest = guest

    async def put(self, event: Message) -> None:
        self._guest._on_event(event)


class QmpGuest:
    """One live QEMU. All methods raise HypervisorError with QEMU's own words (QemuGoneError once it is gone)."""

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
    ) -> "QmpGuest":
        """Connects both monitors of a QEMU that may still be starting.

        Raises QemuGoneError when it dies meanwhile, HypervisorError when it does not answer in time (or another client holds a monitor).
        """
        guest = cls(process, stderr_path)
        try:
            async with asyncio.timeout(timeout_seconds):
                await guest._greet(guest._main, qmp_path)
                await guest._greet(guest._oob, oob_path)
        except BaseException as error:
            await guest.close()
            if isinstance(error, TimeoutError):
                raise HypervisorError(
                    f"QEMU {process.label} (pid {process.pid})",
                    f"did not answer on its monitor within {timeout_seconds:g} s",
                    "another program may hold the monitor, or the machine is overloaded",
                ) from error
            raise
        guest._following = asyncio.create_task(guest._follow_connection(), name=f"monitor of {process.label}")
        return guest

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

    # -- run state

    async def status(self) -> str:
        """QEMU's run state."""
        return str((await self.execute("query-status"))["status"])

    async def stop(self) -> None:
        """Pauses the vCPUs; returns when the disks are drained and flushed."""
        await self.execute("stop", timeout_seconds=STORAGE_SECONDS)

    async def cont(self) -> None:
        """Lets the vCPUs run. Returns when they do, or did (a guest may shut down at once).

        Raises HypervisorError when QEMU refuses (an image lock), or answers and the guest does not run all the same. Never says
        `cont` to a QEMU that is still loading: that would start half a guest (tried).
        """
        await self._leave_inmigrate()
        put_back(self.process.pid)
        resumes = self._resumes
        await self.execute("cont", timeout_seconds=STORAGE_SECONDS)
        deadline = asyncio.get_running_loop().time() + _SETTLING_SECONDS
        while (status := await self.status()) != "running" and self._resumes == resumes:
            if asyncio.get_running_loop().time() > deadline:
                raise HypervisorError(
                    f"QEMU {self.process.label}: cont", f"it answered, but the guest does not run: its state is {status}"
                )
            await asyncio.sleep(0.005)

    async def _leave_inmigrate(self) -> None:
        deadline = asyncio.get_running_loop().time() + _SETTLING_SECONDS
        while await self.status() == "inmigrate":
            loaded = (await self.migration()).status in ("completed", "postcopy-active")
            if not loaded or asyncio.get_running_loop().time() > deadline:
                raise HypervisorError(
                    f"QEMU {self.process.label}: cont", "not done: this QEMU still waits for a guest or loads one"
                )
            await asyncio.sleep(0.002)  # a moment between the last byte and the paused state

    # -- migration

    async def configure_migration(self, capabilities: Mapping[str, bool], parameters: Mapping[str, str | int]) -> None:
        """Sets capabilities and parameters (QAPI's own names)."""
        if capabilities:
            wanted = [{"capability": name, "state": state} for name, state in capabilities.items()]
            await self.execute("migrate-set-capabilities", capabilities=wanted)
        if parameters:
            await self._ask(self._main, "migrate-set-parameters", parameters, timeout_seconds=COMMAND_SECONDS)

    async def migrate(self, uri: str) -> None:
        """Starts an outgoing migration to `unix:PATH` or `fd:NAME` (see `give_fd`)."""
        await self.execute("migrate", uri=uri)
        hurry(threads_named(self.process.pid, _MIGRATION_THREADS))

    async def migrate_incoming(self, uri: str) -> None:
        """Starts listening; a failed load leaves this QEMU alive with the reason in `migration`."""
        await self.execute("migrate-incoming", uri=uri, exit_on_error=False)
        put_first(self.process.pid)  # the main thread loads; until `cont`

    def hurry_loading(self) -> None:
        """Its stream begins."""
        hurry((self.process.pid,))

    async def migrate_continue(self) -> None:
        """Leaves pre-switchover."""
        await self.execute("migrate-continue", state="pre-switchover")

    async def migrate_cancel(self) -> None:
        """Cancels; returns at once, `wait_migration` says when it is done."""
        await self.execute("migrate_cancel")

    async def migration(self) -> MigrationInfo:
        """query-migrate; status "none" when there was never one."""
        answer = await self.execute("query-migrate")
        ram = answer.get("ram", {})
        return MigrationInfo(
            status=answer.get("status", "none"),
            error=answer.get("error-desc", ""),
            total_bytes=ram.get("total", 0),
            transferred_bytes=ram.get("transferred", 0),
            remaining_bytes=ram.get("remaining", 0),
            dirty_pages_per_second=ram.get("dirty-pages-rate", 0),
            page_bytes=ram.get("page-size", 4096),
            rounds=ram.get("dirty-sync-count", 0),
            throughput_bits_per_second=int(ram.get("mbps", 0) * 1_000_000),
            expected_downtime_ms=answer.get("expected-downtime", 0),
            downtime_ms=answer.get("downtime", 0),
            total_ms=answer.get("total-time", 0),
        )

    async def wait_migration(self, *statuses: str) -> str:
        """Waits until the status is one of these, or completed, failed or cancelled, and returns it.

        Needs the capability `events` to be quick; without, or with events lost, it asks four times a second. A QEMU that is stuck
        in its switchover is waited for: who watches the connection breaks it by `yank`. QEMU says `failed` some milliseconds
        before it lets a source run again (tried): that end is waited for too.
        """
        ends = _FINAL.union(statuses)
        changes = self.events("MIGRATION")
        try:
            status = await self._migration_end(ends, changes)
        finally:
            changes.close()
        if status in ("failed", "cancelled"):
            deadline = asyncio.get_running_loop().time() + _SETTLING_SECONDS
            while await self.status() == "finish-migrate" and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - QEMU's state
                await asyncio.sleep(0.002)
        return status

    async def _migration_end(self, ends: frozenset[str], changes: EventSubscription) -> str:
        while True:
            with contextlib.suppress(QemuStuckError):
                status = (await self.migration()).status
                if status in ends:
                    return status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    async for event in changes:
                        if event["data"]["status"] in ends:
                            return str(event["data"]["status"])
                    raise self._gone("migration")

    async def take_ram(self) -> None:
        """Lets QEMU take and map all of its guest's RAM now (`ram0`): the first touch of a page costs it as much as copying one into it.

        Its main loop does nothing else meanwhile (0.1 s a GiB that the runner has populated before, 0.4 s otherwise). Raises
        HypervisorError when memory runs out.
        """
        ram = "/objects/ram0"
        await self.execute("qom-set", path=ram, property="prealloc-threads", value=os.cpu_count() or 1)
        await self.execute("qom-set", path=ram, property="prealloc", value=True, timeout_seconds=STORAGE_SECONDS)

    async def give_fd(self, name: str, fd: int) -> None:
        """Passes a descriptor into QEMU under `name`, for `fd:NAME` (the caller keeps and closes its own)."""
        async with self._fd_lock:  # getfd takes the descriptor that came last
            try:
                self._main.send_fd_scm(fd)
            except (OSError, AssertionError) as error:  # the library asserts that it is connected
                raise self._gone("getfd") from error
            await self.execute("getfd", fdname=name)

    async def yank(self) -> None:
        """Breaks the migration's connections through the out-of-band monitor. Does nothing when there are none."""
        instances = await self._ask(self._oob, "query-yank", {}, timeout_seconds=COMMAND_SECONDS, oob=True)
        migration = [instance for instance in instances if instance["type"] == "migration"]
        if migration:
            await self._ask(self._oob, "yank", {"instances": migration}, timeout_seconds=COMMAND_SECONDS, oob=True)

    # -- disks, network, display, introspection

    async def activate_disks(self) -> None:
        """Takes the image locks of all nodes. After a failure some may be active: deactivate all, or kill this QEMU."""
        await self.execute("blockdev-set-active", active=True, timeout_seconds=STORAGE_SECONDS)

    async def deactivate_disks(self) -> None:
        """Lets all image locks go."""
        await self.execute("blockdev-set-active", active=False, timeout_seconds=STORAGE_SECONDS)

    async def announce(self) -> None:
        """Sends RARPs for the guest's MACs, five within a second (QEMU's own defaults after a migration)."""
        await self.execute("announce-self", initial=50, max=550, rounds=5, step=100)

    async def screendump(self, path: Path, *, image_format: str = "png") -> None:
        """Writes the first display's picture to `path`, as `png` or `ppm`."""
        await self.execute("screendump", filename=str(path), format=image_format, timeout_seconds=STORAGE_SECONDS)

    async def facts(self) -> tuple[Fact, ...]:
        """What this machine is, by introspection."""
        return await live_facts(self.execute)

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
