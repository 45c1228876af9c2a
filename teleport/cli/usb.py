"""`usb share`: a USB device of the computer in front of which the person sits, for a VM that runs elsewhere (manual, 7.1.4)."""

import contextlib
import re
from pathlib import Path

import click

from teleport.cli.grammar import Verb
from teleport.errors import StorageError, UsageError
from teleport.machines.usb_filters import UsbDevice
from teleport.machines.usb_host import host_devices

DISPLAY_PORT = 3389
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@click.group("usb")
def command() -> None:
    """Share a USB device of this computer with a VM that runs elsewhere."""


@command.command("share", cls=Verb)
@click.argument("device", metavar="VENDOR:PRODUCT")
@click.option("--to", "place", required=True, metavar="HOST[:PORT]", help="The VM's remote display (port 3389).")
@click.option("--user", default="", metavar="NAME", help="The same login as a viewer's.")
@click.option("--domain", default="", metavar="DOMAIN", help="Its domain.")
@click.option("--passwordfile", metavar="FILE", help="Its password, the file's first line (otherwise asked for).")
@click.option("--fingerprint", default="", metavar="SHA256", help="The display's certificate, as showvminfo shows it.")
@click.option("--from", "served", default="", metavar="HOST:PORT", help="Where another program serves the device by usbredir.")
def _share(*, device: str, place: str, user: str, domain: str, passwordfile: str | None, fingerprint: str, served: str) -> None:
    """Share a device until it is unplugged, the VM ends, or Ctrl-C. The VM's filters (usbfilter) say whether it is plugged in.

    It stays shared while the VM teleports. Needs Debian's package usbredirect here, and rights on the device.
    """
    wanted = _numbers(device)
    host, port = _place("--to", place, DISPLAY_PORT)
    source = _place("--from", served, 0) if served else None
    digits = fingerprint.replace(":", "").lower()
    if digits and not _FINGERPRINT.fullmatch(digits):
        raise UsageError("--fingerprint", "is not a SHA-256 fingerprint of 64 hexadecimal digits")
    password = _password(passwordfile, user)
    import asyncio  # noqa: PLC0415 - only here, and every start of the program counts

    from teleport.vrde import usb_frames, usb_share  # noqa: PLC0415 - asyncio and TLS, for this verb only

    known = next((each.device for each in host_devices() if _same(each.device, wanted)), wanted)
    claim = usb_frames.Claim(
        user=user, password=password, domain=domain,
        manufacturer=known.manufacturer, product=known.product, serial_number=known.serial_number,
    )  # fmt: skip

    async def run() -> None:
        device = usb_share.served_device(*source) if source else usb_share.local_device(wanted.vendor_id, wanted.product_id)
        async with device as stream:
            await usb_share.share(usb_share.Place(host, port, digits), claim, stream, say=_say)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
    click.echo("The device is shared no more.")


def _say(text: str) -> None:
    click.echo(f"USB: {text}")


def _numbers(text: str) -> UsbDevice:
    match = re.fullmatch(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})", text)
    if not match:
        raise UsageError("usb share", f"{text!r} is not VENDOR:PRODUCT such as 046d:c31c", "`teleport list usbhost` shows them")
    return UsbDevice(int(match[1], 16), int(match[2], 16))


def _same(one: UsbDevice, other: UsbDevice) -> bool:
    return (one.vendor_id, one.product_id) == (other.vendor_id, other.product_id)


def _place(what: str, text: str, port: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+|[0-9a-fA-F:]+:[0-9a-fA-F:]*)(?::([0-9]{1,5}))?", text)
    number = int(match[2]) if match and match[2] else port
    if not match or not 1 <= number <= 65535:
        raise UsageError(what, f"{text!r} is not HOST:PORT, with an IPv6 address in brackets")
    return match[1].strip("[]"), number


def _password(file: str | None, user: str) -> str:
    if file is None:
        return str(click.prompt("Password", hide_input=True, default="", show_default=False)) if user else ""
    try:
        return (Path(file).read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"--passwordfile {file}", f"cannot be read: {error}") from error
