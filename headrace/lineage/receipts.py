"""Receipts of erasures: what was done, signed with the workspace's own key (Ed25519, RFC 8032).

A receipt is JSON. What is signed is the canonical JSON of all of it but the signature: keys sorted, no spaces, `\\u`
escapes, as UTF-8. The private key stays in the workspace and in no backup; public keys stay beside it under the first
digits of their SHA-256, so that receipts of an earlier key can be checked for as long as that file is kept.
"""

import base64
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.artifacts import sync
from headrace.errors import BadInput, Damaged, NotFound
from headrace.lineage.tombstones import KEYS
from headrace.secret_files import write_secret
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FOLDER = "receipts"
_PRIVATE = "receipts.pem"

# cryptography loads OpenSSL, which nothing else here needs: it is imported where a receipt is made or checked.


def make_key(ws: Workspace) -> None:
    """Make the key, if there is none yet: before anything is erased, so that no erasure ends without a receipt."""
    _private_key(ws.state_folder / KEYS)


def signed(ws: Workspace, content: Mapping[str, Any]) -> dict[str, Any]:
    """A receipt: the content, the name of the key, and the signature over both."""
    key = _private_key(ws.state_folder / KEYS)
    receipt = {**content, "key": _name(key.public_key())}
    return {**receipt, "signature": base64.b64encode(key.sign(_bytes_of(receipt))).decode()}


def write(ws: Workspace, receipt: Mapping[str, Any]) -> Path:
    """Write a receipt as a file named by the erasure, over an earlier one of the same; its path."""
    folder = ws.state_folder / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{receipt['id']}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(receipt, indent=1, sort_keys=True) + "\n", "utf-8")
    sync(draft)
    os.replace(draft, path)
    sync(folder)
    return path


def verify(ws: Workspace, path: Path | str) -> dict[str, Any]:
    """The content of a receipt that a key of this workspace signed and nobody changed.

    Raises:
        NotFound: no such file, or the key is none of this workspace.
        BadInput: the file is no receipt.
        Damaged: it is not as it was signed.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        receipt = json.loads(Path(path).read_text("utf-8"))
        signature, name = base64.b64decode(receipt["signature"], validate=True), str(receipt["key"])
    except FileNotFoundError:
        raise NotFound("no such receipt", value=str(path), next_step="They are in .headrace/receipts") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"this is no receipt of an erasure: {error}", value=str(path), next_step="Give the file as it was written"
        ) from None
    content = {name: value for name, value in receipt.items() if name != "signature"}
    try:
        _public_key(ws.state_folder / KEYS, name).verify(signature, _bytes_of(content))
    except InvalidSignature:
        raise Damaged(
            "the receipt is not as it was signed", value=str(path), next_step="Take the one from .headrace/receipts"
        ) from None
    return content


def _bytes_of(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _private_key(folder: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / _PRIVATE
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        text = made.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        write_secret(path, text)
    key = forms.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    public = folder / f"{_name(key.public_key())}.pub"
    if not public.exists():
        write_secret(public, key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))
    return key


def _public_key(folder: Path, name: str) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    known = {path.stem: path for path in folder.glob("*.pub")}
    if name not in known:
        raise NotFound(
            "the receipt was signed with a key that is none of this workspace",
            value=name,
            next_step=f"Put its public key into .headrace/{KEYS} as NAME.pub if you trust it",
        )
    key = forms.load_pem_public_key(known[name].read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


def _name(key: "Ed25519PublicKey") -> str:
    return f"ed25519-{sha256(key.public_bytes_raw()).hexdigest()[:16]}"
