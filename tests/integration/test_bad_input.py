"""What people get wrong at a running VM: a message with what, why and what to do, the right exit code, and nothing changed."""

import http.server
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.home import Home, Ran
from tests.harness.host import Host

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def running(module_homes: Callable[[str], Home], blank: Callable[..., Host]) -> Host:
    """A VM that runs."""
    host = blank("S", module_homes("a"))
    host.start()
    return host


@pytest.fixture
def same(running: Host) -> Iterator[Host]:
    """The same VM; after the test it runs in the same process, and its definition is what it was."""
    definition = Path(running.home.info(running.name)["CfgFile"])
    before = running.home.qemus(), definition.read_bytes()
    assert running.state == "running"
    yield running
    assert (running.home.qemus(), definition.read_bytes()) == before
    assert running.state == "running"


def fails(ran: Ran, code: int, *said: str) -> None:
    """It ended with this code, and one message said all of these."""
    assert ran.code == code, ran.out + ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith("teleport: error: ")]
    assert len(errors) == 1, ran.err
    for words in said:
        assert words in ran.err, f"{words!r} is not in {ran.err!r}"
    assert re.match(r"teleport: error: [^:]+: .+; .+", errors[0]), f"not WHAT: WHY; TRY: {errors[0]}"
    assert "Traceback" not in ran.err + ran.out


def teleport(host: Host, to: str, port: int, *options: str) -> Ran:
    return host.run("controlvm", host.name, "teleport", "--host", to, "--port", port, *options, check=False)


# ---------------------------------------------------------------------------------------------- who should be at the other end
@contextmanager
def tcp_server(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


class Silent(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(4096):
            pass


class Web(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        del format, args


@contextmanager
def vnc_server(folder: Path) -> Iterator[int]:
    """A real QEMU's."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-nodefaults", "-S", "-m", "16", "-vga", "std",
         "-vnc", f"127.0.0.1:{port - 5900}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the VNC server did not start"
                time.sleep(0.02)
        yield port
    finally:
        qemu.kill()
        qemu.wait()


def test_nothing_listens_there(same: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    fails(teleport(same, "localhost", port), 1, f"Failed to connect to port {port} on 'localhost'", "refused", "teleporterport")


def test_a_host_that_does_not_exist(same: Host) -> None:
    fails(
        teleport(same, "no-such-host.invalid", 6000), 1, "Failed to connect to port 6000 on 'no-such-host.invalid'", "spelling"
    )


def test_a_port_that_accepts_and_says_nothing(same: Host) -> None:
    with tcp_server(Silent) as port:
        began = time.monotonic()
        fails(teleport(same, "127.0.0.1", port, "--timeout", "2"), 1, f"port {port}", "says nothing", "not a waiting VM")
        assert time.monotonic() - began < 30


def test_an_http_server(same: Host) -> None:
    with tcp_server(Web) as port:
        fails(teleport(same, "127.0.0.1", port), 1, "an HTTP server answers there", "teleporterport")


def test_a_vnc_server(same: Host, tmp_path: Path) -> None:
    with vnc_server(tmp_path) as port:
        fails(teleport(same, "127.0.0.1", port), 1, "a VNC server answers there", "teleporterport")


def test_its_own_serial_console_or_any_other_service_of_this_host(same: Host) -> None:
    class Greets(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with tcp_server(Greets) as port:
        fails(teleport(same, "127.0.0.1", port), 1, "an SSH server answers there")


@pytest.mark.parametrize("port", ["0", "65536", "http", ""])
def test_a_port_that_is_none(same: Host, port: str) -> None:
    ran = same.run("controlvm", same.name, "teleport", "--host", "localhost", "--port", port, check=False)
    fails(ran, 2, "--port", "is not a number from 1 to 65535", "--help")


def test_off_loopback_without_a_word_about_it(same: Host) -> None:
    """192.0.2.0/24 is for documentation (RFC 5737): nothing is sent there if the refusal comes before the connection."""
    ran = teleport(same, "192.0.2.1", 6000, "--timeout", "1")
    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err


def test_a_plan_that_there_is_not(same: Host) -> None:
    fails(teleport(same, "localhost", 6000, "--plan", "teleport"), 2, "--plan", "shared")


# ---------------------------------------------------------------------------------------------- which VM
def test_a_vm_that_there_is_not(same: Host) -> None:
    for words in (("startvm", "Nobody"), ("controlvm", "Nobody", "poweroff"), ("resolve", "Nobody"), ("showvminfo", "Nobody")):
        fails(same.run(*words, check=False), 1, "'Nobody'", "list vms")


def test_a_verb_that_there_is_not(same: Host) -> None:
    fails(same.run("controlvm", same.name, "teleprot", check=False), 2, "teleprot", "did you mean teleport")


def test_starting_what_runs(same: Host) -> None:
    fails(same.run("startvm", same.name, check=False), 1, "'S' runs already")


def test_nothing_to_cancel_and_nothing_to_resolve(same: Host) -> None:
    ran = same.run("controlvm", same.name, "teleport-cancel", check=False)
    assert ran.code == 1
    assert "is not teleporting" in ran.err
    ran = same.run("resolve", same.name, "--run-here", check=False)
    assert ran.code == 1
    assert "is not in doubt" in ran.err


def test_changing_what_cannot_change_while_it_runs(same: Host) -> None:
    fails(same.run("modifyvm", same.name, "--memory", 128, check=False), 1, "poweroff")


def test_a_vm_that_is_off(running: Host, blank: Callable[..., Host]) -> None:
    off = blank("Off", running.home)
    fails(teleport(off, "localhost", 6000), 1, "'Off'", "not running", "startvm")
    fails(off.run("controlvm", "Off", "pause", check=False), 1, "not running")
    assert off.state == "poweroff"


def test_a_vm_that_waits_has_nothing_to_teleport(running: Host, blank: Callable[..., Host]) -> None:
    waiting = blank("Waits", running.home)
    port = waiting.wait_for_teleport()
    ran = teleport(waiting, "localhost", port)
    assert ran.code == 1
    assert "'Waits' is not running" in ran.err
    assert waiting.state == "teleportingin"
    waiting.run("controlvm", "Waits", "poweroff")
    assert waiting.state == "poweroff"
    assert not waiting.home.ports()


# ---------------------------------------------------------------------------------------------- what the host lacks
def test_a_disk_that_is_missing(running: Host, blank: Callable[..., Host], tmp_path: Path) -> None:
    disk = tmp_path / "gone.qcow2"
    host = blank("NoDisk", running.home, disk)
    disk.unlink()
    ran = host.run("startvm", "NoDisk", check=False)
    assert ran.code == 1
    assert "gone.qcow2" in ran.err
    assert "Traceback" not in ran.err
    assert host.state == "poweroff"
    assert not list(tmp_path.iterdir()), "a start that failed left something beside the disk that is missing"


def test_a_definition_edited_into_nonsense(running: Host, blank: Callable[..., Host]) -> None:
    host = blank("Edited", running.home)
    path = Path(running.home.info("Edited")["CfgFile"])
    for wrong in ("this is no TOML", "", '[machine]\nmemory_mb = "plenty"\n', "\x00\xff\x00"):
        path.write_text(wrong, encoding="latin-1")
        for words in (("startvm", "Edited"), ("showvminfo", "Edited")):
            ran = host.run(*words, check=False)
            assert ran.code == 1, f"{words}: {ran.out}{ran.err}"
            assert ran.err.startswith("teleport: error: "), ran.err
            assert "definition.toml" in ran.err
            assert "Traceback" not in ran.err
        assert path.read_text(encoding="latin-1") == wrong
    assert host.run("modifyvm", "Edited", "--memory", "64", check=False).code == 1
    assert running.name in host.run("list", "vms").out, "a broken VM harms another one"


def path_without_qemu(folder: Path) -> str:
    """A PATH on which everything is but QEMU."""
    folder.mkdir()
    for name in ("python3", "env", "bash", "sh", "qemu-img"):
        for place in ("/usr/bin", "/bin"):
            if (Path(place) / name).exists():
                (folder / name).symlink_to(Path(place) / name)
                break
    return str(folder)


def test_qemu_is_missing(running: Host, blank: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = blank("NoQemu", running.home)
    monkeypatch.setitem(host.home.environment, "PATH", path_without_qemu(tmp_path / "bin"))
    fails(host.run("startvm", "NoQemu", check=False), 1, "qemu-system-x86_64 is not installed", "install")
    assert host.state == "poweroff"


def test_qemu_is_older_than_10(
    running: Host, blank: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = blank("OldQemu", running.home)
    path = path_without_qemu(tmp_path / "bin")
    old = Path(path) / "qemu-system-x86_64"
    old.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u13)'\n")
    old.chmod(0o755)
    monkeypatch.setitem(host.home.environment, "PATH", path)
    fails(host.run("startvm", "OldQemu", check=False), 1, "is version 7.2.17", "backports")
    assert host.state == "poweroff"


def test_a_teleporter_port_that_is_taken(running: Host, blank: Callable[..., Host]) -> None:
    host = blank("Taken", running.home)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        host.run("modifyvm", "Taken", "--teleporter", "on", "--teleporterport", port)
        fails(host.run("startvm", "Taken", check=False), 1, f"teleporter port {port}", "--teleporterport")
    assert host.state == "poweroff"
    host.run("startvm", "Taken")
    assert host.state == "teleportingin"
    host.run("controlvm", "Taken", "poweroff")
