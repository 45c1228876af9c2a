"""Definitions: whatever can be made is kept, means one machine, and is described well enough to be made again elsewhere."""

import contextlib
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from teleport.errors import StorageError, UsageError
from teleport.machines.arguments import FirmwareFiles, Launch, qemu_arguments
from teleport.machines.attached import media
from teleport.machines.controllers import BUSES
from teleport.machines.definition import Audio, Definition
from teleport.machines.options import OPTIONS, find
from teleport.machines.options.option import Option, Use, applied
from teleport.machines.settings import hardware_settings
from teleport.machines.text import parse_definition, render_definition
from teleport.machines.vrde import from_dict
from tests.unit.machines.cases import UUID as SOME_UUID
from tests.unit.machines.cases import definition

# Whole definitions take milliseconds each; many that are drawn contradict themselves and are thrown away.
_WHOLE = settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
LAUNCH = Launch(
    accelerator="tcg",
    qmp_socket="/q",
    oob_socket="/o",
    ram_fd=3,
    firmware=FirmwareFiles(code="/c", variables="/v"),
    tpm_fd=4,
    tap_fds={number: 20 + number for number in range(1, 9)},
)
FILE = Path("/definition.toml")

_line = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(lambda text: text.strip())
_path = _line.map(lambda text: f"/{text}")


def _model(model: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of a model from its fields' own types, or these strategies."""
    drawn = {}
    for name, field in model.model_fields.items():
        allowed = get_args(field.annotation)
        if name in fields:
            drawn[name] = fields[name]
        elif field.annotation is bool:
            drawn[name] = st.booleans()
        elif allowed and all(isinstance(each, str) for each in allowed):
            drawn[name] = st.sampled_from(allowed)
    return st.fixed_dictionaries(drawn)


@st.composite
def _controllers(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for bus in draw(st.lists(st.sampled_from(list(BUSES)), unique=True)):
        kind = BUSES[bus]
        ports = draw(st.integers(kind.least_ports, kind.most_ports))
        places = draw(
            st.lists(st.tuples(st.integers(0, ports - 1), st.integers(0, kind.devices_per_port - 1)), unique=True, max_size=4)
        )
        attachments = []
        for port, device in places:
            what = draw(st.sampled_from(kind.types))
            empty = what != "hdd" and draw(st.booleans())
            attachments.append(
                {
                    "port": port,
                    "device": device,
                    "type": what,
                    "medium": "" if empty else f"/{bus}-{port}-{device}{draw(_line)}",
                    "format": "" if empty else draw(st.sampled_from(("raw", "qcow2"))) if what == "hdd" else "raw",
                }
            )
        found.append(
            {
                "name": f"{bus}{draw(_line)}",
                "bus": bus,
                "chip": draw(st.sampled_from(kind.chips)),
                "port_count": ports,
                "bootable": draw(st.booleans()),
                "attachments": attachments,
            }
        )
    return found


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    boot = st.lists(st.sampled_from(("none", "floppy", "dvd", "disk", "net")), min_size=4, max_size=4)
    machine = _model(
        Definition.model_fields["machine"].annotation,
        boot=boot,
        memory_mb=st.integers(4, 2_097_152),
        cpus=st.integers(1, 64),
        vram_mb=st.integers(1, 256),
        kernel=_path,
        append=_line,
    )
    board = draw(machine)
    if board["chipset"] == "ich9" or board["cpus"] > 1:
        board |= {"acpi": True, "ioapic": True}
    nics = draw(st.lists(st.integers(1, 8), unique=True))
    serial = draw(st.lists(st.integers(1, 4), unique=True))
    raw = {
        "name": draw(_line),
        "uuid": str(draw(st.uuids(allow_nil=False))),
        "description": draw(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)),
        "machine": board,
        "cpu": {"profile": draw(st.sampled_from(("Nehalem", "EPYC", "qemu32"))), "pae": draw(st.booleans())},
        "audio": draw(_model(Audio)),
        "usb": {"ohci": draw(st.booleans()), "ehci": True, "xhci": draw(st.booleans()), "mouse": "usbtablet"},
        "controllers": draw(_controllers()),
        "nics": [
            draw(_model(Definition.model_fields["nics"].annotation.__args__[0], number=st.just(number)))
            | {"mac": f"08:00:27:00:00:{number:02x}", "bridge": f"br{number}"}
            for number in nics
        ],
        "serial": [
            {
                "number": number,
                "enabled": draw(st.booleans()),
                "io_base": 0x100 * number,
                "mode": "file",
                "path": draw(_path),
            }
            for number in serial
        ],
    }
    try:
        return Definition.model_validate(raw)
    except ValidationError:
        assume(False)
        raise


@given(definitions(), definitions())
@settings(_WHOLE)
def test_what_is_written_is_read_and_what_is_changed_too(first: Definition, second: Definition) -> None:
    text = render_definition(first)
    assert parse_definition(text, FILE) == first
    changed = render_definition(second, text)
    assert parse_definition(changed, FILE) == second
    assert parse_definition(render_definition(first, changed), FILE) == first


@given(definitions(), st.randoms())
@settings(_WHOLE)
def test_every_definition_means_one_machine(vm: Definition, random: Any) -> None:
    arguments = qemu_arguments(vm, LAUNCH)
    shuffled = {name: random.sample(getattr(vm, name), len(getattr(vm, name))) for name in ("controllers", "nics", "serial")}
    assert qemu_arguments(vm.model_copy(update=shuffled), LAUNCH) == arguments
    devices = [value for flag, value in pairwise(arguments) if flag == "-device"]
    slots = [word for device in devices for word in device.split(",") if word.startswith("addr=")]
    assert len(slots) == len(set(slots))
    indexes = [word for device in devices for word in device.split(",") if word.startswith("bootindex=")]
    assert len(indexes) == len(set(indexes))
    nodes = [each.node for each in media(vm) if each.node]
    assert len(nodes) == len(set(nodes))


@given(definitions())
@settings(_WHOLE)
def test_the_mending_commands_make_the_same_hardware(vm: Definition) -> None:
    """Pasted one after the other, the `modifyvm` lines give a fresh VM what the guest sees of this one."""
    other = definition()
    for setting in hardware_settings(vm):
        words = shlex.split(setting.mending_command("Windows XP"))
        if "storagectl" in words or "storageattach" in words:
            continue
        assert words[:3] == ["teleport", "modifyvm", "Windows XP"]
        other = applied(other, _uses(words[3:]))
    theirs = {each.key: each.value for each in hardware_settings(other)}
    for setting in hardware_settings(vm):
        if "controller" not in setting.key and " storageattach " not in setting.mend:
            assert theirs[setting.key] == setting.value


def _uses(words: list[str]) -> list[Use]:
    found: list[Use] = []
    at = 0
    while at < len(words):
        option, number = find(words[at].removeprefix("--")) or (None, 0)
        assert option is not None
        count = option.kind.words(words[at + 1 :])
        found.append(Use(option, number, tuple(words[at + 1 : at + 1 + count])))
        at += 1 + count
    return found


@given(st.sampled_from(OPTIONS), st.lists(st.text(max_size=12), min_size=2, max_size=2), st.integers(0, 3))
@settings(max_examples=400, deadline=None)
def test_any_words_are_taken_or_refused(option: Option, words: list[str], at: int) -> None:
    """Never another error, and what was taken is read back as it is shown."""
    number = option.numbers[min(at, len(option.numbers) - 1)]
    given_words = tuple(words[: option.kind.words(words)])
    try:
        changed = applied(definition(), [Use(option, number, given_words)])
    except UsageError:
        return
    again = applied(changed, [Use(option, number, option.spoken(changed, number))]) if option.shown else changed
    assert again == changed


@given(st.binary(max_size=200))
def test_any_bytes_are_a_definition_or_refused(content: bytes) -> None:
    try:
        parse_definition(content, FILE)
    except StorageError as error:
        assert str(FILE) in str(error)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Definition.model_fields)), _json), _json)
@settings(deadline=None)
def test_any_values_are_a_definition_or_refused(raw: dict[str, Any], display: Any) -> None:
    try:
        vm = Definition.model_validate({"name": "S", "uuid": SOME_UUID} | raw)
        assert UUID(vm.uuid)
    except ValidationError:
        pass
    if isinstance(display, dict):
        with contextlib.suppress(UsageError):
            from_dict(display)
