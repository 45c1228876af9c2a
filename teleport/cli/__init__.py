"""The command line: VirtualBox's grammar. One file per verb, imported only when that verb is used.

`main` is where everything that went wrong becomes one line on stderr and an exit code:

    teleport: error: WHAT: WHY; TRY

0 done; 1 it failed and the VM is where it was; 2 usage; 3 in doubt; 4 the guest is lost; 130 interrupted.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from teleport import __version__
from teleport.errors import TeleportError, UsageError

# Verb → module of this package, and its line in the list of commands. The module's `command` (or what is named after a colon) is the
# click command.
VERBS: dict[str, tuple[str, str]] = {
    "createvm": ("createvm", "Make a new VM."),
    "registervm": ("registervm", "Add the VM of a settings file to the list of VMs."),
    "unregistervm": ("unregistervm", "Take a VM off the list, and delete it if you say so."),
    "modifyvm": ("modifyvm", "Change a VM's settings."),
    "setextradata": ("extradata:setextradata", "Keep a text with a VM, or with this home."),
    "getextradata": ("extradata:getextradata", "Show those texts."),
    "setproperty": ("setproperty", "Set what holds for all VMs of this home."),
    "showvminfo": ("showvminfo", "Show a VM's settings and state."),
    "list": ("listing", "List VMs, running VMs, OS types, media, and more."),
    "createmedium": ("createmedium", "Make a disk image."),
    "closemedium": ("closemedium", "Delete an image."),
    "showmediuminfo": ("showmediuminfo", "Show what an image is."),
    "modifymedium": ("modifymedium", "Resize or convert a disk image."),
    "clonemedium": ("clonemedium", "Copy a disk image, also into another format."),
    "convertfromraw": ("convertfromraw", "Make a disk image of a raw one."),
    "storagectl": ("storagectl", "Add or remove a storage controller."),
    "storageattach": ("storageattach", "Attach, change or detach a medium."),
    "usbfilter": ("usbfilter", "Say which USB devices of viewers' computers a VM takes."),
    "usb": ("usb", "Share a USB device of this computer with a VM that runs elsewhere."),
    "startvm": ("startvm", "Start a VM, or let it wait for a teleport."),
    "controlvm": ("controlvm", "Pause, resume, stop or teleport a running VM."),
    "console": ("console", "Show a VM's screen in a browser, or write a file for mstsc."),
    "snapshot": ("snapshot", "Take, restore, delete and list snapshots of a VM."),
    "discardstate": ("discardstate", "Drop a VM's saved state."),
    "resolve": ("resolve", "Decide where a guest runs when a teleport ended in doubt."),
    "internalcommands": ("internalcommands", "Hash a password for VBoxAuthSimple."),
}
# Older and other spellings of VirtualBox.
ALSO = {
    "createhd": "createmedium",
    "createhdd": "createmedium",
    "showhdinfo": "showmediuminfo",
    "modifyhd": "modifymedium",
    "modifyhdd": "modifymedium",
    "clonehd": "clonemedium",
    "clonehdd": "clonemedium",
    "createmachine": "createvm",
}
_ADDITIONS = "it needs VirtualBox's Guest Additions in the guest, and QEMU's guests have none"
_NETWORKS = "networks are the host's own: `ip link` makes a bridge, and modifyvm --nic1 bridged --bridgeadapter1 uses it"
_COPY = "`createvm --like` makes a VM with the same hardware, `clonemedium` copies its disks"
_ELSEWHERE = "Teleport moves VMs that run, and reads no appliances; `clonemedium` converts disk images"
# Verbs of VirtualBox that there are none of here, and why or what is done instead.
REFUSED = {
    **dict.fromkeys(("guestproperty", "guestcontrol", "sharedfolder", "updateadditions"), _ADDITIONS),
    **dict.fromkeys(("hostonlyif", "hostonlynet", "dhcpserver", "natnetwork"), _NETWORKS),
    "clonevm": _COPY,
    **dict.fromkeys(("export", "import", "movevm", "unattended", "cloud", "cloudprofile"), _ELSEWHERE),
    "adoptstate": "a saved state belongs to the VM that it was saved of: startvm goes on from it",
    "bandwidthctl": "disks and adapters have no groups here",
    **dict.fromkeys(("encryptvm", "encryptmedium", "checkmediumpwd"), "images are encrypted by their storage, or in the guest"),
    "extpack": "extensions are Python packages: docs/logins.md says how one is found",
    **dict.fromkeys(("metrics", "debugvm"), "what a VM's processes use, the host's own tools show"),
    "mediumproperty": "images have no properties here",
    "mediumio": "`qemu-img dd` reads and writes images of VMs that are off",
    "updatecheck": "Teleport asks nobody for updates",
    "usbdevsource": "`teleport usb share` lends a device to a VM elsewhere",
}
INTERRUPTED = 130


class Verbs(click.Group):
    """The verbs, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        name = ALSO.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"teleport.cli.{module}"), attribute or "command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Says which verb was meant when there is none of that name."""
        word = args[0]
        command = self.get_command(ctx, word)
        if command is None and word in REFUSED:
            raise UsageError(f"command {word!r}", f"Teleport has none of that name: {REFUSED[word]}")
        if command is None and not word.startswith("-"):
            near = difflib.get_close_matches(word, [*VERBS, *ALSO], n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "`teleport --help` lists them"
            raise UsageError(f"command {word!r}", "there is none of that name", hint)
        if command is not None:
            return word, command, args[1:]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-v", "--version", prog_name="teleport", message="%(prog)s %(version)s")
@click.option(
    "-q", "--nologo", is_flag=True, expose_value=False, help="No banner (there never is one; VBoxManage's scripts say it)."
)
def teleport() -> None:
    """Live migration of running QEMU virtual machines, spoken as VBoxManage speaks."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program `teleport`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    run(teleport, words, name="teleport")


def run(command: click.Command, words: Sequence[str], *, name: str) -> NoReturn:
    """Runs a command and ends the process with its exit code; `name` is the program that speaks in messages."""
    as_json = "--json" in words
    try:
        outcome = command.main(args=list(words), prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        code = outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        code = UsageError.exit_code
    except click.UsageError as error:
        code = _fail(_from_click(error, name), name=name, as_json=as_json)
    except click.ClickException as error:
        code = _fail(TeleportError(name, error.format_message()), name=name, as_json=as_json)
    except TeleportError as error:
        code = _fail(error, name=name, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _from_click(error: click.UsageError, name: str) -> UsageError:
    """click's own words in our form: the command as WHAT, its message as WHY."""
    context = error.ctx
    what = context.command_path.removeprefix(f"{name} ") if context else name
    message = error.format_message().rstrip(".")
    why = message[:1].lower() + message[1:]
    return UsageError(what, why, f"`{context.command_path if context else name} --help` shows how it is used")


def _fail(error: TeleportError, *, name: str, as_json: bool) -> int:
    if as_json:
        import json  # noqa: PLC0415 - only here, and every start of the program counts

        event = {"event": "error", "kind": error.kind, "what": error.what, "why": error.why, "try": error.hint}
        click.echo(json.dumps(event | ({"findings": rows} if (rows := getattr(error, "findings", ())) else {})))
    click.echo(f"{name}: error: {error}", err=True)
    return error.exit_code
