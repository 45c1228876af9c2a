"""The remote display by the real commands: viewers under Xvfb stay connected while their guest moves, and see it run.

`TELEPORT_DISPLAY_MOVES` teleports there and back (3; by hand 20), with two viewers at once.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.harness.home import CommandFailedError, Home
from tests.harness.host import Host
from tests.harness.namespaces import Cable
from tests.harness.scene import kill_hard, until
from tests.harness.session import new_folder
from tests.integration.vrde.chromium import Chromium
from tests.integration.vrde.desk import GUEST, Viewer, rdesktop, xfreerdp
from tests.integration.vrde.desk import until as wait_until
from tests.integration.vrde.speaker import AC97, CARDS, Recorder

pytestmark = pytest.mark.qemu

MOVES = int(os.environ.get("TELEPORT_DISPLAY_MOVES", "3"))
PORTS = "43400-43499"


class Pair:
    """Two hosts that may run the counter guest (or what `program` boots), and the viewers that look at it."""

    def __init__(self, *enter: tuple[str, ...], program: bytes = GUEST) -> None:
        self.folder = new_folder("tp-disp-")
        self.homes = tuple(Home(name, enter=words) for name, words in zip("st", enter or ((), ()), strict=True))
        self.here, self.there = (Host(name, home) for name, home in zip("ST", self.homes, strict=True))
        self.viewers: list[Viewer] = []
        self.floppy = self.folder / "counter.img"
        self.floppy.write_bytes(program.ljust(1474560, b"\0"))
        self.disk = self.folder / "disk.qcow2"

    def define(self, host: Host, *options: str) -> None:
        """The guest that counts on its screen; the disk is for the owner record."""
        host.run("createvm", "--name", host.name, "--ostype", "Linux26_64", "--register")
        host.run("modifyvm", host.name, "--memory", 64, "--boot1", "floppy", "--boot2", "none", *options)
        host.run("storagectl", host.name, "--name", "Floppy", "--add", "floppy")
        host.run("storageattach", host.name, "--storagectl", "Floppy", "--port", 0, "--device", 0, "--type", "fdd",
                 "--medium", self.floppy)  # fmt: skip
        host.attach(self.disk)

    def start(self, *options: str) -> int:
        """Both defined, the guest running at `here` with its display on; the display's port."""
        for host in (self.here, self.there):
            self.define(host, "--vrdeport", PORTS, "--vrdeaddress", "127.0.0.1", "--vrdemulticon", "on", *options)
        self.here.run("modifyvm", self.here.name, "--vrde", "on")
        said = self.here.run("startvm", self.here.name).out
        port = int(self.here.home.info(self.here.name)["vrdeport"])
        assert f"VRDE server is listening on port {port}." in said
        return port

    def view(self, *argv: str, stdin: bytes = b"") -> Viewer:
        """A viewer that sees the guest."""
        viewer = Viewer(self.folder, *argv, stdin=stdin)
        self.viewers.append(viewer)
        asyncio.run(viewer.x.shows_guest(60))
        self.moves()
        return viewer

    def moves(self, name: str = "") -> None:
        """All viewers see the counter run."""
        for number, viewer in enumerate(self.viewers):
            try:
                asyncio.run(viewer.x.moves(2))
            except AssertionError as error:
                shot = viewer.x.shot("stands-still")
                raise AssertionError(f"{error} ({shot})\n{viewer.words()}\n{self.logs()}") from error
            assert viewer.process.poll() is None, viewer.words()
            if name:
                viewer.x.shot(f"{name}-{number}")

    def connections(self, port: int, process: int | str = "self") -> set[str]:
        """The viewers' ends of the TCP connections to this port, in the network of that process."""
        rows = [line.split() for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]]
        return {row[1] for row in rows if row[3] == "01" and int(row[2].rpartition(":")[2], 16) == port}

    def would_hear(self, process: int) -> bool:
        """Whether a front is connected to where a guest takes in sound (SPICE's two channels), in the network of that process."""
        rows = [line.split() for line in Path(f"/proc/{process}/net/unix").read_text().splitlines()[1:]]
        return sum(1 for row in rows if row[5] == "03" and row[-1].endswith("/mic.sock")) == 2

    def logs(self) -> str:
        return "\n".join(home.logs() for home in self.homes)

    def swap(self) -> None:
        self.here, self.there = self.there, self.here

    def vrde(self) -> dict[str, str]:
        """What showvminfo says of the display of the VM that runs."""
        return {key: value for key, value in self.here.home.info(self.here.name).items() if key.startswith("vrde")}

    def typed(self) -> bool:
        """Whether the guest's screen shows typed text (its fifth row)."""
        picture = self.folder / "screen.png"
        self.here.run("controlvm", self.here.name, "screenshotpng", picture)
        with Image.open(picture) as shown:
            return len(shown.convert("RGB").crop((0, 64, 320, 80)).getcolors(1 << 16)) > 1

    def fronts(self) -> list[int]:
        """The fronts that live, whichever home started them."""
        return [
            pid for home in self.homes for pid, command in home.processes().items() if "teleport.vrde.front" in command.split()
        ]

    def agent(self, host: Host) -> int:
        return next(pid for pid, command in host.home.processes().items() if command.split()[1:3] == ["-m", "teleport.runner"])

    def dismiss(self, viewer: Viewer) -> None:
        self.viewers.remove(viewer)
        viewer.end()

    def end(self) -> None:
        for viewer in self.viewers:
            viewer.end()
        for home in self.homes:
            home.end()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def ended(made: Pair) -> Iterator[Pair]:
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ended(Pair()) as made:
        yield made


@pytest.mark.timeout(120 + 30 * MOVES)
def test_viewers_stay_connected_while_the_guest_moves_on_one_host(pair: Pair) -> None:
    port = pair.start()
    pair.view(*xfreerdp(port))
    pair.view(*rdesktop(port), stdin=b"yes\n")
    connections = pair.connections(port)
    assert len(connections) == 2
    (front,) = pair.fronts()

    # a refused teleport is nothing to them
    pair.there.run("modifyvm", pair.there.name, "--vram", 32)
    teleporter = pair.there.wait_for_teleport()
    with pytest.raises(CommandFailedError, match="vram"):
        pair.here.teleport(teleporter)
    pair.moves()
    assert pair.connections(port) == connections
    pair.there.run("controlvm", pair.there.name, "poweroff")
    pair.there.run("modifyvm", pair.there.name, "--vram", pair.here.home.info(pair.here.name)["vram"])

    for number in range(MOVES):
        plan = ("shared", "raw")[number % 2]
        outcome = pair.here.teleport(pair.there.wait_for_teleport(), "--plan", plan)
        assert outcome["display"] == f"port {port} of this host, as before"
        pair.swap()
        pair.moves(f"move{number}")
        assert pair.connections(port) == connections, "a viewer had to connect again"
        assert pair.fronts() == [front]
        shown = pair.vrde()
        assert (shown["vrde"], shown["vrdeport"], shown["vrdeviewers"]) == ("on", str(port), "2")
        assert "vrdeport" not in pair.there.home.info(pair.there.name)

    # the VM that runs owns it, whoever started it
    pair.here.run("controlvm", pair.here.name, "poweroff")
    for home in pair.homes:
        assert not home.leftovers()
    assert "wrong" not in pair.logs()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is not free."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound.getsockname()[1]


def test_a_display_is_switched_at_run_time_and_adopted_by_a_new_agent(pair: Pair, taken: int) -> None:
    pair.define(pair.here, "--vrde", "on", "--vrdeport", str(taken), "--vrdeaddress", "127.0.0.1")
    started = pair.here.run("startvm", "S")
    assert f"no remote display: the remote display: none of the ports {taken} is free" in started.err
    assert pair.here.state == "running"
    assert pair.vrde()["vrdeport"] == "-1"
    refused = pair.here.run("controlvm", "S", "vrdeport", str(taken), check=False)
    assert refused.code == 1
    assert "is free" in refused.err
    pair.here.run("controlvm", "S", "vrdeport", f"{taken},{PORTS}")
    port = int(pair.vrde()["vrdeport"])
    assert 43400 <= port <= 43499
    viewer = pair.view(*xfreerdp(port))

    connections, (front,) = pair.connections(port), pair.fronts()
    kill_hard(pair.agent(pair.here))
    until(lambda: pair.here.run("controlvm", "S", "pause", check=False).code == 0, "no new agent", 60)
    pair.here.run("controlvm", "S", "resume")
    pair.moves()
    assert (pair.connections(port), pair.fronts(), pair.vrde()["vrdeport"]) == (connections, [front], str(port))

    pair.here.run("modifyvm", "S", "--vrdeproperty", "Client/DisableInput=1")  # at once, viewers stay
    assert pair.connections(port) == connections
    refused = pair.here.run("modifyvm", "S", "--vrde", "off", "--memory", 32, check=False)
    assert (refused.code, pair.connections(port)) == (1, connections)

    pair.here.run("controlvm", "S", "vrde", "off")
    viewer.process.wait(20)
    assert (pair.vrde()["vrde"], pair.fronts()) == ("off", [])
    assert port not in pair.here.home.ports()
    pair.dismiss(viewer)
    said = pair.here.run("controlvm", "S", "vrde", "on").out
    assert said == f"VRDE server is listening on port {port}.\n"
    kill_hard(pair.fronts()[0])
    until(lambda: pair.vrde()["vrdeport"] == str(port) and pair.fronts(), "no new front for one that died", 30)
    pair.view(*xfreerdp(port))

    url = pair.here.run("console", "S").out
    assert url.startswith("https://localhost:")
    file = pair.folder / "s.rdp"
    pair.here.run("console", "S", "--rdp", file)
    assert f"full address:s:127.0.0.1:{port}" in file.read_text()
    pair.here.run("controlvm", "S", "savestate")
    assert not pair.fronts()
    assert not pair.here.home.leftovers()


def test_headless_switches_it_on_unless_told(pair: Pair) -> None:
    pair.define(pair.here, "--vrdeport", PORTS, "--vrdeaddress", "127.0.0.1")
    for words, expected in ((("--vrde", "config"), "off"), (("-v", "off"), "off"), ((), "on")):
        runner = pair.here.home.start("--startvm", "S", *words, program="teleport-headless")
        try:
            until(lambda: pair.here.state == "running", "it does not run", 60)
            assert pair.vrde()["vrde"] == expected
            assert len(pair.fronts()) == (expected == "on")
        finally:
            pair.here.run("controlvm", "S", "poweroff", check=False)
            out, errors = runner.communicate(timeout=60)
        assert runner.returncode == 0, errors
        assert ("VRDE server is listening on port" in out) == (expected == "on")
    assert pair.vrde()["vrde"] == "off", "the definition's word is as it was"
    assert not pair.here.home.leftovers()


def test_a_browser_page_stays_through_a_teleport(pair: Pair) -> None:
    pair.start()
    opened = pair.here.run("console", "S")
    url = opened.out.strip()
    assert pair.vrde()["vrdefingerprint"] in opened.err

    async def look() -> None:
        page = Chromium(pair.folder)
        try:
            await page.open(url)
            await page.shows_guest()
            await asyncio.to_thread(pair.here.teleport, pair.there.wait_for_teleport())
            pair.swap()
            assert pair.vrde()["vrdeviewers"] == "1"
            await page.moves()
            assert not pair.typed()
            await page.type("web")
            await wait_until(pair.typed, 20, "the typed text")
            await page.shows_guest("console-teleported")
        finally:
            await page.end()

    asyncio.run(look())
    assert "127.0.0.1 (browser) connected" in pair.here.home.logs() + pair.there.home.logs()
    fresh = pair.here.run("console", pair.here.name).out.strip()
    assert fresh.partition("#")[0] == url.partition("#")[0]  # the page is where it was; its ticket is another
    assert fresh != url


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Iterator[Recorder]:
    """What viewers that are started from now on play."""
    recorder = Recorder(short_folder)
    try:
        asyncio.run(recorder.ready())
        monkeypatch.setenv("PULSE_SERVER", recorder.environment)
        yield recorder
    finally:
        recorder.end()


def _is_heard_through_the_tunnel(speaker: Recorder, near: Host) -> None:
    """The property of the VM whose guest has left counts at the display that stayed."""
    *_, tone_hz = CARDS[0]
    speaker.forget()
    asyncio.run(speaker.hears(tone_hz, "from the other host"))
    near.run("modifyvm", "S", "--vrdeproperty", "Client/DisableAudio=1")
    asyncio.run(wait_until(lambda: speaker.heard() == 0, what="silence while sound is disabled"))
    near.run("modifyvm", "S", "--vrdeproperty", "Client/DisableAudio=")
    asyncio.run(speaker.hears(tone_hz, "again"))


def test_between_hosts_viewers_stay_until_the_display_is_to_move_too(speaker: Recorder) -> None:
    """Two network namespaces are the hosts, by IPv4 there and by IPv6 back. The viewer who stays hears the guest, and it would hear the
    viewer (that it does: tests/integration/vrde/test_microphone.py)."""
    with Cable() as cable, ended(Pair(cable.near.enter, cable.far.enter, program=AC97)) as pair:
        port = pair.start("--audio", "null", "--audiocontroller", "ac97", "--audioin", "on")
        near, far = pair.here, pair.there
        viewer = pair.view(*cable.near.enter, *xfreerdp(port, "/sound:sys:pulse", "/microphone:sys:pulse"))
        until(lambda: pair.would_hear(cable.near.pid), "no front at the guest's microphone")
        connections = pair.connections(port, cable.near.pid)
        assert len(connections) == 1
        (front,) = pair.fronts()
        far.run("modifyvm", "T", "--vrde", "on", "--vrdeaddress", "::1")
        teleporter = far.wait_for_teleport("--insecure")
        outcome = near.teleport(teleporter, "--insecure", host="10.77.0.2")
        theirs = int(far.home.info("T")["vrdeport"])
        assert outcome["display"] == f"port {port} of this host, as before, and port {theirs} of far"
        assert not near.home.qemus()
        pair.swap()
        _is_heard_through_the_tunnel(speaker, near)
        until(lambda: pair.would_hear(cable.far.pid), "no front at the microphone of the guest that has moved")
        other = pair.view(*cable.far.enter, *xfreerdp(theirs, host="[::1]"))  # and at the target's own port too
        assert pair.connections(port, cable.near.pid) == connections
        assert pair.vrde()["vrdeaddress"] == "::1"
        assert "connected (user" in near.home.logs()

        # back: the front that stayed shows the guest where it is again, and the target's own goes on for its viewers
        far.teleport(near.wait_for_teleport("--insecure"), "--insecure", host="fd77::1")
        pair.swap()
        pair.moves("back")
        assert pair.connections(port, cable.near.pid) == connections
        assert front in pair.fronts()
        assert pair.vrde()["vrdeport"] == str(port)

        # until that host is done with it
        said = far.run("controlvm", "T", "vrde", "off").out
        assert said == "The display of the guest that left VM 'T' has ended here; viewers that were connected: 1.\n"
        other.process.wait(20)
        pair.dismiss(other)
        assert not far.home.leftovers()

        # a host that is to be emptied; refused when nobody would serve there
        far.run("modifyvm", "T", "--vrde", "off")
        teleporter = far.wait_for_teleport("--insecure")
        with pytest.raises(CommandFailedError, match="modifyvm T --vrde on"):
            near.teleport(teleporter, "--insecure", "--move-display", host="10.77.0.2")
        pair.moves()
        far.run("modifyvm", "T", "--vrde", "on")
        ran = near.run(
            "controlvm", "S", "teleport", "--host", "10.77.0.2", "--port", teleporter, "--insecure", "--move-display"
        )
        theirs = int(far.home.info("T")["vrdeport"])
        said = f"port {theirs} of far now; viewers that were connected here and must connect there: 1"
        assert ran.out.endswith(f"Its display is at {said}.\n")
        assert f"the guest has left, and its display is at port {theirs} of far now" in near.home.logs()
        viewer.process.wait(20)
        pair.dismiss(viewer)
        assert not near.home.leftovers()
        pair.swap()
        assert pair.vrde()["vrde"] == "on"
