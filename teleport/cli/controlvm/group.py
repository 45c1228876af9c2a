"""`controlvm NAME VERB …`: a group whose first word is the VM."""

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

from teleport.cli.grammar import VM, complete_vm, names_a_vm
from teleport.cli.home import store
from teleport.errors import UsageError


class VmGroup(click.Group):
    """Verbs on one VM, which is the commands' object (`click.pass_obj`)."""

    def __init__(
        self, name: str, *, commands: Sequence[click.Command], refused: Mapping[str, str] = MappingProxyType({}), **more: Any
    ) -> None:
        super().__init__(name, **more)
        self.refused = refused  # verbs of VirtualBox that we don't take, and why
        self.params.append(click.Argument([VM], metavar="NAME|UUID", shell_complete=complete_vm))
        for each in commands:
            self.add_command(each)

    def _shown(self) -> list[str]:
        """The verbs, numbered ones once: `nic1` to `nic8`."""
        last = {name.rstrip("0123456789"): name for name in self.commands}
        return [
            f"{name} to {last[name[:-1]]}" if name[-1] == "1" else name for name in self.commands if name[-1] not in "23456789"
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A VM's name may begin with a dash."""
        known = [flag for each in self.get_params(ctx) for flag in each.opts]
        return super().parse_args(ctx, ["--", *args] if args and names_a_vm(args[0], known) else args)

    def invoke(self, ctx: click.Context) -> Any:
        """Finds the VM, then does as any group."""
        ctx.obj = store().find(ctx.params[VM])
        return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Says which verb was meant when there is none of that name."""
        word = args[0]
        found = self.get_command(ctx, word)
        if found is None:
            if word in self.refused:
                raise UsageError(f"{self.name} {word}", self.refused[word])
            near = difflib.get_close_matches(word, self.commands, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self._shown())}"
            raise UsageError(f"{self.name} {word}", "there is no such verb", hint)
        return word, found, args[1:]
