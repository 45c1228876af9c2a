"""The control API over a real unix socket: verbs, events, errors, and runners that are not there."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from teleport.errors import BusyError, InDoubtError, RefusedError, RunnerGoneError, StateError, TeleportError
from teleport.model import Outcome, OutcomeKind, Progress, Stage
from teleport.wire._generated.teleport.v1 import control_pb2 as control
from teleport.wire.control_client import ControlClient
from teleport.wire.control_server import ControlServer, Event, Status
from tests.fakes.until import until

PROGRESS = Progress(stage=Stage.COPYING, percent=40, round=2, sent_bytes=5, eta_seconds=1.5, plan="raw")
OUTCOME = Outcome(kind=OutcomeKind.MOVED, message="the guest runs at the target", plan="raw", target="h:6000", total_ms=1.5)
REFUSAL = RefusedError("teleport", "they differ", "mend them", findings=(("memory", "1", "2", "modifyvm T --memory 1"),) * 300)


class FakeAgent:
    """A runner without a VM."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.events: list[Event] = []
        self.fails_with: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.last: Event | None = None
        self.left = 0

    def _do(self, *what: object) -> None:
        self.asked.append(what)
        if self.fails_with:
            raise self.fails_with

    async def status(self) -> Status:
        self._do("status")
        return Status(
            state="running",
            version="1",
            qemu_pid=1,
            agent_pid=2,
            guardian_pid=3,
            teleporter_port=6000,
            detail="d",
            properties={"vrdeport": "3389"},
        )

    async def power(self, action: str) -> str:
        self._do("power", action)
        await self.hold.wait()
        return "paused"

    async def execute(self, command: str, arguments: tuple[str, ...]) -> str:
        self._do(command, *arguments)
        return "text"

    async def teleport(self, request: control.TeleportRequest) -> AsyncIterator[Event]:
        self._do("teleport", request.host, request.port)
        try:
            for event in self.events:
                yield event
            await self.hold.wait()
            if self.last:
                yield self.last
        finally:
            self.left += 1

    async def cancel(self) -> str:
        self._do("cancel")
        return "cancelling"

    async def watch(self) -> AsyncIterator[Event]:
        self._do("watch")
        try:
            for event in self.events:
                yield event
            await self.hold.wait()
        finally:
            self.left += 1

    async def resolve(self, *, run_here: bool, moved: bool, confirmed: bool) -> str:
        self._do("resolve", run_here, moved, confirmed)
        return "resolved"


@pytest.fixture
def path(short_folder: Path) -> Path:
    return short_folder / "control.sock"


def run(
    path: Path, work: Callable[[ControlClient, FakeAgent], None], prepare: Callable[[FakeAgent], None] = lambda _: None
) -> FakeAgent:
    """`work` in a thread, as the command line's own process would be, while the runner's loop serves."""

    def talk(agent: FakeAgent) -> None:
        with ControlClient(path, vm_name="S") as client:
            work(client, agent)

    async def whole() -> FakeAgent:
        agent = FakeAgent()
        prepare(agent)
        server = ControlServer(agent, path=path)
        await server.start()
        try:
            async with asyncio.timeout(60):
                await asyncio.to_thread(talk, agent)
        finally:
            agent.hold.set()
            await server.stop()
        assert not path.exists()
        return agent

    return asyncio.run(whole())


def test_every_verb(path: Path) -> None:
    def work(client: ControlClient, _: FakeAgent) -> None:
        found = client.status()
        assert (found.state, found.qemu_pid, found.teleporter_port, dict(found.properties)) == (
            "running",
            1,
            6000,
            {"vrdeport": "3389"},
        )
        assert client.power("pause") == "paused"
        assert client.execute("screenshotpng", "/tmp/a file.png") == "text"
        assert client.cancel() == "cancelling"
        assert client.resolve(run_here=True, moved=False, confirmed=True) == "resolved"

    agent = run(path, work)
    assert agent.asked == [
        ("status",),
        ("power", "pause"),
        ("screenshotpng", "/tmp/a file.png"),
        ("cancel",),
        ("resolve", True, False, True),
    ]


def test_events_arrive_in_order_and_whole(path: Path) -> None:
    events: list[Event] = ["plan raw", PROGRESS, OUTCOME, REFUSAL]

    def work(client: ControlClient, _: FakeAgent) -> None:
        for found in (client.teleport(control.TeleportRequest(host="h", port=6000)), client.watch()):
            *others, failure = list(found)
            assert others == events[:3]
            assert isinstance(failure, RefusedError)
            assert vars(failure) == vars(REFUSAL)

    agent = run(path, work, lambda agent: agent.events.extend(events))
    assert sorted(agent.asked) == [("teleport", "h", 6000), ("watch",)]
    assert agent.left == 2


@pytest.mark.parametrize("error", [BusyError("teleport", "already teleporting", "cancel it"), InDoubtError("a", "b"), REFUSAL])
def test_errors_are_raised_as_they_were(path: Path, error: TeleportError) -> None:
    def work(client: ControlClient, _: FakeAgent) -> None:
        for ask in (client.status, lambda: client.power("x"), lambda: list(client.teleport(control.TeleportRequest()))):
            with pytest.raises(type(error)) as caught:
                ask()
            assert vars(caught.value) == vars(error)

    run(path, work, lambda agent: setattr(agent, "fails_with", error))


def test_an_unforeseen_error_is_no_traceback(path: Path) -> None:
    def work(client: ControlClient, _: FakeAgent) -> None:
        with pytest.raises(TeleportError, match="ZeroDivisionError"):
            client.status()
        with pytest.raises(TeleportError, match="ZeroDivisionError"):
            list(client.watch())

    run(path, work, lambda agent: setattr(agent, "fails_with", ZeroDivisionError("x")))


def test_a_listener_that_leaves_early_ends_its_iterator_only(path: Path) -> None:
    async def whole() -> None:
        agent = FakeAgent()
        agent.hold.clear()
        agent.events.append(PROGRESS)
        server = ControlServer(agent, path=path)
        await server.start()

        def leave() -> None:
            with ControlClient(path, vm_name="S") as client:
                assert next(iter(client.teleport(control.TeleportRequest()))) == PROGRESS

        def ask() -> str:
            with ControlClient(path, vm_name="S") as client:
                return client.cancel()

        await asyncio.to_thread(leave)
        await until(lambda: agent.left == 1)
        assert await asyncio.to_thread(ask) == "cancelling"
        await server.stop()

    asyncio.run(whole())


def test_a_server_that_stops_lets_the_last_event_out(path: Path) -> None:
    async def whole() -> list[Event]:
        agent = FakeAgent()
        agent.hold.clear()
        agent.events.append(PROGRESS)
        server = ControlServer(agent, path=path)
        await server.start()
        found: list[Event] = []

        def listen() -> None:
            with ControlClient(path, vm_name="S") as client:
                for event in client.teleport(control.TeleportRequest()):
                    found.append(event)

        listening = asyncio.ensure_future(asyncio.to_thread(listen))
        await until(lambda: found)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.1)
        agent.last = OUTCOME
        agent.hold.set()
        await listening
        await stopping
        return found

    assert asyncio.run(whole()) == [PROGRESS, OUTCOME]


def test_a_caller_hangs_up_before_the_server_does(path: Path) -> None:
    """Or gRPC may lose what the caller has not read yet, when its own next write fails."""

    async def whole() -> None:
        server = ControlServer(FakeAgent(), path=path)
        await server.start()
        client = await asyncio.to_thread(ControlClient, path, vm_name="S")
        await asyncio.to_thread(client.status)
        stopping = asyncio.ensure_future(server.stop())
        await until(lambda: not path.exists())
        assert not stopping.done()
        # Still served: the connection is open.
        assert (await asyncio.to_thread(client.status)).state == "running"
        client.__exit__()
        await stopping

    asyncio.run(whole())


def test_calls_under_way_end_with_the_server(path: Path) -> None:
    async def whole() -> None:
        agent = FakeAgent()
        agent.hold.clear()
        server = ControlServer(agent, path=path)
        await server.start()

        def wait() -> None:
            with ControlClient(path, vm_name="S") as client, pytest.raises(TeleportError):
                client.power("pause")

        def watch() -> None:
            with ControlClient(path, vm_name="S") as client, pytest.raises(TeleportError):
                list(client.watch())

        waiting = asyncio.gather(asyncio.to_thread(wait), asyncio.to_thread(watch))
        await until(lambda: len(agent.asked) == 2)
        await server.stop()
        await waiting

    asyncio.run(whole())


def test_no_socket_is_a_vm_that_does_not_run(path: Path) -> None:
    with pytest.raises(StateError, match=r"'S'.*is not running"):
        ControlClient(path, vm_name="S")


def test_a_socket_that_nobody_serves(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ControlClient(path, vm_name="S") as client, pytest.raises(StateError, match=r"'S'.*runner does not answer"):
        client.status()


def test_a_dead_predecessors_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    run(path, lambda client, _: client.status().state and None)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    async def whole() -> None:
        with contextlib.suppress(OSError):
            await ControlServer(FakeAgent(), path=tmp_path / ("x" * 120)).start()

    with pytest.raises(StateError, match="107 bytes"):
        asyncio.run(whole())


def test_a_teleport_whose_runner_says_no_end_is_known_for_that(path: Path) -> None:
    def work(client: ControlClient, _: FakeAgent) -> None:
        told = client.teleport(control.TeleportRequest(host="h", port=6000))
        assert next(told) == PROGRESS
        with pytest.raises(RunnerGoneError):
            next(told)

    run(path, work, lambda agent: agent.events.append(PROGRESS))
