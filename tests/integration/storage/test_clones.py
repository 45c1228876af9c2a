"""Two iSCSI servers with the very same bytes under the same name: one disk only if it is proved."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from teleport.host.storage import AttachedMedium, medium_fact
from teleport.model import Finding, MediumFact
from teleport.preflight.storage import compare_media
from tests.integration.storage import servers

pytestmark = pytest.mark.qemu
IQN = "iqn.2026-11.org.example:disk"


def test_a_clone_behind_another_port_is_refused_and_the_same_lun_is_not(tmp_path: Path) -> None:
    """The clones are the closest there are, served from one file: nothing in their content tells them apart."""
    content = tmp_path / "disk.raw"
    content.write_bytes(bytes(range(256)) * 4096)
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(servers.tgt(tmp_path)) for _ in range(2))
        for server in (one, other):
            server.target(1, IQN, content)
            server.target(2, f"{IQN}-named", content, serial="serial of this disk")

        def seen(server: servers.Tgt, name: str, host: str = "127.0.0.1") -> MediumFact:
            url = f"iscsi://{host}:{server.port}/{name}/1"
            medium = AttachedMedium(
                node="disk", kind="hdd", format="raw", read_only=False, path=url, proof_folder=str(tmp_path)
            )
            fact = asyncio.run(medium_fact(medium))
            assert not fact.problem, fact
            return fact

        unnamed, clone, named = seen(one, IQN), seen(other, IQN), seen(one, f"{IQN}-named")
        assert unnamed.content == clone.content

        def found(there: MediumFact, here: MediumFact = unnamed) -> tuple[Finding, ...]:
            return compare_media((here,), (there,), {"disk": ""})

        (finding,) = found(clone)
        assert finding.what == "medium disk identity"
        assert "may be a clone" in finding.there
        assert found(seen(one, IQN, host="localhost")) == ()
        assert found(seen(other, f"{IQN}-named"), named) == ()  # its own serial number: another way to one disk
        (finding,) = found(named)
        assert "scsi:" in finding.there
