from dataclasses import replace

from teleport.model import FREE, Finding, Owner, PlanName
from teleport.preflight.resources import (
    NO_SHARED_FOLDER,
    QEMU_OVERHEAD_BYTES,
    PortWish,
    RecordSight,
    network_warning,
    owner_findings,
    owner_warning,
    port_findings,
    source_memory_findings,
    target_memory_findings,
)

GIB = 1 << 30
SOURCE = Owner(host="alpha", home="/home", vm_uuid="u1", vm_name="S", epoch="e1")
SEEN = RecordSight(SOURCE, 7)
NOTHING = RecordSight(None, -1)


def test_plan_shared_needs_no_second_ram_and_raw_does() -> None:
    assert target_memory_findings(plan=PlanName.SHARED, memory_bytes=64 * GIB, available_bytes=QEMU_OVERHEAD_BYTES) == ()
    needed = GIB + QEMU_OVERHEAD_BYTES
    assert target_memory_findings(plan=PlanName.RAW, memory_bytes=GIB, available_bytes=needed) == ()
    assert target_memory_findings(plan=PlanName.RAW, memory_bytes=GIB, available_bytes=needed - 1) == (
        Finding("memory at the target", "1184 MiB needed", "1184 MiB free"),
    )


def test_sending_shared_ram_fills_its_holes_at_the_source() -> None:
    def findings(*, plan: PlanName = PlanName.RAW, ram_shared: bool = True, available_bytes: int = 0) -> tuple[Finding, ...]:
        return source_memory_findings(
            plan=plan, ram_shared=ram_shared, memory_bytes=GIB, resident_bytes=GIB // 2, available_bytes=available_bytes
        )

    assert len(findings()) == 1
    assert findings(available_bytes=GIB // 2) == ()
    assert findings(plan=PlanName.SHARED) == ()
    assert findings(ram_shared=False) == ()


def test_a_target_on_the_sources_host_takes_its_room_there_too() -> None:
    def findings(available_bytes: int) -> tuple[Finding, ...]:
        return source_memory_findings(
            plan=PlanName.RAW,
            ram_shared=True,
            memory_bytes=GIB,
            resident_bytes=GIB // 2,
            available_bytes=available_bytes,
            target_is_here=True,
        )

    both_bytes = GIB // 2 + GIB + QEMU_OVERHEAD_BYTES
    assert findings(both_bytes) == ()
    assert "for the target on this host" in findings(both_bytes - 1)[0].here


def test_ports_that_are_taken_are_named() -> None:
    free = PortWish("VRDE", "127.0.0.1:3389")
    assert port_findings((free, replace(free, error="Address already in use", mend="teleport modifyvm T --vrdeport 0"))) == (
        Finding("VRDE port", "", "127.0.0.1:3389: Address already in use", "teleport modifyvm T --vrdeport 0"),
    )


def test_both_see_the_record_and_the_guest_is_the_sources() -> None:
    assert owner_findings(SEEN, SEEN, source_owner=replace(SOURCE, epoch="later")) == ()
    assert owner_warning(SEEN, SEEN) == ""


def test_no_record_is_a_warning_and_one_only_is_a_finding() -> None:
    assert owner_findings(NOTHING, NOTHING, source_owner=SOURCE) == ()
    assert owner_warning(NOTHING, NOTHING) == NO_SHARED_FOLDER
    assert owner_findings(SEEN, NOTHING, source_owner=SOURCE) == (
        Finding("owner record", "generation 7", "none: not the same folder"),
    )


def test_an_internal_network_ends_at_its_host() -> None:
    assert network_warning(("lab", "lab", "b"), target_is_here=False).startswith(
        "internal network lab, b: its other VMs on this host are"
    )
    assert network_warning(("lab",), target_is_here=True) == network_warning((), target_is_here=False) == ""


def test_another_owner_another_generation_and_a_record_that_cannot_be_written() -> None:
    other = replace(SOURCE, vm_uuid="u2", vm_name="X", host="beta")
    assert owner_findings(RecordSight(other, 7), RecordSight(other, 7), source_owner=SOURCE) == (
        Finding("owner record", "another owner: VM X of /home on beta", "", "teleport resolve S"),
    )
    assert owner_findings(RecordSight(FREE, 7), RecordSight(FREE, 7), source_owner=SOURCE)[0].here == "another owner: nobody"
    assert owner_findings(SEEN, RecordSight(SOURCE, 6), source_owner=SOURCE) == (
        Finding(
            "owner record",
            "generation 7, VM S of /home on alpha",
            "generation 6, VM S of /home on alpha: not the same folder, or not up to date",
        ),
    )
    assert owner_findings(SEEN, replace(NOTHING, problem="Permission denied"), source_owner=SOURCE) == (
        Finding("owner record", "usable", "Permission denied"),
    )
