"""A home's end: what carries its name is gone, what doesn't is untouched."""

import os
import subprocess
import sys

from tests.harness.home import Home

_LISTEN = (
    "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(60)"
)


def test_a_home_ends_what_it_started_and_nothing_else() -> None:
    home, other = Home("x"), Home("y")
    try:
        mine = subprocess.Popen([sys.executable, "-c", _LISTEN], env=home.environment, stdout=subprocess.PIPE, text=True)
        theirs = subprocess.Popen([sys.executable, "-c", _LISTEN], env=other.environment, stdout=subprocess.PIPE, text=True)
        with mine, theirs:
            assert mine.stdout
            assert theirs.stdout
            port = int(mine.stdout.readline())
            theirs.stdout.readline()
            assert list(home.processes()) == [mine.pid]
            assert home.ports() == {port}
            assert len(home.leftovers(timeout_seconds=0)) == 2
            home.end()
            assert mine.wait(10) < 0
            assert not home.folder.exists()
            assert theirs.poll() is None
            other.end()
    finally:
        for each in (home, other):
            if each.folder.exists():
                each.end()
    assert os.getpid() not in home.processes()
