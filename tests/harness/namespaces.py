"""Two network namespaces, each with a host name of its own, joined by a virtual cable: two hosts on one machine (needs root)."""

import subprocess
from types import TracebackType
from typing import Self


class Namespace:
    """One host's network. It lives as long as its process, which does nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", 'hostname "$0" && ip link set lo up && echo && exec sleep infinity', name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout
        with self._holder.stdout as said:
            assert said.readline() == b"\n", "no namespace: needs root"

    @property
    def pid(self) -> int:
        """A process within."""
        return self._holder.pid

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that is to run within."""
        return ("nsenter", "--target", str(self.pid), "--net", "--uts", "--")

    def ip(self, *words: str) -> None:
        """`ip WORDS` within."""
        subprocess.run([*self.enter, "ip", *words], check=True, timeout=10)

    def end(self) -> None:
        """Ends it, with its interfaces."""
        self._holder.kill()
        self._holder.wait()


class Cable:
    """The namespaces `near` and `far`, joined. A context manager. Their addresses are 10.77.0.1, 10.77.0.2, and fd77::1, fd77::2."""

    def __enter__(self) -> Self:
        self.near, self.far = Namespace("near"), Namespace("far")
        self.near.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(self.far.pid))
        for number, each in enumerate((self.near, self.far), 1):
            each.ip("address", "add", f"10.77.0.{number}/24", "dev", "cable")
            each.ip("address", "add", f"fd77::{number}/64", "dev", "cable", "nodad")
            each.ip("link", "set", "cable", "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.near.end()
        self.far.end()
