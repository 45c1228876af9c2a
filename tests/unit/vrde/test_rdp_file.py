import pytest

from teleport.errors import UsageError
from teleport.vrde.rdp.file import rdp_file


def test_a_file_for_mstsc():
    lines = rdp_file(host="192.0.2.1", port=5000, user="john").split("\r\n")
    assert lines[0] == "full address:s:192.0.2.1:5000"
    assert "username:s:john" in lines
    assert "enablecredsspsupport:i:0" in lines
    assert all(line.count(":") >= 2 for line in lines if line)


def test_screens_and_ipv6():
    text = rdp_file(host="fe80::1", port=3389, screen=2)
    assert "full address:s:[fe80::1]:3389\r\n" in text
    assert "username:s:@2\\user\r\n" in text
    assert "username" not in rdp_file(host="h", port=1)
    with pytest.raises(UsageError):
        rdp_file(host="h", port=1, user="a\r\nfull address:s:evil")
