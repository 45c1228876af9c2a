from pathlib import Path

import pytest

from teleport.errors import StorageError
from teleport.machines.adapters import Nic
from teleport.machines.text import parse_definition, render_definition
from teleport.machines.vrde import set_option
from tests.unit.machines.cases import cases, controller, definition, drive

FILE = Path("/home/definition.toml")


@pytest.mark.parametrize("name", cases("/m"))
def test_round_trip(name: str) -> None:
    case = cases("/m")[name]
    assert parse_definition(render_definition(case), FILE) == case


def test_the_display_is_kept() -> None:
    case = definition()
    shown = case.model_copy(
        update={"vrde": set_option(set_option(case.vrde, "vrde", "on"), "vrdeproperty", "Client/DisableUSB=1")}
    )
    assert parse_definition(render_definition(shown), FILE).vrde == shown.vrde


def test_comments_stay_where_their_settings_are() -> None:
    old = definition(controllers=(controller("sata", drive(0, 0, "hdd", "/a", "raw")),), nics=(Nic(number=1), Nic(number=2)))
    text = render_definition(old).replace(b"memory_mb = 128", b"memory_mb = 128  # enough")
    text = text.replace(b"[[nics]]\nnumber = 2", b"# the second\n[[nics]]\nnumber = 2")
    text = text.replace(b'medium = "/a"', b'medium = "/a"  # the disk')
    new = old.model_copy(
        update={
            "description": "changed",
            "nics": (Nic(number=1, model="virtio"), Nic(number=2), Nic(number=4)),
        }
    )
    changed = render_definition(new, text)
    assert parse_definition(changed, FILE) == new
    for comment in (b"# enough", b"# the second", b"# the disk"):
        assert comment in changed


def test_lists_shrink_grow_and_come_back() -> None:
    states = [
        definition(),
        definition(nics=(Nic(number=2),)),
        definition(nics=(Nic(number=1), Nic(number=2)), controllers=(controller("ide"),)),
        definition(
            controllers=(controller("ide", drive(1, 1, "dvddrive"), drive(0, 0, "hdd", "/a", "raw")), controller("sata"))
        ),
        definition(controllers=(controller("sata"),)),
    ]
    text = render_definition(states[0]) + b"# the end\n"
    for state in [*states, *states[::-1]]:
        text = render_definition(state, text)
        assert parse_definition(text, FILE) == state


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"format = 1\nname = \n", "line 2"),
        (b"\xff", "UTF-8"),
        (b"", "name: is missing"),
        (b"a = " + b"[" * 100_000, "nested"),
        (b"format = 99", "newer Teleport"),
        (b'name = "S"\nuuid = "x"\n[machine]\nmemory_mb = true\n', "machine.memory_mb"),
    ],
)
def test_a_file_edited_into_nonsense_names_itself_and_the_place(content: bytes, said: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_definition(content, FILE)
    assert said in str(caught.value)
    assert str(FILE) in str(caught.value)
    assert caught.value.hint
