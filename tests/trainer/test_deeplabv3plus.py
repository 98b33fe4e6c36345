import keras
import pytest

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import registry

# ResNet50 without its classifier, as in Keras Applications.
RESNET50 = 23_587_712


@pytest.fixture(scope="module")
def deeplab() -> keras.Model:
    return registry.build(ModelSettings(name="deeplabv3plus"), (352, 480), 12)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv2_block3_out", (88, 120, 256)),
        ("conv4_block6_out", (22, 30, 1024)),
        ("conv5_block3_out", (22, 30, 2048)),
        ("average", (1, 1, 2048)),
        ("average_resized", (22, 30, 256)),
        ("levels", (22, 30, 1280)),
        ("pyramid_relu", (22, 30, 256)),
        ("pyramid_up", (88, 120, 256)),
        ("fine_relu", (88, 120, 48)),
        ("decoder", (88, 120, 304)),
        ("decoder2_relu", (88, 120, 256)),
        ("scores", (88, 120, 12)),
        ("logits", (352, 480, 12)),
    ],
)
def test_deeplab_has_the_shapes_of_the_paper(deeplab, layer, expected):
    assert tuple(deeplab.get_layer(layer).output.shape[1:]) == expected


def test_deeplab_has_the_parameters_of_the_paper(deeplab):
    normalization = 4 * 256
    pyramid = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256 + 6 * normalization
    decoder = 256 * 48 + 4 * 48 + 9 * 304 * 256 + 9 * 256 * 256 + 2 * normalization

    assert deeplab.count_params() == RESNET50 + pyramid + decoder + 256 * 12 + 12


def test_only_the_last_stage_is_dilated_and_the_pyramid_by_the_papers_rates(deeplab):
    def rate(layer: str) -> int:
        return deeplab.get_layer(layer).dilation_rate[0]

    assert {stage: rate(f"conv{stage}_block2_2_conv") for stage in (2, 3, 4, 5)} == {2: 1, 3: 1, 4: 1, 5: 2}
    assert [rate(f"rate{number}_conv") for number in (1, 6, 12, 18)] == [1, 6, 12, 18]


def test_an_encoder_that_cannot_be_dilated_is_rejected():
    with pytest.raises(UsageError, match=r"model\.encoder: found mit_b0, which deeplabv3plus does not support"):
        registry.build(ModelSettings(name="deeplabv3plus", encoder="mit_b0"), None, 3)
