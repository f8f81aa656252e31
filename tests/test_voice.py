"""Utterances in a room, by energy, as live speech has them."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native.audio import load
from qwen3asr_native.voice import utterance_activity

RATE = 16000


def spans(pcm: np.ndarray, block: int = 1600) -> list[tuple[int, int]]:
    """Speech in the samples, as pairs of positions; speech that goes on ends at the end."""
    activity, found = utterance_activity(), []
    for begin in range(0, len(pcm), block):
        for edge in activity.feed(pcm[begin : begin + block]):
            if edge.kind == "start":
                found.append([edge.position, len(pcm)])
            else:
                found[-1][1] = edge.position
    return [(begin, end) for begin, end in found]


def room(seconds: float, amplitude: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (amplitude * noise).astype(np.float32)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load(ROOT / "samples" / "phone-number-zh-TW.wav")


@pytest.mark.parametrize("noise", [0.0, 0.0005, 0.003])
def test_each_of_several_utterances_is_found_where_it_is(speech: np.ndarray, noise: float) -> None:
    gap = np.zeros(2 * RATE, np.float32)
    audio = np.concatenate([gap, speech, gap, speech, gap])
    audio += room(len(audio) / RATE, noise)
    loud = np.flatnonzero(np.abs(speech) > 0.05)
    found = spans(audio)
    assert len(found) == 2
    for (begin, end), place in zip(found, (len(gap), 2 * len(gap) + len(speech))):
        assert place + loud[0] - RATE // 2 <= begin <= place + loud[0]
        assert place + loud[-1] <= end <= place + loud[-1] + RATE // 2


@pytest.mark.parametrize("amplitude", [0.0, 1e-4, 1e-3, 3e-3])
def test_a_room_without_speech_is_silent(amplitude: float) -> None:
    assert spans(room(30, amplitude)) == []


def test_a_noise_that_stays_is_the_room(speech: np.ndarray) -> None:
    audio = room(60, 0.02)
    audio[50 * RATE : 50 * RATE + len(speech)] += speech
    late = [span for span in spans(audio) if span[1] > 45 * RATE]
    assert len(late) == 1
    assert abs(late[0][0] - 50 * RATE) < RATE


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=20))
def test_the_size_of_the_blocks_changes_nothing(blocks: list[int]) -> None:
    pcm = load(ROOT / "samples" / "phone-number-zh-TW.wav")
    whole = utterance_activity()
    expected = whole.feed(pcm)
    activity, found, place, turn = utterance_activity(), [], 0, 0
    while place < len(pcm):
        size = blocks[turn % len(blocks)]
        found += activity.feed(pcm[place : place + size])
        place, turn = place + size, turn + 1
    assert found == expected
    assert (activity.settled, activity.breath) == (whole.settled, whole.breath)


def test_events_alternate_and_never_go_back(speech: np.ndarray) -> None:
    random = np.random.default_rng(3)
    audio = np.concatenate([speech * random.uniform(0.05, 1) for _ in range(6)])
    positions = [position for span in spans(audio) for position in span]
    assert positions == sorted(positions)


def test_a_breath_is_told_while_the_speech_goes_on(speech: np.ndarray) -> None:
    word = speech[np.flatnonzero(np.abs(speech) > 0.05)[0] :][: RATE // 2]
    activity = utterance_activity()
    activity.feed(np.concatenate([np.zeros(RATE, np.float32), word, np.zeros(RATE // 5, np.float32), word]))
    assert activity.speaking
    assert activity.breath is not None
    begin, end = activity.breath
    assert abs(begin - 1.5 * RATE) < 0.07 * RATE
    assert abs(end - 1.7 * RATE) < 0.07 * RATE
