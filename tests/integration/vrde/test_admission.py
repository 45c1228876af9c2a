"""Who gets in: authentication, protection, ports, several viewers or one, several screens; and who else knocks."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import stat
from pathlib import Path

import pytest

from teleport.errors import BusyError, NotFoundError, UnreachableError, UsageError
from teleport.machines.vrde import set_extradata
from teleport.vrde.auth import password_hash
from tests.integration.vrde.desk import XFREERDP, Desk, at, rdesktop, settings, until, why_it_ended, xfreerdp

pytestmark = pytest.mark.qemu


def simple(**options: str):
    """VBoxAuthSimple with john's password "secret"."""
    chosen = settings(vrdeauthtype="external", vrdeauthlibrary="VBoxAuthSimple", **options)
    return set_extradata(chosen, "VBoxAuthSimple/users/john", password_hash("secret"))


async def refused(desk: Desk, viewer, *words: str) -> None:
    """Waits for a viewer that was refused to end, and for the line that says so."""
    await until(lambda: viewer.process.poll() is not None, what="the refused viewer's end")
    for each in words:
        await until(lambda: each in desk.front_log(), 5, f"{each!r} in the log")  # noqa: B023  # awaited within the loop


@pytest.mark.parametrize("security", ["tls", "rdp"])
def test_a_wrong_password_is_refused_and_stays_out_of_the_log(security, short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(simple(), guest.vnc)
        wrong = desk.viewer(xfreerdp(status["port"], security=security, password="hunter2"))
        await refused(desk, wrong, "wrong user or password (user 'john')")
        assert why_it_ended("The server denied the connection") in wrong.words()
        stranger = desk.viewer(xfreerdp(status["port"], security=security, user="jane"))
        await refused(desk, stranger, "wrong user or password (user 'jane')")
        assert not (await front.status())["sessions"]
        right = desk.viewer(xfreerdp(status["port"], security=security))
        await right.x.shows_guest()
        await until(lambda: "connected (user 'john'" in desk.front_log())
        assert "hunter2" not in desk.front_log()
        assert "secret" not in desk.front_log()
        right.process.terminate()
        await until(lambda: "disconnected after" in desk.front_log())

    asyncio.run(at(short_folder, body))


def test_only_what_the_security_method_allows(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        _, tls = await desk.front(settings(vrdeproperty="Security/Method=tls"), guest.vnc, name="tls")
        old = desk.viewer(xfreerdp(tls["port"], security="rdp"))
        await until(lambda: old.process.poll() is not None, what="the refused viewer's end")
        assert "does not offer TLS" in desk.front_log("tls")
        _, rdp = await desk.front(settings(vrdeproperty="Security/Method=rdp"), guest.vnc, name="rdp")
        new = desk.viewer(xfreerdp(rdp["port"], security="tls"))
        await until(lambda: new.process.poll() is not None, what="the refused viewer's end")
        either = desk.viewer([XFREERDP, f"/v:127.0.0.1:{rdp['port']}", "/u:j", "/p:x", "/cert:ignore", "/size:720x400"])
        await either.x.shows_guest()

    asyncio.run(at(short_folder, body))


def test_the_self_signed_certificate_is_kept_and_its_key_is_private(short_folder):
    async def body(desk: Desk):
        guest = await desk.guest()
        front, first = await desk.front(settings(), guest.vnc)
        key = short_folder / "front" / "keys" / "vrde-key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert first["details"]["fingerprint"] in desk.front_log()
        await front.stop()
        _, again = await desk.front(settings(), guest.vnc)
        assert again["details"]["fingerprint"] == first["details"]["fingerprint"]

    asyncio.run(at(short_folder, body))


@pytest.mark.parametrize(
    ("prop", "words"),
    [
        ("Security/ServerCertificate=/nowhere.pem", "Security/ServerPrivateKey"),
        ("Security/CACertificate=/nowhere.pem", "cannot be read"),
    ],
)
def test_bad_certificates_are_named(prop, words, short_folder):
    async def body(desk: Desk):
        with pytest.raises(UsageError, match=words):
            await desk.front(settings(vrdeproperty=prop), f"unix:{short_folder}/x")

    asyncio.run(at(short_folder, body))


def test_the_first_free_port_is_bound_on_both_families(short_folder):
    async def body(desk: Desk):
        taken = socket.create_server(("0.0.0.0", 0))
        number = taken.getsockname()[1]
        free = socket.create_server(("0.0.0.0", 0))
        other = free.getsockname()[1]
        free.close()
        guest = await (await desk.guest()).counting()
        _, status = await desk.front(settings(vrdeport=f"{number},{other}", vrdeaddress="*"), guest.vnc)
        taken.close()
        assert status["port"] == other
        assert status["addresses"] == ["::", "0.0.0.0"]
        viewer = desk.viewer([XFREERDP, "/v:[::1]", f"/port:{other}", "/u:j", "/p:x", "/cert:ignore", "/size:720x400"])
        await viewer.x.shows_guest()
        assert "client [::1]:" in desk.front_log()
        with pytest.raises(BusyError, match=str(other)):
            await desk.front(settings(vrdeport=str(other)), guest.vnc, name="second")

    asyncio.run(at(short_folder, body))


def test_a_second_viewer_is_refused_or_takes_over(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        first = desk.viewer(xfreerdp(status["port"]))
        await first.x.shows_guest()
        await refused(desk, desk.viewer(xfreerdp(status["port"])), "several are not allowed")
        await first.x.moves()
        await front.update(settings(vrdereusecon="on"))
        second = desk.viewer(xfreerdp(status["port"]))
        await second.x.shows_guest()
        await until(lambda: first.process.poll() is not None, what="the first viewer's end")
        assert "takes over" in desk.front_log()
        assert why_it_ended("ERRINFO_DISCONNECTED_BY_OTHER_CONNECTION") in first.words(), first.words()
        await front.update(settings(vrdemulticon="on"))
        third = desk.viewer(rdesktop(status["port"]), stdin=b"yes\n")
        await third.x.shows_guest()
        await second.x.moves()
        await third.x.type("three")
        await second.x.type("two")
        await until(lambda: guest.screen()[1] == "threetwo", what="both keyboards")
        sessions = (await front.status())["sessions"]
        assert len(sessions) == 2
        assert (await front.ask("disconnect", session=sessions[0]["identifier"]))["ended"]
        await until(lambda: second.process.poll() is not None, what="the disconnected viewer's end")
        assert "ERRINFO_RPC_INITIATED_DISCONNECT" in second.words(), second.words()
        await third.x.moves()
        old = desk.viewer(xfreerdp(status["port"], security="rdp"))
        await old.x.shows_guest()
        await front.stop("the guest has left")
        for viewer in (third, old):
            await until(lambda: viewer.process.poll() is not None, what="a viewer's end")  # noqa: B023  # awaited within the loop
        assert "ERRINFO_RPC_INITIATED_DISCONNECT" in old.words(), old.words()
        assert "Administrator initiated disconnect" in third.words(), third.words()

    asyncio.run(at(short_folder, body))


def test_screens_are_chosen_by_the_domain_or_the_user(short_folder):
    async def body(desk: Desk):
        two = ("-device", "secondary-vga,id=v1", "-vnc", f"unix:{short_folder}/second.vnc,share=force-shared,display=v1")
        guest = await (await desk.guest("a", *two)).counting()
        front, status = await desk.front(
            settings(vrdemulticon="on", monitorcount="2"), guest.vnc, f"unix:{short_folder}/second.vnc"
        )
        one = desk.viewer(xfreerdp(status["port"], "/d:@1"))
        second = desk.viewer(xfreerdp(status["port"], "/d:HOME@2"))
        by_name = desk.viewer(xfreerdp(status["port"], user="@2\\name"))
        await one.x.shows_guest()
        await until(lambda: desk.front_log().count("screen 2") == 2, what="two viewers of screen 2")
        assert sorted(s["screen"] for s in (await front.status())["sessions"]) == [1, 2, 2]
        # an unused second VGA shows QEMU's own words, white on black, and no counter
        for viewer in (second, by_name):
            await until(lambda: any(viewer.x.image()), what="the second screen")  # noqa: B023  # awaited within the loop
            assert not viewer.x.green()
            viewer.x.shot("screen-2")
        await refused(desk, desk.viewer(xfreerdp(status["port"], "/d:@3")), "no screen @3")

    asyncio.run(at(short_folder, body))


def test_strangers_on_the_port_do_no_harm(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        front, status = await desk.front(settings(), guest.vnc)
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()
        strangers = []
        for data in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"RFB 003.008\n", secrets.token_bytes(4096), b"\x03", b"\x03\x00\xff\xff",
            b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\1\0\0\0", b"",
        ):  # fmt: skip
            for _ in range(8):  # some stay half open, more than may be pending at once
                reader, writer = await asyncio.open_connection("127.0.0.1", status["port"])
                writer.write(data)
                strangers.append((reader, writer))
        await viewer.x.moves()
        assert len((await front.status())["sessions"]) == 1
        for _, writer in strangers:
            writer.close()
        for _, writer in strangers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        newcomer_settings = settings(vrdemulticon="on")
        await front.update(newcomer_settings)
        newcomer = desk.viewer(xfreerdp(status["port"]))
        await newcomer.x.shows_guest()

    asyncio.run(at(short_folder, body))


def test_a_dead_xrdp_is_started_again(short_folder):
    async def body(desk: Desk):
        guest = await (await desk.guest()).counting()
        _, status = await desk.front(settings(), guest.vnc)
        children = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat") if _parent(p) == status["pid"]]
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)
        await until(lambda: "starting it again" in desk.front_log())
        viewer = desk.viewer(xfreerdp(status["port"]))
        await viewer.x.shows_guest()

    asyncio.run(at(short_folder, body))


def _parent(path: Path) -> int:
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_front_leaves_nothing_behind(short_folder):
    async def body(desk: Desk):
        guest = await desk.guest()
        front, status = await desk.front(settings(), guest.vnc)
        ours = list(desk.folder.glob("front/**/xrdp-*"))
        assert ours
        await front.stop("the test is over")
        assert not [path for path in ours if path.exists()]
        assert not Path(f"/proc/{status['pid']}").exists() or _state(status["pid"]) == "Z"
        assert "the test is over" in desk.front_log()
        with pytest.raises(UnreachableError):
            await front.status()

    asyncio.run(at(short_folder, body))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_missing_extension_is_named(short_folder):
    async def body(desk: Desk):
        with pytest.raises(NotFoundError, match="'mine'"):
            await desk.front(settings(vrdeextpack="mine"), f"unix:{short_folder}/x")

    asyncio.run(at(short_folder, body))
