"""Only the first token of the last layer is computed. Catches: other logits than before, an operation trimmed that
somebody else reads, a sum over tokens taken for one over features, a rule that no longer fires."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from headrace.export.backends.openvino_trimming import keep_first_token

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(4, 4)).astype(np.float32)


def _layer(x: object, *, axis: int = -1) -> object:
    """A linear layer, an activation, a residual and a normalisation."""
    linear = ops.matmul(x, ops.constant(WEIGHTS), False, False)
    added = ops.add(x, ops.relu(ops.add(linear, ops.constant(np.ones((1, 1, 4), np.float32)))))
    return ops.mvn(added, ops.constant(np.array([axis])), True, 1e-5, "INSIDE_SQRT")


def _first(x: object) -> object:
    return ops.gather(x, ops.constant(np.array(0)), ops.constant(np.array(1)))


def _model(outputs: object) -> tuple[ov.Model, ov.Model]:
    """The same model twice: as it is, and for trimming."""
    made = []
    for _ in range(2):
        x = ops.parameter([-1, -1, 4], np.float32, name="x")
        made.append(ov.Model(outputs(x), [x], "m"))  # type: ignore[operator]
    return made[0], made[1]


def _answers(model: ov.Model) -> list[np.ndarray]:
    x = np.random.default_rng(1).normal(size=(3, 7, 4)).astype(np.float32)
    return list(ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x).values())


def test_layers_that_only_the_head_reads_run_for_one_token() -> None:
    plain, trimmed = _model(lambda x: [_first(_layer(_layer(x)))])
    assert keep_first_token(trimmed) == 10
    assert [o.get_type_name() for o in trimmed.get_ordered_ops()].count("Slice") == 1
    assert np.allclose(_answers(plain)[0], _answers(trimmed)[0], atol=1e-6)


def test_what_others_read_stays_whole() -> None:
    def outputs(x: object) -> list[object]:
        below = _layer(x)
        return [_first(_layer(below)), ops.reduce_mean(below, ops.constant(np.array([1])), False)]

    plain, trimmed = _model(outputs)
    assert keep_first_token(trimmed) == 5
    for before, after in zip(_answers(plain), _answers(trimmed), strict=True):
        assert np.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_over_tokens_are_left_alone(axis: int) -> None:
    plain, trimmed = _model(lambda x: [_first(_layer(x, axis=axis))])
    assert keep_first_token(trimmed) == 0
    assert np.allclose(_answers(plain)[0], _answers(trimmed)[0], atol=1e-6)


def test_a_head_that_reads_another_token_is_left_alone() -> None:
    last = ops.constant(np.array(-1))
    _, model = _model(lambda x: [ops.gather(_layer(x), last, ops.constant(np.array(1)))])
    assert keep_first_token(model) == 0
