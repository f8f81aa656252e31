"""What script conversion costs while a text is made: ``python benchmarks/script_cost.py [--rounds 5]``.

Feeds Simplified text to the converter in tokens of two characters and prints the CPU time per token: on text that
is all new (every round starts with empty memories), on the same text again, and, as a measure of the machine, for
converting the same lines whole; each the best of several rounds. The texts are the spoken cases of the number tests
(without punctuation, as speech is) and words drawn at random from OpenCC's phrases (denser than any real text).
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from qwen3asr_native.text import script
from qwen3asr_native.text.itn.cases import read_cases

CASES = Path(__file__).resolve().parent.parent / "tests" / "data" / "itn"
CHARACTERS_PER_TOKEN = 2
RANDOM_PHRASES = 10_000


def spoken_lines() -> list[str]:
    simplified = script.ScriptConverter("t2s")
    cases = [
        case for path in sorted(CASES.glob("*.tsv")) for section in read_cases(path) for case in section.cases
    ]
    return list(dict.fromkeys(simplified.convert(case.spoken) for case in cases))


def phrase_lines() -> list[str]:
    dictionary = resources.files("opencc") / "dictionary" / "STPhrases.txt"
    phrases = [line.split("\t")[0] for line in dictionary.read_text(encoding="utf-8").splitlines()]
    drawn = random.Random(1).sample(phrases, RANDOM_PHRASES)
    return ["".join(drawn[start : start + 10]) for start in range(0, len(drawn), 10)]


def fresh_converter() -> script.ScriptConverter:
    """A converter that remembers no text."""
    script._load.cache_clear()
    return script.ScriptConverter(script.TAIWAN)


def cpu_seconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(name: str, lines: list[str], rounds: int) -> None:
    tokens = [
        [line[start : start + CHARACTERS_PER_TOKEN] for start in range(0, len(line), CHARACTERS_PER_TOKEN)]
        for line in lines
    ]
    count = sum(map(len, tokens))

    def stream(converter: script.ScriptConverter) -> None:
        for line in tokens:
            for token in line:
                converter.feed(token)
            converter.flush()

    new, again, whole = [], [], []
    for _ in range(rounds):
        converter = fresh_converter()
        new.append(cpu_seconds(lambda converter=converter: stream(converter)))
        again.append(cpu_seconds(lambda converter=converter: stream(converter)))
        converter = fresh_converter()
        whole.append(
            cpu_seconds(lambda converter=converter: [converter.convert(line + "\n") for line in lines])
        )
    per_token = [min(times) / count * 1e6 for times in (new, again, whole)]
    print(
        f"{name}: {count} tokens; us per token: {per_token[0]:.1f} all new, {per_token[1]:.1f} again, "
        f"{per_token[2]:.1f} whole lines; all new / whole lines: {per_token[0] / per_token[2]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    measure("spoken", spoken_lines(), rounds)
    measure("random phrases", phrase_lines(), rounds)


if __name__ == "__main__":
    main()
