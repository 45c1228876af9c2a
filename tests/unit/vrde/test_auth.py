import asyncio
import logging
import os
import time
from types import MappingProxyType

import pytest

from teleport.errors import NotFoundError, UnreachableError, UsageError
from teleport.machines.auth_libraries import named
from teleport.machines.vrde import AuthType, VrdeSettings
from teleport.vrde import auth, pam_login
from teleport.vrde import throttle as slowing
from teleport.vrde.auth import Simple
from teleport.vrde.login import Login, Verdict
from teleport.vrde.throttle import Throttle

SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
EXTERNAL = AuthType.EXTERNAL


def ask(authenticator, user="john", password="secret", domain="", client="10.0.0.1"):
    return asyncio.run(authenticator.check(Login(user, password, domain, client)))


def external(library) -> VrdeSettings:
    return VrdeSettings(auth_type=EXTERNAL, auth_library=str(library), users={"john": SECRET})


def test_the_manuals_hash():
    assert auth.password_hash("secret") == SECRET


def test_null_lets_everybody_in():
    assert ask(auth.build(VrdeSettings())) is Verdict.ALLOW


@pytest.mark.parametrize(
    ("user", "password", "verdict"),
    [
        ("john", "secret", Verdict.ALLOW),
        ("john", "Secret", Verdict.DENY),
        ("john", "", Verdict.DENY),
        ("jane", "secret", Verdict.DENY),
        ("", "", Verdict.DENY),
    ],
)
def test_vboxauthsimple(user, password, verdict):
    assert ask(auth.build(external("VBoxAuthSimple")), user, password) is verdict
    assert ask(Simple(MappingProxyType({"john": SECRET.upper()})), user, password) is verdict


def test_no_user_has_the_hash_of_nothing():
    assert ask(Simple({"": SECRET}), "", "x") is Verdict.DENY


LIBRARY = """
def authenticate(user, password, domain, client):
    if user == "boom":
        raise RuntimeError("with the password " + password)
    return {"ann": "allow", "gus": "guest", "odd": "perhaps"}.get(user, "deny")
"""


class Guest:
    def __init__(self, answer):
        self.answer = answer

    async def check(self, login):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_library_by_its_path(tmp_path, caplog):
    path = tmp_path / "mine.py"
    path.write_text(LIBRARY)
    authenticator = auth.build(external(path), Guest(True))
    assert ask(authenticator, "ann") is Verdict.ALLOW
    assert ask(authenticator, "bob") is Verdict.DENY
    assert ask(authenticator, "gus") is Verdict.ALLOW
    assert ask(auth.build(external(path), Guest(False)), "gus") is Verdict.DENY
    assert ask(auth.build(external(path)), "gus") is Verdict.DENY
    with caplog.at_level(logging.DEBUG):
        assert ask(authenticator, "boom", "hunter2") is Verdict.DENY
        assert ask(authenticator, "odd", "hunter2") is Verdict.DENY
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_library_that_is_installed(tmp_path, monkeypatch):
    (tmp_path / "corporate_logins.py").write_text(LIBRARY)
    facts = tmp_path / "corporate_logins-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: corporate-logins\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[teleport.vrde.auth]\ncorporate = corporate_logins\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert named("--vrdeauthlibrary", "corporate") == "corporate"
    authenticator = auth.build(external("corporate"))
    assert ask(authenticator, "ann") is Verdict.ALLOW
    assert ask(authenticator, "bob") is Verdict.DENY


def test_a_library_that_hangs_denies(monkeypatch):
    monkeypatch.setattr(auth, "LIBRARY_SECONDS", 0.05)
    assert ask(auth.Library(lambda *_: time.sleep(0.3), "slow")) is Verdict.DENY


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("missing.py", None, NotFoundError),
        ("empty.py", "", UsageError),
        ("broken.py", "def (", UsageError),
        ("raises.py", "1 / 0", UsageError),
    ],
)
def test_what_is_no_library_is_named(name, content, error, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=name):
        auth.build(external(path))


def test_what_pam_cannot_check_here_is_said(monkeypatch):
    assert not auth.limit(VrdeSettings())
    assert not auth.limit(external("VBoxAuthSimple"))
    monkeypatch.setattr(pam_login, "HELPER_FOLDERS", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert "deploy/set-up --pam-helper" in auth.limit(external(""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not auth.limit(external("VBoxAuth"))


def test_an_unknown_library_is_named():
    with pytest.raises(NotFoundError, match="VBoxAuthLdap"):
        auth.build(external("VBoxAuthLdap"))


def test_the_guest_decides():
    settings = VrdeSettings(auth_type=AuthType.GUEST)
    assert ask(auth.build(settings, Guest(True))) is Verdict.ALLOW
    assert ask(auth.build(settings, Guest(False))) is Verdict.DENY
    assert ask(auth.build(settings, Guest(UnreachableError("the guest's agent", "is silent")))) is Verdict.DENY
    assert ask(auth.build(settings)) is Verdict.DENY


def test_passwords_are_in_no_representation():
    assert "secret" not in repr(Login("john", "secret"))


def test_guessers_wait_longer_and_longer():
    now = [1000.0]
    throttle = Throttle(lambda: now[0])
    assert throttle.delay_seconds("a") == 0
    delays = []
    for _ in range(8):
        throttle.refused("a")
        delays.append(throttle.delay_seconds("a"))
    assert delays == [0.5, 1, 2, 4, 4, 4, 4, 4]
    assert throttle.delay_seconds("b") == 0
    throttle.allowed("a")
    assert throttle.delay_seconds("a") == 0
    throttle.refused("b")
    now[0] += slowing.FORGET_SECONDS + 1
    assert throttle.delay_seconds("b") == 0


def test_guesses_side_by_side_gain_no_time(monkeypatch):
    monkeypatch.setattr(slowing, "FIRST_DELAY_SECONDS", 0.02)
    throttle = Throttle(time.monotonic)
    simple = Simple({"john": SECRET})
    waited = []

    async def guess(password, client="a"):
        began = time.monotonic()
        right = await throttle.decide(simple, Login("john", password, "", client))
        waited.append(time.monotonic() - began)
        return right

    async def body():
        return await asyncio.gather(*(guess(f"guess{number}") for number in range(4)), guess("secret"), guess("secret", "b"))

    assert asyncio.run(body()) == [False, False, False, False, True, True]
    assert max(waited) > 0.29  # 0.02, 0.04, 0.08 and 0.16
    assert not throttle.delay_seconds("a")
    assert not throttle._turns


def test_many_guessers_take_bounded_memory():
    throttle = Throttle(lambda: 0.0)
    for number in range(2 * slowing.MOST_REMEMBERED):
        throttle.refused(str(number))
    assert len(throttle._refused) == slowing.MOST_REMEMBERED
