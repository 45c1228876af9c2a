"""What the display costs: `.venv/bin/python -m tests.bench.vrde_cost [idle] [video] [frames]` (4 minutes; numbers, no verdict: they
depend on the machine).

- idle: the front's share of a core and its memory, one viewer connected, a guest whose picture stands still;
- a full-screen change at 1024x768, 32 bits, as fast as the guest can: frames a second at a VNC viewer straight on QEMU and through
  the relay, and at xfreerdp through xrdp alone and through front, xrdp and relay;
- bytes to the viewer for that picture, with the video channel off and at qualities of 100, 50, 10.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from teleport.vrde.rdp.xrdp import _GLOBALS
from tests.harness.session import passing_folder
from tests.integration.vrde.desk import Desk, Guest, Viewer, settings, until, xfreerdp
from tests.integration.vrde.test_vnc import VncViewer

# Boot sector: VBE mode 0x144 (1024x768, 32 bits), protected mode, fills the whole screen with another gradient each time.
FULL_SCREEN = (
    bytes.fromhex(
        "fa31c08ed88ec08ed0bc007cb8014fb94401bf0080cd10b8024fbb4441cd10668b3628800f0116807c0f20c00c010f22c0ea367c080066b810008ed8"
        "8ec031d2fc89f731db89d001d8c1e00808d0b900040000f3ab4381fb0003000072e783c205ebde8d742600900000000000000000ffff0000009acf00"
        "ffff00000092cf001700687c0000"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
SECONDS = 6
TURNS = 3
VIDEO_TURNS = 2
IDLE_SECONDS = 15


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def vnc_frames(port: int) -> float:
    viewer = await VncViewer.connect(port)
    try:
        await viewer.see()
        pixels, began = 0, time.monotonic()
        while time.monotonic() - began < SECONDS:
            pixels += sum(r.width * r.height for r in (await viewer.see()).rectangles if r.encoding == 0)
        return pixels / (1024 * 768) / (time.monotonic() - began)
    finally:
        await viewer.aclose()


async def rdp_frames(viewer: Viewer) -> float:
    """Pictures a second in the viewer's window, by a strip at its bottom, which is drawn last."""
    await until(lambda: any(viewer.x.image(500, 700, 8, 2)), what="the guest in the viewer")
    await asyncio.sleep(2)
    frames, last, began = 0, b"", time.monotonic()
    while time.monotonic() - began < SECONDS:
        picture = viewer.x.image(500, 700, 8, 2)
        frames += picture != last
        last = picture
        await asyncio.sleep(0.004)
    return frames / (time.monotonic() - began)


def xrdp_alone(folder: Path, display: int) -> subprocess.Popen[bytes]:
    """xrdp with its own TLS, straight on QEMU's VNC: it dials TCP only."""
    ini = _GLOBALS.format(clipboard="false", sound="false").replace("unix://.xrdp.sock", "tcp://127.0.0.1:43999")
    ini = ini.replace("security_layer=rdp", f"security_layer=tls\ncertificate={folder}/c.pem\nkey_file={folder}/k.pem")
    ini = (
        ini.replace("autorun=", "autorun=vm")
        + f"[vm]\nname=vm\nlib=libvnc.so\nip=127.0.0.1\nport={5900 + display}\nusername=na\npassword=\n"
    )
    (folder / "alone.ini").write_text(ini)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", folder / "k.pem", "-out",
                    folder / "c.pem"], check=True, capture_output=True)  # fmt: skip
    return subprocess.Popen(
        ["xrdp", "-n", "-c", folder / "alone.ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )


async def frames_of_xrdp_alone(desk: Desk, display: int) -> float:
    process = xrdp_alone(desk.folder, display)
    try:
        await asyncio.sleep(1)
        viewer = desk.viewer(xfreerdp(43999, "/size:1024x768"), size="1024x768")
        rate = await rdp_frames(viewer)
        viewer.process.terminate()
        return rate
    finally:
        process.terminate()
        process.wait()


async def idle(desk: Desk, guest: Guest) -> None:
    front, status = await desk.front(settings(), guest.vnc, name="idle")
    viewer = desk.viewer(xfreerdp(status["port"]))
    await viewer.x.shows_guest()
    guest.qmp("stop")
    await asyncio.sleep(3)
    pid = int(status["pid"])
    before = cpu_seconds(pid)
    await asyncio.sleep(IDLE_SECONDS)
    share = (cpu_seconds(pid) - before) / IDLE_SECONDS
    print(f"idle, one viewer: {100 * share:.2f} % of a core, {memory_mib(pid):.0f} MiB (front and relay, proportional)")
    guest.qmp("cont")
    await front.stop()


async def video(desk: Desk, guest: Guest) -> None:
    """In turn, since the machine is never the same for long."""
    qualities = (None, 100, 50, 10)
    rates: dict[int | None, list[tuple[float, float]]] = {quality: [] for quality in qualities}
    for turn in range(VIDEO_TURNS):
        for quality in qualities[:: -1 if turn % 2 else 1]:
            options = {"vrdevideochannel": "on", "vrdevideochannelquality": str(quality)} if quality else {}
            front, status = await desk.front(settings(**options), guest.vnc, name=f"video{quality}-{turn}")
            viewer = desk.viewer(xfreerdp(status["port"], "/size:1024x768"), size="1024x768")
            await until(lambda: any(viewer.x.image(500, 700, 8, 2)), what="the guest in the viewer")  # noqa: B023  # awaited here
            before, began = _sent_bytes(status["port"]), time.monotonic()
            frames = await rdp_frames(viewer)
            rates[quality].append(((_sent_bytes(status["port"]) - before) / (time.monotonic() - began) / 1024, frames))
            viewer.x.shot(f"video-{quality or 'off'}")
            viewer.process.terminate()
            await front.stop()
    means = {quality: tuple(map(statistics.mean, zip(*each, strict=True))) for quality, each in rates.items()}
    for quality, (kib, frames) in means.items():
        share = 100 * kib / means[None][0]
        print(f"video {quality or 'off'}: {kib:.0f} KiB/s to the viewer, {share:.0f} % of off; {frames:.1f} frames/s")


def _sent_bytes(port: int) -> int:
    """What the front's socket to its viewer has sent, as the kernel counts it."""
    text = subprocess.run(["ss", "-tinH", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return sum(int(word.removeprefix("bytes_sent:")) for word in text.split() if word.startswith("bytes_sent:"))


async def frames(desk: Desk, guest: Guest, display: int) -> None:
    """In turn, since the machine is never the same for long."""
    rates: dict[str, list[float]] = {"straight": [], "relay": [], "xrdp alone": [], "front": []}
    for turn in range(TURNS):
        rates["straight"].append(await vnc_frames(5900 + display))
        front, status = await desk.front(settings(vrdeextpack="vnc"), guest.vnc, name=f"vnc{turn}")
        rates["relay"].append(await vnc_frames(int(status["port"])))
        await front.stop()
        rates["xrdp alone"].append(await frames_of_xrdp_alone(desk, display))
        front, status = await desk.front(settings(), guest.vnc, name=f"rdp{turn}")
        viewer = desk.viewer(xfreerdp(status["port"], "/size:1024x768"), size="1024x768")
        before = cpu_seconds(int(status["pid"])), time.monotonic()
        rates["front"].append(await rdp_frames(viewer))
        share = (cpu_seconds(int(status["pid"])) - before[0]) / (time.monotonic() - before[1])
        viewer.x.shot("full-screen")
        viewer.process.terminate()
        await front.stop()
        print(", ".join(f"{name} {each[-1]:.1f}/s" for name, each in rates.items()) + f"; front {100 * share:.0f} % of a core")
    for less, more, viewer_name in (("relay", "straight", "VNC viewer"), ("front", "xrdp alone", "xfreerdp")):
        ratio = statistics.mean(rates[less]) / statistics.mean(rates[more])
        print(f"full screen, {viewer_name}: {100 * ratio:.0f} % of the frames of {more}")


async def main(folder: Path) -> None:
    parts = set(sys.argv[1:]) or {"idle", "video", "frames"}
    desk = Desk(folder)
    try:
        if "idle" in parts:
            counter = await (await desk.guest("counter")).counting()
            await idle(desk, counter)
            counter.end()
            (folder / "floppy.img").unlink()
        display = 83
        guest = await desk.guest("full", "-vnc", f"127.0.0.1:{display},share=force-shared", floppy=FULL_SCREEN)
        await asyncio.sleep(3)
        if "video" in parts:
            await video(desk, guest)
        if "frames" in parts:
            await frames(desk, guest, display)
    finally:
        await desk.end()


if __name__ == "__main__":
    with passing_folder() as made:
        asyncio.run(main(made))
