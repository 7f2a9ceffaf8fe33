"""Keys that sign bundles: ed25519, in the forms of OpenSSH and PEM."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.display import short_repr, short_text
from ofa.common.errors import UserError
from ofa.common.reading import read_bytes
from ofa.runtimes.base import check_packages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PACKAGES, EXTRA = ("cryptography",), "sign"
_MAX_KEY_BYTES = 1 << 20
_EXPECTED = "expected ed25519, as `ssh-keygen -t ed25519 -f KEY` makes it."


def load_private_key(path: str | Path) -> Ed25519PrivateKey:
    """Return the ed25519 private key of a file, in OpenSSH's form or PEM (PKCS 8).

    Raises:
        UserError: if `cryptography` is not installed, or the file holds no such key without a passphrase.
    """
    check_packages(PACKAGES, "Signing a bundle", EXTRA)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    content = read_bytes(Path(path), "private key", max_bytes=_MAX_KEY_BYTES)
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        key = load(content, None)
    except TypeError as error:
        raise UserError(f"The private key {path} has a passphrase; give a key without one.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} holds no private key; {_EXPECTED}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"The private key {path} is of another kind; {_EXPECTED}")
    return key


def load_public_keys(path: str | Path) -> dict[str, str]:
    """Return names of signers by their keys' fingerprints.

    Args:
        path: public keys in OpenSSH's form, one a line, each named by its comment (the file KEY.pub); or one
            key in PEM, named like the file.

    Raises:
        UserError: if `cryptography` is not installed, or the file holds anything else.
    """
    check_packages(PACKAGES, "Checking a signature", EXTRA)
    path = Path(path)
    content = read_bytes(path, "file of public keys", max_bytes=_MAX_KEY_BYTES)
    if b"PRIVATE KEY" in content:
        raise UserError(f"{path} is a private key; give the public one (KEY.pub) to check signatures.")
    if content.lstrip().startswith(b"-----BEGIN"):
        return {fingerprint(_pem_key(path, content)): path.stem}
    names = {}
    for line in content.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            key = openssh_key(line)
            if key is None:
                raise UserError(f"{path} holds a line that is no ed25519 public key: {short_repr(line)}")
            *_, comment = [path.stem, *line.split(maxsplit=2)[2:]]
            names[fingerprint(key)] = short_text(comment)
    if not names:
        raise UserError(f"{path} holds no public key.")
    return names


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the fingerprint of a key as `ssh-keygen -l` shows it."""
    blob = base64.b64decode(openssh_line(key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def openssh_line(key: Ed25519PublicKey) -> str:
    """Return a public key as a line of OpenSSH without a comment."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def openssh_key(line: str) -> Ed25519PublicKey | None:
    """Return the key of a line in OpenSSH's form; None if it is no ed25519 key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _pem_key(path: Path, content: bytes) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} holds no public key.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"The public key {path} is of another kind; expected ed25519.")
    return key
