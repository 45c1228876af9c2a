"""A device that wants in at the display's port: the same TLS, the same login, the same delay for who guesses as a viewer."""

import asyncio
from dataclasses import replace

from teleport.errors import ProtocolError, RefusedError
from teleport.vrde import certificate
from teleport.vrde.extension import Context
from teleport.vrde.login import Login
from teleport.vrde.rdp import pdu
from teleport.vrde.rdp.pdu import Protocol, Refusal
from teleport.vrde.streams import peer_of
from teleport.vrde.usb_frames import Claim, answer, read_line

WRONG = "wrong user or password"


async def admit(
    context: Context, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, shown: certificate.Certificate | None
) -> Claim:
    """Answers the X.224 request, and decides over the login. `shown` None: the display has no TLS.

    Raises RefusedError, which the sharer has been told, ProtocolError, OSError, IncompleteReadError. The caller limits its time.
    """
    if shown is None:
        writer.write(pdu.refuse(Refusal.TLS_NOT_ALLOWED))
        await writer.drain()
        raise ProtocolError("remote USB", "needs TLS, which Security/Method=RDP leaves out")
    writer.write(pdu.confirm(Protocol.TLS))
    await writer.drain()
    await writer.start_tls(shown.context)
    claim = Claim.parse(await read_line(reader))
    address, client = peer_of(writer)
    if not await context.throttle.decide(context.authenticator, Login(claim.user, claim.password, claim.domain, address)):
        writer.write(answer(WRONG))
        await writer.drain()
        raise RefusedError("remote USB", f"{WRONG} (user {claim.user[:64]!r})")
    return replace(claim, password="", client=client)
