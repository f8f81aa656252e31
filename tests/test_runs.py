"""Runs of the engine against a model of their contract: any order of submit, read, cancel, release, close and reinit."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, precondition, rule

from qwen3asr_native import kernel_sets
from qwen3asr_native.engine import Engine, Event, Options, Run, RunResult
from qwen3asr_native.errors import ModelClosedError
from qwen3asr_native.files import hub

LENGTHS = (1600, 9000, 16000, 40000)
LIMITS = (1, 3, 8)


def audio(length: int) -> np.ndarray:
    return (0.1 * np.sin(np.arange(length) * 0.2)).astype(np.float32)


def read_to_end(run: Run) -> tuple[list[int | None], str | None]:
    ids = []
    while True:
        event = run.next()
        if isinstance(event, Event):
            ids.append(event.id)
        elif isinstance(event, RunResult):
            return ids, event.finish


@dataclass
class Expected:
    """What is known of a run."""

    run: Run
    ids: list[int | None]
    cancelled: bool = False
    read: list[int | None] = field(default_factory=list)


class Contract(RuleBasedStateMachine):
    runs = Bundle("runs")
    alone: dict[tuple[int, int], list[int | None]] = {}  # noqa: RUF012 - the same for all machines

    @initialize(batch=st.integers(1, 4))
    def load(self, batch: int) -> None:
        self.engine = Engine(hub.built_in_model(), batch=batch)
        self.open: list[Expected] = []

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()
            for expected in self.open:  # every run ends, also when the object is gone
                expected.cancelled = True
                self.check_end(expected)

    def expected_ids(self, length: int, limit: int) -> list[int | None]:
        key = (length, limit)
        if key not in self.alone:
            other = Engine(hub.built_in_model(), batch=1)
            run = other.backend.submit(audio(length), Options(max_new_tokens=limit, ignore_stop=True))
            self.alone[key] = read_to_end(run)[0]
            other.close()
        return self.alone[key]

    @rule(target=runs, length=st.sampled_from(LENGTHS), limit=st.sampled_from(LIMITS))
    def submit(self, length: int, limit: int) -> Expected:
        ids = self.expected_ids(length, limit)
        if self.engine.closed:
            with pytest.raises(ModelClosedError):
                self.engine.backend.submit(audio(length), Options())
            self.engine.reinit()
        run = self.engine.backend.submit(audio(length), Options(max_new_tokens=limit, ignore_stop=True))
        expected = Expected(run, ids)
        self.open.append(expected)
        return expected

    @rule(expected=runs)
    def cancel(self, expected: Expected) -> None:
        expected.run.cancel()
        expected.cancelled = True

    @rule(expected=runs)
    def read_one(self, expected: Expected) -> None:
        event = expected.run.next()
        if isinstance(event, Event):
            expected.read.append(event.id)
            assert expected.read == expected.ids[: len(expected.read)]
        elif isinstance(event, RunResult):
            self.check_end(expected)

    @rule(expected=runs)
    def check_end(self, expected: Expected) -> None:
        ids, finish = read_to_end(expected.run)
        expected.read += ids
        assert finish in (("abort", "length") if expected.cancelled else ("length",))
        if finish == "length":
            assert expected.read == expected.ids
        else:
            assert expected.read == expected.ids[: len(expected.read)]
        assert read_to_end(expected.run) == ([], finish)  # the end comes again

    @rule(expected=consumes(runs))
    def release(self, expected: Expected) -> None:
        self.open.remove(expected)
        del expected.run

    @precondition(lambda self: not self.engine.closed)
    @rule()
    def close(self) -> None:
        self.engine.close()
        for expected in self.open:
            expected.cancelled = True

    @rule()
    def reinit(self) -> None:
        self.engine.reinit()
        for expected in self.open:
            expected.cancelled = True


TestContract = Contract.TestCase
TestContract.settings = settings(
    max_examples=int(os.environ.get("QWEN3ASR_EXAMPLES", "25")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("kernels", kernel_sets())
def test_an_utterance_has_the_same_bits_alone_and_among_seven_others(kernels: str) -> None:
    """Alone in an engine of its own: a prompt whose beginning an earlier one has computed has fewer tokens to go
    through, and few of them are not multiplied in the form that many are (with a matrix unit)."""
    clips = [audio(4000 + 3700 * index) * (1 + index) / 8 for index in range(8)]
    options = Options(max_new_tokens=24, ignore_stop=True)

    def tokens(run: Run) -> list[tuple[int | None, float | None]]:
        found = []
        while not isinstance(event := run.next(), RunResult):
            if isinstance(event, Event):
                found.append((event.id, event.logprob))
        return found

    def heard(chosen: list[np.ndarray]) -> list[list[tuple[int | None, float | None]]]:
        engine = Engine(hub.built_in_model(), kernels=kernels, batch=8)
        found = [tokens(run) for run in [engine.backend.submit(clip, options) for clip in chosen]]
        engine.close()
        return found

    alone = [heard([clip])[0] for clip in clips]
    assert heard(clips) == alone
    assert all(len(found) == 24 for found in alone)
