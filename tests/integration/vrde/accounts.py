"""Accounts of a test's own, in a mount namespace: the host's stay as they are. Their password is `PASSWORD`."""

import os
import shutil
import subprocess
from pathlib import Path

PASSWORD = "right pässword"
PASSWD = "".join(
    f"{name}:x:{number}:{number}::/:/bin/sh\n" for number, name in enumerate(("teleann", "telebob", "telecy"), 4711)
)


def shadow(password: str = PASSWORD) -> str:
    """teleann with that password, telecy with it in an account that has expired, telebob with none, nobody who may not log in."""
    made = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True)
    hashed = made.stdout.strip()
    rows = (("teleann", hashed, ""), ("telecy", hashed, "19001"), ("telebob", "", ""), ("nobody", "*", ""))
    return "".join(f"{name}:{password}:19000:0:99999:7::{end}:\n" for name, password, end in rows)


def make_accounts(folder: Path) -> str:
    """Copies of passwd and shadow with more accounts; the mounts that put them in place, for `inside`."""
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + PASSWD)
    file = folder / "shadow"
    file.write_text(shadow())
    file.chmod(0o640)
    if os.geteuid() == 0:
        shutil.chown(file, "root", "shadow")
    return f"mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/shadow /etc/shadow"


def inside(mounts: str, command: str) -> list[str]:
    """A shell command in a mount namespace of its own, with those mounts."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    return [*unshare, "sh", "-c", f"{mounts} && exec {command}"]
