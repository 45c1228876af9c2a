"""The guardian of one running VM: holds its lock and its RAM, starts QEMU, and restarts an agent that died.

::

    starter ──▶ guardian (flock on MACHINE_FOLDER/lock) ──▶ agent          a SOCK_SEQPACKET pair, its end of it in TELEPORT_GUARDIAN_FD
                    └──▶ QEMU, in its own session; RAM memfd held here too

What is held by whom: the lock, the QEMUs' parenthood and the RAM descriptors by the guardian; everything else (QMP, journal,
ports) by the agent. The QEMUs are kept in `teleport.runner.guarded`.

- The agent dies: the guardian starts another, which lists the QEMUs, gets their RAM again and asks them by QMP what they are.
- The guardian dies: QEMU lives on; the agent sees EOF, ends what it has begun (`teleport.runner.leaving`) and exits. A new guardian
  (`--adopt`) ends an agent that did not yet, finds QEMU by pid, start time and boot, and opens its RAM again at /proc/PID/fd/N.
- QEMU dies: the agent sees it by pidfd; the guardian reaps it and keeps exit status and RAM until `forget`.

Requests, one JSON object a packet, with an `id` that the answer repeats; ``{"ok": …}`` or
``{"error": [kind, what, why, hint]}``:

=======  ==========================================================  =====================================================
op       arguments                                                   answer
=======  ==========================================================  =====================================================
spawn    label, argv, stderr, ram_bytes, fds (names of those         process
         attached; ``{fd:NAME}`` in argv becomes the number)
list                                                                 qemus: process, alive, status; the RAM fds attached
forget   pid of a dead one
ready                                                                (the agent is up: from now on its death is a crash)
finish   code: the VM is over; refused while a QEMU lives             the guardian tidies up and exits with code
=======  ==========================================================  =====================================================

SIGTERM, SIGINT and SIGHUP are handed on to the agent, which decides.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from teleport.errors import BusyError, ProtocolError, StateError, StorageError, TeleportError
from teleport.host.fd_messages import Message, close_all, receive_async, send
from teleport.host.process import ProcessWatch, start_ticks
from teleport.model import QemuProcess
from teleport.runner.guarded import SIGNALS, HeldQemus, read_json, write_json
from teleport.runner.runtime_folder import open_runtime_folder, remove_runtime_folder

SOCKET_VARIABLE = "TELEPORT_GUARDIAN_FD"
RESTARTS_VARIABLE = "TELEPORT_AGENT_RESTARTS"
_AGENT_FILE = "agent.json"
_QUICK_DEATH_SECONDS = 60.0
_QUICK_DEATHS_WITHOUT_QEMU = 4
_LEAVING_SECONDS = 10.0
_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.01


@dataclass
class Guardian:
    """One VM's. `run` serves until the VM is over and returns the exit code."""

    machine_folder: Path
    run_folder: Path
    agent_argv: Sequence[str]
    qemus: HeldQemus = field(init=False)
    agent: subprocess.Popen[bytes] | None = None
    ever_ready: bool = False
    agent_ready: bool = False
    finish_code: int | None = None
    asked_signal: int | None = None
    signalled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.qemus = HeldQemus(self.run_folder)

    # -- requests

    def answer(self, request: Message, fds: list[int]) -> tuple[Message, list[int]]:
        """Does what one request asks. Raises TeleportError, OSError, KeyError; then `fds` are still the caller's."""
        match request["op"]:
            case "spawn":
                return self.qemus.spawn(request, fds), []
            case "list":
                return self.qemus.described()
            case "forget":
                self.qemus.forget(request["pid"])
            case "ready":
                self.ever_ready = self.agent_ready = True
                if self.asked_signal is not None and self.agent is not None:
                    self.agent.send_signal(self.asked_signal)
            case "finish":
                if living := self.qemus.live():
                    raise StateError("the VM", f"its QEMU (pid {living[0].process.pid}) still lives", "end it first")
                self.finish_code = int(request["code"])
            case other:
                raise ProtocolError("a request to the guardian", f"unknown: {other}")
        return {}, []

    async def serve(self, connection: socket.socket) -> None:
        """Answers an agent until it closes."""
        while (received := await receive_async(connection)) is not None:
            request, fds = received
            number = request.get("id", 0)
            try:
                result, attached = self.answer(request, fds)
                send(connection, {"id": number, "ok": result}, attached)
            except (TeleportError, OSError, KeyError, ValueError, TypeError) as error:
                close_all(fds)
                told = (
                    error
                    if isinstance(error, TeleportError)
                    else StorageError(f"guardian: {request.get('op')}", f"{type(error).__name__}: {error}")
                )
                with contextlib.suppress(OSError):  # the agent has gone
                    send(connection, {"id": number, "error": (told.kind, told.what, told.why, told.hint)})

    # -- the agent

    async def run(self) -> int:
        """Keeps an agent running until the VM is over."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._hand_on, number)
        quick_deaths = 0
        restarts = 0
        while True:
            begin = loop.time()
            code = await self._run_agent(restarts)
            if self.finish_code is not None:
                return self.finish_code
            quick_deaths = quick_deaths + 1 if loop.time() - begin < _QUICK_DEATH_SECONDS else 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds(quick_deaths)):
                    await self.signalled.wait()
            self.signalled.clear()
            if not self.qemus.live() and (
                not self.ever_ready or quick_deaths > _QUICK_DEATHS_WITHOUT_QEMU or self.asked_signal is not None
            ):
                return code or 1
            restarts += 1

    def _pause_seconds(self, quick_deaths: int) -> float:
        return min(30.0, 0.1 * 2 ** (quick_deaths - 1)) if self.ever_ready or self.qemus.live() else 0.0

    async def _run_agent(self, restarts: int) -> int:
        """One agent from start to end; its exit code (128 + N after signal N)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, SOCKET_VARIABLE: str(theirs.fileno()), RESTARTS_VARIABLE: str(restarts)}
        with ours:
            with theirs:
                # A session of its own: a terminal's signals come to the guardian, which hands them on once.
                self.agent = subprocess.Popen(  # noqa: ASYNC220 - milliseconds, and nothing else to serve meanwhile
                    self.agent_argv,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                )
            process = QemuProcess(
                pid=self.agent.pid,
                start_ticks=start_ticks(self.agent.pid) or 0,
                label="agent",
                argv=tuple(self.agent_argv),  # for whoever must bring a new guardian
            )
            write_json(self.run_folder / _AGENT_FILE, asdict(process))
            ours.setblocking(False)
            watch = ProcessWatch(process)
            serving = asyncio.create_task(self.serve(ours))
            dying = asyncio.create_task(watch.wait())
            await asyncio.wait({serving, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not dying.done():  # it closed its socket, or has finished: it is to leave now
                await asyncio.wait({dying}, timeout=_LEAVING_SECONDS)
                await watch.kill()
            serving.cancel()
            await asyncio.gather(serving, dying, return_exceptions=True)
            watch.close()
        code = self.agent.wait()
        self.agent, self.agent_ready = None, False
        return code if code >= 0 else 128 - code

    def _hand_on(self, number: int) -> None:
        """To the agent at once, unless a QEMU lives and the agent is not up yet: then as soon as it is.

        It stays asked for until the VM is over: an agent that dies before it has obeyed leaves it to the next.
        """
        self.asked_signal = number
        self.signalled.set()
        if self.agent is not None and (self.agent_ready or not self.qemus.live()):
            self.agent.send_signal(number)


async def _end_orphan(run_folder: Path) -> None:
    """Kills an agent that outlived its guardian: two must never write one journal."""
    entry = read_json(run_folder / _AGENT_FILE)
    if entry:
        watch = ProcessWatch(QemuProcess(**{**entry, "argv": ()}))
        await watch.kill()


async def _take_lock(lock_fd: int, machine_folder: Path) -> None:
    """Raises BusyError when another guardian has it. Those who only look at the VM's state hold it for microseconds."""
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        await asyncio.sleep(_LOCK_PAUSE_SECONDS)
    raise BusyError(f"machine {machine_folder.name}", "is running already", "see `teleport list runningvms`")


async def guard(machine_folder: Path, agent_argv: Sequence[str], *, adopt: bool) -> int:
    """Everything from the lock to the exit code. Raises BusyError when another guardian has the VM, StateError."""
    try:
        lock_fd = os.open(machine_folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"machine folder {machine_folder}", error.strerror or str(error)) from error
    try:
        await _take_lock(lock_fd, machine_folder)
        run_folder = open_runtime_folder(machine_folder)
        await _end_orphan(run_folder)
        guardian = Guardian(machine_folder, run_folder, agent_argv)
        guardian.qemus.adopt()
        if guardian.qemus and not adopt:
            pid = next(iter(guardian.qemus)).process.pid
            raise StateError(
                f"machine {machine_folder.name}",
                f"its QEMU (pid {pid}) lives on after its runner died",
                "let a runner adopt it",
            )
        if not guardian.qemus:
            for leftover in tuple(run_folder.iterdir()):
                shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        try:
            return await guardian.run()
        finally:
            if not guardian.qemus.live():
                remove_runtime_folder(machine_folder, run_folder)
    except OSError as error:
        raise StorageError(f"machine {machine_folder.name}", f"{error.strerror}: {error.filename}") from error
    finally:
        os.close(lock_fd)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m teleport.runner.guardian --folder MACHINE_FOLDER [--adopt] [--home H] -- AGENT…`."""
    parser = argparse.ArgumentParser(prog="teleport-guardian", description="Guards one running VM; started by startvm.")
    parser.add_argument("--home", type=Path, help="the state folder, handed to the agent as TELEPORT_HOME")
    parser.add_argument("--folder", type=Path, required=True, help="the machine's folder")
    parser.add_argument("--adopt", action="store_true", help="take over the QEMU of a guardian that died")
    parser.add_argument("agent", nargs="+", help="the agent's command")
    options = parser.parse_args(arguments)
    if options.home is not None:
        os.environ["TELEPORT_HOME"] = str(options.home)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            return asyncio.run(guard(options.folder, options.agent, adopt=options.adopt))
        except TeleportError as error:
            print(f"teleport: error: {error}", file=sys.stderr)
            return error.exit_code
    return 130


if __name__ == "__main__":
    sys.exit(main())
