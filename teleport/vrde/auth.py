"""Who may see the guest: `--vrdeauthtype null|external|guest` (manual, 7.1.5).

An authentication library of one's own (`--vrdeauthlibrary`) is a Python module, named by its path or as an entry point of the group
``teleport.vrde.auth``, with one function::

    def authenticate(user: str, password: str, domain: str, client: str) -> str:
        '''Says "allow", "deny", or "guest" to let the guest decide. `client` is the viewer's address.'''

It runs in a thread and has `LIBRARY_SECONDS`; what it raises, and any other answer, denies. Passwords are compared in constant time
and appear in no log, argument list or representation.
"""

import asyncio
import hashlib
import hmac
import importlib.util
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from teleport.errors import NotFoundError, TeleportError, UsageError
from teleport.machines.auth_libraries import GROUP
from teleport.machines.vrde import DEFAULT_AUTH_LIBRARY, AuthType, VrdeSettings
from teleport.vrde.login import Authenticator, GuestLogin, Login, Verdict

LIBRARY_SECONDS = 20

log = logging.getLogger("teleport.vrde.auth")


class Anyone:
    """`null`: no authentication at all."""

    async def check(self, login: Login) -> Verdict:
        """Lets everybody in."""
        return Verdict.ALLOW


def password_hash(password: str) -> str:
    """What `internalcommands passwordhash` prints: SHA-256 in hex (VBoxAuthSimple)."""
    return hashlib.sha256(password.encode()).hexdigest()


class Simple:
    """`VBoxAuthSimple`: users and SHA-256 hashes from the VM's extradata."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = dict(users)

    async def check(self, login: Login) -> Verdict:
        """Compares hashes in constant time, for unknown users too."""
        known = self._users.get(login.user)
        same = hmac.compare_digest(password_hash(login.password).encode(), (known or "0" * 64).lower().encode())
        return Verdict.ALLOW if known is not None and same else Verdict.DENY


class Library:
    """A module's `authenticate`, run in a thread."""

    def __init__(self, function: Callable[[str, str, str, str], object], name: str) -> None:
        self._function = function
        self._name = name

    async def check(self, login: Login) -> Verdict:
        """The library's answer; DENY when it fails, hangs or says nothing sensible."""
        try:
            async with asyncio.timeout(LIBRARY_SECONDS):
                answer = await asyncio.to_thread(self._function, login.user, login.password, login.domain, login.client)
            return Verdict(answer)
        except TimeoutError:
            log.error("authentication library %s: no answer within %d s: denied", self._name, LIBRARY_SECONDS)
        except ValueError:
            log.error("authentication library %s: its answer is none of allow, deny, guest: denied", self._name)
        except Exception as error:  # a foreign module's failure must deny, whatever it is, and not end the display
            # (the message could carry the password: only the kind of failure is logged)
            log.error("authentication library %s failed with %s: denied", self._name, type(error).__name__)
        return Verdict.DENY


class Guest:
    """`guest`: the accounts of the guest."""

    def __init__(self, guest: GuestLogin | None) -> None:
        self._guest = guest

    async def check(self, login: Login) -> Verdict:
        """Asks the guest; DENY when it cannot be asked."""
        if self._guest is None:
            log.error("guest authentication: the VM has no guest agent: denied")
            return Verdict.DENY
        try:
            return Verdict.ALLOW if await self._guest.check(login) else Verdict.DENY
        except TeleportError as error:
            log.error("guest authentication: %s: denied", error)
            return Verdict.DENY


class Exchangeable:
    """An authenticator in whose place another may be put, for logins from then on."""

    def __init__(self, current: Authenticator) -> None:
        self.current = current

    async def check(self, login: Login) -> Verdict:
        """Asks the current one."""
        return await self.current.check(login)


class Delegating:
    """Asks a library first and the guest when it says so."""

    def __init__(self, library: Authenticator, guest: Guest) -> None:
        self._library = library
        self._guest = guest

    async def check(self, login: Login) -> Verdict:
        """ALLOW or DENY."""
        verdict = await self._library.check(login)
        return await self._guest.check(login) if verdict is Verdict.GUEST else verdict


def build(settings: VrdeSettings, guest: GuestLogin | None = None) -> Authenticator:
    """The authenticator that the settings ask for. Raises UsageError, NotFoundError for a library that is missing or none."""
    match settings.auth_type:
        case AuthType.NULL:
            return Anyone()
        case AuthType.GUEST:
            return Guest(guest)
        case AuthType.EXTERNAL:
            return Delegating(_library(settings), Guest(guest))


def limit(settings: VrdeSettings) -> str:
    """What the chosen way to authenticate cannot do on this host; "" when there is nothing to say."""
    name = settings.auth_library or DEFAULT_AUTH_LIBRARY
    if settings.auth_type is not AuthType.EXTERNAL or name.lower() != "vboxauth":
        return ""
    from teleport.vrde import pam_login  # noqa: PLC0415  # PAM is an extra: other methods must work without it

    return pam_login.limit()


def _library(settings: VrdeSettings) -> Authenticator:
    name = settings.auth_library or DEFAULT_AUTH_LIBRARY
    if name.lower() == "vboxauthsimple":
        return Simple(settings.users)
    if name.lower() == "vboxauth":
        from teleport.vrde.pam_login import Pam  # noqa: PLC0415  # PAM is an extra: other methods must work without it

        return Pam()
    return Library(_load(name), name)


def _load(name: str) -> Callable[[str, str, str, str], object]:
    what = f"--vrdeauthlibrary {name}"
    if "/" in name or name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise NotFoundError(what, "there is no such file", "give the full path of a Python module")
        specification = importlib.util.spec_from_file_location("teleport_vrde_auth_library", path)
        if specification is None or specification.loader is None:
            raise UsageError(what, "is no Python module", "its name must end with .py")
        module = importlib.util.module_from_spec(specification)
        try:
            specification.loader.exec_module(module)
        except Exception as error:
            raise UsageError(what, f"cannot be loaded: {type(error).__name__}: {error}") from error
    else:
        found = [each for each in entry_points(group=GROUP) if each.name == name]
        if not found:
            raise NotFoundError(what, "is neither VBoxAuth, VBoxAuthSimple, a path, nor an installed library")
        return _function(what, found[0].load())
    return _function(what, module)


def _function(what: str, module: object) -> Callable[[str, str, str, str], object]:
    function = getattr(module, "authenticate", None)
    if not callable(function):
        raise UsageError(what, "has no function authenticate(user, password, domain, client)")
    return cast(Callable[[str, str, str, str], object], function)  # a foreign function, whose answers are checked
