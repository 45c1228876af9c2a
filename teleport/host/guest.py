"""One QEMU through QMP: the `teleport.ports.Guest` that is real.

Events are lost while nobody listens, so that waiting always asks (`query-migrate`, `query-status`) and takes events as a wake-up.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from teleport.errors import HypervisorError
from teleport.host.facts import live_facts
from teleport.host.monitors import COMMAND_SECONDS, STORAGE_SECONDS, EventSubscription, Monitors, QemuStuckError
from teleport.host.priority import hurry, put_back, put_first, threads_named
from teleport.model import Fact, MigrationInfo

_MIGRATION_THREADS = "mig/src"  # QEMU's own names, with debug-threads=on
_POLL_SECONDS = 0.25  # the backstop behind migration events
_SETTLING_SECONDS = 10.0
_FINAL = frozenset({"completed", "failed", "cancelled"})


class QmpGuest(Monitors):
    """One live QEMU. All methods raise HypervisorError with QEMU's own words (QemuGoneError once it is gone)."""

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
            while await self.status() == "finish-migrate" and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - no event tells
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
