"""The host's accounts through PAM and the guest's through the agent: real PAM and a real qemu-ga, in namespaces with accounts of their
own, so that the host's stay as they are."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from teleport.errors import UnreachableError
from teleport.vrde.endpoint import UnixEndpoint, from_text
from teleport.vrde.guest_agent import GuestAgent
from teleport.vrde.login import Login
from tests.integration.vrde.accounts import inside, make_accounts
from tests.integration.vrde.desk import Desk, at, connect, settings, until

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from teleport.vrde import pam_login
from teleport.vrde.login import Login
pam_login.HELPER_FOLDERS = sys.argv[1]
print("limit:", pam_login.limit())
logins = [("teleann", "right pässword"), ("teleann", "wrong"), ("teleann", ""), ("nobody-known", "x"), ("telebob", "")]
logins.append(("telecy", "right pässword"))
for user, password in logins[: int(sys.argv[2])]:
    print(user, password == "right pässword", asyncio.run(pam_login.Pam().check(Login(user, password))).value, flush=True)
"""


@pytest.fixture
def accounts(tmp_path):
    return make_accounts(tmp_path)


def start(command: list[str], log) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=log, stderr=log)


EXPECTED = [
    "teleann True allow",
    "teleann False deny",
    "teleann False deny",
    "nobody-known False deny",
    "telebob False deny",
    "telecy True deny",
]


def said(mounts: str, before: str, helper_folder: Path, *, logins: int = len(EXPECTED)) -> list[str]:
    (helper_folder / "ask.py").write_text(PROGRAM)
    run = subprocess.run(
        inside(mounts, f"{before}{sys.executable} {helper_folder}/ask.py {helper_folder} {logins}"),
        capture_output=True, text=True, timeout=120, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert "right pässword" not in run.stdout + run.stderr
    return run.stdout.splitlines()


def test_root_checks_any_account(accounts, tmp_path):
    lines = said(accounts, "", tmp_path)
    assert lines[0] == "limit: "
    assert [line for line in lines if line in EXPECTED] == EXPECTED


if os.geteuid() == 0:  # only root can make a program setgid shadow; without it the limit is said, see below

    def test_others_check_any_account_with_the_helper(accounts, short_folder):
        helper = short_folder / "teleport-pam-check"
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", helper, ROOT / "deploy" / "pam-check.c", "-lpam"], check=True
        )
        shutil.chown(helper, "root", "shadow")
        helper.chmod(0o2755)
        short_folder.chmod(0o755)
        lines = said(accounts, "setpriv --reuid=65534 --regid=65534 --clear-groups ", short_folder)
        assert lines[0] == "limit: "
        assert [line for line in lines if line in EXPECTED] == EXPECTED
        for nonsense in (b"", b"login\0", b"su\0teleann\0x\0", b"login\0\0x\0", b"x" * 9000):
            assert subprocess.run([helper], input=nonsense, check=False, timeout=20).returncode == 2


def test_without_the_helper_the_limit_is_said(accounts, short_folder):
    if os.geteuid() != 0:
        accounts = "true"
    short_folder.chmod(0o755)
    before = "setpriv --reuid=65534 --regid=65534 --clear-groups " if os.geteuid() == 0 else ""
    lines = said(accounts, before, short_folder, logins=1)  # PAM takes 2 s for each refusal
    assert "can be checked: install the helper teleport-pam-check" in lines[0]
    assert "teleann True deny" in lines


def test_the_guests_accounts(accounts, short_folder):
    """A real agent, in a namespace that plays the guest."""

    async def body(desk: Desk) -> None:
        path = short_folder / "agent.sock"
        log = (short_folder / "ga.log").open("wb")
        agent = start(inside(accounts, f"qemu-ga -m unix-listen -p {path} -t {short_folder} -f {short_folder}/ga.pid"), log)
        try:
            await until(path.exists, what="the agent")
            guest = GuestAgent(UnixEndpoint(str(path)))
            assert await guest.check(Login("teleann", "right pässword"))
            assert not await guest.check(Login("teleann", "wrong"))
            assert not await guest.check(Login("telebob", ""))
            assert not await guest.check(Login("telecy", "right pässword"))
            assert not await guest.check(Login("nobody-known", "x"))
            assert not await guest.check(Login("--help", "x"))
            # for a front on another host, through a tunnel
            front, _ = await desk.front(settings(vrdeextpack="none"), f"unix:{short_folder}/none.vnc", agent=f"unix:{path}")
            _, far = await front.tunnel(address="127.0.0.1")
            distant = GuestAgent(from_text(far["agent"]))
            assert await distant.check(Login("teleann", "right pässword"))
            assert not await distant.check(Login("teleann", "wrong"))
        finally:
            agent.terminate()
            agent.wait()
            log.close()
        with pytest.raises(UnreachableError):
            await guest.check(Login("teleann", "x"))
        with pytest.raises(UnreachableError, match="has none"):
            await GuestAgent(None).check(Login("teleann", "x"))

    asyncio.run(at(short_folder, body))
    assert connect(short_folder / "agent.sock") is None
