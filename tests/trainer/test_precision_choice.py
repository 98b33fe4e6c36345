import keras
import pytest

from trainer import precision


@pytest.mark.parametrize(
    ("requested", "flags", "gpus", "expected"),
    [
        ("auto", {"avx512f", "avx512_bf16"}, [], "mixed_bfloat16"),
        ("auto", {"amx_bf16"}, [], "mixed_bfloat16"),
        ("auto", {"avx2", "avx512f"}, [], "float32"),
        ("auto", set(), [], "float32"),
        ("auto", set(), [(8, 0)], "mixed_bfloat16"),
        ("auto", {"amx_bf16"}, [(7, 5)], "mixed_float16"),
        ("auto", set(), [(9, 0), (7, 0)], "mixed_float16"),
        ("auto", {"amx_bf16"}, [(6, 1)], "float32"),
        ("float32", {"amx_bf16"}, [(9, 0)], "float32"),
        ("mixed_float16", set(), [], "mixed_float16"),
    ],
)
def test_auto_chooses_the_precision_of_the_hardware(requested, flags, gpus, expected):
    assert precision.choose(requested, flags, gpus) == expected


@pytest.mark.parametrize(
    ("setting", "devices", "pixels", "gpus", "expected"),
    [
        ("auto", 1, precision.XLA_PIXELS, ["GPU"], True),
        ("auto", 1, precision.XLA_PIXELS - 1, ["GPU"], False),
        ("auto", 2, precision.XLA_PIXELS, ["GPU"] * 2, False),
        ("auto", 1, precision.XLA_PIXELS, [], False),
        ("on", 2, 1, [], True),
        ("off", 1, precision.XLA_PIXELS, ["GPU"], False),
    ],
)
def test_auto_uses_xla_for_long_trainings_on_one_gpu(monkeypatch, setting, devices, pixels, gpus, expected):
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda _: gpus)

    assert precision.use_xla(setting, devices, pixels) == expected


def test_detection_names_a_policy_that_keras_knows():
    assert keras.dtype_policies.DTypePolicy(precision.detect("auto")).variable_dtype == "float32"


def test_the_global_policy_is_restored_after_an_error():
    before = keras.config.dtype_policy().name
    inside = []

    def fail() -> None:
        with precision.policy("mixed_float16"):
            inside.append(keras.config.dtype_policy().name)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert inside == ["mixed_float16"]
    assert keras.config.dtype_policy().name == before
