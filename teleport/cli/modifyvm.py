"""`modifyvm`: its options are the rows of the table of options."""

from typing import Any, ClassVar

import click

from teleport.cli.display import tell_display
from teleport.cli.grammar import Verb, WordsOption, uses, vm_argument
from teleport.cli.home import store
from teleport.cli.live import keeps_saved_state, require_at_rest, require_changeable
from teleport.errors import UsageError
from teleport.machines.cpus import undecided_bits
from teleport.machines.definition import Definition
from teleport.machines.options import OPTIONS, REFUSED, find
from teleport.machines.options.option import Option, Use, applied


class ModifyVm(Verb):
    """`modifyvm` with the table's options, numbered ones shown once in the help."""

    refused: ClassVar = REFUSED

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by group."""
        groups: dict[str, list[Option]] = {}
        for option in OPTIONS:
            groups.setdefault(option.group, []).append(option)
        for group, options in groups.items():
            with formatter.section(group):
                formatter.write_dl([(f"{_shown(each)} {each.kind.metavar}", each.about) for each in options])


def _shown(option: Option) -> str:
    return f"--{option.name}<1-{option.most}>" if option.most else f"--{option.name}"


def _click_option(option: Option, number: int) -> click.Option:
    return WordsOption(
        [option.flag(number), *(f"--{word}{number or ''}" for word in option.also), f"{option.name.replace('-', '_')}{number}"],
        words=option.kind.words,
        choices=option.kind.choices,
        metavar=option.kind.metavar,
        multiple=True,
        expose_value=False,
        help=option.about,
    )


@click.command("modifyvm", cls=ModifyVm)
@vm_argument()
@click.pass_context
def command(ctx: click.Context, vm: str) -> None:
    """Change a VM's settings."""
    wanted = [_use(flag, words) for flag, words in uses(ctx)]
    if not wanted:
        raise UsageError("modifyvm", "no setting was given", "`teleport modifyvm --help` lists them")
    home = store()
    found = home.find(vm)
    frozen = [use.option.flag(use.number) for use in wanted if not use.option.live]
    if all(name.startswith("--teleporter") for name in frozen) and keeps_saved_state(found.paths, found.name):
        frozen = []  # how it is started is not what its saved state is of
    if frozen:
        # where it waits is settled when it is started, what it is only when a source comes
        bound = any(use.option.name.startswith("teleporter") for use in wanted)
        (require_at_rest if bound else require_changeable)(found.paths, found.name, f"modifyvm {', '.join(frozen)}")
    tell_display(found, applied(found.definition, wanted))
    changed = home.edit(found, lambda definition: applied(definition, wanted))
    kept = changed.teleporter.password or changed.teleporter.password_file
    if kept and any(use.option.name.startswith("teleporterpassword") for use in wanted):
        _warn("no source is asked for the teleporter's password yet: whoever reaches the port may teleport here")
    if any(use.option.name == "cpuid-set" for use in wanted):
        _say_what_qemu_decides(changed)


def _say_what_qemu_decides(definition: Definition) -> None:
    for leaf in definition.cpu.cpuid:
        if registers := undecided_bits(leaf):
            _warn(f"CPUID leaf {leaf.leaf:08x}: QEMU decides some of the bits set in {', '.join(registers)} by itself")


def _warn(message: str) -> None:
    click.echo(f"teleport: warning: {message}", err=True)


def _use(flag: str, words: tuple[str, ...]) -> Use:
    found = find(flag.removeprefix("--"))
    if found is None:
        raise UsageError(flag, "modifyvm has no such option")
    return Use(option=found[0], number=found[1], words=words)


def _options() -> list[Any]:
    return [_click_option(option, number) for option in OPTIONS for number in option.numbers]


command.params.extend(_options())
