"""Names for the CPU's feature bits, as QEMU spells them (target/i386/cpu.c, feature_word_info), so that a table can say "avx2".

A test compares them with what QEMU itself says of its model `max`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Word(NamedTuple):
    """One register of one CPUID leaf; `subleaf` -1 for leaves that have none."""

    leaf: int
    subleaf: int
    register: str


# Names from bit 0 on; "-" for bits without a name. Without leaf 40000001, KVM's own: not a processor's, and nothing to TCG.
FEATURE_NAMES: Mapping[Word, str] = {
    Word(0x1, -1, "EDX"): (
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm "
        "ia64 pbe"
    ),
    Word(0x1, -1, "ECX"): (
        "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe "
        "popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor"
    ),
    Word(0x7, 0, "EBX"): (
        "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx - avx512f avx512dq "
        "rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl"
    ),
    Word(0x7, 0, "ECX"): (
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - "
        "- - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks"
    ),
    Word(0x7, 0, "EDX"): (
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - - arch-lbr - - "
        "amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd"
    ),
    Word(0x7, 1, "EAX"): (
        "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs wrmsrns - amx-fp16 - avx-ifma - - lam"
    ),
    Word(
        0x7, 1, "EDX"
    ): "- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti - - - - avx10",
    Word(0x7, 2, "EDX"): "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no",
    Word(0x80000001, -1, "EDX"): (
        "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow"
    ),
    Word(0x80000001, -1, "ECX"): (
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - "
        "nodeid-msr - tbm topoext perfctr-core perfctr-nb - - - - - - -"
    ),
    Word(0xD, 1, "EAX"): "xsaveopt xsavec xgetbv1 xsaves xfd",
    Word(0x6, -1, "EAX"): "- - arat",
    Word(0x12, 0, "EAX"): "sgx1 sgx2 - - - - - - - - - sgx-edeccssa",
    Word(0x12, 0, "EBX"): "sgx-exinfo",
    Word(0x12, 1, "EAX"): "- sgx-debug sgx-mode64 - sgx-provisionkey sgx-tokenkey - sgx-kss - - sgx-aex-notify",
    Word(0x14, 0, "ECX"): f"{'- ' * 31}intel-pt-lip",
    Word(0x24, 0, "EBX"): f"{'- ' * 16}avx10-128 avx10-256 avx10-512",
    Word(0x80000007, -1, "EBX"): "overflow-recov succor",
    Word(0x80000007, -1, "EDX"): f"{'- ' * 8}invtsc",
    Word(0x80000008, -1, "EBX"): (
        "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - stibp-always-on - - - - - - amd-ssbd virt-ssbd "
        "amd-no-ssb - amd-psfd"
    ),
    Word(0x8000000A, -1, "EDX"): (
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - pause-filter - pfthreshold avic - "
        "v-vmsave-vmload vgif - - - - - - - - vnmi - - svme-addr-chk"
    ),
    Word(0x80000021, -1, "EAX"): (
        "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs - - - - - - - - - - - - - - - eraps - - "
        "sbpb ibpb-brtype srso-no srso-user-kernel-no"
    ),
    Word(0x80000022, -1, "EAX"): "perfmon-v2",
    Word(0xC0000001, -1, "EDX"): "- - xstore xstore-en - - xcrypt xcrypt-en ace2 ace2-en phe phe-en pmm pmm-en",
}


def feature_names(words: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """The names of the bits that are set in QMP's `feature-words` (X86CPUFeatureWordInfo), sorted; nameless ones by position."""
    names = []
    for entry in words:
        word = Word(_number(entry["cpuid-input-eax"]), _number(entry.get("cpuid-input-ecx", -1)), str(entry["cpuid-register"]))
        bits = _number(entry["features"])
        known = FEATURE_NAMES.get(word, "").split()
        for bit in range(32):
            if bits >> bit & 1:
                name = known[bit] if bit < len(known) else "-"
                names.append(name if name != "-" else _position(word, bit))
    return tuple(sorted(names))


def _position(word: Word, bit: int) -> str:
    subleaf = f":{word.subleaf}" if word.subleaf >= 0 else ""
    return f"cpuid-{word.leaf:x}{subleaf}-{word.register.lower()}-{bit}"


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
