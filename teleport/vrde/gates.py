"""What viewers may see, hear and do: the display's properties as the relay and the channels ask for them."""

from dataclasses import dataclass

from teleport.machines.vrde import VrdeSettings
from teleport.vrde.pace import Quality


@dataclass(frozen=True)
class Gates:
    """What passes; `quality` None leaves updates as they are."""

    display: bool = True
    input: bool = True
    clipboard: bool = True
    audio: bool = True
    quality: Quality | None = None

    @classmethod
    def of(cls, settings: VrdeSettings) -> "Gates":
        """`Client/Disable…` and the video channel."""
        return cls(
            display=not settings.is_disabled("Display"),
            input=not settings.is_disabled("Input"),
            clipboard=not settings.is_disabled("Clipboard"),
            audio=not settings.is_disabled("Audio"),
            quality=Quality.of(settings.video_quality) if settings.video_channel else None,
        )
