"""Who may see the guest and do what, by the real commands and xfreerdp: the manual's 7.1.5, 7.1.6 and 7.1.10 as printed."""

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.guest import Load, guest_image
from tests.harness.home import TELEPORT
from tests.harness.host import Host
from tests.harness.scene import Scene, until
from tests.integration.vrde.accounts import PASSWD, PASSWORD, inside, make_accounts, shadow
from tests.integration.vrde.desk import GUEST, Viewer, xfreerdp

pytestmark = pytest.mark.qemu

DISPLAY = ("--vrdeport", "43300-43399", "--vrdeaddress", "127.0.0.1")
HASH = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
WRONG = "hunter2-is-wrong"
TYPED = (0, 64, 720, 16)  # the row of typed keys
# 7.1.6 as printed, but for the answers to openssl's questions.
RECIPE = """openssl req -new -x509 -days 365 -extensions v3_ca \\
  -keyout ca_key_private.pem -out ca_cert.pem -passout pass:abcd -subj /CN=ca
openssl genrsa -out server_key_private.pem
openssl req -new -key server_key_private.pem -out server_req.pem -subj /CN=127.0.0.1
openssl x509 -req -days 365 -in server_req.pem \\
  -CA ca_cert.pem -CAkey ca_key_private.pem -set_serial 01 -out server_cert.pem -passin pass:abcd
"""
LIBRARY = """
def authenticate(user, password, domain, client):
    return "allow" if (user, password, domain, client) == ("ann", "anns-own", "home", "127.0.0.1") else "deny"
"""


class Door:
    """One VM's display, and who knocks."""

    def __init__(self, folder: Path, host: Host) -> None:
        self.folder, self.host = folder, host
        self.port = int(host.home.info(host.name)["vrdeport"])
        self._log = Path(host.home.info(host.name)["LogFile"])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def refuses(self, user: str, password: str, *more: str) -> None:
        """The viewer ends, and the log has one more line about it."""
        line = f"wrong user or password (user {user!r})"
        before = self.log().count(line)
        viewer = Viewer(self.folder, *xfreerdp(self.port, *more, user=user, password=password))
        try:
            until(lambda: viewer.process.poll() is not None, f"{user} was not refused")
            # the front notes it once it has said farewell, which may be after the viewer's end
            until(lambda: self.log().count(line) > before, f"the log does not say that {user} was refused")
            assert password not in self.log()
        finally:
            viewer.end()

    def lets_in(self, user: str, password: str, *more: str) -> Viewer:
        """A viewer that is connected; end it."""
        line = f"connected (user {user!r}"
        before = self.log().count(line)
        viewer = Viewer(self.folder, *xfreerdp(self.port, *more, user=user, password=password))
        try:
            until(lambda: self.log().count(line) > before, f"{user} was not let in")
        except AssertionError:
            print(viewer.words(), self.log())
            viewer.end()
            raise
        return viewer


def _make(host: Host, folder: Path) -> None:
    """The counter guest."""
    host.run("createvm", "--name", "My VM", "--ostype", "Linux26_64", "--register")
    host.run("modifyvm", "My VM", "--memory", 64, "--boot1", "floppy", "--vrde", "on", *DISPLAY)
    floppy = folder / "counter.img"
    floppy.write_bytes(GUEST.ljust(1474560, b"\0"))
    host.run("storagectl", "My VM", "--name", "Floppy", "--add", "floppy")
    host.run("storageattach", "My VM", "--storagectl", "Floppy", "--device", 0, "--type", "fdd", "--medium", floppy)


def _certify(host: Host, folder: Path) -> str:
    """The manual's certificate for a VM that runs; its fingerprint."""
    (folder / "path").mkdir()
    subprocess.run(["sh", "-ec", RECIPE], cwd=folder / "path", check=True, capture_output=True, timeout=60)
    for name, file in (
        ("CACertificate", "ca_cert"),
        ("ServerCertificate", "server_cert"),
        ("ServerPrivateKey", "server_key_private"),
    ):
        command = [TELEPORT, "modifyvm", "My VM", "--vrdeproperty", f"Security/{name}=path/{file}.pem"]
        subprocess.run(command, cwd=folder, env=host.home.environment, check=True, timeout=60)

    shown = subprocess.run(
        ["openssl", "x509", "-in", "path/server_cert.pem", "-noout", "-fingerprint", "-sha256"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return shown.stdout.strip().partition("=")[2]


def _start(host: Host, mounts: str) -> None:
    command = inside(mounts, f"{TELEPORT} startvm 'My VM' --type headless")
    subprocess.run(command, env={**host.home.environment, "LC_ALL": "C.UTF-8"}, check=True, timeout=120, capture_output=True)


def test_the_manuals_logins_and_switches(home, short_folder: Path) -> None:
    host = Host("My VM", home)
    _make(host, short_folder)
    host.run("setproperty", "vrdeauthlibrary", "VBoxAuthSimple")
    host.run("modifyvm", "My VM", "--vrdeauthtype", "external")
    assert host.run("internalcommands", "passwordhash", "secret").out == f"Password hash: {HASH}\n"
    host.run("setextradata", "My VM", "VBoxAuthSimple/users/john", HASH)
    _start(host, make_accounts(short_folder))  # where the host's accounts are the test's own
    door = Door(short_folder, host)

    door.refuses("john", WRONG)
    shown = _certify(host, short_folder)
    assert home.info("My VM")["vrdefingerprint"] == shown
    argv = xfreerdp(door.port)
    argv[argv.index("/cert:ignore")] = f"/cert:fingerprint:sha256:{shown.lower()}"
    viewer = Viewer(short_folder, *argv)
    try:
        asyncio.run(viewer.x.shows_guest())
        _switches(host, viewer)
    finally:
        viewer.end()

    # the host's accounts, at once, and a library of one's own
    host.run("setproperty", "vrdeauthlibrary", "default")
    door.lets_in("teleann", PASSWORD).end()
    library = short_folder / "mine.py"
    library.write_text(LIBRARY)
    host.run("modifyvm", "My VM", "--vrdeauthlibrary", library)
    door.lets_in("ann", "anns-own", "/d:home").end()
    host.run("modifyvm", "My VM", "--vrdeauthlibrary", "VBoxAuthSimple")
    host.run("setextradata", "My VM", "VBoxAuthSimple/users/john")
    door.refuses("john", "secret")
    for secret in (PASSWORD, WRONG, "'secret'"):
        assert secret not in home.logs()
    host.run("controlvm", "My VM", "poweroff")
    assert not home.leftovers()


def _switches(host: Host, viewer: Viewer) -> None:
    """7.1.10 in both spellings, while somebody looks."""

    def property_is(name: str, value: str) -> None:
        host.run("modifyvm", "My VM", "--vrdeproperty", f"Client/Disable{name}={value}")

    def feature_is(name: str, *value: str) -> None:
        host.run("setextradata", "My VM", f"VRDP/Feature/Client/Disable{name}", *value)

    property_is("Display", "1")
    until(lambda: not any(p for i, p in enumerate(viewer.x.image()) if i % 4 != 3), "the screen is not black")
    feature_is("Display")
    asyncio.run(viewer.x.shows_guest())
    feature_is("Input", "1")
    before = viewer.x.image(*TYPED)
    asyncio.run(viewer.x.type("unheard"))
    asyncio.run(viewer.x.moves(4))
    assert viewer.x.image(*TYPED) == before
    property_is("Input", "")
    asyncio.run(viewer.x.type("2"))
    until(lambda: viewer.x.image(*TYPED) != before, "what was typed is not seen")


def test_the_guests_accounts_here_and_where_it_moves(short_folder: Path) -> None:
    initrd = str(guest_image(agent=True).initrd)
    options = ("--initrd", initrd, "--guest-agent", "on", "--vrde", "on", "--vrdeauthtype", "guest", *DISPLAY)
    load = Load(resident_mb=4, rewrite_mb=0)
    with Scene(load=load, memory_mb=128, options=options) as scene:
        door = Door(short_folder, scene.here)
        for file, content in (("passwd", f"root:x:0:0::/:/bin/sh\n{PASSWD}"), ("shadow", shadow())):
            for line in content.splitlines():
                scene.console.run(f"echo '{line}' >> /etc/{file}")
        scene.console.run("/usr/sbin/qemu-ga -d -m virtio-serial -p /dev/vport*p1 -t /run -f /run/ga.pid")
        door.refuses("teleann", WRONG)
        viewer = door.lets_in("teleann", PASSWORD)
        scene.there.run("modifyvm", scene.there.name, "--vrdeauthtype", "external", "--vrdeauthlibrary", "VBoxAuthSimple")
        scene.there.run("setextradata", scene.there.name, "VBoxAuthSimple/users/john", HASH)
        try:
            scene.move()
            assert viewer.process.poll() is None
        finally:
            viewer.end()
        moved = Door(short_folder, scene.here)
        assert moved.port == door.port
        moved.lets_in("john", "secret").end()  # the target VM's own logins
        scene.here.run("modifyvm", scene.here.name, "--vrdeauthtype", "guest")
        moved.lets_in("teleann", PASSWORD).end()
        assert not re.search(f"{WRONG}|{PASSWORD}", "".join(each.logs() for each in scene.homes))
