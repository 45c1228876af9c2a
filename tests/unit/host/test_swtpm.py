"""swtpm itself: it lives as long as its connection, and no second one gets its folder."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from teleport.errors import BusyError, HypervisorError
from teleport.host import swtpm

_GET_CAPABILITY = (1).to_bytes(4, "big")  # swtpm's tpm_ioctl.h, CMD_GET_CAPABILITY
_SET_DATAFD = (0x10).to_bytes(4, "big")


def _is_alive(state: Path) -> bool:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes()
        except OSError:
            continue
        if f"dir={state},".encode() in words:
            return True
    return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("version", ["1.2", "2.0"])
def test_it_ends_with_its_connection_and_only_then_another_may_begin(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = swtpm.start_swtpm(version=version, state=tmp_path, log=tmp_path / "log")
    ours, theirs = socket.socketpair()
    with socket.socket(fileno=started.control_fd) as control, ours:
        control.settimeout(10)
        with theirs:
            socket.send_fds(control, [_SET_DATAFD], [theirs.fileno()])
            assert control.recv(64) == bytes(4), (tmp_path / "log").read_text()
        control.sendall(_GET_CAPABILITY)
        assert control.recv(64), (tmp_path / "log").read_text()
        monkeypatch.setattr(swtpm, "_LOCK_SECONDS", 0.05)
        with pytest.raises(BusyError, match="another swtpm"):
            swtpm.start_swtpm(version=version, state=tmp_path, log=tmp_path / "log")
    monkeypatch.undo()
    second = swtpm.start_swtpm(version=version, state=tmp_path, log=tmp_path / "log")  # waits for the first one's end
    os.close(second.control_fd)  # by a QEMU that died before it used it
    second.end()
    _until(lambda: not _is_alive(tmp_path))


def test_a_host_without_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HypervisorError, match="install Debian's swtpm"):
        swtpm.find_swtpm()
