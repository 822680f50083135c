"""Model files that would run code, fetch something or lead elsewhere (S6, S7, S8, S18). Catches: a key that a library
follows, a path out of the folder, a header that takes all memory, and good models refused by mistake."""

import inspect
import json
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.artifacts import ArtifactStore
from headrace.errors import BadInput, Damaged, HeadraceError, Unusable
from headrace.export import ArtifactFacts, checkpoint, load, write_facts
from headrace.files import model_folder, names, onnx_file, openvino_file, safetensors_file
from headrace.files.config_keys import CONFIG_KEYS, TOKENIZER_KEYS
from headrace.finetune import base_models
from small_checkpoint import TASK, make_checkpoint

MAX_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return make_checkpoint(tiny_base, tmp_path_factory.mktemp("good"))


def _copy(good: Path, to: Path) -> Path:
    to.mkdir()
    for path in good.iterdir():
        os.link(path, to / path.name)
    return to


def _says(name: str, **more: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)  # the hard link of a good one
        path.write_text(json.dumps({**known, **more} if isinstance(known, dict) else known))

    return write


def _holds(name: str, content: str | bytes = "x = 1") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def _links(name: str, to: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return write


REMOTE = {"AutoModel": "elsewhere/model--modeling.Model"}
HOSTILE: dict[str, Callable[[Path], None]] = {
    "auto_map": _says("config.json", auto_map=REMOTE),
    "auto_map of a tokenizer": _says("tokenizer_config.json", auto_map={"AutoTokenizer": ["x--t.T", None]}),
    "attention by name (CVE-2026-4372)": _says("config.json", _attn_implementation_internal="elsewhere/kernel"),
    "attention": _says("config.json", attn_implementation="kernels-community/flash-attn"),
    "nested trust (CVE-2026-5241)": _says("config.json", text_config={"trust_remote_code": True, "auto_map": REMOTE}),
    "trust deep in another file": _says("generation_config.json", a=[{"b": {"trust_remote_code": True}}]),
    "a model inside": _says("config.json", encoder={"model_type": "bert"}),
    "quantiser": _says("config.json", quantization_config={"quant_method": "aqlm"}),
    "unknown key": _says("config.json", pre_hook="os.system"),
    "path in a known key": _says("config.json", hidden_act="../../evil"),
    "address in a known key": _says("config.json", architectures=["https://elsewhere/x"]),
    "template": _says("tokenizer_config.json", chat_template="{{ ''.__class__.__mro__ }}"),
    "template in a file": _holds("chat_template.jinja", "{{ x }}"),
    "template in JSON": _holds("chat_template.json", "{}"),
    "vocabulary elsewhere": _says("tokenizer_config.json", vocab_file="/etc/passwd"),
    "tokenizer elsewhere": _says("tokenizer_config.json", tokenizer_file="../../x/tokenizer.json"),
    "tokenizer's class": _says("tokenizer_config.json", tokenizer_class="os.path"),
    "code": _holds("modeling_mine.py"),
    "code in a folder": _holds("1_Pooling/pooling.py"),
    "code, compiled": _holds("model.so", b"\x7fELF"),
    "adapter of a remote base": _says("adapter_config.json", base_model_name_or_path="elsewhere/model"),
    "adapter of another folder": _says("adapter_config.json", base_model_name_or_path="../other"),
    "adapter's module": _says("adapter_config.json", auto_mapping={"parent_library": "os", "base_model_class": "x"}),
    "module of another library": _holds("modules.json", '[{"idx": 0, "path": "", "type": "evil.Module"}]'),
    "module elsewhere": _holds("modules.json", '[{"path": "../x", "type": "sentence_transformers.models.Pooling"}]'),
    "parts elsewhere": _holds("model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}'),
    "config that is no object": _holds("config.json", "[]"),
    "deep JSON": _holds("more.json", "[" * 100_000),
    "long JSON": _holds("more.json", b" " * (5 * 2**20)),
    "link": _links("tokenizer.json", "/etc/passwd"),
    "link to nothing": _links("more.json", "nowhere"),
    "linked folder": _links("2_Dense", "/etc"),
    "pipe": lambda folder: os.mkfifo(folder / "more.json"),
}


PUBLISHED = {  # config.json as their makers wrote them
    "ModernBERT": {"classifier_pooling": "mean", "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
                   "local_rope_theta": 10000.0, "repad_logits_with_grad": False, "sparse_prediction": False},
    "ALBERT": {"down_scale_factor": 1, "gap_size": 0, "inner_group_num": 1, "net_structure_type": 0,
               "num_memory_blocks": 0},
    "DeBERTa": {"relative_attention": True, "pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm",
                "share_att_key": True, "position_biased_input": False, "conv_act": "gelu",
                "position_buckets": 256, "conv_kernel_size": 3, "conv_groups": 1},
    "multilingual BERT": {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"},
    "a classifier": {"id2label": {"0": "a/b c", "1": "https://x"}, "label2id": {"a/b c": 0}, "torch_dtype": "float32",
                     "_name_or_path": "/data/someone/out", "problem_type": None},
}  # fmt: skip


@pytest.mark.parametrize("more", PUBLISHED.values(), ids=PUBLISHED)
def test_what_makers_wrote_is_let_in(more: dict[str, Any], good: Path, tmp_path: Path) -> None:
    folder = _copy(good, tmp_path / "model")
    _says("config.json", **more)(folder)
    model_folder.check(folder)


def test_good_models_are_let_in(good: Path) -> None:
    model_folder.check(good)
    model_folder.check(base_models.find("minilm-l6").folder)
    assert checkpoint.load(good, TASK).logits(["fine"]).shape == (1, 3)


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_hostile_directories_are_refused_before_any_library_reads_them(
    spoil: Callable[[Path], None], good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(good, tmp_path / "model")
    spoil(folder)
    for library, name in (("AutoConfig", "from_pretrained"), ("AutoTokenizer", "from_pretrained")):
        monkeypatch.setattr(f"transformers.{library}.{name}", lambda *_a, **_k: pytest.fail("it was read"))
    with pytest.raises(BadInput, match="not a base model"):
        base_models.find(str(folder))
    with pytest.raises(Damaged):
        checkpoint.load(folder, TASK)


def test_links_of_the_hubs_cache_lead_to_its_blobs_alone(good: Path, tmp_path: Path) -> None:
    root = tmp_path / "models--x--y"
    (root / "blobs").mkdir(parents=True)
    snapshot = root / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    for path in good.iterdir():
        (root / "blobs" / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    model_folder.check(snapshot, root=root)
    with pytest.raises(Damaged, match="a link"):
        model_folder.check(snapshot)
    (snapshot / "more.json").symlink_to(good / "config.json")
    with pytest.raises(Damaged, match="a link"):
        model_folder.check(snapshot, root=root)


@pytest.mark.slow
def test_every_family_for_text_that_transformers_has_is_let_in() -> None:
    """The list of keys is written down; this is what it was written from."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    kinds = ("SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")
    lists = [getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES") for kind in kinds]
    common = {name for name in lists[0] if all(name in known for known in lists) and name in CONFIG_MAPPING}
    assert len(common) > 40
    for name in sorted(common):
        said = CONFIG_MAPPING[name]().to_dict()
        nested = {key for key, value in said.items() if isinstance(value, dict)}
        assert set(said) - CONFIG_KEYS - nested <= {"is_folding_model", "use_mamba_kernels", "init_device"}, name
        own = Path(inspect.getfile(CONFIG_MAPPING[name]))
        source = own.with_name(own.name.replace("configuration_", "modeling_")).read_text("utf-8")
        asked = set(re.findall(r'getattr\((?:self\.)?config, "(\w+)"', source))
        assert asked - CONFIG_KEYS <= {"_is_quantized"}, name
    assert not {key for key in CONFIG_KEYS | TOKENIZER_KEYS if key.endswith(("_file", "auto_map", "_internal"))} - {
        "special_tokens_map_file"
    }


# ONNX


def _field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _external(location: str, offset: str = "0", length: str = "64") -> bytes:
    """A tensor of 16 numbers whose bytes are in another file."""
    facts = {"location": location, "offset": offset, "length": length}
    entries = b"".join(_field(13, _field(1, k.encode()) + _field(2, v.encode())) for k, v in facts.items())
    return _field(1, 16) + _field(2, 1) + _field(8, b"w") + entries + _field(14, 1)


def _model(tensor: bytes, where: str = "initializer") -> bytes:
    node = _field(5, _field(1, b"value") + _field(5, tensor) + _field(20, 4))
    inside = {
        "initializer": _field(5, tensor),
        "attribute": _field(1, node + _field(4, b"Constant")),
        "branch": _field(1, _field(5, _field(6, _field(5, tensor))) + _field(4, b"If")),
        "sparse": _field(15, _field(1, tensor)),
    }
    functions = _field(25, _field(7, node)) if where == "function" else b""
    return _field(1, 8) + _field(7, inside.get(where, b"")) + functions


ELSEWHERE = {
    "parent": "../secret",
    "parent behind a folder": "a/../../secret",
    "absolute": "/etc/passwd",
    "symlink (CVE-2026-34447)": "link",
    "symlinked parent": "parent/secret",
    "hard link (CVE-2026-34446)": "hard",
    "process (CVE-2026-27489)": "/proc/self/environ",
    "memory": "*/_ORT_MEM_ADDR_/*",
}


@pytest.mark.parametrize("location", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_onnx_file_that_names_another_is_refused_before_its_library_sees_it(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from headrace.export.backends import onnx_runtime

    monkeypatch.setattr(onnx_runtime.onnxruntime, "InferenceSession", lambda *_a, **_k: pytest.fail("it was read"))
    folder = tmp_path / "artifact"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 64)
    os.link(secret, folder / "hard")
    write_facts(folder, ArtifactFacts(backend="onnxruntime", precision="fp32", task=TASK))
    (folder / "model.onnx").write_bytes(_model(_external(location)))
    with pytest.raises(Damaged, match="elsewhere"):
        load(folder)
    if "link" in location or "parent" in location:
        (folder / "link").symlink_to(secret)
        (folder / "parent").symlink_to(tmp_path)
        with pytest.raises(Damaged, match="a link"):
            load(folder)


def test_an_onnx_file_of_which_its_library_makes_nothing_is_damaged(good: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from headrace.export.backends.onnx_runtime import ONNXPredictor

    (tmp_path / "tokenizer.json").write_bytes((good / "tokenizer.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(_field(1, 8))  # the number of the format, and nothing else
    with pytest.raises(Damaged, match=r"the model cannot be read: .*Export the version again") as refused:
        ONNXPredictor(tmp_path, "single_label_classification")
    assert refused.value.value == str(tmp_path)


@pytest.mark.parametrize("where", ["initializer", "attribute", "branch", "sparse", "function"])
def test_it_is_found_wherever_it_is(where: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(_external("x"), where))
    with pytest.raises(Damaged, match="elsewhere"):
        onnx_file.check(path)
    path.write_bytes(_model(_field(1, 1) + _field(2, 1) + _field(9, b"1234"), where))
    onnx_file.check(path)


@pytest.mark.parametrize(
    "content",
    [
        _model(_external("x", offset=str(2**62))),
        _model(_external("x", length="-1")),
        _field(7, b"")[:-1] + b"\xff\xff\xff\xff\x0f",
        b"\x3a" * 5,
        b"",
        b"PK\x03\x04" + b"\0" * 100,
        _field(1, 8) + _field(7, _field(1, _field(4, b"EPContext"))),
    ],
    ids=["huge offset", "negative length", "longer than itself", "cut", "empty", "another format", "compiled"],
)
def test_what_is_no_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        onnx_file.check(path)


def test_branches_without_end_are_refused(tmp_path: Path) -> None:
    inside = b""
    for _ in range(200):
        inside = _field(1, _field(5, _field(6, inside)))
    (tmp_path / "m").write_bytes(_field(7, inside))
    with pytest.raises(Damaged, match="without end"):
        onnx_file.check(tmp_path / "m")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for start in (b"", b"<net>", struct.pack("<Q", len(content)), _field(7, content)):
        path.write_bytes(start + content)
        for check in (onnx_file.check, safetensors_file.check, lambda one: openvino_file.check(one, one)):
            try:
                check(path)
            except HeadraceError:
                continue


# OpenVINO

NET = '<?xml version="1.0"?><net name="m" version="11"><layers><layer id="0" type="Const">{}</layer></layers></net>'
IR = {
    "constant beyond the weights": NET.format('<data offset="60" size="5"/>'),
    "negative place": NET.format('<data offset="-1" size="5"/>'),
    "huge place": NET.format(f'<data offset="{2**64}" size="5"/>'),
    "another root": "<?xml version='1.0'?><html/>",
    "another format": "\x08\x08:\x00",
    "entity": '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]><net>&e;</net>',
    "laughs": '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b"><!ENTITY b "&a;&a;">]><net>&b;</net>',
    "deep": "<net>" * 1000 + "</net>" * 1000,
    "cut": NET.format("")[:-8],
}


@pytest.mark.parametrize("xml", IR.values(), ids=IR)
def test_ir_that_is_none_is_refused(xml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.export.backends import openvino

    monkeypatch.setattr(openvino.ov, "Core", lambda: pytest.fail("it was read"))
    write_facts(tmp_path, ArtifactFacts(backend="openvino", precision="fp32", task=TASK))
    (tmp_path / "model.bin").write_bytes(b"\0" * 64)
    (tmp_path / "model.xml").write_text(xml)
    with pytest.raises(Damaged):
        load(tmp_path)
    (tmp_path / "model.xml").write_text(NET.format('<data offset="0" size="64"/>'))
    openvino_file.check(tmp_path / "model.xml", tmp_path / "model.bin")


# safetensors


def _file(header: Any, n_bytes: int = 8, *, n_header: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if n_header is None else n_header) + text + b"\0" * n_bytes


def _tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


ONE = {"a": _tensor(0, 8)}
HEADERS = {
    "length of 2^63": _file(ONE, n_header=2**63),
    "length of 2^64 - 1": _file(ONE, n_header=2**64 - 1),
    "length beyond the file": _file(ONE, n_header=1000),
    "header of 100 MB": _file(b'{"a":[' + b"[]," * 10**6 * 3 + b"[]]}"),
    "overlap": _file({"a": _tensor(0, 8), "b": _tensor(4, 8)}),
    "same place": _file({"a": _tensor(0, 8), "b": _tensor(0, 8)}),
    "twice": _file(b'{"a":%b,"a":%b}' % ((json.dumps(_tensor(0, 8)).encode(),) * 2)),
    "out of range": _file({"a": _tensor(0, 16)}),
    "backwards": _file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
    "hole": _file({"a": _tensor(4, 8)}),
    "bytes behind": _file(ONE) + b"PK\x03\x04 and more",
    "negative size": _file({"a": _tensor(0, 8, [-1, -2])}),
    "huge size": _file({"a": _tensor(0, 8, [2**62, 4])}),
    "size that overflows": _file({"a": _tensor(0, 8, [2**63, 2])}),
    "boolean size": _file({"a": _tensor(0, 8, [True, 2])}),
    "unknown type": _file({"a": _tensor(0, 8, [2], "OBJECT")}),
    "more facts": _file({"a": {**_tensor(0, 8), "code": "x"}}),
    "metadata": _file({"__metadata__": {"a": {"b": 1}}, **ONE}),
    "deep": _file(b"[" * 100_000 + b"]" * 100_000),
    "no JSON": _file(b"\x80\x04\x95pickle..........."),
    "cut": b"\x08\0\0",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_not_of_its_file_is_refused_in_little_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="not a safetensors file"):
            safetensors_file.check(path)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_the_largest_header_that_is_read_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file(b'{"a":[' + b"[]," * 699_000 + b"[]]}"))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            safetensors_file.check(path)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def test_headers_that_the_library_writes_are_read(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    kinds = ("float32", "float16", "int8", "uint8", "int64", "bool", "float64", "uint32")
    arrays = {f"t{i}": np.zeros((i, 3), dtype=kind) for i, kind in enumerate(kinds)}
    save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    safetensors_file.check(tmp_path / "x")
    save_file({}, tmp_path / "y")
    safetensors_file.check(tmp_path / "y")


# names


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "..",
        "",
        ".",
        "./x",
        "a//b",
        "file:///etc/passwd",
        "a\0b",
        "%2e%2e/x",
        "a\\b",
    ],
)
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="out of its folder"):
        names.inside(tmp_path, name)


def test_an_artifact_with_a_link_is_refused_when_it_is_put_and_when_it_is_read(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), scratch=tmp_path / "scratch")
    secret = tmp_path / "secret"
    secret.write_text("s")
    folder = store.new_folder()
    (folder / "weights").symlink_to(secret)
    with pytest.raises(Damaged, match="a link"):
        store.put(folder)
    folder = store.new_folder()
    (folder / "weights").write_text("s")
    digest, _ = store.put(folder)
    weights = store.get(digest) / "weights"
    weights.unlink()
    weights.symlink_to(secret)  # the same bytes, for now
    with pytest.raises(Damaged, match="a link"):
        store.get(digest)


def test_tensors_that_cannot_be_written_are_told_with_the_folder_and_a_way_on(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    (tmp_path / "model.safetensors").mkdir()
    told = r"a model could not be written: .*the same command goes on"
    with pytest.raises(Unusable, match=told) as caught, safetensors_file.written(tmp_path):
        save_file({"a": np.ones(3)}, tmp_path / "model.safetensors")
    assert caught.value.value == str(tmp_path)


def test_ir_of_which_openvino_makes_no_model_is_damaged(tiny_base: Path, tmp_path: Path) -> None:
    """It is IR by its looks; only the library knows that this layer is not whole."""
    write_facts(tmp_path, ArtifactFacts(backend="openvino", precision="fp32", task=TASK))
    (tmp_path / "tokenizer.json").write_bytes((tiny_base / "tokenizer.json").read_bytes())
    (tmp_path / "model.bin").write_bytes(b"\0" * 64)
    (tmp_path / "model.xml").write_text(NET.format('<data offset="0" size="64"/>'))
    with pytest.raises(Damaged, match=r"(?s)the model cannot be read: .*Export the version again") as caught:
        load(tmp_path)
    assert caught.value.value == str(tmp_path)
