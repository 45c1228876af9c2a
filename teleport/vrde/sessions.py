"""Who is connected, and whether one more may be: `--vrdemulticon` and `--vrdereusecon` (manual, 7.1.7)."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from teleport.machines.vrde import VrdeSettings


class Ending(Enum):
    """Why a session is ended from this side, as far as a viewer can be told."""

    TAKEN_OVER = "another viewer has taken over"
    ENDED_HERE = "ended by who runs the display"


@dataclass(frozen=True)
class Session:
    """One viewer that was let in. `since` in seconds of the Unix clock; `screen` counts from 1; `protection` as it is shown."""

    identifier: int
    client: str
    user: str
    screen: int
    since: float
    protection: str = ""


class Sessions:
    """The sessions of one VM. `note` writes one line to the VM's log."""

    def __init__(self, settings: VrdeSettings, note: Callable[[str], None]) -> None:
        self.settings = settings
        self._note = note
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[Session, Callable[[Ending], None]]] = {}

    def all(self) -> tuple[Session, ...]:
        """Who is connected, oldest first."""
        return tuple(session for session, _ in self._open.values())

    def admit(self, *, client: str, user: str, screen: int, protection: str, close: Callable[[Ending], None]) -> Session | None:
        """Lets a viewer in, ending the others where it takes over; None when it is refused. `close` must end it without waiting."""
        others = self.all()
        if others and not self.settings.multi_connection:
            if not self.settings.reuse_connection:
                self._note(
                    f"client {client} refused: {others[0].client} is connected and several are not allowed (--vrdemulticon)"
                )
                return None
            for other in others:
                self._note(f"client {client} takes over from {other.client}")
                self.end(other.identifier, Ending.TAKEN_OVER)
        session = Session(next(self._numbers), client, user, screen, time.time(), protection)
        self._open[session.identifier] = session, close
        self._note(f"client {client} connected (user {user[:64]!r}, screen {screen}, {protection})")
        return session

    def left(self, session: Session) -> None:
        """Notes that a session is over. Idempotent."""
        if self._open.pop(session.identifier, None):
            seconds = time.time() - session.since
            self._note(f"client {session.client} disconnected after {seconds:.1f} s")

    def end(self, identifier: int, why: Ending = Ending.ENDED_HERE) -> bool:
        """Ends one session; False when there is none of that number."""
        if identifier not in self._open:
            return False
        session, close = self._open[identifier]
        self.left(session)
        close(why)
        return True

    def end_all(self) -> None:
        """Ends every session."""
        for session in self.all():
            self.end(session.identifier)
