"""A viewer's USB device that is plugged in is no difference between two machines, and makes none of the others one."""

from teleport.preflight.qtree import device_facts, parse_qtree

REMOTE = """\
          dev: usb-redir, id "remote-usb-a1b2c3d4"
            port = "6"
            addr 0.1, port 6, speed 12, name USB Redirection Device, attached
"""
TREE = """\
bus: main-system-bus
  type System
  dev: i440FX-pcihost, id ""
    bus: pci.0
      type PCI
      dev: qemu-xhci, id "xhci"
        addr = 05.0
        bus: xhci.0
          type usb-bus
{}          dev: usb-tablet, id "mouse"
            port = "1"
            addr 0.0, port 1, speed 480, name QEMU USB Tablet, attached
  dev: kvmvapic, id ""
    bus: i2c
      type i2c-bus
      dev: smbus-eeprom, id ""
        address = 80 (0x50)
"""


def test_a_remote_device_is_left_out() -> None:
    with_it = parse_qtree(TREE.format(REMOTE))
    assert any(each.driver == "usb-redir" for each in with_it)
    facts = device_facts(with_it)
    assert facts == device_facts(parse_qtree(TREE.format("")))
    assert any(fact.subject == "mouse" for fact in facts)
