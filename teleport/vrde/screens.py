"""From settings to what the relay lets through."""

from teleport.machines.vrde import VrdeSettings
from teleport.vrde.pace import Quality
from teleport.vrde.relay import Gates


def gates_of(settings: VrdeSettings) -> Gates:
    """`Client/Disable…` and the video channel as gates of the relay."""
    return Gates(
        display=not settings.is_disabled("Display"),
        input=not settings.is_disabled("Input"),
        clipboard=not settings.is_disabled("Clipboard"),
        audio=not settings.is_disabled("Audio"),
        quality=Quality.of(settings.video_quality) if settings.video_channel else None,
    )
