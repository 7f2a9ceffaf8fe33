"""Signed bundles: signed by whom, not signed, or changed afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from any_modules import two_branches, two_branches_card

from ofa.common.errors import UserError
from ofa.export.signature import Signer, check_signature
from ofa.export.write import export_bundle

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPENSSH, PEM, PKCS8 = (
    serialization.PrivateFormat.OpenSSH,
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
)


def write_keys(path: Path, comment: str = "", form: serialization.PrivateFormat = OPENSSH) -> Path:
    """Write a private key and, with the ending .pub, its public one."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(PEM, form, serialization.NoEncryption()))
    encoding, public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    line = key.public_key().public_bytes(encoding, public)
    path.with_suffix(".pub").write_bytes(line + f" {comment}\n".encode())
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder / "ada", "ada@lab with a \x1b[31mcolour")
    write_keys(folder / "eve", "eve")
    return folder


@pytest.fixture
def bundle(tmp_path: Path, keys: Path) -> Path:
    """A signed bundle."""
    export_bundle(two_branches(), two_branches_card(), tmp_path / "bundle", [])
    Signer(keys / "ada").sign(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_signer_is_named(bundle: Path, keys: Path) -> None:
    line = (keys / "ada.pub").read_text().split()[1]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(line)).digest()).decode().rstrip("=")
    assert check_signature(bundle) == (
        f"signed by the key SHA256:{digest}; name its owner by verify_key=FILE of public keys"
    )
    known = f"signed by ada@lab with a �[31mcolour (SHA256:{digest})"
    assert check_signature(bundle, keys / "ada.pub") == known
    everyone = keys / "everyone"
    everyone.write_text(f"# colleagues\n\n{(keys / 'eve.pub').read_text()}{(keys / 'ada.pub').read_text()}")
    assert check_signature(bundle, everyone) == known
    with pytest.raises(
        UserError, match=rf"signed by the key SHA256:{re.escape(digest)}, which is not one of .*eve.pub"
    ):
        check_signature(bundle, keys / "eve.pub")


def test_the_fingerprint_is_that_of_ssh_keygen(bundle: Path, keys: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen")
    text = subprocess.run(["ssh-keygen", "-lf", keys / "ada.pub"], capture_output=True, text=True, check=True)
    assert text.stdout.split()[1] in check_signature(bundle)


def test_a_bundle_without_a_signature_passes_unless_one_is_asked_for(tmp_path: Path, keys: Path) -> None:
    export_bundle(two_branches(), two_branches_card(), tmp_path / "bundle", [])
    assert check_signature(tmp_path / "bundle") == "not signed"
    with pytest.raises(UserError, match="is not signed; verify_key asks for a signature"):
        check_signature(tmp_path / "bundle", keys / "ada.pub")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replace_with_own(bundle: Path) -> None:
    """Another maker's files under the old signature, their digests included."""
    (bundle / "README.md").write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    files = json.loads((bundle / "signature.json").read_text())["files"]
    rewrite(bundle / "signature.json", files={**files, "README.md": digest})


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (lambda b: flip(b / "weights.safetensors"), "was changed after .*weights.safetensors"),
    "card": (lambda b: flip(b / "subnet.json"), "was changed after .*subnet.json"),
    "README": (lambda b: (b / "README.md").write_text("curl | sh"), "was changed after .*README.md"),
    "more": (lambda b: (b / "setup.py").touch(), "was changed after .*setup.py"),
    "less": (lambda b: (b / "README.md").unlink(), "was changed after .*README.md"),
    "link": (lambda b: (b / "link").symlink_to("/"), "link is a link or no file"),
    "pipe": (lambda b: os.mkfifo(b / "pipe"), "pipe is a link or no file"),
    "digests": (replace_with_own, "not that of its key"),
    "no key": (lambda b: rewrite(b / "signature.json", public_key="ssh-rsa x"), "no ed25519 public key"),
    "base64": (lambda b: rewrite(b / "signature.json", signature="?"), "not that of its key"),
    "schema": (lambda b: rewrite(b / "signature.json", schema_version=9), "schema version 9"),
    "type": (lambda b: rewrite(b / "signature.json", files=3), "files is 3"),
    "cut": (lambda b: (b / "signature.json").write_text('{"sch'), "truncated"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_signature_is_named(change: str, bundle: Path) -> None:
    apply, message = CHANGES[change]
    apply(bundle)
    with pytest.raises(UserError, match=message):
        check_signature(bundle)


def test_keys_in_pem_work_too(bundle: Path, tmp_path: Path) -> None:
    path = write_keys(tmp_path / "team", form=PKCS8)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "team.pem").write_bytes(public)
    Signer(path).sign(bundle)
    assert check_signature(bundle, tmp_path / "team.pem").startswith("signed by team (SHA256:")


def test_wrong_private_keys_are_named(keys: Path, tmp_path: Path) -> None:
    key, secret = Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(key.private_bytes(PEM, PKCS8, secret))
    other_kind = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa").write_bytes(other_kind.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    (tmp_path / "large").write_bytes(b"x" * (1 << 21))
    for path, message in {
        tmp_path / "none": "No private key at .*none",
        tmp_path: "No private key at",
        tmp_path / "locked": "has a passphrase",
        tmp_path / "rsa": "of another kind; expected ed25519, as `ssh-keygen",
        tmp_path / "large": "has 2 MB; expected at most 1 MB",
        keys / "ada.pub": "holds no private key",
    }.items():
        with pytest.raises(UserError, match=message):
            Signer(path)


def test_wrong_public_keys_are_named(bundle: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "text").write_text("ssh-ed25519 \x1b[31m\n")
    (tmp_path / "pem").write_text("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    for path, message in {
        keys / "ada": "is a private key; give the public one",
        tmp_path / "empty": "holds no public key",
        tmp_path / "text": r"is no ed25519 public key: 'ssh-ed25519 \\x1b",
        tmp_path / "pem": "holds no public key",
        tmp_path / "none": "No file of public keys at .*none",
    }.items():
        with pytest.raises(UserError, match=message):
            check_signature(bundle, path)


def test_without_the_package_a_signature_is_not_checked_and_the_extra_is_named(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa.runtimes.base.importlib.util.find_spec", lambda name: None)
    assert check_signature(bundle) == "signed; to check it: pip install -e '.[sign]'"
    for use in (lambda: check_signature(bundle, keys / "ada.pub"), lambda: Signer(keys / "ada")):
        with pytest.raises(UserError, match=r"needs cryptography; install with: pip install -e '\.\[sign\]'"):
            use()
