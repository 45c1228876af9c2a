"""`controlvm N teleport`: moves the running guest to where another VM waits for it."""

import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, MappingProxyType
from typing import ClassVar

import click

from teleport.cli.aftermath import what_became
from teleport.cli.grammar import Verb, number, seconds
from teleport.cli.progress import Shown, as_event, shown_on
from teleport.cli.running import connect, wait_over
from teleport.errors import InDoubtError, RunnerGoneError, TeleportError
from teleport.machines.store import StoredVm
from teleport.model import Outcome, OutcomeKind, Progress

_PLANS = ("auto", "shared", "raw")
_PAUSE = number("--maxdowntime", 1, 600_000, unit="ms")
_BANDWIDTH = number("--max-bandwidth", 0, 1 << 50, unit="bytes a second")


class TeleportVerb(Verb):
    """`teleport`, with the reasons for what it doesn't take yet."""

    refused: ClassVar = MappingProxyType(
        {
            **dict.fromkeys(
                ("password", "passwordfile"), "no target asks for one yet: whoever reaches its port may teleport there"
            ),
            "post-copy": "a guest is copied whole before it runs elsewhere: --maxdowntime, or a pause, ends a copy that does not",
        }
    )


@click.command("teleport", cls=TeleportVerb)
@click.option("--host", required=True, help="Name or address of the host where the target waits.")
@click.option("--port", required=True, type=number("--port", 1, 65535), metavar="PORT", help="Its teleporter port.")
@click.option("--maxdowntime", default="250", type=_PAUSE, metavar="MS", help="Longest pause in ms (250).")
@click.option("--timeout", default="10", type=seconds("--timeout", 0.1), metavar="S", help="For connecting, in seconds (10).")
@click.option("--plan", default="auto", type=click.Choice(_PLANS), help="Data path (auto: the cheapest that is safe).")
@click.option("--max-bandwidth", default="0", type=_BANDWIDTH, metavar="BYTES", help="Bytes a second (0: no limit).")
@click.option("--insecure", is_flag=True, help="Plain text off loopback, in a network that you trust.")
@click.option("--dry-run", is_flag=True, help="The whole preflight; nothing is moved.")
@click.option("--verify-ram", is_flag=True, help="Hash all of RAM in the pause, on both sides.")
@click.option("--move-display", is_flag=True, help="To another host: viewers connect there anew; nothing of it stays here.")
@click.option("--detailed-progress", is_flag=True, help="A line for each look, instead of one bar.")
@click.option("--json", "as_json", is_flag=True, help="One event a line, as JSON.")
@click.pass_obj
def teleport(
    vm: StoredVm,
    *,
    host: str,
    port: int,
    maxdowntime: int,
    timeout: float,
    plan: str,
    max_bandwidth: int,
    insecure: bool,
    dry_run: bool,
    verify_ram: bool,
    move_display: bool,
    detailed_progress: bool,
    as_json: bool,
) -> int:
    """Teleport the running VM to where another one waits. Ctrl-C cancels: it runs on here."""
    from teleport.wire._generated.teleport.v1 import control_pb2  # noqa: PLC0415 - protobuf is only needed from here on

    request = control_pb2.TeleportRequest(
        host=host,
        port=port,
        plan=plan,
        max_downtime_ms=maxdowntime,
        timeout_seconds=timeout,
        max_bandwidth_bytes_per_second=max_bandwidth,
        insecure=insecure,
        dry_run=dry_run,
        verify_ram=verify_ram,
        move_display=move_display,
    )
    with connect(vm) as control, shown_on(sys.stdout, as_json=as_json, detailed=detailed_progress) as shown:
        events = control.teleport(request)

        def cancel() -> None:
            try:
                with connect(vm) as other:
                    shown.note(other.cancel())
            except TeleportError as error:
                shown.note(str(error))

        def interrupted(_signal: int, _frame: FrameType | None) -> None:
            # A handler may come in the middle of a write to stdout, where nothing else can be written but by another thread.
            threading.Thread(target=cancel, name="cancel", daemon=True).start()

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            end = _follow(events, shown)
        except RunnerGoneError:
            end = what_became(vm, target=f"{host}:{port}", say=shown.note)
            shown.finish(end)
        finally:
            signal.signal(signal.SIGINT, before)
    return _finish(vm, end, as_json=as_json)


def _follow(events: Iterator[Progress | str | Outcome | TeleportError], shown: Shown) -> Outcome:
    """Shows everything and returns the end. Raises the error that it ended with."""
    for event in events:
        match event:
            case Progress():
                shown.progress(event)
            case Outcome():
                shown.finish(event)
                return event
            case TeleportError():
                shown.fail(event)
                raise event
            case _:
                shown.note(event)
    raise AssertionError("the client raises when the events end without an end")


def _finish(vm: StoredVm, end: Outcome, *, as_json: bool) -> int:
    if end.kind is OutcomeKind.IN_DOUBT:
        raise InDoubtError("teleport", end.message, f"the paused copy is kept; teleport resolve {shlex.quote(vm.name)}")
    if end.kind is OutcomeKind.MOVED:
        wait_over(vm)
    if as_json:
        click.echo(json.dumps(as_event(end)))
    elif end.kind is OutcomeKind.CHECKED:
        click.echo(f"Nothing was moved: {end.message}.")
    elif not end.target_qemu_pid:  # told by a successor of the agent that died on the way
        click.echo(f"VM {vm.name!r} was teleported: {end.message}.")
    else:
        verified = f"; RAM verified ({end.ram_verified[:16]})" if end.ram_verified else ""
        click.echo(
            f"VM {vm.name!r} runs as {end.target_vm!r} at {end.target} (process {end.target_qemu_pid}): plan {end.plan}, "
            f"{end.sent_bytes / 1e6:.1f} MB, {end.total_ms / 1e3:.2f} s ({end.migrate_ms:.0f} ms from `migrate` to `cont`), "
            f"paused for {end.downtime_ms:.0f} ms{verified}."
        )
        if end.display:
            click.echo(f"Its display is at {end.display}.")
    return 0


@click.command("teleport-cancel", help="End a teleport that is under way: the guest runs on here.")
@click.pass_obj
def cancel(vm: StoredVm) -> None:
    """Cancels."""
    with connect(vm) as control:
        click.echo(control.cancel())
