"""How ExampleGen's Beam job writes the files of the quarantine."""

import apache_beam as beam

from components import files


def write_single_file(uri: str, name: str) -> beam.io.WriteToText:
    """Writes one file, not a set of shards: what is written is small, and people open it."""
    return beam.io.WriteToText(files.join(uri, name), shard_name_template="", num_shards=1)
