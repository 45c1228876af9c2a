"""What viewers may see, hear and do: the display's properties as the relay and the channels ask for them."""

from dataclasses import dataclass

from teleport.machines.vrde import ClipboardMode, VrdeSettings
from teleport.vrde.pace import Quality


@dataclass(frozen=True)
class Gates:
    """What passes. `clipboard_in` is text from viewers to the guest, `clipboard_out` the reverse; `quality` None leaves updates as they
    are."""

    display: bool = True
    input: bool = True
    clipboard_in: bool = True
    clipboard_out: bool = True
    audio: bool = True
    microphone: bool = True
    quality: Quality | None = None

    @classmethod
    def of(cls, settings: VrdeSettings) -> "Gates":
        """`Client/Disable…`, the clipboard's mode and the video channel."""
        mode = ClipboardMode.DISABLED if settings.is_disabled("Clipboard") else settings.clipboard
        return cls(
            display=not settings.is_disabled("Display"),
            input=not settings.is_disabled("Input"),
            clipboard_in=mode in (ClipboardMode.BIDIRECTIONAL, ClipboardMode.HOST_TO_GUEST),
            clipboard_out=mode in (ClipboardMode.BIDIRECTIONAL, ClipboardMode.GUEST_TO_HOST),
            audio=not settings.is_disabled("Audio"),
            microphone=not settings.is_disabled("UpstreamAudio"),
            quality=Quality.of(settings.video_quality) if settings.video_channel else None,
        )

    @property
    def clipboard(self) -> bool:
        """Whether any text passes."""
        return self.clipboard_in or self.clipboard_out
