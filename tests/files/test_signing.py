"""Signed versions (S17). Catches: files, names or numbers that the signature does not cover, a signature that another
key made, one that is gone where it must be there, a way to write versions that does not sign them, a form that the
library which others check signatures with does not read."""

import ast
import base64
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from conftest import Say
from headrace import auditing, signing
from headrace.artifacts import MANIFEST
from headrace.errors import AlreadyExists, BadConfig, Damaged
from headrace.export.writing import export_to
from headrace.records import Adapter, Artifact, ModelVersion
from headrace.store import adapters, runs, schema
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_channel, plant_version
from stub_model import Server, install_plugin, plant_stub

ROOT = Path(__file__).parents[2]
KEY = f".headrace/{signing.PRIVATE_KEY}"
PUBLIC = f".headrace/{signing.PUBLIC_KEY}"


def _with(ws: Workspace, **said: object) -> Workspace:
    return open_workspace(ws.root, overrides={f"sign.{name}": value for name, value in said.items()})


@pytest.fixture
def ws(workspace: Workspace) -> Iterator[Workspace]:
    """A workspace that signs, and serves nothing else."""
    signing.make_key(workspace)
    with _with(workspace, private_key=KEY, policy="require") as made:
        yield made


def _adapter(ws: Workspace, version: ModelVersion, channel: str) -> str:
    plant_channel(ws, channel)
    folder = ws.artifacts.new_folder()
    (folder / "adapter_config.json").write_text(json.dumps({"of": channel}))
    digest, n_bytes = ws.artifacts.put(folder)
    with ws.store.write() as conn:
        runs.add_artifact(conn, Artifact(digest, "adapter", n_bytes, {}), NOON)
        adapters.add(conn, version.id, [Adapter(channel, digest, f"sha256:{channel}", True, {})])
    return digest


@pytest.fixture
def signed(ws: Workspace) -> ModelVersion:
    version = plant_stub(ws)
    for channel in ("a", "b"):
        _adapter(ws, version, channel)
    signing.sign_again(ws, version)
    return version


def _refuses(ws: Workspace, version: ModelVersion, says: str, channel: str | None = None) -> None:
    with ws.store.read() as conn:
        found = {one.channel: one.artifact for one in adapters.of_version(conn, version.id)}
    digest = version.artifact if channel is None else found[channel]
    with pytest.raises(Damaged, match=says):
        signing.folder_of(ws, version, str(digest), channel)


def test_a_version_that_is_signed_is_loaded_with_its_adapters(ws: Workspace, signed: ModelVersion) -> None:
    found = signing.verify(ws, signed)
    assert [(one.channel, one.is_signed) for one in found] == [(None, True), ("a", True), ("b", True)]
    for one in found:
        assert signing.folder_of(ws, signed, one.artifact, one.channel).is_dir()
    assert [line.action for line in auditing.listing(ws)] == ["sign.key", "sign.version"]


def test_a_key_is_the_owners_alone_and_never_written_over(ws: Workspace) -> None:
    assert stat.S_IMODE((ws.root / KEY).stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in (ws.root / KEY).read_bytes()
    with pytest.raises(AlreadyExists):
        signing.make_key(ws)


def test_a_flipped_byte_in_any_file_is_refused(ws: Workspace, signed: ModelVersion) -> None:
    folder = ws.artifacts.get(signed.artifact)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [MANIFEST, "headrace.json", "stub.json"]
    for name in names:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        _refuses(ws, signed, "does not match its hash|manifest")
        (folder / name).write_bytes(whole)
    assert signing.folder_of(ws, signed, signed.artifact) == folder


def _other_files(ws: Workspace, version: ModelVersion) -> None:
    """Good files under a good digest, which the database names: by somebody who can write both, and has no key."""
    digest = plant_stub(ws, answer="negative").artifact
    versions = schema.model_versions
    with ws.store.write() as conn:
        conn.execute(update(versions).where(versions.c.id == version.id).values(artifact=digest))
    object.__setattr__(version, "artifact", digest)


def _other_signature(ws: Workspace, version: ModelVersion) -> None:
    other = plant_stub(ws, answer="negative")
    signing.sign_again(ws, other)
    table = schema.artifacts
    with ws.store.write() as conn:
        conn.execute(delete(table).where(table.c.facts["version"].as_string() == version.id))
        for one in runs.artifacts_of_version(conn, other.id, kind=signing.KIND):
            facts = {**one.facts, "version": version.id}
            conn.execute(update(table).where(table.c.digest == one.digest).values(facts=facts))
    object.__setattr__(version, "artifact", other.artifact)  # the older one under the newer one's number


def _no_signature(ws: Workspace, version: ModelVersion) -> None:
    table = schema.artifacts
    with ws.store.write() as conn:
        conn.execute(delete(table).where(table.c.kind == signing.KIND))


def _signature_file_gone(ws: Workspace, version: ModelVersion) -> None:
    with ws.store.read() as conn:
        for one in runs.artifacts_of_version(conn, version.id, kind=signing.KIND):
            ws.artifacts.remove(one.digest)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (_other_files, "other files were signed"),
        (_other_signature, "signed as something else"),
        (_no_signature, "not signed"),
        (_signature_file_gone, "no such artifact"),
    ],
)
def test_what_is_not_what_was_signed_is_refused(
    ws: Workspace, signed: ModelVersion, attack: Callable[[Workspace, ModelVersion], None], says: str
) -> None:
    attack(ws, signed)
    _refuses(ws, signed, says)
    with _with(ws, public_keys=(PUBLIC,), policy="when-signed") as lenient:
        if attack is _no_signature:
            assert signing.folder_of(lenient, signed, signed.artifact).is_dir()
        else:
            _refuses(lenient, signed, says)
    with _with(ws, policy="off") as trusting:
        assert signing.folder_of(trusting, signed, signed.artifact).is_dir()


def test_the_adapter_of_one_channel_does_not_pass_for_anothers(ws: Workspace, signed: ModelVersion) -> None:
    table = schema.adapters
    with ws.store.write() as conn:
        found = {one.channel: one.artifact for one in adapters.of_version(conn, signed.id)}
        conn.execute(update(table).where(table.c.artifact == found["a"]).values(artifact=found["b"]))
    _refuses(ws, signed, "signed as something else", channel="a")
    assert signing.folder_of(ws, signed, str(found["b"]), "b").is_dir()


def test_only_the_keys_that_are_named_count(ws: Workspace, signed: ModelVersion, tmp_path: Path) -> None:
    with _with(ws, public_keys=(PUBLIC,), policy="require") as elsewhere:  # where versions only serve
        assert signing.folder_of(elsewhere, signed, signed.artifact).is_dir()
    with _with(ws, policy="require") as keyless:
        _refuses(keyless, signed, "names no key")
    shutil.move(ws.state_folder / "keys", tmp_path / "before")
    signing.make_key(ws)
    _refuses(ws, signed, "no key of sign.public_keys made it")
    with _with(ws, private_key=KEY, public_keys=(str(tmp_path / "before" / "sign.pub"),)) as both:
        assert signing.folder_of(both, signed, signed.artifact).is_dir()
    with _with(ws, public_keys=("headrace.toml",)) as wrong, pytest.raises(BadConfig, match=r"sign\.public_keys"):
        signing.folder_of(wrong, signed, signed.artifact)


def test_a_statement_that_was_changed_is_refused(ws: Workspace, signed: ModelVersion) -> None:
    keys = signing._public_keys(ws)
    with ws.store.read() as conn:
        places = [one.digest for one in runs.artifacts_of_version(conn, signed.id, kind=signing.KIND)]
    text = (ws.artifacts.get(places[0]) / signing.FILE).read_text()
    signing._opened(text.encode(), keys)
    bundle = json.loads(text)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for change in (payload.replace(b'"version": 1', b'"version": 2'), payload + b" ", b"{}"):
        assert change != payload
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(change).decode()
        with pytest.raises(ValueError, match="no key"):
            signing._opened(json.dumps(bundle).encode(), keys)


def test_everything_that_writes_versions_signs_them(ws: Workspace) -> None:
    writers = []
    for path in (ROOT / "headrace").rglob("*.py"):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)) if "versions.add(" in source else ():
            text = ast.unparse(node) if isinstance(node, ast.FunctionDef) else ""
            if "versions.add(" in text:
                writers.append((path.name, "signing.sign(" in text))
    assert writers
    assert all(signs for _, signs in writers), writers
    version = plant_version(ws)
    folder = ws.artifacts.new_folder()
    (folder / "weights").write_bytes(b"1")
    object.__setattr__(version, "artifact", ws.artifacts.put(folder)[0])
    with ws.store.write() as conn:
        signing.sign(ws, conn, version)
    assert signing.folder_of(ws, version, version.artifact).is_dir()


def test_verbs(ws: Workspace, say: Say) -> None:
    plant_stub(ws)
    toml = ws.root / "headrace.toml"
    toml.write_text(f'{toml.read_text()}[sign]\nprivate_key = "{KEY}"\n')
    assert say("sign", "verify", "1").status == 1
    assert say("sign", "version", "1").status == 0
    found = say("sign", "verify", "1", "--json")
    assert (found.status, json.loads(found.out)[0]["is_signed"]) == (0, True)
    assert say("sign", "key").status == 2


@pytest.mark.slow
def test_a_server_serves_nothing_that_is_not_signed(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    env, version = install_plugin(tmp_path / "site"), plant_stub(ws)
    demand = {"sign__public_keys": [PUBLIC], "sign__policy": "require"}
    with pytest.raises(AssertionError, match="the version is not signed"):
        Server(ws.root, env, **demand)
    signing.sign_again(ws, version)
    server = Server(ws.root, env, **demand)
    assert server.stop() == 0


@pytest.mark.slow
def test_the_library_of_others_checks_what_we_sign(ws: Workspace, signed: ModelVersion, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    with ws.store.read() as conn:
        (place,) = (
            one.digest
            for one in runs.artifacts_of_version(conn, signed.id, kind=signing.KIND)
            if one.facts["of"] == signed.artifact
        )
    export_to(ws, signed.artifact, tmp_path / "out", {"README.md": "# card"})
    both = [
        (ws.artifacts.get(signed.artifact), ws.artifacts.get(place) / signing.FILE),
        (tmp_path / "out", tmp_path / "out" / signing.FILE),
    ]
    for folder, signature in both:
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
        command += ["--signature", str(signature), "--public_key", str(ws.root / PUBLIC)]
        good = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert good.returncode == 0, good.stdout + good.stderr
    (tmp_path / "out" / "stub.json").write_text("{}")
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1
