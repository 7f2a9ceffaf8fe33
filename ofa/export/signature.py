"""Signatures of bundles: who made a bundle, and whether it is as they made it (ed25519, RFC 8032)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.config import build
from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.reading import read_json
from ofa.common.tensors import file_sha256
from ofa.export.signing_keys import (
    EXTRA,
    PACKAGES,
    fingerprint,
    load_private_key,
    load_public_keys,
    openssh_key,
    openssh_line,
)
from ofa.runtimes.base import missing_packages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_FILE = "signature.json"
_SCHEMA = 1
_GET_AGAIN = "Get it again from its maker."
_PURPOSE = b"once-for-all bundle, schema 1\n"


@dataclass(frozen=True)
class SignatureRecord:
    """The content of `signature.json`.

    Attributes:
        schema_version: version of this form.
        public_key: key of the signer in OpenSSH's form.
        files: SHA-256 (hex) of every other file of the bundle by its path in it.
        signature: ed25519 signature, in base64, of the purpose and of these files as sorted JSON.
    """

    schema_version: int
    public_key: str
    files: dict[str, str]
    signature: str


class Signer:
    """A private key to sign bundles with."""

    def __init__(self, key: str | Path) -> None:
        """Read the private key; see `load_private_key`.

        Raises:
            UserError: if it cannot be used.
        """
        self._key: Ed25519PrivateKey = load_private_key(key)

    def sign(self, bundle: Path) -> str:
        """Sign a finished bundle; an earlier signature is replaced. Return the signer's fingerprint.

        Raises:
            UserError: if the bundle cannot be read or written.
        """
        files = _digests(bundle)
        public_key = self._key.public_key()
        signature = base64.b64encode(self._key.sign(_message(files))).decode()
        values = {
            "schema_version": _SCHEMA,
            "public_key": openssh_line(public_key),
            "files": files,
            "signature": signature,
        }
        write_json(bundle / SIGNATURE_FILE, values)
        return fingerprint(public_key)


def signer_of(key: str | Path | None) -> Signer | None:
    """Return the signer of the file of a private key; None without one."""
    return None if key is None else Signer(key)


def sign_lines(bundle: Path, signer: Signer | None) -> list[str]:
    """Sign a finished bundle, if there is a signer, and return what to tell the user."""
    return [] if signer is None else [f"signed by the key {signer.sign(bundle)}"]


def check_signature(bundle: Path, verify_key: str | Path | None = None) -> str:
    """Check the signature of a bundle and return a line about it for the user.

    Args:
        bundle: folder of the bundle.
        verify_key: file of the public keys of which one must have signed; see `load_public_keys`. None: a
            bundle without a signature passes, and the signer of another one is shown by fingerprint only.

    Raises:
        UserError: if the bundle was changed after it was signed; with `verify_key`, also if it was not signed
            or by another key.
    """
    names = None if verify_key is None else load_public_keys(verify_key)
    file = bundle / SIGNATURE_FILE
    if not file.is_file():
        if names is not None:
            raise UserError(f"The bundle {bundle} is not signed; verify_key asks for a signature.")
        return "not signed"
    record = build(SignatureRecord, read_json(file, "signature"), str(file))
    if record.schema_version != _SCHEMA:
        raise UserError(f"{file} has schema version {record.schema_version}; this version reads {_SCHEMA}.")
    if missing_packages(PACKAGES):
        return f"signed; to check it: pip install -e '.[{EXTRA}]'"
    key_print = _verified(bundle, file, record)
    if names is None:
        return f"signed by the key {key_print}; name its owner by verify_key=FILE of public keys"
    if key_print not in names:
        raise UserError(
            f"The bundle {bundle} is signed by the key {key_print}, which is not one of {verify_key}."
        )
    return f"signed by {names[key_print]} ({key_print})"


def _verified(bundle: Path, file: Path, record: SignatureRecord) -> str:
    """Check files and signature, and return the fingerprint of the signer."""
    from cryptography.exceptions import InvalidSignature

    digests = _digests(bundle)
    changed_names = sorted(
        name for name in record.files.keys() | digests.keys() if record.files.get(name) != digests.get(name)
    )
    if changed_names:
        raise UserError(
            f"The bundle {bundle} was changed after it was signed: {listed_names(changed_names)}. "
            f"{_GET_AGAIN}"
        )
    key = openssh_key(record.public_key)
    if key is None:
        raise UserError(f"{file} holds no ed25519 public key. {_GET_AGAIN}")
    try:
        key.verify(base64.b64decode(record.signature, validate=True), _message(record.files))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise UserError(
            f"The signature of the bundle {bundle} is not that of its key: it was changed. {_GET_AGAIN}"
        ) from error
    return fingerprint(key)


def _message(files: Mapping[str, str]) -> bytes:
    """Return the bytes that are signed."""
    return _PURPOSE + json.dumps(dict(files), sort_keys=True, separators=(",", ":")).encode()


def _digests(bundle: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a bundle but the signature, by its path in it.

    Raises:
        UserError: if the bundle holds anything but files and folders, or cannot be read.
    """
    digests = {}
    try:
        for path in sorted(bundle.rglob("*")):
            name = path.relative_to(bundle).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise UserError(f"{path} is a link or no file; a signed bundle consists of its own files.")
            if path.is_file() and name != SIGNATURE_FILE:
                digests[name] = file_sha256(path)
    except OSError as error:
        raise UserError(f"The bundle {bundle} cannot be read: {error}.") from error
    return digests
