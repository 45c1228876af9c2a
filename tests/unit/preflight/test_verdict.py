import pytest

from teleport.errors import RefusedError
from teleport.model import Finding
from teleport.preflight.advice import advice
from teleport.preflight.verdict import refusal, require_none


def test_nothing_found_passes() -> None:
    require_none(())


def test_one_refusal_carries_every_row_once_and_every_command_once() -> None:
    memory = Finding("memory", "1024", "512", "teleport modifyvm T --memory 1024")
    nics = [Finding(f"nic{n}", "nat", "none", "teleport modifyvm T --nic1 nat") for n in range(6)]
    with pytest.raises(RefusedError) as caught:
        require_none((memory, memory, *nics), what="S cannot teleport to T")
    error = caught.value
    assert error.findings == (("memory", "1024", "512", memory.mend), *((n.what, n.here, n.there, n.mend) for n in nics))
    assert str(error) == (
        "S cannot teleport to T: 7 findings: memory, nic0, nic1, nic2, nic3 and 2 more; "
        "try: teleport modifyvm T --memory 1024 ; teleport modifyvm T --nic1 nat"
    )


def test_what_both_sides_found_is_said_once_in_the_first_ones_words() -> None:
    ours, theirs = Finding("medium disk0 storage", "/a", "/b: not seen"), Finding("medium disk0 storage", "/a", "/b: not there")
    other = Finding("memory", "1", "2")
    error = refusal((other, ours, theirs, other))
    assert [row[:3] for row in error.findings] == [("memory", "1", "2"), ("medium disk0 storage", "/a", "/b: not seen")]


def test_what_no_command_mends_comes_with_a_sentence() -> None:
    error = refusal(
        [
            Finding("memory", "64", "128", "teleport modifyvm T --memory 64"),
            Finding("medium sata-0-0 storage", "/a", "/b: another"),
            Finding("medium sata-1-0 identity", "/c", "/d: another"),
            Finding("owner record", "generation 1", "generation 0"),
        ]
    )
    assert error.hint == (
        "try: teleport modifyvm T --memory 64; "
        "medium sata-0-0 storage, medium sata-1-0 identity: both ends must have the same medium, usable, on storage that both hosts see; "
        "owner record: attach the same disks at both ends, or name one --ownerfolder: both hosts must read and write the same record"
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("memory at the source", "end other programs or VMs on the source's host"),
        ("vnc port", "port on the target's host"),
        ("protocol version", "the same release"),
        ("medium ide-0-0 backing file", "flat copy"),
        ("cpu features", "--cpu-profile"),
        ("machine accelerator", "--accelerator"),
        ("device virtio-net-pci@2", "one version of QEMU"),
        ("a newer build's finding", "showvminfo"),
    ],
)
def test_what_to_do(what: str, said: str) -> None:
    assert said in advice(what)
