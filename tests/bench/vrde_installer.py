"""An installer's graphical screen, seen and clicked through in a viewer (manual, 7.1.3, step 8).

`.venv/bin/python -m tests.bench.vrde_installer FOLDER`, where FOLDER is Debian's package debian-installer-12-netboot-amd64, unpacked
(`apt-get download`, `dpkg-deb -x`). Takes minutes under TCG, so it is no test of every day; a screenshot a step is left in
/tmp/teleport-vrde-shots.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.harness.session import passing_folder
from tests.integration.vrde.desk import Desk, Viewer, settings, until, xfreerdp

IMAGES = "usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64"
SECONDS = 600
CONTINUE = (1215, 775)  # the "Continue" button, at 1280x800


def installer(folder: Path, images: Path) -> subprocess.Popen[bytes]:
    """The gtk installer of Debian 12 in a guest of 1 GiB."""
    return subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-nodefaults", "-display", "none", "-vga", "std", "-usb",
         "-device", "usb-tablet", "-kernel", images / "linux", "-initrd", images / "initrd.gz", "-append", "--- quiet",
         "-vnc", f"unix:{folder}/i.vnc,share=force-shared"],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def page(viewer: Viewer) -> bytes:
    """The picture below the banner, once it has a list with a selected line (a teal bar); empty until then."""
    pixels = viewer.x.image(0, 80, 1280, 680)
    bar = sum(1 for at in range(0, len(pixels), 4 * 97) if pixels[at + 1] > 100 > pixels[at + 2] and 90 < pixels[at] < 140)
    return pixels if bar > 50 else b""


async def next_page(viewer: Viewer, before: bytes) -> bytes:
    """Waits for another page than `before` that has stood still for four seconds."""
    last, since = b"", 0
    while since < 8 or not last or last == before:
        shown = page(viewer)
        last, since = shown, since + 1 if shown == last else 0
        await asyncio.sleep(0.5)
    return last


async def main(folder: Path) -> None:
    desk = Desk(folder)
    guest = installer(folder, Path(sys.argv[1]) / IMAGES)
    try:
        await until((folder / "i.vnc").exists, what="QEMU")
        _, status = await desk.front(settings(), f"unix:{folder}/i.vnc")
        viewer = desk.viewer(xfreerdp(status["port"], "/size:1280x800"), size="1280x800")
        async with asyncio.timeout(SECONDS):
            shown = await next_page(viewer, b"")
            print("seen:", viewer.x.shot("installer-1-language"))
            for step in ("2-location", "3-keyboard"):
                viewer.x.fake(6, 0, *CONTINUE)
                await asyncio.sleep(0.5)
                for kind in (4, 5):
                    viewer.x.fake(kind, 1)
                    await asyncio.sleep(0.2)
                shown = await next_page(viewer, shown)
                print("clicked:", viewer.x.shot(f"installer-{step}"))
    finally:
        guest.kill()
        guest.wait()
        await desk.end()


if __name__ == "__main__":
    with passing_folder() as made:
        asyncio.run(main(made))
