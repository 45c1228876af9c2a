from hypothesis import given
from hypothesis import strategies as st

from teleport.model import Fact
from teleport.preflight.compare import compare_facts
from teleport.preflight.qtree import device_facts, parse_qtree

# Cut from QEMU 10.0.2's own words (q35), booted.
RUNNING = """\
bus: main-system-bus
  type System
  dev: ioapic, id ""
    gpio-in "" 24
    version = 32 (0x20)
    mmio 00000000fec00000/0000000000001000
  dev: q35-pcihost, id ""
    MCFG = 2952790016 (0xb0000000)
    x-pci-hole64-fix = true
    bus: pcie.0
      type PCIE
      dev: pcie-root-port, id "rp1"
        addr = 10.0
        busnr = 0 (0x0)
        class PCI bridge, addr 00:10.0, pci id 1b36:000c (sub 0000:0000)
        bar 0: mem at 0xfebd7000 [0xfebd7fff]
        bus: rp1
          type PCIE
          dev: rtl8139, id "nic2"
            mac = "52:54:00:12:34:56"
            netdev = "n2"
            addr = 00.0
            busnr = 1 (0x1)
            class Ethernet controller, addr 01:00.0, pci id 10ec:8139 (sub 1af4:1100)
            bar 0: i/o at 0xc000 [0xc0ff]
      dev: piix3-usb-uhci, id "uhci"
        addr = 0c.0
        class USB controller, addr 00:0c.0, pci id 8086:7020 (sub 1af4:1100)
        bar 4: i/o at 0xc680 [0xc69f]
        bus: uhci.0
          type usb-bus
          dev: usb-tablet, id ""
            usb_version = 2 (0x2)
            port = ""
            addr 0.1, port 1, speed 12, name QEMU USB Tablet, attached
      dev: virtio-blk-pci, id "disk0"
        ioeventfd = true
        addr = 05.0
        class SCSI controller, addr 00:05.0, pci id 1af4:1001 (sub 1af4:0002)
        bus: virtio-bus
          type virtio-pci-bus
          dev: virtio-blk-device, id ""
            drive = "d0"
            cyls = 130 (0x82)
            serial = "a = b (c)"
            iothread-vq-mapping = <null>
      dev: ICH9-LPC, id ""
        addr = 1f.0
        bus: isa.0
          type ISA
          dev: i8257, id ""
            base = 192 (0xc0)
          dev: i8257, id ""
            base = 0 (0x0)
"""
# The same machine as it waits for a stream, with other backends and another geometry.
WAITING = (
    RUNNING.replace("2952790016 (0xb0000000)", "-1 (0xffffffffffffffff)")
    .replace("0xfebd7000 [0xfebd7fff]", "0xffffffffffffffff [0xffe]")
    .replace("0xc000 [0xc0ff]", "0xffffffffffffffff [0xfe]")
    .replace("0xc680 [0xc69f]", "0xffffffffffffffff [0x1e]")
    .replace("busnr = 1 (0x1)", "busnr = 0 (0x0)")
    .replace("addr 01:00.0", "addr 00:00.0")
    .replace("addr 0.1, port", "addr 0.0, port")
    .replace('"n2"', '"net-two"')
    .replace('"d0"', '"d9"')
    .replace("cyls = 130 (0x82)", "cyls = 8 (0x8)")
)


def test_devices_have_their_names_buses_and_properties() -> None:
    devices = parse_qtree(RUNNING)
    assert [(device.driver, device.id, device.bus) for device in devices] == [
        ("ioapic", "", "main-system-bus"),
        ("q35-pcihost", "", "main-system-bus"),
        ("pcie-root-port", "rp1", "pcie.0"),
        ("rtl8139", "nic2", "rp1"),
        ("piix3-usb-uhci", "uhci", "pcie.0"),
        ("usb-tablet", "", "uhci.0"),
        ("virtio-blk-pci", "disk0", "pcie.0"),
        ("virtio-blk-device", "", "virtio-bus"),
        ("ICH9-LPC", "", "pcie.0"),
        ("i8257", "", "isa.0"),
        ("i8257", "", "isa.0"),
    ]
    assert devices[3].shape == {"pci id": "10ec:8139 (sub 1af4:1100) Ethernet controller", "bar 0": "i/o of 256 bytes"}
    assert devices[7].properties["serial"] == "a = b (c)"


def test_facts_name_each_device_the_same_on_both_sides() -> None:
    facts = device_facts(parse_qtree(RUNNING))
    assert Fact("device", "nic2", "bus", "rp1/rp1") in facts
    assert Fact("device", "uhci.0/usb-tablet@1", "usb port", "1") in facts
    # A virtio device is one device; the second DMA controller (the tree shows the newest first) is told from the first.
    assert Fact("property", "disk0", "serial", "a = b (c)") in facts
    assert not any("virtio-blk-device" in fact.subject for fact in facts)
    assert Fact("property", "isa.0/i8257", "base", "0") in facts
    assert Fact("property", "isa.0/i8257#2", "base", "192") in facts


def test_what_the_firmware_the_guest_or_the_host_chose_is_left_out() -> None:
    assert WAITING != RUNNING
    assert compare_facts(device_facts(parse_qtree(RUNNING)), device_facts(parse_qtree(WAITING)), mend_vm="T") == ()


def test_what_the_guest_can_see_shows() -> None:
    changes = {
        "addr = 05.0": "addr = 06.0",
        "10ec:8139": "10ec:8168",
        "0xc0ff": "0xc1ff",
        '"a = b (c)"': '"other"',
        "port 1,": "port 2,",
        '"52:54:00:12:34:56"': '"52:54:00:12:34:99"',
        'dev: rtl8139, id "nic2"': 'dev: e1000, id "nic2"',
        "version = 32": "version = 17",
        "x-pci-hole64-fix = true": "x-pci-hole64-fix = false",
    }
    before = device_facts(parse_qtree(RUNNING))
    for old, new in changes.items():
        assert compare_facts(before, device_facts(parse_qtree(WAITING.replace(old, new))), mend_vm="T") or old == "0xc0ff", old
    assert compare_facts(before, device_facts(parse_qtree(WAITING.replace("[0xfe]", "[0x1fe]"))), mend_vm="T")


@given(st.text(alphabet='abc: ="\n (0x)[]dev,bus', max_size=300))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    device_facts(parse_qtree(text))
