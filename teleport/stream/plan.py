"""Which data path a teleport takes: the cheapest that is safe, chosen before the start, with the reason that is reported."""

from teleport.errors import RefusedError, UsageError
from teleport.model import PlanName

# `--ram` kinds whose memory is a file that another QEMU of this host can map. Huge pages are a memfd too, but x-ignore-shared
# over them was not tried yet: they travel by the raw plan.
SHAREABLE_RAM = frozenset({"shared"})
_CAPABILITY = {PlanName.SHARED: "plan-shared", PlanName.RAW: "plan-raw"}


def choose_plan(
    requested: str | PlanName,
    *,
    same_host: bool,
    ram: str,
    source_capabilities: frozenset[str],
    target_capabilities: frozenset[str],
) -> tuple[PlanName, str]:
    """The plan (never AUTO) and why, in words for the report.

    `requested` is `--plan`; `ram` the source's `--ram` kind; `same_host` whether both ends met within one network namespace.
    Raises UsageError for a word that is no plan, RefusedError when the plan that was asked for cannot be, or none can.
    """
    plan = _parse(requested)
    obstacles = {
        name: _obstacle(
            name,
            same_host=same_host,
            ram=ram,
            source_capabilities=source_capabilities,
            target_capabilities=target_capabilities,
        )
        for name in (PlanName.SHARED, PlanName.RAW)
    }
    if plan is not PlanName.AUTO:
        if obstacle := obstacles[plan]:
            raise RefusedError(f"plan {plan.value}", obstacle, "leave --plan out, or use --plan auto")
        return plan, "asked for"
    if not obstacles[PlanName.SHARED]:
        return PlanName.SHARED, "both ends are on one host and share the guest's memory"
    if not obstacles[PlanName.RAW]:
        return PlanName.RAW, obstacles[PlanName.SHARED]
    raise RefusedError("no plan fits", "; ".join(f"{name.value}: {why}" for name, why in obstacles.items()))


def _parse(requested: str | PlanName) -> PlanName:
    try:
        return PlanName(requested)
    except ValueError as error:
        allowed = ", ".join(name.value for name in PlanName)
        raise UsageError(f"--plan {requested}", "no such plan", f"one of {allowed}") from error


def _obstacle(
    plan: PlanName, *, same_host: bool, ram: str, source_capabilities: frozenset[str], target_capabilities: frozenset[str]
) -> str:
    """Why `plan` cannot be; "" when it can."""
    capability = _CAPABILITY[plan]
    if capability not in source_capabilities:
        return f"the source cannot do {capability}"
    if capability not in target_capabilities:
        return f"the target cannot do {capability}"
    if plan is PlanName.SHARED:
        if not same_host:
            return "the two ends are not on one host"
        if ram not in SHAREABLE_RAM:
            return f"the guest's memory is {ram or 'private'}, not shared (modifyvm NAME --ram shared, while it is off)"
    return ""
