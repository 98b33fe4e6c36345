"""The list of pairs that ExampleGen's driver writes and its Beam job reads.

Dataflow limits a job's graph to 20 MB, which 30,000 to 40,000 pairs reach. So the graph holds the path of this list.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator

from components import files
from components.dataset.pairs import DataIssue, Pair

_PAIRS_A_SHARD = 64
# More than the runs on different data that share a work directory and execute ExampleGen at the same time.
KEPT_LISTS = 16


def write(folder: str, pairs: list[Pair], issues: list[DataIssue]) -> str:
    """Writes the pairs and issues of `find_pairs` as JSON lines; removes all but the newest lists.

    Consecutive video frames are nearly the same picture. So the pairs of a split are shuffled: sorted by a hash of
    their names, the same on every machine, and then numbered in shards of 64.

    Args:
        folder: the folder of the list, local or remote.
        pairs: pairs of all splits.
        issues: issues of the data set.

    Returns:
        The path of the file, named after its content.

    Raises:
        OSError: the folder cannot be written.
    """
    counts: dict[str, int] = defaultdict(int)
    lines = []
    for pair in sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest()):
        lines.append({"shard": counts[pair.split] // _PAIRS_A_SHARD, "pair": dataclasses.asdict(pair)})
        counts[pair.split] += 1
    lines += [{"issue": issue.to_dict()} for issue in issues]
    content = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
    name = f"pairs-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    # Written even if it exists, so that it is among the newest.
    files.write_bytes(files.join(folder, name), content)
    _remove_old(folder, name)
    return files.join(folder, name)


def _remove_old(folder: str, written: str) -> None:
    """Removes all lists except the one just written and the newest, which earlier runs may still read."""
    try:
        lists = [info for info in files.scan(folder) if re.fullmatch(r"pairs-[0-9a-f]+\.jsonl", info.path)]
        others = [info for info in lists if info.path != written]
        for info in sorted(others, key=lambda info: info.modified)[: -(KEPT_LISTS - 1)]:
            files.remove(files.join(folder, info.path))
    except OSError as error:
        # An identity may be allowed to write and not to delete.
        logging.getLogger(__name__).warning("%s: old lists of pairs were not removed (%s)", folder, error)


def read(path: str) -> Iterator[tuple[int, Pair | DataIssue]]:
    """Yields each pair of a list with the number of its shard, then each issue with 0. Raises OSError."""
    for line in files.read_bytes(path).splitlines():
        fields = json.loads(line)
        if "issue" in fields:
            yield 0, DataIssue(**fields["issue"])
        else:
            yield fields["shard"], Pair(**fields["pair"])
