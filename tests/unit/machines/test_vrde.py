import json

import pytest

from teleport.errors import UsageError
from teleport.machines.vrde import AuthType, VrdeSettings, from_dict, set_extradata, set_option, set_property, to_dict, validate
from teleport.machines.vrde_properties import SecurityMethod, parse_ports

SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def test_ports_are_tried_in_the_order_given():
    assert parse_ports("5000,5010-5012") == (5000, 5010, 5011, 5012)
    assert parse_ports("5012, 5010-5012") == (5012, 5010, 5011)
    assert parse_ports("default") == parse_ports("0") == parse_ports("3389") == (3389,)


@pytest.mark.parametrize("text", ["", "x", "70000", "5012-5010", "5000-", "-1", "1,,2", "0-5", "1-65535"])
def test_bad_ports_are_refused_when_set(text):
    with pytest.raises(UsageError):
        set_option(VrdeSettings(), "vrdeport", text)


@pytest.mark.parametrize(
    ("option", "value", "field", "expected"),
    [
        ("--vrde", "on", "enabled", True),
        ("vrdp", "on", "enabled", True),
        ("vrdeaddress", "[::1]", "address", "::1"),
        ("vrdeauthtype", "External", "auth_type", AuthType.EXTERNAL),
        ("vrdeauthlibrary", "VBoxAuthSimple", "auth_library", "VBoxAuthSimple"),
        ("vrdemulticon", "on", "multi_connection", True),
        ("vrdereusecon", "on", "reuse_connection", True),
        ("vrdevideochannel", "on", "video_channel", True),
        ("vrdevideochannelquality", "10", "video_quality", 10),
        ("vrdeextpack", "vnc", "extension", "vnc"),
        ("vrdeproperty", "TCP/Ports=5000", "ports", "5000"),
        ("vrdeproperty", "tcp/address=127.0.0.1", "address", "127.0.0.1"),
        ("monitorcount", "2", "monitors", 2),
    ],
)
def test_options(option, value, field, expected):
    changed = set_option(VrdeSettings(), option, value)
    assert getattr(changed, field) == expected
    assert from_dict(json.loads(json.dumps(to_dict(changed)))) == changed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("vrde", "yes"),
        ("vrdeaddress", "host.example"),
        ("vrdeauthtype", "pam"),
        ("vrdevideochannelquality", "9"),
        ("vrdevideochannelquality", "101"),
        ("vrdeproperty", "Client/DisableInput"),
        ("vrdeproperty", "Client/DisableInput=yes"),
        ("vrdeproperty", "Client/DisableEverything=1"),
        ("vrdeproperty", "Security/Method=nla"),
        ("vrdeproperty", "VNCPassword=x"),
        ("vrdeextpack", "a b"),
        ("monitorcount", "0"),
        ("vrdecolour", "1"),
    ],
)
def test_bad_values_are_refused_by_name(option, value):
    with pytest.raises(UsageError) as caught:
        set_option(VrdeSettings(), option, value)
    assert option in str(caught.value)


def test_properties_in_any_case_and_emptied_again():
    settings = set_option(VrdeSettings(), "vrdeproperty", "security/method=TLS")
    assert settings.security is SecurityMethod.TLS
    assert VrdeSettings().security is SecurityMethod.NEGOTIATE
    settings = set_property(settings, "Client/DisableDisplay", "1")
    assert settings.is_disabled("Display")
    assert not set_property(settings, "Client/DisableDisplay", "").is_disabled("Display")


def test_an_extension_with_other_properties_is_refused_while_they_are_set():
    settings = set_property(VrdeSettings(), "Security/Method", "tls")
    with pytest.raises(UsageError, match="Security/Method"):
        set_option(settings, "vrdeextpack", "vnc")
    assert set_option(VrdeSettings(), "vrdeextpack", "vnc").extension == "vnc"


def test_extradata_holds_users_and_the_older_feature_names():
    settings = set_extradata(VrdeSettings(), "VBoxAuthSimple/users/john", SECRET)
    assert settings is not None
    assert settings.users == {"john": SECRET}
    assert from_dict(to_dict(settings)) == settings
    emptied = set_extradata(settings, "VBoxAuthSimple/users/john", "")
    assert emptied is not None
    assert not emptied.users
    feature = set_extradata(VrdeSettings(), "VRDP/Feature/Client/DisableDisplay", "1")
    assert feature is not None
    assert feature.is_disabled("Display")
    assert set_extradata(VrdeSettings(), "GUI/Fullscreen", "on") is None
    with pytest.raises(UsageError, match="SHA-256"):
        set_extradata(VrdeSettings(), "VBoxAuthSimple/users/john", "secret")


@pytest.mark.parametrize(
    "raw",
    [
        {"colour": 1},
        {"enabled": 1},
        {"ports": 3389},
        {"auth_type": "pam"},
        {"properties": {"Security/Method": "nla"}},
        {"properties": {"a": 1}},
        {"users": []},
        {"video_quality": 5},
    ],
)
def test_nonsense_from_a_file_is_refused(raw):
    with pytest.raises(UsageError):
        from_dict(raw)


def test_the_default_is_valid_and_off():
    validate(VrdeSettings())
    assert not VrdeSettings().enabled
