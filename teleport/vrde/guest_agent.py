"""The guest's own accounts, asked through qemu-guest-agent (`--vrdeauthtype guest`).

The agent runs `unix_chkpwd` in the guest, PAM's own checker, which reads the password from its standard input: it appears in no
argument list there either. Works for Linux guests with the agent and Debian's or Fedora's PAM.
"""

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence

from teleport.errors import HypervisorError, TeleportError, UnreachableError
from teleport.vrde.endpoint import Endpoint
from teleport.vrde.login import Login

SECONDS = 20
FIRST_ANSWER_SECONDS = 5  # an agent that does not even greet is not there; viewers give up after some 9 s
POLL_SECONDS = 0.1  # the agent has no way to be waited for
CHECKERS = ("/sbin/unix_chkpwd", "/usr/sbin/unix_chkpwd", "/usr/bin/unix_chkpwd")


class GuestAgent:
    """One VM's agent. `endpoint` None: there is none; it is exchanged when the guest moves."""

    def __init__(self, endpoint: Endpoint | None) -> None:
        self.endpoint = endpoint
        self._turn = asyncio.Lock()  # the channel has room for one conversation

    async def check(self, login: Login) -> bool:
        """Whether the guest knows this account and password. Raises TeleportError when it cannot be asked."""
        if self.endpoint is None:
            raise UnreachableError("the guest's agent", "the VM has none", "add one, or use --vrdeauthtype external")
        if not login.user or login.user.startswith("-"):
            return False
        async with self._turn:
            reader, writer = await self.endpoint.dial()
            with contextlib.closing(writer):
                try:
                    async with asyncio.timeout(SECONDS):
                        return await self._check(_Conversation(reader, writer), login)
                except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                    raise UnreachableError("the guest's agent", f"does not answer ({error or 'time-out'})") from error

    @staticmethod
    async def _check(agent: "_Conversation", login: Login) -> bool:
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                await agent.synchronise()
        except TimeoutError as error:
            raise UnreachableError(
                "the guest's agent", "says nothing", "install and start qemu-guest-agent in the guest"
            ) from error
        failure: TeleportError | None = None
        for path in CHECKERS:
            try:
                right = await agent.succeeds(path, (login.user, "nonull"), login.password.encode() + b"\0")
            except HypervisorError as error:  # no such program in this guest
                failure = error
                continue
            return right and await agent.succeeds(path, (login.user, "chkexpiry"))  # accounts and passwords that are over
        raise failure or UnreachableError("the guest's agent", "has no way to check a password")


class _Conversation:
    """JSON lines with the agent (QEMU's docs/interop/qemu-ga)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def synchronise(self) -> None:
        """Skips what an earlier conversation left in the channel."""
        number = secrets.randbelow(1 << 30)
        self._writer.write(
            b"\xff" + json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}}).encode() + b"\n"
        )
        while True:
            await self._reader.readuntil(b"\xff")
            line = await self._reader.readline()
            with contextlib.suppress(ValueError):
                if _object(line).get("return") == number:
                    return

    async def succeeds(self, path: str, arguments: Sequence[str], given: bytes = b"") -> bool:
        """Runs a program in the guest; whether it exits with 0. Raises HypervisorError when it cannot be started."""
        order = {"path": path, "arg": list(arguments), "input-data": base64.b64encode(given).decode()}
        pid = (await self.call("guest-exec", order)).get("pid")
        while True:
            state = await self.call("guest-exec-status", {"pid": pid})
            if state.get("exited"):
                return state.get("exitcode") == 0
            await asyncio.sleep(POLL_SECONDS)

    async def call(self, command: str, arguments: Mapping[str, object]) -> dict[str, object]:
        """One command. Raises HypervisorError with the agent's words."""
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        answer = _object(await self._reader.readline())
        if "error" in answer:
            refusal = answer["error"]
            raise HypervisorError("the guest's agent", str(refusal.get("desc") if isinstance(refusal, dict) else refusal))
        value = answer.get("return")
        return value if isinstance(value, dict) else {}


def _object(line: bytes) -> dict[str, object]:
    """A line as the JSON object that it must be: the guest may send anything. Raises ValueError."""
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it sends no JSON objects")
    return found
