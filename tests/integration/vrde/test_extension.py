"""A display that somebody else supplies: an installed distribution with an entry point of the group `teleport.vrde`, and nothing more."""

import asyncio
import os
import subprocess
from pathlib import Path

from teleport.machines.vrde import set_property
from teleport.vrde import extension
from tests.harness.home import TELEPORT
from tests.integration.vrde.desk import Desk, at, settings, until

GREETER = """
import asyncio

from teleport.errors import UsageError
from teleport.machines.vrde_properties import Property
from teleport.vrde.extension import Bound, Context
from teleport.vrde.listen import listen


def words(what, value):
    if not value.isalpha():
        raise UsageError(what, "greets with letters only")
    return value


class Server:
    def __init__(self, context: Context) -> None:
        self.context, self.settings, self.servers = context, context.settings, []

    async def start(self) -> Bound:
        bound, sockets = listen(self.settings.ports, self.settings.address)
        self.servers = [await asyncio.start_server(self.greet, sock=each) for each in sockets]
        return bound

    async def greet(self, reader, writer):
        session = self.context.sessions.admit(
            client="somebody", user="", screen=1, protection="none", close=lambda why: writer.transport.abort()
        )
        if session:
            writer.write(f"{self.settings.properties['Greeter/Words']} {self.context.vm_name}\\n".encode())
            await reader.read()
            self.context.sessions.left(session)
        writer.close()

    async def stop(self):
        for each in self.servers:
            each.close()

    async def update(self, settings):
        self.settings = settings

    def details(self):
        return {"greets": "in letters"}


class Greeter:
    name = "greeter"
    properties = {"Greeter/Words": Property("Greeter/Words", "what it says", words)}

    def problem(self):
        return ""

    def serve(self, context):
        return Server(context)


EXTENSION = Greeter()
"""


def install(folder: Path) -> None:
    (folder / "greeter.py").write_text(GREETER)
    facts = folder / "greeter-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[teleport.vrde]\ngreeter = greeter:EXTENSION\n")


def test_another_extension_serves(short_folder, monkeypatch):
    install(short_folder)
    monkeypatch.setenv("PYTHONPATH", str(short_folder))
    monkeypatch.syspath_prepend(short_folder)
    chosen = settings(vrdeextpack="greeter", vrdemulticon="off")
    known = extension.find("greeter").properties

    async def body(desk: Desk):
        front, status = await desk.front(set_property(chosen, "greeter/words", "Hello", known), f"unix:{short_folder}/none.vnc")
        assert (status["extension"], status["details"]) == ("greeter", {"greets": "in letters"})
        reader, writer = await asyncio.open_connection("127.0.0.1", status["port"])
        assert await reader.readline() == b"Hello S\n"
        await front.update(set_property(chosen, "Greeter/Words", "Bonjour", known))
        second, other = await asyncio.open_connection("127.0.0.1", status["port"])
        assert await second.read() == b"", "one viewer unless told: the front's own rule"
        (session,) = (await front.status())["sessions"]
        assert (await front.ask("disconnect", session=session["identifier"]))["ended"]
        writer.close()
        other.close()
        third, again = await asyncio.open_connection("127.0.0.1", status["port"])
        assert await third.readline() == b"Bonjour S\n"
        again.close()
        await until(lambda: desk.front_log().count("disconnected after") == 2, what="the last viewer's end")

    asyncio.run(at(short_folder, body))


def test_the_commands_know_it(short_folder):
    install(short_folder)
    environment = {**os.environ, "TELEPORT_HOME": str(short_folder / "home"), "PYTHONPATH": str(short_folder)}

    def teleport(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([TELEPORT, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)

    teleport("createvm", "--name", "S", "--register").check_returncode()
    teleport("modifyvm", "S", "--vrdeextpack", "greeter", "--vrdeproperty", "greeter/words=Hello").check_returncode()
    refused = teleport("modifyvm", "S", "--vrdeproperty", "Greeter/Words=1")
    assert (refused.returncode, "letters only" in refused.stderr) == (2, True), refused.stderr
    refused = teleport("modifyvm", "S", "--vrdeproperty", "Security/Method=TLS")
    assert (refused.returncode, "it knows Greeter/Words" in refused.stderr) == (2, True), refused.stderr
    shown = teleport("showvminfo", "S", "--machinereadable").stdout
    assert 'vrdeextpack="greeter"' in shown
    assert 'vrdeproperty[Greeter/Words]="Hello"' in shown
