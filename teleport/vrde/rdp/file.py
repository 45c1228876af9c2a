"""A `.rdp` file for Microsoft's viewer (mstsc): `teleport console NAME --rdp`."""

from teleport.errors import UsageError


def rdp_file(*, host: str, port: int, user: str = "", screen: int = 1) -> str:
    """The file's text. `screen` above 1 is asked for as mstsc has it: ``@2\\name`` (manual, 7.1.8). Raises UsageError.

    Network Level Authentication is not to be had (there is no CredSSP here), so the file switches it off; mstsc then asks for the
    password itself and sends it inside TLS, after a warning unless it trusts the certificate.
    """
    if any(c in user + host for c in "\r\n"):
        raise UsageError("the .rdp file", "names have no line breaks")
    name = f"@{screen}\\{user or 'user'}" if screen > 1 else user
    address = f"[{host}]" if ":" in host else host
    lines = [
        f"full address:s:{address}:{port}",
        *([f"username:s:{name}"] if name else []),
        "prompt for credentials:i:1",
        "enablecredsspsupport:i:0",
        "authentication level:i:2",
        "negotiate security layer:i:1",
        "screen mode id:i:1",
        "smart sizing:i:1",
        "session bpp:i:32",
        "audiomode:i:0",
        "redirectclipboard:i:1",
        "redirectprinters:i:0",
        "redirectsmartcards:i:0",
        "drivestoredirect:s:",
        "autoreconnection enabled:i:1",
    ]
    return "\r\n".join(lines) + "\r\n"
