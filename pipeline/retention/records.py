"""Marks in ML Metadata what `segpipe gc` removed.

The rows stay, because ML Metadata's service cannot delete (the methods in
ml_metadata/proto/metadata_store_service.proto, 1.16 and 1.21, put and get). A removed artifact is marked DELETED: TFX
takes only LIVE ones from the cache (tfx/orchestration/portable/cache_utils.py, `_get_outputs_of_execution`) and as
inputs (input_resolution/channel_resolver.py), in both versions. A removed run is marked by a property of its context.
"""

from __future__ import annotations

from collections.abc import Collection

from ml_metadata.proto import metadata_store_pb2

from pipeline.storage.store import REMOVED, Store, batches


class Records(Store):
    """A store whose artifacts and runs can be marked as removed."""

    def set_deleted(self, ids: Collection[int], deleted: bool = True) -> None:
        """Marks artifacts as deleted, or as live again."""
        state = metadata_store_pb2.Artifact.DELETED if deleted else metadata_store_pb2.Artifact.LIVE
        for batch in batches(ids):
            artifacts = [each for each in self._store.get_artifacts_by_id(batch) if each.state != state]
            for artifact in artifacts:
                artifact.state = state
            self._store.put_artifacts(artifacts)

    def set_removed(self, context_ids: Collection[int]) -> None:
        """Marks runs as removed."""
        for batch in batches(context_ids):
            contexts = self._store.get_contexts_by_id(batch)
            for context in contexts:
                context.custom_properties[REMOVED].int_value = 1
            self._store.put_contexts(contexts)
