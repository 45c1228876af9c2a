"""Storage servers of a test's own: iSCSI (tgt), NFS (ganesha), SMB (samba), SSH, started as plain processes and ended by pid.

NFS and SMB have fixed ports, so that their servers live in a network namespace with an address of its own; everything that would be
written under /run goes into a mount namespace. Nothing of the system's own services is started or touched.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_SECONDS = 30.0


def run(*words: str | Path | int) -> str:
    """A command that must succeed; its output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(
    words: Sequence[str | Path | int], log: Path, *, ready: Callable[[], bool], env: dict[str, str] | None = None
) -> Iterator[int]:
    """A server in a session of its own, with all its children; killed at the end."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            assert server.poll() is None and time.monotonic() < deadline, f"{words[0]}: {log.read_text(errors='replace')}"
            time.sleep(0.05)
        yield server.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # the session that it leads
        server.wait()


@contextlib.contextmanager
def namespace() -> Iterator[tuple[str, str]]:
    """A network namespace behind a cable: its name, and its address as seen from here."""
    number = os.getpid()
    name, cable = f"tpst{number}", f"tps{number}"
    near, far = f"10.213.{number % 250}.{4 * (number // 250 % 60) + 1}", f"10.213.{number % 250}.{4 * (number // 250 % 60) + 2}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "addr", "add", f"{near}/30", "dev", cable)
        run("ip", "link", "set", cable, "up")
        run("ip", "-n", name, "addr", "add", f"{far}/30", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name, far
    finally:
        subprocess.run(["ip", "link", "del", cable], check=False, capture_output=True, timeout=10)
        run("ip", "netns", "del", name)


def _in(name: str, *words: str | Path | int) -> list[str | Path | int]:
    """In that network namespace, with a /run of its own."""
    inner = 'mount -t tmpfs tmpfs /run && exec "$@"'
    return ["ip", "netns", "exec", name, "unshare", "-m", "sh", "-c", inner, "sh", *words]


class Tgt:
    """One iSCSI server on loopback. Control sockets of tgtd are numbered (below 32768): half the port's number serves."""

    def __init__(self, port: int) -> None:
        self.port = port

    def target(self, number: int, name: str, image: Path, *, user: str = "", password: str = "", serial: str = "") -> None:
        """A target with `image` as its LUN 1; without a `serial` number it calls itself as every other target of tgt."""
        self._admin("--op", "new", "--mode", "target", "--tid", number, "-T", name)
        self._admin("--op", "new", "--mode", "logicalunit", "--tid", number, "--lun", 1, "-b", image)
        if serial:
            self._admin("--op", "update", "--mode", "logicalunit", "--tid", number, "--lun", 1, "--params", f"scsi_sn={serial}")
        self._admin("--op", "bind", "--mode", "target", "--tid", number, "-I", "ALL")
        if user:
            self._admin("--op", "new", "--mode", "account", "--user", user, "--password", password)
            self._admin("--op", "bind", "--mode", "account", "--tid", number, "--user", user)

    def _admin(self, *words: str | int) -> str:
        return run("tgtadm", "-C", self.port // 2, "--lld", "iscsi", *words)


@contextlib.contextmanager
def tgt(folder: Path) -> Iterator[Tgt]:
    port = free_port()
    words = ["tgtd", "-f", "-C", port // 2, "--iscsi", f"portal=127.0.0.1:{port}"]

    def ready() -> bool:
        asked = ["tgtadm", "-C", str(port // 2), "--lld", "iscsi", "--op", "show", "--mode", "target"]
        return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0

    with process(words, folder / f"tgtd-{port}.log", ready=ready):
        yield Tgt(port)


@contextlib.contextmanager
def nfs(folder: Path, name: str, address: str, export: Path) -> Iterator[None]:
    """The folder `export` under its own path on `address`."""
    # From Debian 13 on it wants to be an I/O flusher of the kernel, which root in a container may not be, and which only a server
    # needs whose own host mounts what it exports; Debian 12's reads past that option.
    (folder / "ganesha.conf").write_text(
        f"""
NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false;
  allow_set_io_flusher_fail = true; }}
EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = {export}; Protocols = 3; Transports = TCP; Access_Type = RW;
  Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}
"""
    )
    script = (
        f"rpcbind -f -w & while [ ! -S /run/rpcbind.sock ]; do sleep 0.05; done; mkdir -p /run/ganesha; "
        f"exec ganesha.nfsd -F -L {folder}/ganesha.log -f {folder}/ganesha.conf -p /run/ganesha/pid -N EVENT"
    )
    words = _in(name, "bash", "-c", script)
    log = folder / "ganesha.log"

    def ready() -> bool:
        return log.exists() and "NFS SERVER INITIALIZED" in log.read_text(errors="replace") and answers(address, 2049)

    with process(words, folder / "nfs.log", ready=ready):
        yield


@contextlib.contextmanager
def smb(folder: Path, name: str, address: str, share: Path) -> Iterator[None]:
    """The folder `share` as //address/disks."""
    private = folder / "smbd"
    private.mkdir()
    folders = "\n".join(
        f"  {kind} = {private}"
        for kind in ("private dir", "state directory", "cache directory", "lock directory", "pid directory", "ncalrpc dir")
    )
    (folder / "smb.conf").write_text(
        f"""
[global]
  server role = standalone server
{folders}
  log file = {private}/log
  map to guest = Bad User
  guest account = root
  disable netbios = yes
  smb ports = 445
  load printers = no
  printcap name = /dev/null
  server min protocol = SMB2
[disks]
  path = {share}
  guest ok = yes
  read only = no
  force user = root
"""
    )
    words = _in(name, "smbd", "-F", "--no-process-group", "-s", folder / "smb.conf")
    with process(words, folder / "smbd.log", ready=lambda: answers(address, 445)):
        yield


@contextlib.contextmanager
def mounted(
    words: Sequence[str | Path | int], mount: Path, log: Path, *, ready: Callable[[], bool], home: Path
) -> Iterator[None]:
    """A FUSE client in the foreground."""
    try:
        with process(words, log, ready=ready, env={"HOME": str(home)}):
            yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False, capture_output=True, timeout=10)


@contextlib.contextmanager
def smb_mount(folder: Path, mount: Path, address: str) -> Iterator[Path]:
    """The share //address/disks through smbnetfs, as this host's folder."""
    mount.mkdir()
    config = folder / f"{mount.name}-smbnetfs"
    (config / ".smb").mkdir(parents=True)
    auth = config / ".smb/auth"
    auth.write_text('auth "guest" ""\n')
    auth.chmod(0o600)
    (config / ".smb/smb.conf").write_text("[global]\n")
    (config / ".smb/smbnetfs.conf").write_text('include "auth"\n')
    place = mount / address / "disks"
    with mounted(["smbnetfs", mount, "-f"], mount, folder / f"{mount.name}.log", ready=place.is_dir, home=config):
        yield place


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """An SSH server on loopback that lets this test in, and nobody else; its port."""
    port = free_port()
    for key in ("host-key", "client-key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    (folder / "authorized").write_bytes((folder / "client-key.pub").read_bytes())
    (folder / "sshd.conf").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/authorized
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""
    )
    script = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd.conf"]
    with process(words, folder / "sshd.log", ready=lambda: answers("127.0.0.1", port)):
        yield port


@contextlib.contextmanager
def ssh_mount(folder: Path, mount: Path, port: int, remote: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The folder `remote` through sshfs, as this host's folder."""
    mount.mkdir()
    options = (
        f"IdentityFile={folder}/client-key,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null{',ro' if read_only else ''}"
    )
    words = ["sshfs", f"root@127.0.0.1:{remote}", mount, "-p", port, "-f", "-o", options]
    with mounted(words, mount, folder / f"{mount.name}.log", ready=mount.is_mount, home=folder):
        yield mount


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A block device of this host with the file's content, as one of several hosts has it."""
    device = Path(run("losetup", "-f", "--show", image).strip())
    try:
        yield device
    finally:
        wait_for(
            lambda: subprocess.run(["losetup", "-d", str(device)], check=False, timeout=10).returncode == 0, f"{device} is busy"
        )
