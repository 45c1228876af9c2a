"""What VBoxManage's grammar has and click's has not: options with one dash, options of several words, words in any order."""

import contextlib
import difflib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem

from teleport.errors import NotFoundError, UsageError
from teleport.machines import numbers

# Joins the words of one use of an option on their way through click; no terminal can send it within a word.
SEPARATOR = "\x1f"
VM = "vm"  # the argument that names one
WordCount = Callable[[Sequence[str]], int]


class WordsOption(click.Option):
    """An option that takes as many words as its first ones ask for (`--uart1 off`, `--uart1 0x3F8 4`)."""

    def __init__(self, *args: Any, words: WordCount, choices: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.words = words
        self.choices = tuple(choices)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The first words that it takes."""
        return [CompletionItem(each) for each in self.choices if each.lower().startswith(incomplete.lower())]


class Verb(click.Command):
    """A command whose options may be written with one dash; `uses` afterwards holds every option in the order of the line."""

    # Options that are known and not taken: name → reason.
    refused: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Brings the words into click's form first; words that a shell would complete are left as they are, since some are missing."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        uses: list[tuple[str, tuple[str, ...]]] = []
        ctx.meta["teleport.uses"] = uses
        ctx.meta["teleport.first"] = args[0] if args and any(each.name == VM for each in self.params) else ""
        with self._telling_of_a_vm(ctx):
            return super().parse_args(ctx, list(self._in_clicks_form(ctx, args, uses)))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with self._telling_of_a_vm(ctx):
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _telling_of_a_vm(self, ctx: click.Context) -> Iterator[None]:
        """A wrong line whose first word is an option, and the name of a VM too, may have meant the VM."""
        try:
            yield
        except (UsageError, NotFoundError, click.UsageError) as error:
            first = ctx.meta["teleport.first"]
            uuid = uuid_of(first) if first.startswith("-") else ""
            if not uuid:
                raise
            if isinstance(error, click.UsageError):
                what, why = self.name or "", error.format_message().rstrip(".")
            else:
                what, why = error.what, error.why
            hint = f"{first} is an option of {self.name}: if you mean the VM of that name, write its UUID, {uuid}"
            raise UsageError(what, why, hint) from error

    def _in_clicks_form(
        self, ctx: click.Context, args: Sequence[str], uses: list[tuple[str, tuple[str, ...]]]
    ) -> Iterator[str]:
        known = {flag: each for each in self.get_params(ctx) if isinstance(each, click.Option) for flag in each.opts}
        at = 1 if args and any(each.name == VM for each in self.params) and names_a_vm(args[0], known) else 0
        words, behind_dashes = list(args[:at]), at > 0  # what is no option; behind "--" it may begin with a dash
        while at < len(args):
            word = args[at]
            at += 1
            if word == "--":
                words += args[at:]
                behind_dashes = True
                break
            flag, equals, value = word.partition("=")
            if flag.startswith("-") and not flag.startswith("--") and f"-{flag}" in known:
                flag = f"-{flag}"
            option = known.get(flag)
            if option is None:
                if flag.startswith("--"):
                    self._refuse(flag, known)
                words.append(word)
                continue
            if option.is_flag:
                uses.append((flag, ()))
                yield flag + equals + value
                continue
            following = [value, *args[at:]] if equals else list(args[at:])
            count = option.words(following) if isinstance(option, WordsOption) else option.nargs
            if len(following) < count:
                raise UsageError(flag, f"needs {'a value' if count == 1 else f'{count} values'}: {option.metavar or 'VALUE'}")
            values = tuple(following[:count])
            at += count - (1 if equals else 0)
            uses.append((flag, values))
            yield flag
            if isinstance(option, WordsOption):
                yield SEPARATOR.join(values)
            else:
                yield from values
        yield from ("--", *words) if behind_dashes else words

    def _refuse(self, flag: str, known: dict[str, click.Option]) -> None:
        """Raises for an option that this command doesn't have, with what was meant."""
        name = flag.removeprefix("--")
        reason = self.refused.get(name) or self.refused.get(name.rstrip("0123456789"))
        if reason:
            raise UsageError(flag, reason)
        near = difflib.get_close_matches(flag, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"`teleport {self.name} --help` lists the options"
        raise UsageError(flag, f"{self.name} has no such option", hint)


def uses(context: click.Context) -> list[tuple[str, tuple[str, ...]]]:
    """Every option of the line with its words, in the order in which they were written."""
    found: list[tuple[str, tuple[str, ...]]] = context.meta["teleport.uses"]
    return found


def switch(what: str, value: str) -> bool:
    """on or off. Raises UsageError."""
    chosen = {"on": True, "off": False}.get(value.lower())
    if chosen is None:
        raise UsageError(what, f"{value!r} is neither on nor off")
    return chosen


def whole_number(what: str, value: str, low: int, high: int, *, unit: str = "", hint: str = "") -> int:
    """A decimal number in a range. Raises UsageError."""
    try:
        return numbers.whole_number(value, low, high, unit=unit)
    except ValueError as error:
        raise UsageError(what, str(error), hint) from error


_HELP = "--help shows what each option takes"


def number(what: str, low: int, high: int, *, unit: str = "") -> Callable[[str], int]:
    """The same as the type of one of click's options."""
    return lambda value: whole_number(what, value, low, high, unit=unit, hint=_HELP)


def seconds(what: str, least: float) -> Callable[[str], float]:
    """Likewise a time, `least` or longer."""

    def parse(value: str) -> float:
        try:
            return numbers.seconds(value, least)
        except ValueError as error:
            raise UsageError(what, str(error), _HELP) from error

    return parse


def one_of(what: str, value: str, allowed: Sequence[str]) -> str:
    """One of these words as it is spelled in `allowed`, whatever the case. Raises UsageError."""
    for each in allowed:
        if each.lower() == value.lower():
            return each
    near = difflib.get_close_matches(value.lower(), [each.lower() for each in allowed], n=1)
    raise UsageError(
        what, f"{value!r} is not possible", f"use {', '.join(allowed)}{f' (did you mean {near[0]}?)' if near else ''}"
    )


def file_path(what: str, value: str) -> Path:
    """A path as it is given, from the current folder. Raises UsageError."""
    if not value or "\0" in value or any(ord(character) < 0x20 for character in value):
        raise UsageError(what, f"{value!r} is not the path of a file")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(what, "is not valid UTF-8") from None
    return Path(value).absolute()


def complete_vm(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of VMs, for the shell."""
    from teleport.cli.home import store  # noqa: PLC0415 - imported when somebody presses Tab

    return [CompletionItem(each.name) for each in store().all() if each.name.startswith(incomplete)]


def names_a_vm(word: str, options: Container[str]) -> bool:
    """Whether a verb's first word, which looks like an option, is none and the name of a VM."""
    flag = word.partition("=")[0]
    if not word.startswith("-") or word == "--" or flag in options or f"-{flag}" in options:
        return False
    return bool(uuid_of(word))


def uuid_of(name: str) -> str:
    """The UUID of the registered VM of that name; "" without one. For names that look like options: else `Store.find` does."""
    from teleport.cli.home import store  # noqa: PLC0415 - almost never asked for

    return next((each.uuid for each in store().all() if each.name == name), "")


def vm_argument() -> Callable[[Any], Any]:
    """The VM that a verb is about, by name or UUID."""
    return click.argument(VM, metavar="NAME|UUID", shell_complete=complete_vm)
