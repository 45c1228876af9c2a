"""VNC authentication (RFC 6143, 7.2.2): DES with the password's bits reversed. It keeps strangers of this host out, no more."""

import hmac
import secrets

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from teleport.vrde.rfb import Password


def response(password: str, challenge: bytes) -> bytes:
    """The right answer to a challenge of 16 bytes; only the password's first 8 bytes count."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    # Two-key-identical triple DES is DES; ECB is what the protocol says.
    cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305  # the protocol's mode
    return cipher.update(challenge) + cipher.finalize()


def fresh(password: str) -> Password:
    """A challenge for one viewer."""
    challenge = secrets.token_bytes(16)
    return Password(challenge, response(password, challenge), hmac.compare_digest)


def random_password() -> str:
    """Eight characters that nobody has to type."""
    return secrets.token_urlsafe(6)
