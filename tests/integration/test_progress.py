"""What a person and a program see of a teleport: one figure that never goes back, and the end."""

import json
import re

import pytest

from tests.harness.scene import Scene, until

pytestmark = pytest.mark.qemu

STAGES = ("checking", "copying", "switching over", "done")


def test_json_events(scene: Scene) -> None:
    port = scene.wait_there()
    with scene.begin(port, "--plan", "raw", "--max-bandwidth", "100000000") as teleport:
        assert teleport.end() == 0, teleport.error
    scene.swap()
    progress = [event for event in teleport.events if event["event"] == "progress"]
    percents = [event["percent"] for event in progress]
    assert percents == sorted(percents), "it went back"
    assert (percents[0], percents[-1]) == (0, 100)
    seen = list(dict.fromkeys(event["stage"] for event in progress))
    assert seen == [stage for stage in STAGES if stage in seen]
    assert {"checking", "copying", "done"} <= set(seen)
    copying = [event for event in progress if event["stage"] == "copying"]
    assert any(event["rate_bytes_per_second"] > 0 for event in copying)
    assert any(event["remaining_bytes"] > 0 for event in copying)
    assert all(event["plan"] == "raw" for event in copying)
    sent = [event["sent_bytes"] for event in progress]
    assert sent == sorted(sent)
    outcome = teleport.events[-1]
    assert outcome["event"] == "outcome"
    assert outcome["kind"] == "moved"
    assert outcome["sent_bytes"] >= sent[-1] > 0
    assert outcome["total_ms"] > outcome["migrate_ms"] > 0
    assert outcome["total_ms"] > outcome["downtime_ms"] > 0
    assert outcome["target_qemu_pid"] == scene.only_process_here()


def test_virtualboxs_form_where_nobody_watches(scene: Scene) -> None:
    port = scene.wait_there()
    ran = scene.here.run("controlvm", scene.here.name, "teleport", "--host", "localhost", "--port", port)
    scene.swap()
    assert re.match(r"0%\.\.\.10%\.\.\.20%\.\.\.30%\.\.\.40%\.\.\.50%\.\.\.60%\.\.\.70%\.\.\.80%\.\.\.90%\.\.\.100%\n", ran.out)
    assert f"runs as '{scene.here.name}'" in ran.out
    assert not ran.err


def test_detailed_lines(scene: Scene) -> None:
    port = scene.wait_there()
    options = ("--plan", "raw", "--max-bandwidth", "80000000", "--detailed-progress")
    ran = scene.here.run("controlvm", scene.here.name, "teleport", "--host", "localhost", "--port", port, *options)
    scene.swap()
    lines = ran.out.splitlines()
    percents = [int(match[1]) for line in lines if (match := re.match(r"\s*(\d+)% ", line))]
    assert percents == sorted(percents)
    assert len(percents) > 2
    assert percents[-1] == 100
    assert any("copying, round" in line and "sent" in line and "left" in line for line in lines)


def test_the_waiting_side_sees_it_too(scene: Scene) -> None:
    """showvminfo says how far it is, and the log that it names has each step, on both sides."""
    there, name = scene.there, scene.there.name
    port = scene.wait_there()
    assert "teleportprogress" not in there.home.info(name)
    with scene.begin(port, "--plan", "raw", "--max-bandwidth", "8000000") as teleport:
        teleport.copying()
        shown = re.compile(r"\d+% copying, round 1, .* sent, .*/s, .* left, about \d+ s")
        until(lambda: shown.fullmatch(there.home.info(name).get("teleportprogress", "")), "the target does not show it")
        teleport.interrupt()
        assert teleport.end() == 1, teleport.error
    until(lambda: "teleportprogress" not in there.home.info(name), "it shows a teleport that is over")
    scene.here.teleport(port)
    scene.swap()
    log = (scene.here.home.folder / "machines" / name / "logs/teleport.log").read_text()
    assert f"waiting for a teleport at port {port}" in log
    assert f"a teleport of VM '{scene.there.name}'" in log
    assert "% copying, round 1" in log
    assert "the guest arrived" in log
    said = scene.there.run("showvminfo", scene.there.name, "--json").out
    assert json.loads(said)["VMState"] == "teleported"
