"""Corpora by the thousand: many processes of espeak-ng's library, each writing one small corpus after the other.

Beside what ``corpus.build`` has (numbers in Mandarin and English, ordinary sentences), English cardinals, dates, times and
money, and sentences of made-up words. Every clip knows when its words are said.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import corpus, espeak, ordinary, speech, texts
from .speech import Variant, Voice
from .texts import Text

CLIPS = 250  # in a corpus
VOICES = 60  # made up for each process
VOICES_AFTER = 8  # corpora a process takes other ones
# English digits are said by many accents, and their error is the largest.
SHARES = {"numbers": 0.4, "english digits": 0.16, "english": 0.16, "ordinary": 0.16, "words": 0.12}
# Digits said one by one, slowly more often than not: collections of words have them so, and each tone is whole.
ONE_BY_ONE_SHARE, SLOW_SHARE = 0.15, 0.6
_ORDINARY = {**dict.fromkeys(ordinary.ESPEAK_VOICES, 1), "Chinese": 3, "English": 4}
_TIMED = ("Chinese", "English", "Spanish", "French", "Italian", "Portuguese", "German", "Russian")
_ONSETS = "b c ch d f g h j k l m n p qu r s sh st t th tr v w y z br cl dr fl gr pl pr sc sl sp str bl cr fr gl tw".split()
_VOWELS = "a e i o u ea ee oa oo ou ai ay y er ar or".split()
_CODAS = "b ck d f g l ll m n nd ng nt p r rd s ss st t th x ve ze se ".split(" ")
_COMMON = (
    "the a of and to in is it that was for on with as at by this we you they he she but not are from have had an or be his "
    "her their which will would there been if when who what so up out about into them can only other new some could time "
    "these then do first any my now such like our over man me even most made after also did many before must through back "
    "years where much your way well down should because each just those people how too little state good very make world "
    "still own see men work long get here between both life being under never day same another know while last might us"
).split()


def _word(rng: random.Random) -> str:
    count = rng.choice((1, 1, 2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count))


def _ideographs(rng: random.Random, count: int) -> str:
    """Common ideographs; the further from the beginning of the block, the rarer."""
    return "".join(rng.choice(_CHINESE) for _ in range(count))


_CHINESE = sorted({c for part in ordinary.PARTS["Chinese"] for phrase in part for c in phrase})


def words(rng: random.Random) -> tuple[Text, bool]:
    """Words in no order, and whether a recognizer of numbers may hear them as no numbers."""
    count = rng.randint(1, 12)
    if rng.random() < 0.5:
        said = [_word(rng) if rng.random() < 0.5 else rng.choice(_COMMON) for _ in range(count)]
        pauses = [", " if rng.random() < 0.12 else " " for _ in said]
        return Text("English", "", "".join(map("".join, zip(said, pauses))).strip(" ,")), count > 3
    said = [
        _ideographs(rng, 1) if rng.random() < 0.6 else chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(count)
    ]
    pauses = ["，" if rng.random() < 0.1 else "" for _ in said]
    return Text("Chinese", "", "".join(map("".join, zip(said, pauses))).strip("，")), False


def random_text(rng: random.Random) -> tuple[Text, bool]:
    """A text, and whether it is for the recognizer too."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "words":
        return words(rng)
    if kind == "ordinary":
        return ordinary.sentence(rng, _ORDINARY), True
    if kind == "english":
        return texts.english_text(rng), True
    return texts.english_digits(rng) if kind == "english digits" else texts.random_text(rng)[1], True


def utterance(
    engine: espeak.Espeak, text: Text, voice: Voice
) -> tuple[np.ndarray, list[tuple[str, float, float]]] | None:
    """int16 samples at 16 kHz without silence around, and the units with their times; None where nothing is heard."""
    samples, spans = engine.say(text.spoken, voice)
    samples, cut = speech.without_silence(samples, engine.rate)
    seconds = samples.size / speech.SAMPLE_RATE
    if samples.size == 0 or seconds > corpus.LONGEST_SECONDS:
        return None
    times = espeak.unit_times(text.spoken, spans) if text.language in _TIMED else None
    return samples, [
        (unit, *(round(min(max(0.0, at - cut), seconds), 3) for at in span)) for unit, *span in times or []
    ]


def _clips(
    engine: espeak.Espeak, variants: tuple[Variant, ...], rng: random.Random, held_out: bool
) -> Iterator[tuple[Text, np.ndarray, dict]]:
    for _ in range(CLIPS):
        one_by_one = rng.random() < ONE_BY_ONE_SHARE
        text, for_recognizer = (texts.digits_one_by_one(rng), True) if one_by_one else random_text(rng)
        voice = speech.random_voice(text.language, rng, held_out, () if held_out else variants)
        if one_by_one and rng.random() < SLOW_SHARE:
            voice = replace(voice, rate=rng.randint(80, 115))
        try:
            heard = utterance(engine, text, voice)
        except RuntimeError as error:  # a voice that is not installed
            print(error, file=sys.stderr)
            continue
        if heard:
            yield text, heard[0], {"times": heard[1], "recognizer": for_recognizer}


def _work(directory: Path, data: Path, job: int, jobs: int, seed: int, corpora: int, until: float) -> None:
    os.nice(5)
    made = 0
    while made * jobs + job < corpora and time.monotonic() < until:
        # The library can be set up once a process; another process takes the next voices.
        process = multiprocessing.Process(
            target=_batch, args=(directory, data, job, jobs, seed, corpora, until, made)
        )
        process.start()
        process.join()
        if process.exitcode != 0:
            print(f"rendering process {job} failed", file=sys.stderr)
            return
        made += VOICES_AFTER


def _batch(
    directory: Path, data: Path, job: int, jobs: int, seed: int, corpora: int, until: float, made: int
) -> None:
    home = directory / f"voices-{job}-{made}"
    names = speech.write_voices(
        home, data, range(VOICES), seed * 1000 + job * 100_000 + made, ready_made=True
    )
    engine = espeak.Espeak(home)
    variants = tuple(Variant(name) for name in names)
    for number in range(made, made + VOICES_AFTER):
        place = number * jobs + job
        target = directory / f"{place:05}"
        if place >= corpora or time.monotonic() >= until:
            return
        if not (target / "index.json").is_file():
            rng = random.Random(f"render/{seed}/{place}")
            corpus.write(target, _clips(engine, variants, rng, held_out=False))


def render(directory: Path, data: Path, jobs: int, seed: int, corpora: int, seconds: float) -> None:
    """Write the corpora 00000, 00001, ... below ``directory``, as many as ``corpora`` or as ``seconds`` allow."""
    directory.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    processes = [
        multiprocessing.Process(target=_work, args=(directory, data, job, jobs, seed, corpora, until))
        for job in range(jobs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.render", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--data", type=Path, help="folder espeak-ng-data; the installed one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpora", type=int, default=200, help=f"of {CLIPS} clips, 13 minutes each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args()
    data = options.data or speech.espeak_data()
    render(options.directory, data.resolve(), options.jobs, options.seed, options.corpora, options.seconds)


if __name__ == "__main__":
    main()
