"""Writes the files of the quarantine in ExampleGen's Beam job."""

import apache_beam as beam

from components import files


def write_single_file(uri: str, name: str) -> beam.io.WriteToText:
    """Writes one file instead of shards, because it is small and read by people."""
    return beam.io.WriteToText(files.join(uri, name), shard_name_template="", num_shards=1)
