"""Writes a small compiled pipeline with one parameter of each kind."""

import yaml


def write_package(path, image="example.com/segpipe:1", name="segpipe"):
    parameters = {
        "data": {"parameterType": "STRING"},
        "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 12},
        "learning_rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 4e-4},
        "augment": {"parameterType": "BOOLEAN", "defaultValue": True},
        "min_class_iou": {"parameterType": "STRUCT", "isOptional": True},
    }
    spec = {
        "pipelineInfo": {"name": name},
        "root": {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": parameters}},
        "deploymentSpec": {"executors": {"exec-trainer": {"container": {"image": image}}}},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.3",
    }
    path.write_text(yaml.safe_dump_all([spec, {"platforms": {"kubernetes": {}}}]))
    return str(path)
