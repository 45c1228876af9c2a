"""`setextradata`, `getextradata`, `setproperty`, `internalcommands`: the manual's lines (7.1.5, 7.1.10) and what they refuse."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.run_cli import Cli

SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
FEATURES = ("Display", "Input", "USB", "Audio", "UpstreamAudio", "Clipboard")  # 7.1.10


@pytest.fixture
def vm(cli: Cli) -> Cli:
    cli.ok("createvm", "--name", "My VM", "--register")
    return cli


def test_the_manuals_recipe_for_vboxauthsimple(vm: Cli) -> None:
    assert vm.ok("setproperty", "vrdeauthlibrary", "VBoxAuthSimple") == ""
    assert vm.ok("modifyvm", "My VM", "--vrdeauthtype", "external") == ""
    assert vm.ok("internalcommands", "passwordhash", "secret") == f"Password hash: {SECRET}\n"
    assert vm.ok("setextradata", "My VM", "VBoxAuthSimple/users/john", SECRET) == ""
    assert vm.store.find("My VM").definition.vrde.users == {"john": SECRET}
    assert vm.ok("getextradata", "My VM", "VBoxAuthSimple/users/john") == f"Value: {SECRET}\n"
    assert "VRDE auth library:               VBoxAuthSimple\n" in vm.ok("list", "systemproperties")
    vm.ok("setextradata", "My VM", "VBoxAuthSimple/users/john")
    assert vm.ok("getextradata", "My VM", "VBoxAuthSimple/users/john") == "No value set!\n"
    vm.ok("setproperty", "vrdeauthlibrary", "default")
    assert json.loads(vm.ok("list", "systemproperties", "--json"))[0]["vrde_auth_library"] == "VBoxAuth"


def test_texts_of_a_vm_and_of_the_home(vm: Cli) -> None:
    vm.ok("setextradata", "My VM", "GUI/Full screen", "on ☃")
    vm.ok("setextradata", "My VM", "VRDP/Feature/Client/DisableInput", "1")
    vm.ok("setextradata", "global", "GUI/LanguageID", "C")
    assert vm.ok("getextradata", "My VM", "enumerate") == (
        "Key: GUI/Full screen, Value: on ☃\nKey: VRDP/Feature/Client/DisableInput, Value: 1\n"
    )
    assert vm.ok("getextradata", "global", "enumerate") == "Key: GUI/LanguageID, Value: C\n"
    assert vm.ok("getextradata", "global", "GUI/Full screen") == "No value set!\n"
    assert vm.ok("showvminfo", "My VM")  # it is as readable as before
    vm.ok("setextradata", "My VM", "GUI/Full screen", "")
    assert not vm.store.find("My VM").definition.extradata


@pytest.mark.parametrize("feature", FEATURES)
def test_both_spellings_of_a_feature_are_one_property(vm: Cli, feature: str) -> None:
    name, key = f"Client/Disable{feature}", f"VRDP/Feature/Client/Disable{feature}"

    def disabled() -> bool:
        return vm.store.find("My VM").definition.vrde.is_disabled(feature)

    vm.ok("modifyvm", "My VM", "--vrdeproperty", f"{name}=1")
    assert disabled()
    assert vm.ok("getextradata", "My VM", key) == "Value: 1\n"
    assert f'vrdeproperty[{name}]="1"' in vm.ok("showvminfo", "My VM", "--machinereadable")
    vm.ok("setextradata", "My VM", key)
    assert not disabled()
    vm.ok("setextradata", "My VM", key, "1")
    assert disabled()
    vm.ok("modifyvm", "My VM", "--vrdeproperty", f"{name}=")
    assert not disabled()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("setextradata", "My VM", "VRDP/Feature/Client/DisableAll", "1"), "setextradata VRDP/Feature/Client/DisableAll"),
        (("setextradata", "My VM", "VRDP/Feature/Security/Method", "tls"), "setextradata VRDP/Feature/Security/Method"),
        (("setextradata", "My VM", "VRDP/TCPPort", "1"), "setextradata VRDP/TCPPort"),
        (("setextradata", "My VM", "VRDP/Feature/Client/DisableInput", "yes"), "neither 1 nor empty"),
        (("setextradata", "My VM", "VBoxAuthSimple/users/john", "secret"), "passwordhash"),
        (("setextradata", "My VM", "VBoxAuthSimple/users/", SECRET), "no user"),
        (("setextradata", "My VM", "", "x"), "empty"),
        (("setextradata", "My VM", "a\nb", "x"), "control"),
        (("setextradata", "global", "VBoxAuthSimple/users/john", SECRET), "one VM"),
        (("setextradata", "My VM"), "KEY"),
        (("setproperty", "vrdeauthlibrary", "VBoxAuthLdap"), "VBoxAuthSimple"),
        (("setproperty", "vrdeauthlibrary", "nowhere.py"), "nowhere.py"),
        (("setproperty", "machinefolder", "/x"), "TELEPORT_HOME"),
        (("setproperty", "colour", "red"), "vrdeauthlibrary"),
        (("modifyvm", "My VM", "--vrdeauthlibrary", "nowhere.py"), "nowhere.py"),
        (("modifyvm", "My VM", "--vrdeproperty", "Security/CACertificate=path/ca_cert.pem"), "path/ca_cert.pem"),
        (("modifyvm", "My VM", "--vrdeauthtype", "guest"), "--guest-agent on"),
        (("internalcommands", "rename"), "rename"),
    ],
)
def test_what_is_refused_is_named_and_changes_nothing(vm: Cli, words: tuple[str, ...], said: str) -> None:
    before = vm.store.find("My VM").paths.definition.read_bytes()
    result = vm(*words)
    assert result.code == 2
    assert said in result.err
    assert vm.store.find("My VM").paths.definition.read_bytes() == before


def test_files_are_named_from_the_current_folder(vm: Cli, tmp_path: Path) -> None:
    Path("mine.py").write_text("")
    Path("ca_cert.pem").write_text("")
    vm.ok("modifyvm", "My VM", "--vrdeauthlibrary", "mine.py", "--vrdeproperty", "Security/CACertificate=ca_cert.pem")
    display = vm.store.find("My VM").definition.vrde
    assert display.auth_library == f"{tmp_path}/here/mine.py"
    assert display.properties["Security/CACertificate"] == f"{tmp_path}/here/ca_cert.pem"
    vm.ok("setproperty", "vrdeauthlibrary", "./mine.py")
    assert f"{tmp_path}/here/mine.py" in vm.ok("list", "systemproperties")
    vm.ok("modifyvm", "My VM", "--vrdeauthlibrary", "default", "--vrdeauthtype", "guest", "--guest-agent", "on")
