"""The server's certificate for TLS: the one that the properties name, or a self-signed one that is made once and kept."""

import datetime
import hashlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from teleport.errors import StorageError, UsageError
from teleport.machines.files import make_folder, write_durably
from teleport.machines.vrde import VrdeSettings

VALID_DAYS = 3650


@dataclass(frozen=True)
class Certificate:
    """A TLS context and the SHA-256 fingerprint (hex pairs with colons) of the certificate that it shows."""

    context: ssl.SSLContext
    fingerprint: str
    self_signed: bool


def is_half_named(settings: VrdeSettings) -> bool:
    """Whether the properties name a certificate without its key, or the reverse."""
    return ("Security/ServerCertificate" in settings.properties) != ("Security/ServerPrivateKey" in settings.properties)


def load(settings: VrdeSettings, folder: Path) -> Certificate:
    """Loads `Security/ServerCertificate` and `Security/ServerPrivateKey`, or makes and keeps a pair of its own in `folder`.

    Raises UsageError naming the property that is missing or wrong, StorageError when the own pair cannot be kept.
    """
    certificate = settings.properties.get("Security/ServerCertificate", "")
    key = settings.properties.get("Security/ServerPrivateKey", "")
    authority = settings.properties.get("Security/CACertificate", "")
    if is_half_named(settings):
        missing = "Security/ServerPrivateKey" if certificate else "Security/ServerCertificate"
        raise UsageError(f"--vrdeproperty {missing}", "a certificate and its key are needed together", "set it, or empty both")
    if certificate:
        paths = Path(certificate), Path(key)
    else:
        paths = folder / "vrde-cert.pem", folder / "vrde-key.pem"
        _make_once(*paths)
    for name, path in (
        ("ServerCertificate", paths[0]),
        ("ServerPrivateKey", paths[1]),
        ("CACertificate", Path(authority or "/")),
    ):
        if not os.access(path, os.R_OK):
            raise UsageError(f"--vrdeproperty Security/{name}", f"{path} cannot be read", "check the path and its permissions")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key would ask on the terminal: there is none, so it is refused instead.
        context.load_cert_chain(*paths, password=lambda: b"")
        if authority:
            context.load_verify_locations(authority)
        chain = x509.load_pem_x509_certificates(paths[0].read_bytes())
    except (ssl.SSLError, ValueError) as error:
        reason = "they do not fit together, are no PEM files, or the key is locked with a passphrase"
        raise UsageError("--vrdeproperty Security/ServerCertificate", f"{paths[0]} and {paths[1]}: {reason}") from error
    digest = hashlib.sha256(chain[0].public_bytes(serialization.Encoding.DER)).hexdigest().upper()
    return Certificate(context, ":".join(digest[i : i + 2] for i in range(0, 64, 2)), self_signed=not certificate)


def _make_once(certificate_path: Path, key_path: Path) -> None:
    if certificate_path.exists() and key_path.exists():
        return
    host = socket.gethostname()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host), x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    make_folder(certificate_path.parent)
    try:
        certificate_path.unlink(missing_ok=True)  # first: one that is there belongs to the key that is there
    except OSError as error:
        raise StorageError("the display's certificate", f"cannot be kept in {certificate_path.parent}: {error}") from error
    write_durably(key_path, private)
    write_durably(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
