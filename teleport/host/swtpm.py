"""A guest's TPM: one swtpm process beside one QEMU, which holds its only connection and so its life.

```
QEMU ──socket pair──▶ swtpm ──▶ its state folder (locked by it)
```

The pair has no name: nobody else can speak to this TPM. When QEMU ends, however it ends, swtpm sees the end of the connection and ends
too; an agent that dies takes neither along, so its successor has nothing to take up. (Before QEMU has sent it the data channel, which is
among the first things that QEMU does, 0.7.1 does not mind losing the control channel: `Swtpm.end` is for a QEMU that died so early.)
swtpm's own exclusion is the lock of its state folder, an open file that it inherits: it is free once the process is really gone.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from teleport.errors import BusyError, HypervisorError, StorageError

_PROGRAM = "swtpm"
_LOCK_FILE = ".teleport-lock"
_LOCK_SECONDS = 10.0
_RETRY_SECONDS = 0.01


@dataclass(frozen=True)
class Swtpm:
    """One that was started. `control_fd` is its control channel for QEMU (`-chardev socket,fd=`); whoever started it closes it."""

    control_fd: int
    process: "subprocess.Popen[bytes]"

    def end(self) -> None:
        """Ends it, if it lives: its QEMU is gone, or never was."""
        if self.process.poll() is None:
            self.process.kill()


def find_swtpm() -> str:
    """The program. Raises HypervisorError when it is not installed."""
    if found := shutil.which(_PROGRAM):
        return found
    raise HypervisorError(
        "the guest's TPM",
        f"the program swtpm is not installed on {socket.gethostname()}",
        "install Debian's swtpm there, or modifyvm NAME --tpm-type none",
    )


def start_swtpm(*, version: str, state: Path, log: Path) -> Swtpm:
    """Starts one on this state folder.

    `version` is 1.2 or 2.0. Raises HypervisorError without swtpm, BusyError while another one has the folder, StorageError.
    """
    program = find_swtpm()
    lock = _lock(state)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            words = [
                *(program, "socket", *(["--tpm2"] if version == "2.0" else [])),
                *("--tpmstate", f"dir={state},mode=0600"),
                *("--ctrl", f"type=unixio,clientfd={theirs.fileno()}", "--terminate"),
            ]
            with log.open("ab") as file:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    pass_fds=(theirs.fileno(), lock),
                    start_new_session=True,  # a terminal's Ctrl-C is not for it
                )
    except OSError as error:
        ours.close()
        raise StorageError(f"starting {program}", error.strerror or str(error)) from error
    finally:
        os.close(lock)  # the process has its own
    threading.Thread(target=process.wait, daemon=True, name=f"swtpm {process.pid}").start()  # leaves no zombie
    return Swtpm(ours.detach(), process)


def _lock(state: Path) -> int:
    """The state folder's lock. The process before needs some ms to end after its QEMU."""
    try:
        lock = os.open(state / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"the TPM's state {state}", error.strerror or str(error), "check its permissions") from error
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise BusyError("the guest's TPM", f"another swtpm works in {state}", "end it first") from None
            time.sleep(_RETRY_SECONDS)
        else:
            return lock
