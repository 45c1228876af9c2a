"""Accounts of a test's own, in a mount namespace: the host's stay as they are. Their password is `PASSWORD`."""

import os
import shutil
import subprocess
from pathlib import Path

PASSWORD = "right pässword"
PASSWD = "teleann:x:4711:4711::/:/bin/sh\ntelebob:x:4712:4712::/:/bin/sh\n"


def shadow(password: str = PASSWORD) -> str:
    """teleann with that password, telebob with none, nobody who may not log in."""
    made = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True)
    return f"teleann:{made.stdout.strip()}:19000:0:99999:7:::\ntelebob::19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"


def make_accounts(folder: Path) -> str:
    """Copies of passwd and shadow with two more accounts; the mounts that put them in place, for `inside`."""
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
