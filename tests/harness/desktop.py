"""A desktop for the test guest: an X server without a screen, a real spice-vdagentd with its session's agent, and xclip.

They are this machine's own programs, in an archive that the kernel unpacks over the guest's (deploy/guest/build).
"""

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from tests.harness.guest import REPOSITORY, GuestConsole, guest_image

_PROGRAMS = ("/usr/bin/Xvfb", "/usr/bin/xkbcomp", "/usr/bin/xclip", "/usr/sbin/spice-vdagentd", "/usr/bin/spice-vdagent")
_DATA = ("/usr/share/X11/xkb",)
MEMORY_MB = 256
PORT = "/dev/virtio-ports/com.redhat.spice.0"


def _libraries() -> set[str]:
    listed = subprocess.run(["ldd", *_PROGRAMS], capture_output=True, text=True, check=True, timeout=30).stdout
    return set(re.findall(r"(?:=>|^)\s+(/\S+) \(", listed, re.MULTILINE))


def desktop_initrd() -> Path:
    """The guest's initramfs with the desktop in it, built if needed. RuntimeError says what is missing."""
    missing = [each for each in _PROGRAMS if not Path(each).exists()]
    if missing:
        raise RuntimeError(f"{', '.join(missing)}: run deploy/set-up --test")
    base = guest_image().initrd
    files = sorted({*_PROGRAMS, *_libraries()})
    key = hashlib.sha256(
        "".join(f"{each} {Path(each).stat().st_mtime_ns}\n" for each in (*files, str(base))).encode()
    ).hexdigest()
    made = REPOSITORY / ".cache/guest" / f"initrd-desktop-{key[:16]}"
    if not made.exists():
        with tempfile.TemporaryDirectory() as root:
            # real files under the names that programs look for; the guest's own /bin and /lib stay folders
            for each in files:
                subprocess.run(["install", "-D", "-m", "755", each, f"{root}{each}"], check=True, timeout=30)
            for each in _DATA:
                Path(f"{root}{each}").parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-r", each, f"{root}{each}"], check=True, timeout=30)
            names = subprocess.run(
                ["find", ".", "-mindepth", "1"], cwd=root, capture_output=True, check=True, timeout=30
            ).stdout
            archive = subprocess.run(
                ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names, capture_output=True, check=True, timeout=60
            ).stdout
        for old in made.parent.glob("initrd-desktop-*"):
            old.unlink(missing_ok=True)
        fresh = made.with_suffix(".new")
        fresh.write_bytes(base.read_bytes() + archive)
        fresh.rename(made)
    return made


class Desktop:
    """The desktop of a guest that runs."""

    def __init__(self, console: GuestConsole) -> None:
        self._console = console

    def begin(self) -> None:
        """Starts it; returns when its clipboard can be used."""
        run = self._console.run
        # what udev would do, and files of the system that these programs look for
        run(
            "busybox mkdir -p /dev/virtio-ports /tmp /var/lib/dbus /run/user /run/spice-vdagentd; busybox chmod 1777 /tmp; "
            "echo root:x:0:0::/:/bin/sh > /etc/passwd; "
            "for port in /sys/class/virtio-ports/*; do busybox ln -sf ../${port##*/} /dev/virtio-ports/$(busybox cat $port/name); done"
        )
        run("(/usr/bin/Xvfb :1 -screen 0 320x200x24 -nolisten tcp -extension GLX > /run/xvfb.log 2>&1 &); true")
        run("until [ -S /tmp/.X11-unix/X1 ]; do busybox usleep 100000; done", 60)
        run(f"(/usr/sbin/spice-vdagentd -x -X -d -f -u /dev/null -s {PORT} -S /run/vd.sock > /run/vdagentd.log 2>&1 &); true")
        run("until [ -S /run/vd.sock ]; do busybox usleep 100000; done", 30)
        run(f"(DISPLAY=:1 /usr/bin/spice-vdagent -x -d -S /run/vd.sock -s {PORT} > /run/vdagent.log 2>&1 &); true")
        # short commands: a busy guest loses characters of long ones
        xclip = "DISPLAY=:1 {}/usr/bin/xclip -selection clipboard {} 2>/dev/null"
        self._script(
            "c", f"echo -n $1 | {xclip.format('', '-i >/dev/null')}"
        )  # it goes on behind once the clipboard is its own
        self._script("p", f"{xclip.format('busybox timeout 4 ', '-o')}; true")
        run("until busybox grep -q 'guest xorg resolution' /run/vdagentd.log; do busybox usleep 100000; done", 60)

    def _script(self, name: str, command: str) -> None:
        self._console.run(f"echo '#!/bin/sh' > /run/{name}; echo '{command}' >> /run/{name}; busybox chmod 755 /run/{name}")

    def copy(self, text: str) -> None:
        """Somebody in the guest copies this (one line, no quotes); it is done when this returns."""
        self._console.run(f"/run/c '{text}'")

    def paste(self) -> str:
        """What somebody in the guest pastes now; "" for nothing. Lines are joined by a space."""
        return self._console.run("/run/p")

    def log(self) -> str:
        """What the agents say, for a failed test."""
        return self._console.run("busybox tail -n 14 /run/vdagentd.log /run/vdagent.log /run/xvfb.log")
