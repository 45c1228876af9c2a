"""The program `teleport`, some thousand times: one process has imported it, and forks for each command.

To start Python and import what a command needs takes 0.15 s of CPU, most of what a command takes at all. What runs is the same program
in a process, environment and output of its own; that it also starts by itself is shown where a test uses `Home.start`, a namespace or
deploy/demo, none of which come here.

    Commands ──words, environment, folder; stdout, stderr and an answer's socket as descriptors──▶ server ─fork─▶ overseer ─fork─▶ command
             ◀──exit code, once the command has ended─────────────────────────────────────────────────────────────┘

Who hangs up has the command killed, and the server goes with who started it: nothing outlives a test that was ended.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_REQUEST_BYTES = 128 << 10  # one message: an environment and a command line


class Commands:
    """Runs commands; the server is started by the first one. A context manager that leaves nothing."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._requests: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server and self._requests:
            self._requests.close()
            self._server.wait()

    def run(self, words: Sequence[str], *, environment: Mapping[str, str], out: int, err: int, timeout_seconds: float) -> int:
        """`teleport WORDS` with these descriptors as its output; its exit code (negative: the signal that ended it).

        subprocess.TimeoutExpired when it takes longer; it was killed then.
        """
        deadline = time.monotonic() + timeout_seconds
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                request = json.dumps({"words": list(words), "environment": dict(environment), "folder": str(Path.cwd())})
                socket.send_fds(self._connection(), [request.encode()], [theirs.fileno(), out, err])
            ours.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                answer = ours.recv(16)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(list(words), timeout_seconds) from error
        if not answer:
            raise RuntimeError(f"nobody says how teleport {words} ended")
        return int(answer)

    def _connection(self) -> socket.socket:
        with self._starting:
            if self._requests is None:
                self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    # no home's: the first command's test may have set its own, and a home that ends kills what is its
                    environment = {name: value for name, value in os.environ.items() if name != "TELEPORT_HOME"}
                    self._server = subprocess.Popen(
                        [sys.executable, "-m", __name__, str(theirs.fileno())],
                        env=environment,
                        pass_fds=[theirs.fileno()],
                        cwd=Path(__file__).resolve().parents[2],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,  # a file, as a command's output is: buffered alike
                    )
            return self._requests


def serve(requests: socket.socket) -> list[str]:
    """Forks for each request. Returns in the process that is to be the command, with its words; the server's own end is an exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for overseers
    while True:
        request, descriptors, *_ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        if not request:
            sys.exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            return _overseen(json.loads(request), *descriptors)
        for each in descriptors:
            os.close(each)


def _overseen(request: dict[str, object], answer: int, out: int, err: int) -> list[str]:
    """Returns in the command; the overseer ends in here."""
    command = os.fork()
    if command:
        ended = os.pidfd_open(command)
        ready = select.select([answer, ended], [], [])[0]
        if ended not in ready:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        if ended in ready:
            os.write(answer, str(code).encode())
        os._exit(0)
    for place, each in ((1, out), (2, err)):
        os.dup2(each, place)
        os.close(each)
    os.close(answer)
    environment, words = request["environment"], request["words"]
    assert isinstance(environment, dict)
    assert isinstance(words, list)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(str(request["folder"]))
    return words


def _import_all() -> None:
    cli = importlib.import_module("teleport.cli")
    for module, _ in cli.VERBS.values():
        importlib.import_module(f"teleport.cli.{module.partition(':')[0]}")
    for module in ("teleport.cli.running", "teleport.wire.control_client", "teleport.machines.options"):
        importlib.import_module(module)
    gc.freeze()


if __name__ == "__main__":
    _import_all()
    command_line = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = ["teleport", *command_line]
    from teleport.cli import main

    main()
