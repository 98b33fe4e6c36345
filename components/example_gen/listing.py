"""The list of pairs that ExampleGen's driver makes and its Beam job reads, so that no job graph holds a pair.

Dataflow limits a job's graph to 20 MB, which 30,000 to 40,000 pairs reach. The graph holds the path of this list.
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
# More than the runs that share a work directory, start within one ExampleGen and read different data.
KEPT_LISTS = 16


def write(folder: str, pairs: list[Pair], issues: list[DataIssue]) -> str:
    """Writes pairs and issues as JSON lines to a file that is named after its content.

    Consecutive video frames are nearly the same picture. So the pairs of a split are sorted by a hash of their names,
    which mixes them in the same way on every machine, and then numbered in shards of 64.

    Args:
        folder: where the list goes, local or remote.
        pairs: what `find_pairs` found.
        issues: the same.

    Returns:
        The path of the file, the same for the same pairs and issues. Of older lists, only the newest are kept.

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
    # Also if it exists, so that it is among the newest.
    files.write_bytes(files.join(folder, name), content)
    _remove_old(folder, name)
    return files.join(folder, name)


def _remove_old(folder: str, written: str) -> None:
    """Removes all lists but the one just written and the newest, which runs that began before may still read."""
    try:
        changes = files.changes(folder)
        others = [name for name in changes if re.fullmatch(r"pairs-[0-9a-f]+\.jsonl", name) and name != written]
        for name in sorted(others, key=lambda name: changes[name])[: -(KEPT_LISTS - 1)]:
            files.remove(files.join(folder, name))
    except OSError as error:
        # An identity may be allowed to write and not to delete.
        logging.getLogger(__name__).warning("%s: old lists of pairs are left (%s)", folder, error)


def read(path: str) -> Iterator[tuple[int, Pair | DataIssue]]:
    """Yields each pair of a list with the number of its shard, and then each issue with 0.

    Raises:
        OSError: the list cannot be read.
    """
    for line in files.read_bytes(path).splitlines():
        fields = json.loads(line)
        if "issue" in fields:
            yield 0, DataIssue(**fields["issue"])
        else:
            yield fields["shard"], Pair(**fields["pair"])
