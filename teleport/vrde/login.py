"""The words of authentication: what a viewer says of itself, and who decides over it (`teleport.vrde.auth`)."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Verdict(Enum):
    """What an authenticator says."""

    ALLOW = "allow"
    DENY = "deny"
    GUEST = "guest"  # the guest decides


@dataclass(frozen=True)
class Login:
    """What a viewer says of itself, and where it comes from."""

    user: str
    password: str = field(repr=False)
    domain: str = ""
    client: str = ""


class Authenticator(Protocol):
    """Decides over logins. Never raises: what cannot be decided is denied."""

    async def check(self, login: Login) -> Verdict:
        """ALLOW or DENY (GUEST only from a library that is asked directly)."""


class GuestLogin(Protocol):
    """Asks the guest itself (see `teleport.vrde.guest_agent`)."""

    async def check(self, login: Login) -> bool:
        """Whether the guest knows this account. Raises TeleportError when the guest cannot be asked."""
