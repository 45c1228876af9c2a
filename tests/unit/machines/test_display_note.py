from pathlib import Path

from teleport.machines import display_note
from teleport.machines.store import VmPaths


def test_a_front_is_a_vms_when_both_say_so(tmp_path: Path) -> None:
    one, other, front = (tmp_path / name for name in ("one", "other", "front"))
    for folder in (one, other, front):
        folder.mkdir()
    vm, next_vm = VmPaths(one), VmPaths(other)
    assert display_note.read(vm) is None
    display_note.write(vm, front)
    assert display_note.read(vm) is None  # the front does not say so
    display_note.own(vm, front)
    assert display_note.read(vm) == front

    display_note.own(next_vm, front)  # it goes over with the guest
    display_note.write(next_vm, front)
    assert (display_note.read(vm), display_note.read(next_vm)) == (None, front)

    display_note.forget(next_vm)
    display_note.forget(next_vm)
    assert display_note.read(next_vm) is None


def test_a_note_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    vm = VmPaths(tmp_path)
    for text in ("", "[]", "{}", '{"folder": 1}', '{"folder": "/nowhere"}'):
        (tmp_path / display_note.NOTE_FILE).write_text(text)
        assert display_note.read(vm) is None
