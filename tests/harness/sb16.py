"""The guest plays on a Sound Blaster 16 by its ports: no 64-bit Linux has a driver (snd-sb16 needs CONFIG_ISA).

The card's commands are Creative's (Sound Blaster Series Hardware Programming Guide, chapters 2 to 4), those of the DMA controller
Intel's (8237A). What is played is whatever memory holds at the page: the host plays nothing, but takes its time.
"""

from tests.harness.guest import GuestConsole

_BYTES, _RATE_HZ, _PAGE = 4000, 8000, 1  # half a second from 64 KiB on, where no memory is that Linux gives away
_RESET, _READ, _WRITE, _ACKNOWLEDGE, _MIXER_INDEX, _MIXER_DATA = 0x226, 0x22A, 0x22C, 0x22E, 0x224, 0x225
_ALIVE, _INTERRUPTS, _EIGHT_BITS_DONE = 170, 0x82, 1  # the card's answer to a reset, decimal; a mixer's register, and its bit
_SPEAKER_ON, _SET_RATE, _PLAY_ONCE, _MONO_UNSIGNED = 0xD1, 0x41, 0xC0, 0x00
# 8237, channel 1
_DMA_ADDRESS, _DMA_COUNT, _DMA_PAGE, _DMA_MASK, _DMA_MODE, _DMA_FLIP_FLOP = 0x02, 0x03, 0x83, 0x0A, 0x0B, 0x0C
_MASKED, _UNMASKED, _SINGLE_FROM_MEMORY = 5, 1, 0x49

_FUNCTIONS = (
    'out() { printf "\\\\$(printf %03o $2)" | busybox dd of=/dev/port bs=1 seek=$1 conv=notrunc 2>/dev/null; }; '
    "in_() { busybox dd if=/dev/port bs=1 skip=$1 count=1 2>/dev/null | busybox hexdump -v -e '1/1 \"%u\"'; }; "
)


def _low_high(value: int) -> tuple[int, int]:
    return value & 0xFF, value >> 8


def play(console: GuestConsole) -> None:
    """Returns when the card says that it has played half a second. RuntimeError when it does not within ten."""
    last = _low_high(_BYTES - 1)
    dma = [(_DMA_MASK, _MASKED), (_DMA_FLIP_FLOP, 0), (_DMA_MODE, _SINGLE_FROM_MEMORY), (_DMA_ADDRESS, 0), (_DMA_ADDRESS, 0)]
    dma += [*((_DMA_COUNT, byte) for byte in last), (_DMA_PAGE, _PAGE), (_DMA_MASK, _UNMASKED)]
    words = (_SPEAKER_ON, _SET_RATE, *_low_high(_RATE_HZ)[::-1], _PLAY_ONCE, _MONO_UNSIGNED, *last)
    writes = (*dma, *((_WRITE, word) for word in words))
    console.run(
        f"{_FUNCTIONS} out {_RESET} 1; out {_RESET} 0; [ $(in_ {_READ}) = {_ALIVE} ] || exit 1; in_ {_ACKNOWLEDGE} >/dev/null; "
        f"{' '.join(f'out {port} {byte};' for port, byte in writes)} "
        f"out {_MIXER_INDEX} {_INTERRUPTS}; n=0; until [ $(($(in_ {_MIXER_DATA}) & {_EIGHT_BITS_DONE})) = {_EIGHT_BITS_DONE} ]; "
        f"do n=$((n + 1)); [ $n -lt 200 ] || exit 2; busybox usleep 50000; done; in_ {_ACKNOWLEDGE} >/dev/null"
    )
