"""Signatures of versions: which files are loaded is decided by a key, not by who can write to the disk.

What is signed is a statement of every file of an artifact with its hash, and of what it is: task, number and id of the
version, and whether it is the model itself or the adapter of a channel. So neither another channel's files nor an older
version's pass for it. Which version answers is the ledger's business; going back is a line of it.

The form is that of OpenSSF model signing 1.0 (github.com/ossf/model-signing-spec): an in-toto statement in a DSSE
envelope in a Sigstore bundle, signed with ECDSA by a key of one's own. `model_signing verify key` checks it, too; what
it ignores in the statement is our `headrace` part. A signature is an artifact of its own, so that it is copied, backed
up and fetched as all others are.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import auditing
from headrace.artifacts import MANIFEST, file_hash
from headrace.errors import AlreadyExists, BadConfig, Damaged, NotFound
from headrace.records import Artifact, ModelVersion
from headrace.secret_files import write_secret
from headrace.store import adapters, runs
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from sqlalchemy.engine import Connection

KIND = "signature"
FILE = "model.sig"
PRIVATE_KEY, PUBLIC_KEY = "keys/sign.pem", "keys/sign.pub"
"""Where a new key is put, in the state folder."""

_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
_PAYLOAD, _BUNDLE = "application/vnd.in-toto+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_AGAIN = "Restore the workspace from a backup, or train the version again"

# cryptography loads OpenSSL, which nothing else here needs: it is imported where something is signed or checked.


@dataclass(frozen=True)
class Checked:
    """What is known of one artifact of a version."""

    artifact: str
    channel: str | None
    """Whose adapter it is; None: the version's model."""
    is_signed: bool
    key: str
    """Hash of the public key in whose name it is signed; empty where it is not."""


def make_key(ws: Workspace) -> tuple[Path, Path]:
    """Make a key pair (P-256) in the state folder: the private key, which its owner alone can read, and the public one.

    Raises:
        AlreadyExists: there is one.
    """
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = ws.state_folder / PRIVATE_KEY, ws.state_folder / PUBLIC_KEY
    for path in (private, public):
        if path.exists():
            raise AlreadyExists("there is a key already", value=str(path), next_step="Move it away to make another")
    key = ec.generate_private_key(ec.SECP256R1())
    form = forms.PrivateFormat.PKCS8
    write_secret(private, key.private_bytes(forms.Encoding.PEM, form, forms.NoEncryption()))
    write_secret(public, _pem(key.public_key()))
    with ws.store.write() as conn:
        auditing.note(ws, conn, "sign.key", _name(key.public_key()))
    return private, public


def sign(ws: Workspace, conn: "Connection", version: ModelVersion, own: Mapping[str, str] | None = None) -> None:
    """Sign a version that is about to be written, if there is a key to sign with.

    Args:
        conn: the write transaction that writes the version.
        own: channel to the artifact of its adapter.

    Raises:
        BadConfig: the key cannot be used.
    """
    if not ws.settings.sign.private_key:
        return
    key = _private_key(ws)
    for channel, digest in [(None, version.artifact), *(own or {}).items()]:
        folder = ws.artifacts.look(digest)
        if folder is None:
            raise NotFound("no such artifact", value=digest, next_step=_AGAIN)
        text = _signed(key, version.name, _files(folder), _identity(version, digest, channel))
        made = ws.artifacts.new_folder()
        (made / FILE).write_text(text, "utf-8")
        place, n_bytes = ws.artifacts.put(made)
        facts = {"version": version.id, "of": digest, "key": _name(key.public_key())}
        runs.add_artifact(conn, Artifact(place, KIND, n_bytes, facts), ws.clock())


def sign_again(ws: Workspace, version: ModelVersion) -> list[Checked]:
    """Sign a version that is there, after checking every byte of it, and what is known of it then.

    Raises:
        BadConfig: `sign.private_key` is not set, or cannot be used.
        Damaged: a file of it is not as it was written.
    """
    if not ws.settings.sign.private_key:
        raise BadConfig("there is no key to sign with", value="sign.private_key", next_step="Run: headrace sign key")
    for digest, _ in _artifacts(ws, version):
        ws.artifacts.get(digest)
    own = {channel: digest for digest, channel in _artifacts(ws, version) if channel is not None}
    with ws.store.write() as conn:
        sign(ws, conn, version, own)
        auditing.note(ws, conn, "sign.version", version.id, facts={"task": version.task, "version": version.name})
    return verify(ws, version)


def sign_folder(ws: Workspace, folder: Path, name: str) -> None:
    """Write FILE into a folder that leaves the workspace, over all its files, if there is a key to sign with.

    Raises:
        BadConfig: the key cannot be used.
    """
    if ws.settings.sign.private_key:
        files = {path.relative_to(folder).as_posix(): file_hash(path) for path in folder.rglob("*") if path.is_file()}
        (folder / FILE).write_text(_signed(_private_key(ws), name, files, None), "utf-8")


def folder_of(ws: Workspace, version: ModelVersion, digest: str, channel: str | None = None) -> Path:
    """The folder of an artifact of a version, every byte checked, and whether `sign.policy` lets it be loaded.

    Args:
        digest: of the version's model, or of an adapter.
        channel: whose adapter it is.

    Raises:
        NotFound: no such artifact.
        Damaged: it is not as it was written, or not signed as it must be.
        BadConfig: a key cannot be read.
    """
    folder = ws.artifacts.get(digest)
    if ws.settings.sign.policy != "off":
        _check(ws, version, digest, channel, folder)
    return folder


def verify(ws: Workspace, version: ModelVersion) -> list[Checked]:
    """Check the model of a version and its adapters, whatever `sign.policy` says.

    Raises:
        Damaged: one is not as it was written, or a signature does not fit.
        BadConfig: a key cannot be read.
    """
    return [
        _check(ws, version, digest, channel, ws.artifacts.get(digest)) for digest, channel in _artifacts(ws, version)
    ]


def _artifacts(ws: Workspace, version: ModelVersion) -> list[tuple[str, str | None]]:
    with ws.store.read() as conn:
        kept = [one for one in adapters.of_version(conn, version.id) if one.is_kept and one.artifact is not None]
    return [(version.artifact, None), *((str(one.artifact), one.channel) for one in kept)]


def _check(ws: Workspace, version: ModelVersion, digest: str, channel: str | None, folder: Path) -> Checked:
    with ws.store.read() as conn:
        known = runs.artifacts_of_version(conn, version.id, kind=KIND)
    if not known:
        if ws.settings.sign.policy == "require":
            raise _refused("the version is not signed", version, "Run: headrace sign version, if you trust it")
        return Checked(digest, channel, False, "")
    keys, problem = _public_keys(ws), "other files were signed"
    for one in known:
        if one.facts["of"] != digest:
            continue
        try:
            said, name = _opened((ws.artifacts.get(one.digest) / FILE).read_bytes(), keys)
            if said["headrace"] != _identity(version, digest, channel):
                raise ValueError("it was signed as something else")
            if {file["name"]: file["digest"] for file in said["resources"]} != _files(folder):
                raise ValueError("other files were signed")
        except (NotFound, Damaged, OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            problem = str(error) or type(error).__name__
            continue
        return Checked(digest, channel, True, name)
    raise _refused(f"the signature of the version does not fit: {problem}", version, _AGAIN)


def _refused(problem: str, version: ModelVersion, next_step: str) -> Damaged:
    return Damaged(problem, value=f"{version.task}, version {version.name}", next_step=next_step)


def _files(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of every file of an artifact, as its manifest says, which is one of them."""
    text = (folder / MANIFEST).read_bytes()
    listed = {name: entry["sha256"] for name, entry in json.loads(text)["files"].items()}
    return listed | {MANIFEST: hashlib.sha256(text).hexdigest()}


def _identity(version: ModelVersion, digest: str, channel: str | None) -> dict[str, Any]:
    """What an artifact is. A channel goes by a hash, so that no name outlives an erasure in here."""
    whose = None if channel is None else hashlib.sha256(channel.encode()).hexdigest()
    facts = {"task": version.task, "version": version.number, "version_id": version.id}
    return {**facts, "artifact": digest, "channel_sha256": whose}


def _signed(
    key: "EllipticCurvePrivateKey", name: str, files: Mapping[str, str], identity: Mapping[str, Any] | None
) -> str:
    """A bundle over a statement of these files."""
    from cryptography.hazmat.primitives.asymmetric import ec

    resources = [{"name": file, "algorithm": "sha256", "digest": found} for file, found in sorted(files.items())]
    root = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [FILE]}
    predicate = {"serialization": serialization, "resources": resources}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": predicate if identity is None else {**predicate, "headrace": identity},
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = key.sign(_enveloped(payload), ec.ECDSA(_hash_of(key.public_key())))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": _name(key.public_key())}, "tlogEntries": []}
    return json.dumps({"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}, indent=1)


def _opened(bundle: bytes, keys: Sequence["EllipticCurvePublicKey"]) -> tuple[dict[str, Any], str]:
    """The predicate of a bundle that one of the keys signed, and the name of that key.

    Raises:
        ValueError: none did, or it is of another form.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    envelope = json.loads(bundle)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    for key in keys:
        try:
            key.verify(signature, _enveloped(payload), ec.ECDSA(_hash_of(key)))
        except InvalidSignature:
            continue
        statement = json.loads(payload)
        if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
            raise ValueError("it is no signature of a model")
        predicate: dict[str, Any] = statement["predicate"]
        return predicate, _name(key)
    raise ValueError("no key of sign.public_keys made it" if keys else "sign.public_keys names no key to check it by")


def _enveloped(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding (github.com/secure-systems-lab/dsse)."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _private_key(ws: Workspace) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    path = ws.root / ws.settings.sign.private_key
    try:
        key = forms.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key("sign.private_key", path, error) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _no_key("sign.private_key", path, ValueError("it is not of the curve P-256, P-384 or P-521"))
    return key


def _public_keys(ws: Workspace) -> list["EllipticCurvePublicKey"]:
    """The keys whose signatures count, the one that signs here among them."""
    named = [_public_key("sign.public_keys", ws.root / name) for name in ws.settings.sign.public_keys]
    if not ws.settings.sign.private_key:
        return named
    private = ws.root / ws.settings.sign.private_key
    beside = private.with_suffix(".pub")
    if beside.exists() and not private.exists():  # after a restore: backups hold the public key alone
        return [_public_key("sign.private_key", beside), *named]
    return [_private_key(ws).public_key(), *named]


def _public_key(setting: str, path: Path) -> "EllipticCurvePublicKey":
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = forms.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _no_key(setting, path, error) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _no_key(setting, path, ValueError("it is not of the curve P-256, P-384 or P-521"))
    return key


def _no_key(setting: str, path: Path, error: Exception) -> BadConfig:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BadConfig(
        f"{setting} names no key that can be used: {reason}", value=str(path), next_step="headrace sign key"
    )


def _hash_of(key: "EllipticCurvePublicKey") -> Any:
    from cryptography.hazmat.primitives import hashes

    return getattr(hashes, _CURVES[key.curve.name])()


def _pem(key: "EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives import serialization as forms

    return key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)


def _name(key: "EllipticCurvePublicKey") -> str:
    """As the bundle's form has it: SHA-256 of the key's PEM."""
    return hashlib.sha256(_pem(key)).hexdigest()
