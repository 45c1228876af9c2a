"""`nic1 nat`, `setlinkstate1 off`, `natpf1 RULE`: the network adapters of a VM that runs, changed and kept in its definition."""

from collections.abc import Callable, Sequence

import click

from teleport.cli.live_change import change_live
from teleport.errors import UsageError
from teleport.machines.adapters import MOST_NICS
from teleport.machines.options import option
from teleport.machines.options.option import Use, applied
from teleport.machines.store import StoredVm

_NAMED = {"bridged": "bridgeadapter", "intnet": "intnet"}
Words = Sequence[str]


def _nic(number: int, words: Words) -> tuple[Use, ...]:
    kind, names = words[0].lower(), tuple(words[1:])
    if names and kind not in _NAMED:
        option("nic").kind.parse((kind,))  # a kind that cannot be had says why
        raise ValueError(f"{kind} takes no name")
    named = tuple(Use(option(_NAMED[kind]), number, (name,)) for name in names)
    return (*named, Use(option("nic"), number, (kind,)))


def _link(number: int, words: Words) -> tuple[Use, ...]:
    return (Use(option("cableconnected"), number, tuple(words)),)


def _forward(number: int, words: Words) -> tuple[Use, ...]:
    rule = option("natpf")
    if len(words) != rule.kind.words(words):
        raise ValueError(f"give one of {rule.kind.metavar}")
    return (Use(rule, number, tuple(words)),)


def _verbs(
    name: str, about: str, metavar: str, most_words: int, uses: Callable[[int, Words], tuple[Use, ...]]
) -> list[click.Command]:
    """One a number; the help shows the first, for all."""

    def verb(number: int) -> click.Command:
        what = f"{name}{number}"

        @click.command(what, help=f"{about} ({name}1 to {name}{MOST_NICS}).", hidden=number > 1)
        @click.argument("words", metavar=metavar, nargs=-1, required=True)
        @click.pass_obj
        def command(vm: StoredVm, words: tuple[str, ...]) -> None:
            if len(words) > most_words:
                raise UsageError(what, f"{words[most_words]!r} is one word too many", f"give {metavar}")
            try:
                wanted = uses(number, words)
            except ValueError as error:
                raise UsageError(what, str(error)) from error
            change_live(vm, what, lambda definition: applied(definition, wanted))

        return command

    return [verb(number) for number in range(1, MOST_NICS + 1)]


NETWORK = (
    *_verbs("nic", "Connect an adapter with something else", "null|nat|bridged [BRIDGE]|intnet [NETWORK]", 2, _nic),
    *_verbs("setlinkstate", "Plug its cable in or out", "on|off", 1, _link),
    *_verbs("natpf", "Forward a port of this host to the guest, or no more", "RULE|delete NAME", 2, _forward),
)
