"""The child process of the leak laboratory: repeats inference one way and writes a JSON line for all that happens.

Not imported by the package; ``qwen3asr_native.leaks`` starts it, because a library that is examined may end its process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from .. import audio as audio_input
from .. import stream as _stream  # noqa: F401 - imported before the first sample, as everything that a run needs
from ..errors import Qwen3AsrError
from ..model import Model
from .measure import MemoryMeter


class Reporter:
    """Lines for the parent, on a descriptor of their own: the library may write to standard output."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._meter = MemoryMeter()

    def say(self, event: str, **fields: Any) -> None:
        os.write(self._descriptor, (json.dumps({"event": event, **fields}) + "\n").encode())

    def phase(self, name: str) -> None:
        self.say("phase", phase=name)

    def sample(self, event: str) -> None:
        gc.collect()
        self.say(event, memory=asdict(self._meter.sample()))


class Laboratory:
    """Repeats inference as the job says."""

    def __init__(self, job: dict[str, Any], reporter: Reporter) -> None:
        self._job, self._reporter = job, reporter
        self._audio = audio_input.load(job["audio"])

    def recreate(self) -> None:
        """Load, run, destroy; sampled after each."""
        for _ in range(self._job["repetitions"]):
            model = self._load()
            self._run(model)
            self._destroy(model)
            self._reporter.sample("sample")

    def reuse(self) -> None:
        """Load once; restart and run; sampled after each run. Destroy at the end."""
        model = self._load()
        for _ in range(self._job["repetitions"]):
            self._run(model)
            self._reporter.sample("sample")
        self._destroy(model)

    def _load(self) -> Model:
        self._reporter.phase("load")
        return Model(self._job["model"], threads=self._job["threads"], library=self._job["library"])

    def _run(self, model: Model) -> None:
        self._reporter.phase("run")
        model.transcribe(self._audio, sample_rate=16000, max_new_tokens=self._job["max_new_tokens"])

    def _destroy(self, model: Model) -> None:
        self._reporter.phase("destroy")
        model.close()


def main() -> None:
    job = json.loads(sys.argv[1])
    reporter = Reporter()
    try:
        laboratory = Laboratory(job, reporter)
        reporter.sample("before")  # the first sample also settles what sampling itself allocates
        reporter.sample("before")
        getattr(laboratory, job["way"])()
        reporter.sample("after")
        reporter.phase("exit")
    except Qwen3AsrError as error:
        reporter.say("error", message=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
