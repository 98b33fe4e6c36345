"""Warm-up requests are part of a version: the limits for clients do not apply to them."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from toy_models import connected, predict_request, stage, write_warmup

_PNG = tf.io.encode_png(np.zeros((10, 10, 3), np.uint8)).numpy()


@pytest.mark.parametrize(
    ("limit", "signature", "inputs"),
    [
        ({"max_images_per_request": 4}, "serving_default", {"x": np.ones((8, 2), np.float32)}),
        ({"max_image_pixels": 50}, "images", {"image": [_PNG]}),
        ({"max_message_bytes": 1000}, "serving_default", {"x": np.ones((200, 2), np.float32)}),
    ],
    ids=["images", "pixels", "bytes"],
)
def test_clients_limits_do_not_apply_to_warm_up_requests(toys, tmp_path, limit, signature, inputs):
    version = stage(toys, tmp_path, 1)
    write_warmup(version, predict_request(inputs, signature))
    version.rename(tmp_path / "1")

    with connected(model_base_path=tmp_path, **limit) as connection:
        assert connection.predict({"x": np.ones((4, 2), np.float32)}).model_spec.version.value == 1
        code, _ = connection.refusal(inputs, signature=signature)

    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
