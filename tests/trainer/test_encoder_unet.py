import keras
import pytest

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import registry


def build(encoder: str, **options) -> keras.Model:
    return registry.build(ModelSettings(name="unet", encoder=encoder, base_filters=4, **options), (64, 96), 5)


def shape(model: keras.Model, layer: str) -> tuple[int, ...]:
    return tuple(model.get_layer(layer).output.shape[1:])


SKIPS = [
    ("vgg16", {5: 512, 4: 512, 3: 256, 2: 128, 1: 64}),
    ("resnet50", {5: 1024, 4: 512, 3: 256, 2: 64}),
    ("mobilenet_v2", {5: 576, 4: 192, 3: 144, 2: 96}),
]


def size_and_filters(level: int) -> tuple[tuple[int, int], int]:
    return (64 // 2 ** (level - 1), 96 // 2 ** (level - 1)), 4 * 2 ** (level - 1)


@pytest.mark.parametrize(("encoder", "skips"), SKIPS)
def test_each_level_gets_the_encoders_features_of_its_size(encoder, skips):
    model = build(encoder)

    names = {layer.name for layer in model.layers}
    assert {level for level in range(1, 6) if f"decoder{level}_concatenate" in names} == set(skips)
    for level, channels in skips.items():
        size, filters = size_and_filters(level)
        assert shape(model, f"decoder{level}_concatenate") == (*size, filters + channels)


def test_the_decoder_narrows_as_it_grows():
    model = build("mobilenet_v2")

    assert shape(model, "head_relu1") == (2, 3, 64)
    assert [shape(model, f"decoder{level}_conv1")[-1] for level in (5, 4, 3, 2, 1)] == [64, 32, 16, 8, 4]
    assert "decoder1_conv2" not in {layer.name for layer in model.layers}
    assert shape(model, "logits") == (64, 96, 5)


def test_normalization_is_on_every_skip_and_convolution_of_the_decoder():
    def normalized(model: keras.Model) -> set[str]:
        blocks = registry.encoder_blocks(ModelSettings(name="unet", encoder="vgg16"))
        return {
            layer.name
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.name not in sum(blocks, ())
        }

    found = normalized(build("vgg16", normalization=True))

    skips = {f"normalize_skip{level}" for level in range(1, 6)} | {"normalize_deepest"}
    convolutions = {f"decoder{level}_normalize{k}" for level in range(2, 6) for k in (1, 2)}
    assert found == skips | convolutions | {"head_normalize1", "decoder1_normalize1"}
    assert normalized(build("vgg16")) == set()


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_interpolation_replaces_the_transposed_convolutions(method):
    model = build("mobilenet_v2", upsampling=method)

    ups = [layer for layer in model.layers if layer.name.endswith("_up")]
    assert [layer.interpolation for layer in ups] == [method] * 5
    assert not any(isinstance(layer, keras.layers.Conv2DTranspose) for layer in model.layers)


def test_an_encoder_has_a_larger_stride_than_unets_own():
    registry.check_input_size(ModelSettings(name="unet"), "size", (48, 64))

    with pytest.raises(
        UsageError, match="size: found 48x64, but unet needs a height that is a multiple of 32, not 48; use 32 or 64"
    ):
        registry.check_input_size(ModelSettings(name="unet", encoder="vgg16"), "size", (48, 64))
