"""The VM's remote display, as its agent keeps it.

The front is a process of its own that outlives QEMU and runner (`teleport.ports.DisplayFront`); whose it is says
`teleport.machines.display_note`. On a teleport

- on one host the target's agent takes the source's front over, once the guest runs there; whom it lets in, and to what, is then as the
  target VM says, if its display is on, and else as the source VM said;
- between hosts the target opens a tunnel for the source's front, which stays where its viewers are: it remains the source VM's, whose
  agent takes it up again when a guest comes back, and `controlvm S vrde off` ends it;
- between hosts with `--move-display` (this host is to be emptied) the target's own front serves at its port before the guest runs
  there, and the source's tells its viewers' owners and ends;
- that ends without a move nothing is done.

A display that cannot start never keeps the VM from running: why is in `problem`, and said.
"""

import asyncio
import contextlib
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from teleport.errors import StateError, StorageError, TeleportError, UnreachableError
from teleport.machines.definition import Definition
from teleport.machines.preferences import with_defaults
from teleport.machines.store import VmPaths
from teleport.machines.vrde import ClipboardMode, VrdeSettings, to_dict
from teleport.model import DisplayOrder, DisplayStatus, TargetPhase, TargetReport
from teleport.ports import DisplayFront
from teleport.runner.display_facts import restart_is_needed, shown
from teleport.runner.display_folder import DisplayFolder, fronts
from teleport.runner.runtime_folder import is_private_folder

LOOK_SECONDS = 10.0
FOLLOW_TRIES, FOLLOW_EVERY_SECONDS = 10, 0.1
# No port of its own: another host's front decides what its viewers may do.
_FOR_ANOTHER_FRONT = VrdeSettings(enabled=True, extension="none", clipboard=ClipboardMode.BIDIRECTIONAL)


@dataclass(frozen=True)
class Offer:
    """What a target does about the display of a guest that arrives: endpoints for the source's front, and where it serves itself."""

    screens: tuple[str, ...] = ()
    where: str = ""


class Display:
    """One VM's; `home` has the preferences of all VMs. `enabled` overrules the definition for this runner; `say` tells the log and those
    who watch."""

    def __init__(
        self, definition: Definition, paths: VmPaths, *, home: Path, enabled: bool | None = None, say: Callable[[str], None]
    ) -> None:
        self.problem = ""
        self._name = definition.name
        self._enabled = enabled
        self._settings = self._wanted(definition)
        self._folder = DisplayFolder(paths)
        self._home = home
        self._say = say
        self._front: DisplayFront | None = None
        self._status: DisplayStatus | None = None
        self._screens: tuple[str, ...] = ()
        self._offered = False  # the front was started for a guest that has not arrived yet
        self._lock = asyncio.Lock()

    def _wanted(self, definition: Definition) -> VrdeSettings:
        return definition.vrde if self._enabled is None else replace(definition.vrde, enabled=self._enabled)

    def renew(self, definition: Definition) -> None:
        """The definition was changed while nothing runs."""
        self._name, self._settings = definition.name, self._wanted(definition)

    # ------------------------------------------------------------------ what it is
    @property
    def folder(self) -> str:
        """The front's folder; "" when none serves."""
        return self._front.folder if self._front else ""

    @property
    def front(self) -> DisplayFront | None:
        """The front that serves; None when none does."""
        return self._front

    @property
    def takes_usb(self) -> bool:
        """Whether this VM's own settings let remote USB in (`Client/DisableUSB`), whoever's front serves."""
        return not self._settings.is_disabled("USB")

    def properties(self) -> dict[str, str]:
        """What `showvminfo` shows of it. `vrdeport` is the bound one, -1 when it should be on and is not."""
        status = self._status
        if self._front and status and status.port:
            return shown(status)
        if self._settings.enabled:
            return {"vrdeport": "-1", **({"vrdeproblem": self.problem} if self.problem else {})}
        return {"vrde": "off"}

    async def refresh(self) -> None:
        """Asks the front anew; one that died is started again."""
        if self._lock.locked():
            return  # it is being changed just now
        async with self._lock:
            if self._front is None:
                return
            try:
                self._status = await self._front.status()
            except TeleportError as error:
                self._say(f"warning: {error}: starting it again")
                await self._lose()
                if self._settings.enabled and self._screens:
                    await self._try_to_start()

    async def watch(self) -> None:
        """Looks after it as long as the VM runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.refresh()

    # ------------------------------------------------------------------ the VM's life
    async def begin(self, screens: tuple[str, ...]) -> None:
        """The guest was started here."""
        async with self._lock:
            self._screens = screens
            await self._find_left()
            await self._end("the guest was started anew")
            if self._settings.enabled:
                await self._try_to_start()

    async def adopt(self, screens: tuple[str, ...]) -> None:
        """A new agent takes up the running VM, and the front that its predecessor kept."""
        async with self._lock:
            self._screens = screens
            await self._find_left()
            if self._front:
                await self._retarget()
            elif self._settings.enabled:
                await self._try_to_start()

    async def end(self, reason: str) -> None:
        """The VM is over."""
        async with self._lock:
            self._screens = ()
            await self._end(reason)

    async def change(self, settings: VrdeSettings) -> None:
        """Takes over other settings while the VM runs. Raises what keeps it from that; everything is as before then."""
        async with self._lock:
            before, self._settings = self._settings, settings
            self._enabled = None
            try:
                await self._apply(before, settings)
            except TeleportError:
                self._settings = before
                if self._front is None and before.enabled and self._screens:
                    await self._try_to_start()
                raise

    async def _apply(self, before: VrdeSettings, settings: VrdeSettings) -> None:
        if not self._screens:
            return  # nothing runs yet: it counts when the guest is here
        if not settings.enabled:
            await self._end("it was switched off")
        elif self._front is None:
            await self._start(settings)
        elif restart_is_needed(before, settings):
            await self._end("it starts with other settings")
            await self._start(settings)
        else:
            await self._front.update(to_dict(with_defaults(settings, self._home)))
            self._status = await self._front.status()

    async def console(self, *, address: str, port: int, screen: int) -> dict[str, str]:
        """A page for a browser. Raises StateError when the display is off, and what the front answers."""
        if self._front is None:
            raise StateError(
                "console",
                self.problem or f"the remote display of VM {self._name!r} is off",
                f"teleport controlvm {shlex.quote(self._name)} vrde on",
            )
        return dict(await self._front.console(address=address, port=port, screen=screen))

    # ------------------------------------------------------------------ a guest that arrives
    async def can_take(self, folder: str, *, same_host: bool) -> bool:
        """Whether the source's front of that folder can be taken over: it is on this host, ours, and answers."""
        if not (folder and same_host and is_private_folder(Path(folder))):
            return False
        try:
            await (await asyncio.to_thread(fronts)).at(folder).status()
        except TeleportError:
            return False
        return True

    @property
    def serves(self) -> bool:
        """Whether it is to have a port for viewers of its own."""
        return self._settings.enabled

    async def offer(self, screens: tuple[str, ...], *, address: str, tunnel: bool) -> Offer:
        """Opens the guest's screens, before the guest runs: by `tunnel` for the source's front on another host, and at a port of our
        own if there is to be one. Never raises."""
        async with self._lock:
            try:
                await self._find_left()
                if self._front is None:
                    self._screens = screens
                    await self._start(self._settings if self._settings.enabled else _FOR_ANOTHER_FRONT)
                    self._offered = True
                assert self._front is not None
                return Offer(screens=await self._front.tunnel(address) if tunnel else (), where=self._where())
            except TeleportError as error:
                self.problem = str(error)
                self._say(f"warning: {error}: the guest's viewers have to connect anew")
                return Offer()

    async def withdraw(self) -> None:
        """The guest does not come."""
        async with self._lock:
            if self._offered:
                await self._end("the guest did not arrive")

    async def arrived(self, screens: tuple[str, ...], taken: str) -> None:
        """The guest runs here, now; `taken` is the folder of the source's front. Never raises."""
        async with self._lock:
            self._screens, self._offered = screens, False
            if taken:
                await self._take(taken)
            else:
                await self._find_left()
            if self._front:
                await self._retarget()
            if taken:
                await self._use_own_settings()
            if self._front is None and self._settings.enabled:
                await self._try_to_start()

    async def _use_own_settings(self) -> None:
        """A front that came from another VM lets in whom this VM's settings let in, where they have it on; its port stays."""
        if not (self._front and self._status and self._settings.enabled and self._status.extension == self._settings.extension):
            return
        try:
            await self._front.update(to_dict(with_defaults(self._settings, self._home)))
        except TeleportError as error:
            self._say(f"warning: the display goes on as the source had set it: {error}")

    async def _take(self, folder: str) -> None:
        try:
            front = (await asyncio.to_thread(fronts)).at(folder)
            self._folder.take(Path(folder))
        except (TeleportError, OSError) as error:
            self._say(f"warning: the source's display cannot be taken over: {error}")
            return
        await self._find_left()
        if self.folder != folder:
            await self._end("another one came with the guest")
        self._front = front
        self._folder.note(Path(folder))

    # ------------------------------------------------------------------ a guest that has left
    async def left(self, report: TargetReport, *, host: str) -> str:
        """The guest runs at `host`: lets the front go, points it there, or ends it. Says where the display is now."""
        async with self._lock:
            front, self._front = self._front, None
            self._screens = ()
            if front is None:
                return report.display
            port = self._status.port if self._status else 0
            here = f"port {port} of this host, as before" if port else ""
            if report.display_taken:
                self._folder.forget()
                return here
            if report.display_screens:
                try:
                    await _follow(front, report.display_screens, host=host)
                except TeleportError as error:
                    self._say(f"warning: the display cannot follow the guest: {error}")
                else:
                    return ", and ".join(each for each in (here, report.display) if each)
            if report.phase is TargetPhase.STARTED:
                self._front = front
                return await self._hand_over(front, where=report.display or f"no port of {host}")
            # else nobody knows who serves it: it ends by itself when it finds no guest
            return report.display

    async def _hand_over(self, front: DisplayFront, *, where: str) -> str:
        """Ends the front of a guest that has left for good, and says to the owners of its viewers where it is now."""
        viewers = 0
        with contextlib.suppress(TeleportError):
            viewers = (await front.status()).viewers
        await self._end(f"the guest has left, and its display is at {where} now")
        return f"{where} now; viewers that were connected here and must connect there: {viewers}" if viewers else where

    # ------------------------------------------------------------------ the front
    async def _find_left(self) -> None:
        """The front that an earlier agent of this VM kept, or left to the viewers of a guest that went away."""
        if self._front:
            return
        folder = self._folder.noted()
        if folder is None:
            return
        try:
            front = (await asyncio.to_thread(fronts)).at(str(folder))
            self._status = await front.status()
        except TeleportError:
            self._folder.remove(folder)
            return
        self._front = front

    async def _retarget(self) -> None:
        assert self._front is not None
        try:
            status = await self._front.status()
            if status.screens != self._screens:
                await self._front.retarget(self._screens)
                status = await self._front.status()
        except TeleportError as error:
            self._say(f"warning: {error}")
            await self._end("it does not show this guest")
        else:
            self._status = status
            self.problem = ""

    async def _try_to_start(self) -> None:
        try:
            await self._start(self._settings)
        except TeleportError as error:
            self.problem = str(error)
            self._say(f"warning: no remote display: {error}")

    async def _start(self, settings: VrdeSettings) -> None:
        if not self._screens:
            raise StateError(
                "the remote display",
                f"VM {self._name!r} has no graphics",
                f"modifyvm {self._name!r} --graphicscontroller vboxvga",
            )
        made = await asyncio.to_thread(fronts)
        settings = with_defaults(settings, self._home)
        try:
            folder = self._folder.make()
        except OSError as error:
            raise StorageError("the remote display", f"its folders cannot be made: {error}") from error
        try:
            front = await made.start(
                DisplayOrder(
                    vm_name=self._name,
                    folder=str(folder),
                    keys=str(self._folder.keys()),
                    settings=to_dict(settings),
                    screens=self._screens,
                )
            )
            self._status = await front.status()
        except BaseException:
            self._folder.remove(folder)
            raise
        self._front = front
        self.problem = ""
        if self._status.port:
            self._say(f"VRDE server is listening on port {self._status.port}.")

    async def _end(self, reason: str) -> None:
        front = self._front
        if front is None:
            return
        try:
            await front.stop(reason)
        except TeleportError as error:
            self._say(f"warning: {error}")
        await self._lose()

    async def _lose(self) -> None:
        """The front is gone."""
        folder = self.folder
        self._front, self._status, self._offered = None, None, False
        await asyncio.to_thread(self._folder.remove, folder)

    def _where(self) -> str:
        port = self._status.port if self._status else 0
        return f"port {port} of {socket.gethostname()}" if port else ""


async def _follow(front: DisplayFront, screens: tuple[str, ...], *, host: str) -> None:
    """Points the front at another host. Raises UnreachableError after some tries: the front there, which has served viewers of this one
    until now, breaks off every connection when it switches to the guest that has just arrived."""
    for _ in range(FOLLOW_TRIES - 1):
        with contextlib.suppress(UnreachableError):
            await front.retarget(screens, host=host)
            return
        await asyncio.sleep(FOLLOW_EVERY_SECONDS)
    await front.retarget(screens, host=host)
