"""`VBoxAuth`: the accounts of the host, through PAM.

root may check any account; any other process only its own one, unless the helper `teleport-pam-check` (deploy/pam-check.c, setgid
shadow) is installed: it reads service, user and password from its standard input and answers by its exit status.
"""

import asyncio
import logging
import os
import pwd
import shutil
from pathlib import Path

import pam

from teleport.vrde.login import Login, Verdict

SECONDS = 20
HELPER = "teleport-pam-check"
HELPER_FOLDERS = "/usr/local/libexec/teleport:/usr/libexec/teleport:/usr/local/bin"

log = logging.getLogger("teleport.vrde.auth")


def service() -> str:
    """The PAM service that is asked: `teleport` when the administrator made one, `login` otherwise, as VBoxAuth does."""
    return "teleport" if Path("/etc/pam.d/teleport").exists() else "login"


def helper() -> str | None:
    """The helper's path, if it is installed."""
    return shutil.which(HELPER, path=HELPER_FOLDERS)


def limit() -> str:
    """What this process cannot check, for a warning; "" when it can check every account."""
    if os.geteuid() == 0 or helper():
        return ""
    own = pwd.getpwuid(os.geteuid()).pw_name
    return f"only the account {own!r} can be checked: install the helper {HELPER} (deploy/set-up --pam-helper) for the others"


class Pam:
    """Asks PAM in a thread, or the helper."""

    async def check(self, login: Login) -> Verdict:
        """ALLOW for a right password of an account that may log in; DENY otherwise, logged with PAM's reason."""
        # Debian's PAM lets accounts without a password in; over a network that is nobody's wish.
        if not login.user or not login.password or "\0" in login.user + login.password:
            return Verdict.DENY
        try:
            async with asyncio.timeout(SECONDS):
                path = None if os.geteuid() == 0 else helper()
                right, reason = await (self._by_helper(path, login) if path else asyncio.to_thread(self._directly, login))
        except (TimeoutError, OSError) as error:
            right, reason = False, str(error) or "time-out"
        if not right:
            log.info("PAM refuses %r: %s%s", login.user, reason, f" ({limit()})" if limit() else "")
        return Verdict.ALLOW if right else Verdict.DENY

    @staticmethod
    def _directly(login: Login) -> tuple[bool, str]:
        asked = pam.PamAuthenticator()
        # resetcreds would let PAM modules change the credentials of this very process
        return bool(asked.authenticate(login.user, login.password, service=service(), resetcreds=False)), str(asked.reason)

    @staticmethod
    async def _by_helper(path: str, login: Login) -> tuple[bool, str]:
        process = await asyncio.create_subprocess_exec(
            path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, words = await process.communicate("\0".join((service(), login.user, login.password, "")).encode())
        return process.returncode == 0, words.decode(errors="replace").strip()
