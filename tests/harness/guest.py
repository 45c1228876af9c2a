"""The test guest (deploy/guest): its files, its kernel command line, and a console to speak with it."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.ticker import Ticker

REPOSITORY = Path(__file__).resolve().parents[2]
# What makes an emulated CPU boot fast and steady: no messages, no mitigations, no timer and crypto self-tests.
_BOOT = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nokaslr no_timer_check cryptomgr.notests"


@dataclass(frozen=True)
class GuestImage:
    """What a machine boots directly."""

    kernel: Path
    initrd: Path


@dataclass(frozen=True)
class Load:
    """The guest's work (deploy/guest/init's `teleport.*` keys).

    Kernel, initramfs and busybox use 67 MB of a guest's memory besides (Debian 12's 6.1), or 74 MB (Debian 13's 6.12), and the commands
    that a test runs in it some more: with 5 MB left, its kernel kills them.
    """

    resident_mb: int = 16
    rewrite_mb: int = 16
    dirty_mb_s: int = 20
    disk: bool = False
    check_s: int = 0
    extra: str = ""

    def command_line(self) -> str:
        """For QEMU's -append and `modifyvm --append`."""
        keys = f"teleport.resident_mb={self.resident_mb} teleport.rewrite_mb={self.rewrite_mb} teleport.dirty_mb_s={self.dirty_mb_s}"
        return f"{_BOOT} {keys} teleport.disk={int(self.disk)} teleport.check_s={self.check_s} {self.extra}".strip()


@dataclass(frozen=True)
class Check:
    """The guest's own verdict over its memory. `digest` covers the resident part: equal before and after whatever happens."""

    ok: bool
    digest: str
    passes: int
    written_mb: int
    milliseconds: int
    bad: str


def guest_image(kernel_folder: Path = REPOSITORY / ".cache/kernel", *, agent: bool = False) -> GuestImage:
    """Kernel and initramfs, built if needed, from a folder with `vmlinuz` and the unpacked package in `root`.

    Debian's cloud kernel (the default) has drivers for virtio, PIIX4's IDE and vmxnet3 only; with the package linux-image-amd64
    the same guest knows AHCI, LsiLogic, USB, e1000, rtl8139, pcnet and floppies. `agent`: with qemu-guest-agent in it. RuntimeError
    says what is missing.
    """
    kernel = kernel_folder / "vmlinuz"
    out = kernel_folder.with_name(kernel_folder.name.replace("kernel", "guest"))
    built = subprocess.run(
        [
            str(REPOSITORY / "deploy/guest/build"),
            "--kernel-root",
            str(kernel_folder / "root"),
            "--out",
            str(out),
            *(["--agent"] if agent else []),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if built.returncode or not kernel.exists():
        raise RuntimeError(f"the test guest is missing (run deploy/set-up): {built.stderr.strip()}")
    return GuestImage(kernel=kernel, initrd=Path(built.stdout.strip()))


class GuestConsole(Ticker):
    """A Ticker that asks the guest things and understands its answers."""

    def wait_ready(self, timeout_seconds: float = 60) -> str:
        """The guest's READY line, with the load that it has taken on."""
        return self.wait_for(r"READY (.*)", timeout_seconds)[1]

    def ask(self, command: str, answer: str, timeout_seconds: float = 30) -> re.Match[str]:
        """Sends a command and waits for the line that answers it. RuntimeError when the guest does not know the command."""
        for _ in range(3):
            place = self.mark()
            self.send(command)
            heard = self.wait_for(rf"{answer}|UNKNOWN .*", timeout_seconds, after=place)
            if not heard[0].startswith("UNKNOWN "):
                return heard
            # a busy guest's serial port has lost characters: it has done nothing yet
        raise RuntimeError(f"{command!r} is {heard[0]!r} to the guest")

    def check(self, tag: str = "check", timeout_seconds: float = 60) -> Check:
        """Lets the guest verify all of its resident and rewritten memory."""
        answer = self.ask(f"CHECK {tag}", rf"CHECKED (ok|bad) tag={tag} (.*)", timeout_seconds)
        fields = dict(word.split("=", 1) for word in answer[2].split())
        return Check(
            ok=answer[1] == "ok",
            digest=fields["digest"],
            passes=int(fields["passes"]),
            written_mb=int(fields["written_mb"]),
            milliseconds=int(fields["ms"]),
            bad=fields.get("bad", ""),
        )

    def disk(self) -> int:
        """One write, fsync and read back; the sequence number. RuntimeError when the guest found it wrong."""
        answer = self.ask("DISK", r"DISK (\S+)(.*) (\d+)")
        if answer[1] != "ok":
            raise RuntimeError(f"the guest says {answer[0]!r}")
        return int(answer[3])

    def net(self) -> bool:
        """Whether the guest's gateway answers a ping."""
        return self.ask("NET", r"NET (ok|bad) .*")[1] == "ok"

    def run(self, command: str, timeout_seconds: float = 30) -> str:
        """A shell command's output in the guest, on one line. RuntimeError when it fails."""
        answer = self.ask(f"RUN {command}", r"RAN (\d+) ?(.*)", timeout_seconds)
        if answer[1] != "0":
            raise RuntimeError(f"{command!r} in the guest ended with {answer[1]}: {answer[2]}")
        return answer[2]

    @property
    def corruption(self) -> list[str]:
        """What the guest found wrong with itself by its own looking."""
        return [line.text for line in self.lines("CORRUPT")]
