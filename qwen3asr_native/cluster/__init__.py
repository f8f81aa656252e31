"""Many files on many machines, with Ray. Needs the extra ``cluster``.

``transcribe`` cuts the input into shards; each is one file of the output, written whole or not at all, by an actor that holds a
model. A rerun skips the shards that are there; a worker that dies has its shard done by another. ``application`` is the
server's app as a Ray Serve deployment. The output must lie where all machines see it.
"""

from __future__ import annotations

from .batch import Summary, transcribe
from .deployment import application

__all__ = ["Summary", "application", "transcribe"]
