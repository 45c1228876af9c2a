"""A definition as the preflight sees it: settings as facts, media as they are looked at."""

import shlex
from pathlib import Path

from teleport import __version__
from teleport.errors import NotFoundError
from teleport.host.storage import AttachedMedium
from teleport.machines.attached import media, owner_record_folder
from teleport.machines.definition import Definition
from teleport.machines.settings import hardware_settings
from teleport.model import Fact


def software() -> str:
    """This build's name, for the other side's log."""
    return f"teleport {__version__}"


def definition_facts(definition: Definition) -> tuple[Fact, ...]:
    """Every setting that the guest can see; what is descriptive is not in it."""
    return tuple(
        Fact(area="definition", subject="", name=setting.key, value=str(setting.value), mend=setting.mend)
        for setting in hardware_settings(definition)
    )


def attached_media(definition: Definition) -> tuple[AttachedMedium, ...]:
    """The media that the guest sees, with the folder for the proof of shared storage where the definition names one."""
    folder = str(owner_record_folder(definition) or "")
    return tuple(
        AttachedMedium(
            node=medium.node or medium.kind,
            kind=medium.kind,
            path=medium.path,
            format=medium.format,
            read_only=medium.read_only,
            proof_folder=folder if definition.owner_folder else "",
            password_file=medium.password_file,
            initiator=definition.uuid,
        )
        for medium in media(definition)
    )


def require_media(definition: Definition) -> None:
    """Every file that the VM uses is there: asked before a start claims the guest. Raises NotFoundError naming all that are missing."""
    missing = [
        each.path for each in attached_media(definition) if each.path and not each.is_url and not Path(each.path).exists()
    ]
    if missing:
        raise NotFoundError(
            "startvm",
            f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not exist",
            f"bring it back, or attach another medium: teleport showvminfo {shlex.quote(definition.name)} shows where",
        )
