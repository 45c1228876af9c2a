"""Stock QEMU's own live migration between two bare QEMUs over a unix socket: the baseline that ours is measured against."""

import time
from dataclasses import dataclass

from tests.harness.bare import BareQemu
from tests.harness.guest import GuestConsole
from tests.harness.ticker import Continuity


@dataclass(frozen=True)
class NativeResult:
    """One native migration. `seconds` is from `migrate` to the source's `completed`; the gap is the listener's, from outside."""

    seconds: float
    continuity: Continuity
    transferred_bytes: int
    downtime_ms: int

    @property
    def gap_ms(self) -> float:
        """The guest's silence as an outsider saw it."""
        assert self.continuity.switchover_ms is not None
        return self.continuity.switchover_ms


def native_migrate(
    source: BareQemu,
    target: BareQemu,
    console: GuestConsole,
    *,
    downtime_limit_ms: int = 300,
    max_bandwidth: int = 1 << 40,
    capabilities: tuple[str, ...] = (),
    timeout_seconds: float = 120,
) -> NativeResult:
    """Migrates; `console` listens to both. The bandwidth is unlimited, as on a unix socket nobody else needs it.

    Raises RuntimeError with QEMU's words when it fails, TimeoutError when it does not converge in time.
    """
    uri = f"unix:{target.folder / 'migration'}"
    for qemu in (source, target):
        if capabilities:
            qemu.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in capabilities])
        qemu.qmp("migrate-set-parameters", max_bandwidth=max_bandwidth, downtime_limit=downtime_limit_ms)
    target.qmp("migrate-incoming", uri=uri)
    last = console.last_tick
    begun = time.monotonic()
    source.qmp("migrate", uri=uri)
    while (info := source.qmp("query-migrate")).get("status") != "completed":
        if info["status"] in ("failed", "cancelled"):
            raise RuntimeError(f"{info.get('error-desc', info['status'])}: {target.errors}")
        if time.monotonic() > begun + timeout_seconds:
            raise TimeoutError(f"not converged: {info}")
        time.sleep(0.005)
    seconds = time.monotonic() - begun
    console.wait_for_tick(timeout_seconds, endpoint=target.name, after_counter=last.counter if last else -1, count=50)
    return NativeResult(
        seconds=seconds,
        continuity=console.continuity(begun),
        transferred_bytes=info["ram"]["transferred"],
        downtime_ms=info["downtime"],
    )
