"""CPUID of this host: the instruction itself against what the kernel read, and the ranges by a CPU that is made up."""

from pathlib import Path

from teleport.machines.host_cpuid import Leaf, host_leaves, leaves


def test_the_first_leaf_names_the_vendor_that_the_kernel_knows() -> None:
    found = host_leaves()
    first = found[0]
    vendor = b"".join(register.to_bytes(4, "little") for register in (first.ebx, first.edx, first.ecx)).decode()
    assert f"vendor_id\t: {vendor}\n" in Path("/proc/cpuinfo").read_text()
    assert [each.leaf for each in found[: first.eax + 1]] == list(range(first.eax + 1))


def test_ranges_end_where_their_first_leaf_says_and_a_nonsensical_one_is_left_out() -> None:
    answers = {0: (1, 2, 3, 4), 0x80000000: (0x80000001, 0, 0, 0), 0xC0000000: (0, 0, 0, 0)}
    found = list(leaves(lambda leaf: answers.get(leaf, (9, 9, 9, 9))))
    assert [each.leaf for each in found] == [0, 1, 0x80000000, 0x80000001]
    assert found[0] == Leaf(0, 1, 2, 3, 4)
