"""The schema of the raw examples, which ExampleValidator checks, made from class map and feature names."""

from __future__ import annotations

import hashlib

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components import features, files
from components.class_map import ClassMap


def raw_schema(
    class_map: ClassMap, max_side: int, has_instances: bool = False, has_depth: bool = False
) -> schema_pb2.Schema:
    """Returns the schema of raw examples; `max_side` is the largest height or width allowed, in pixels."""
    schema = statistics_schema(class_map, max_side, has_instances)
    tensors = schema.tensor_representation_group[""].tensor_representation
    # No `presence`, so that ExampleValidator accepts statistics without these features. The tensors' shapes are
    # explicit, because tfx_bsl infers a dense tensor only for a feature with `presence`.
    dense = [features.IMAGE, features.MASK, *([features.DEPTH] if has_depth else [])]
    for name in dense:
        schema.feature.add(name=name, type=schema_pb2.BYTES)
    if has_instances:
        schema.feature.add(name=features.INSTANCE_RUNS, type=schema_pb2.INT)
        for name in features.INSTANCE_FEATURES:
            tensors[name].ragged_tensor.feature_path.step.append(name)
            tensors[name].ragged_tensor.row_partition_dtype = schema_pb2.TensorRepresentation.INT64
        # Runs need their image's size, and tfx_bsl infers no tensor if any representation is given.
        dense += [features.HEIGHT, features.WIDTH]
    for name in dense:
        tensors[name].dense_tensor.column_name = name
        tensors[name].dense_tensor.shape.SetInParent()
    return schema


def statistics_schema(class_map: ClassMap, max_side: int, has_instances: bool = False) -> schema_pb2.Schema:
    """Returns the schema of the features with statistics: all but encoded images and the runs of instances.

    Each class has a feature with its fraction of the pixels.
    """
    schema = schema_pb2.Schema()
    for name in (features.NAME, features.SEQUENCE, features.SPLIT, features.CONTENT_HASH):
        _add(schema, name, schema_pb2.BYTES)
    for name in (features.HEIGHT, features.WIDTH):
        domain = _add(schema, name, schema_pb2.INT).int_domain
        domain.min, domain.max = 1, max_side
    for class_name in class_map.names:
        domain = _add(schema, features.class_share(class_name), schema_pb2.FLOAT).float_domain
        domain.min, domain.max = 0.0, 1.0
    if has_instances:
        # The largest number of runs is that of a mask whose pixels all differ from their neighbours.
        largest = (class_map.num_classes - 1, 1, max_side**2 + 1)
        for name, highest in zip(features.INSTANCE_FEATURES, largest, strict=False):
            domain = schema.feature.add(name=name, type=schema_pb2.INT).int_domain
            domain.min, domain.max = 0, highest
    return schema


def write_raw_schema(
    class_map: ClassMap, max_side: int, directory: str, has_instances: bool = False, has_depth: bool = False
) -> str:
    """Writes the schema to a file named after its content, because ImportSchemaGen's cache key is only the path.

    Returns the path.
    """
    text = text_format.MessageToString(raw_schema(class_map, max_side, has_instances, has_depth))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = files.join(directory, f"raw-{digest}.pbtxt")
    if not files.exists(path):
        files.write_bytes(path, text.encode())
    return path


def _add(schema: schema_pb2.Schema, name: str, kind: int) -> schema_pb2.Feature:
    """Adds a feature that every example has exactly once."""
    feature = schema.feature.add(name=name, type=kind)
    feature.presence.min_fraction = 1.0
    feature.presence.min_count = 1
    feature.shape.SetInParent()
    return feature
