import base64
import collections
import os
import pickle
import zlib

import numpy as np
import pytest

from components.errors import UsageError
from trainer.models import pytorch_file

# Written by PyTorch 1.12.1 and compressed:
#     w = torch.arange(6.0).reshape(2, 3)
#     torch.save(OrderedDict(kernel=w.t(), row=w[1], steps=torch.tensor(7)), PATH, _use_new_zipfile_serialization=False)
SAVED = zlib.decompress(
    base64.b64decode(
        "eNptkTtPG0EQx+9lG5ZAeCZAUqQ8NxY2xuYqKCKaJTycZpvo5JxX3IXVrWdvDgSSJTcg4DNQUPLV+AiRUjDHWaTxah/amdnf/6/ZsfPA"
        "1L/Hg7/f/jyfbDTGzo8Xl/YRWL5YtCxraDTqSKvwQpos0SnYVCDmKaMSRCVDmQ6SfgrOnWAUxKuhDLPkWmbgjsDzRYWCWawNQoU7wqVb"
        "kiJUuSe8gqHTM6hxL89JMyIZJSMklYwdm4E0cvA9iZCBVe+B7YsqvTiXJpUKnAi1ieJGmGOiMhYa+TtP1CBEmWbahBctBq7vi1qhTpX9"
        "Mwle+YQdKN3Hn2WQQUUsUE3Q7gbNoNPc3el0tztQfTMaDXPyVj1CmDnlFne5cwuz3ObuLbD7uPA0h/ChB/Nv1UZfwkJMorEXT4V+jEvY"
        "4imh3BtY4vYNLJegFYTVHqyV3UI5zOBTiZp4PqQ+vVv+/E5vbTVb7Z12ELRgneg20TfIar1eUjcRvvTga9HbX8V/TjFlT2M5slG0+v8Y"
        "79G2T5PWmNbTvj3J1CbnK/aelD4="
    )
)


def read(tmp_path, data: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return pytorch_file.read(str(path))


def test_tensors_are_read_with_their_strides_and_shared_numbers(tmp_path):
    arrays = read(tmp_path, SAVED)

    assert list(arrays) == ["kernel", "row", "steps"]
    np.testing.assert_array_equal(arrays["kernel"], np.float32([[0, 3], [1, 4], [2, 5]]))
    np.testing.assert_array_equal(arrays["row"], np.float32([3, 4, 5]))
    assert arrays["row"].dtype == np.float32
    assert arrays["steps"] == 7


@pytest.mark.parametrize("kept", [0, 100, len(SAVED) - 60, len(SAVED) - 1])
def test_a_file_cut_short_is_named(tmp_path, kept):
    with pytest.raises(UsageError, match=r"weights .*weights\.pth: cannot be read .*PyTorch before 1\.6"):
        read(tmp_path, SAVED[:kept])


def test_a_tensor_that_exceeds_its_storage_is_rejected(tmp_path):
    # The shape (3, 2) of the kernel becomes (9, 2).
    assert SAVED.count(b"K\x03K\x02\x86") == 1

    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, SAVED.replace(b"K\x03K\x02\x86", b"K\x09K\x02\x86"))


def test_a_zip_archive_of_newer_pytorch_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, b"PK\x03\x04" + bytes(100))


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("position", [0, 3, 4])
def test_code_is_rejected(tmp_path, position):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, collections.OrderedDict(), []]
    parts[position] = Command(tmp_path / "made")

    with pytest.raises(UsageError, match=r"found (posix|nt)\.mkdir, which is not part of a tensor"):
        read(tmp_path, b"".join(pickle.dumps(part, protocol=2) for part in parts))

    assert not (tmp_path / "made").exists()


def test_a_header_of_another_format_is_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"found the header \[1, 2\]"):
        read(tmp_path, b"".join(pickle.dumps(part, protocol=2) for part in (1, 2, {})))
