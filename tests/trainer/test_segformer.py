import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ModelSettings
from trainer.models import mit, registry

# Of SegformerForSemanticSegmentation with 150 classes in transformers 5.24.0: the paper's 3.8 million.
PARAMETERS = 3_752_694
# Without the biases of the keys, which have no effect, in two blocks of each stage.
KEY_BIASES = 2 * (32 + 64 + 160 + 256)


@pytest.fixture(scope="module")
def segformer() -> keras.Model:
    return registry.build(ModelSettings(name="segformer"), None, 150)


def test_segformer_has_the_parameters_of_the_paper(segformer):
    assert sum(np.prod(weight.shape) for weight in segformer.trainable_weights) == PARAMETERS - KEY_BIASES


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_a_mean_of_the_values_weighted_by_the_softmax_of_the_products(heads):
    random = np.random.default_rng(0)
    queries, keys, values = (random.normal(size=(2, *size, 4)).astype(np.float32) for size in [(3, 5), (2, 1), (2, 1)])

    found = mit.Attention(heads)((queries, keys, values))

    assert found.shape == (2, 3, 5, 4)
    channels = 4 // heads
    for head in range(heads):
        part = slice(head * channels, (head + 1) * channels)
        products = queries[1, 2, 4, part] @ keys[1, :, 0, part].T / np.sqrt(channels)
        weights = np.exp(products) / np.exp(products).sum()
        np.testing.assert_allclose(found[1, 2, 4, part], weights @ values[1, :, 0, part], rtol=1e-5)


def test_an_exported_segformer_takes_every_size(segformer, tmp_path):
    module = tf.Module()
    module.model = segformer
    predict = tf.function(lambda x: segformer(x, training=False), [tf.TensorSpec([None, None, None, 3])])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": predict.get_concrete_function()})
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]

    for height, width in ((32, 64), (96, 32)):
        image = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
        (found,) = served(tf.constant(image)).values()
        np.testing.assert_allclose(found, segformer(image), atol=1e-4)
