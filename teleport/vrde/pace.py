"""Video quality as a frame cap and coarser colours on what moves (pure: the caller brings the time).

No viewer here takes JPEG from xrdp (design/vrde.md), so `--vrdevideochannelquality` works on the updates themselves: parts of the
picture that change often lose low bits of their colours, which xrdp's run-length compression turns into fewer bytes, and come less
often; when they have been still for a moment they are asked for again, sharp.
"""

from collections import deque
from dataclasses import dataclass

from teleport.vrde.rfb import Encoding, Rectangle, pixel_bytes

TILE_PIXELS = 64
MOVING_UPDATES = 5  # so many updates of a tile within a second make it a moving one
WINDOW_SECONDS = 1.0
STILL_SECONDS = 0.6
LEAD_SECONDS = (
    0.1  # QEMU looks for changes less and less often while nobody asks: so long before it is due an update is asked for
)


@dataclass(frozen=True)
class Quality:
    """What a quality of 10–100 percent means: frames a second at most, and how many high bits of a colour are kept."""

    frames_per_second: float
    colour_bits: int

    @classmethod
    def of(cls, percent: int) -> "Quality":
        """100: 30 frames a second, all 8 bits; 10: 6 frames a second, 3 bits."""
        share = (min(100, max(10, percent)) - 10) / 90
        return cls(frames_per_second=6 + 24 * share, colour_bits=round(3 + 5 * share))


def _mask_table(bits: int) -> bytes:
    # The kept value is the middle of its step, except at the ends: black stays black, white stays white.
    step = 1 << (8 - bits)
    top = 256 - step
    return bytes(0 if v < step else 255 if v >= top else (v & -step) + step // 2 for v in range(256))


class Pacer:
    """Follows one viewer's updates: which tiles move, when the next request may go on, what has to be sharpened."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self._table = _mask_table(quality.colour_bits)
        self._tiles: dict[tuple[int, int], deque[float]] = {}
        self._coarse: dict[tuple[int, int], float] = {}
        self._last_update = float("-inf")

    @property
    def coarsens(self) -> bool:
        """Whether `rectangle` ever changes anything."""
        return self.quality.colour_bits < 8

    @property
    def asks_ahead(self) -> bool:
        """Whether updates come so often that the next one is asked for as soon as one begins."""
        return 1 / self.quality.frames_per_second <= LEAD_SECONDS

    def seconds_until_request(self, now: float) -> float:
        """How long an incremental request has to wait."""
        return max(0.0, self.seconds_until_update(now) - LEAD_SECONDS)

    def seconds_until_update(self, now: float) -> float:
        """How long an update has to wait for the frame cap."""
        return max(0.0, self._last_update + 1 / self.quality.frames_per_second - now)

    def update_began(self, now: float) -> None:
        """Notes that an update goes out."""
        self._last_update = now

    def rectangle(self, rectangle: Rectangle, pixel_format: bytes, now: float) -> bytes:
        """The data of a rectangle as it may go on: coarser where it moves, never longer or shorter."""
        if rectangle.encoding != Encoding.RAW or pixel_bytes(pixel_format) != 4 or not self.coarsens:
            return rectangle.data
        tiles = [
            (column, row)
            for row in range(rectangle.y // TILE_PIXELS, (rectangle.y + rectangle.height - 1) // TILE_PIXELS + 1)
            for column in range(rectangle.x // TILE_PIXELS, (rectangle.x + rectangle.width - 1) // TILE_PIXELS + 1)
        ]
        moving = 0
        for tile in tiles:
            seen = self._tiles.setdefault(tile, deque(maxlen=MOVING_UPDATES))
            seen.append(now)
            moving += len(seen) == MOVING_UPDATES and now - seen[0] <= WINDOW_SECONDS
        if 2 * moving < len(tiles):
            for tile in tiles:
                self._coarse.pop(tile, None)
            return rectangle.data
        for tile in tiles:
            self._coarse[tile] = now
        return rectangle.data.translate(self._table)

    def still(self, now: float) -> tuple[int, int, int, int] | None:
        """The area (x, y, width, height in pixels) that was coarse and has been still since: ask for it again in full."""
        tiles = [tile for tile, when in self._coarse.items() if now - when >= STILL_SECONDS]
        if not tiles:
            return None
        for tile in tiles:
            del self._coarse[tile]
            self._tiles.pop(tile, None)
        columns, rows = [t[0] for t in tiles], [t[1] for t in tiles]
        x, y = min(columns) * TILE_PIXELS, min(rows) * TILE_PIXELS
        return x, y, (max(columns) + 1) * TILE_PIXELS - x, (max(rows) + 1) * TILE_PIXELS - y

    @property
    def has_coarse(self) -> bool:
        """Whether anything shown is coarser than the guest's picture."""
        return bool(self._coarse)
