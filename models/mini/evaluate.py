"""Error rates of a checkpoint directory or of a GGMM file: on synthetic texts and voices that training never used, or on
recordings that a TSV file lists (path, text, language; language None: nothing that the model should write)."""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

import numpy as np

from .texts import Text

if TYPE_CHECKING:
    from transformers import Qwen2TokenizerFast

    from .network import MiniASR

Item = tuple[str, Optional[Text], np.ndarray]
Answer = tuple[str, str]  # language ("" when nobody speaks) and text
Transcribe = Callable[[np.ndarray], Answer]


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein distance: in characters of texts, in words of lists of words."""
    row = np.arange(len(hypothesis) + 1)
    for i, wanted in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, got in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != got))
    return int(row[-1])


def error_rates(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, float]:
    """Character error rates in percent: ``all`` and by kind; ``language`` and ``exact`` are shares of clips."""
    errors: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    right_language = exact = 0
    for (kind, text, _), (language, hypothesis) in zip(items, answers):
        reference = text.written if text else ""
        distance = edit_distance(reference, hypothesis)
        for key in ("all", kind):
            errors[key][0] += distance
            errors[key][1] += len(reference)
        right_language += language == (text.language if text else "")
        exact += distance == 0
    rates = {key: round(100 * wrong / max(count, 1), 2) for key, (wrong, count) in sorted(errors.items())}
    shares = {"language": right_language, "exact": exact}
    return {**rates, **{key: round(100 * count / len(items), 2) for key, count in shares.items()}}


def parse(output: str) -> Answer:
    """``language X<asr_text>text`` -> (X, text); language None -> ("", text)."""
    head, _, text = output.partition("<asr_text>")
    language = head.removeprefix("language ").strip()
    return ("" if language == "None" else language), text


def transcribe_network(network: MiniASR, tokenizer: Qwen2TokenizerFast, samples: np.ndarray) -> Answer:
    """Greedy answer of the PyTorch network (no cache: the clips are short)."""
    import torch

    with torch.no_grad():
        return _transcribe_network(network, tokenizer, samples)


def _transcribe_network(network: MiniASR, tokenizer: Qwen2TokenizerFast, samples: np.ndarray) -> Answer:
    import torch

    from .features import log_mel
    from .prompts import prompt

    audio, _ = network.audio_tower([torch.from_numpy(log_mel(samples))])

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    ids = prompt(encode, "", audio.shape[1], None)
    start = len(ids)
    stop = encode("<|im_end|>")[0]
    while len(ids) < start + 60:
        hidden = network.model(network.embed(torch.tensor([ids]), audio[0]))
        token = int(network.logits(hidden[0, -1]).argmax())
        if token == stop:
            break
        ids.append(token)
    return parse(tokenizer.decode(ids[start:]))


def checkpoint_transcriber(directory: Path) -> Transcribe:
    """Transcribe with the PyTorch network in a checkpoint directory."""
    from . import checkpoint

    network, tokenizer = checkpoint.load(directory), checkpoint.load_tokenizer(directory)
    return lambda samples: transcribe_network(network, tokenizer, samples)


def ggmm_transcriber(path: Path, threads: int) -> Transcribe:
    """Transcribe with the installed package and a GGMM file."""
    from qwen3asr_native import Model

    model = Model(path, threads=threads)

    def transcribe(samples: np.ndarray) -> Answer:
        transcript = model.transcribe(samples, sample_rate=16_000)
        return transcript.language, transcript.text

    return transcribe


def report(transcribe: Transcribe, clips: int = 300, seed: int = 2026, list_errors: bool = False) -> None:
    """Print the error rates without noise and with noise at 20 dB."""
    from . import corpus

    for title, snr_db in (("clean", None), ("noise at 20 dB", 20.0)):
        items = list(corpus.test_set(clips, seed, snr_db))
        answers = [transcribe(samples) for _, _, samples in items]
        print(f"{title}: {error_rates(items, answers)}", flush=True)
        if not list_errors:
            continue
        for (kind, text, _), (language, hypothesis) in zip(items, answers):
            if (text.written if text else "") != hypothesis:
                print(f"  {kind}: {text.written if text else ''} -> [{language}] {hypothesis}")


class Recording(NamedTuple):
    """One line of a TSV file."""

    path: Path
    collection: str  # name of the TSV file
    speaker: str  # folders between the TSV file's folder and the recording, without the collection's own
    text: str
    language: str  # "" where nothing is to be written


def read_recordings(tsv: Path) -> list[Recording]:
    """The lines of a TSV file: path (relative to the file), text, language; more columns are not used.

    A first line that begins with "path" is a heading. Raises ValueError on a line with too few columns and
    FileNotFoundError for a recording that is not there.
    """
    recordings = []
    with tsv.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not row or (number == 1 and row[0] == "path"):
                continue
            if len(row) < 3:
                raise ValueError(f"{tsv}, line {number}: needs path, text and language, separated by tabs")
            path, text, language = tsv.parent / row[0], row[1], "" if row[2] == "None" else row[2]
            if not path.is_file():
                raise FileNotFoundError(f"{tsv}, line {number}: there is no file {path}")
            folders = [folder for folder in Path(row[0]).parts[:-1] if folder != tsv.stem]
            recordings.append(Recording(path, tsv.stem, "/".join(folders), text, language))
    return recordings


def read_samples(path: Path) -> np.ndarray:
    """float32 samples [n] at 16 kHz of an audio file, channels averaged."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, 16_000), np.float32)


def units(text: str, language: str) -> list[str]:
    """What is counted: words where words are separated by spaces, else characters."""
    return text.split() if language not in ("Chinese", "Japanese") else list(text.replace(" ", ""))


class Score:
    """Errors of a group of recordings."""

    def __init__(self) -> None:
        self.clips = self.right = self.answered = self.silent = 0
        self.wrong = {"isolated": 0, "joined": 0}
        self.units = {"isolated": 0, "joined": 0}

    def add(self, recording: Recording, text: str) -> None:
        self.clips += 1
        if not recording.language:
            self.silent += 1
            self.answered += bool(text)
            self.right += not text
            return
        wanted = units(recording.text, recording.language)
        wrong = edit_distance(wanted, units(text, recording.language))
        kind = "isolated" if len(wanted) == 1 else "joined"
        self.wrong[kind] += wrong
        self.units[kind] += len(wanted)
        self.right += not wrong

    def row(self) -> list[str]:
        def percent(part: int, whole: int) -> str:
            return f"{100 * part / whole:.1f} %" if whole else ""

        return [
            str(self.clips),
            percent(sum(self.wrong.values()), sum(self.units.values())),
            percent(self.wrong["isolated"], self.units["isolated"]),
            percent(self.wrong["joined"], self.units["joined"]),
            percent(self.answered, self.silent),
            percent(self.right, self.clips),
        ]


HEADINGS = (
    "collection",
    "speaker",
    "clips",
    "wrong",
    "isolated",
    "joined",
    "text where none belongs",
    "clips right",
)


def report_recordings(transcribe: Transcribe, tsvs: Sequence[Path], list_errors: bool = False) -> None:
    """Print a table by collection and speaker: words (Mandarin: characters) wrong, clips with text that has no place."""
    scores: dict[tuple[str, str], Score] = defaultdict(Score)
    errors = []
    for recordings in [
        read_recordings(tsv) for tsv in tsvs
    ]:  # a fault in the last list is told before all are heard
        for recording in recordings:
            language, text = transcribe(read_samples(recording.path))
            for speaker in dict.fromkeys((recording.speaker, "all")):
                if speaker:
                    scores[recording.collection, speaker].add(recording, text)
            if units(text, recording.language) != units(recording.text, recording.language):
                errors.append(f"{recording.path}: {recording.text} -> [{language}] {text}")
    print("| " + " | ".join(HEADINGS) + " |")
    print("| --- " * len(HEADINGS) + "|")
    collections = list(dict.fromkeys(collection for collection, _ in scores))
    for collection, speaker in sorted(scores, key=lambda at: (collections.index(at[0]), at[1] == "all")):
        score = scores[collection, speaker]
        print("| " + " | ".join((collection, speaker, *score.row())) + " |", flush=True)
    if list_errors:
        print(*errors, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="checkpoint directory, or GGMM file (needs qwen3asr_native)")
    parser.add_argument(
        "tsv", type=Path, nargs="*", help="recordings: path, text and language; without: synthetic speech"
    )
    parser.add_argument("--clips", type=int, default=300, help="size of the synthetic test set")
    parser.add_argument("--seed", type=int, default=2026, help="of the synthetic test set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--errors", action="store_true", help="list the clips that are not right")
    options = parser.parse_args()
    if options.model.is_dir():
        import torch

        torch.set_num_threads(options.threads)
        transcribe = checkpoint_transcriber(options.model)
    else:
        transcribe = ggmm_transcriber(options.model, options.threads)
    if options.tsv:
        try:
            report_recordings(transcribe, options.tsv, options.errors)
        except (OSError, ValueError) as error:
            raise SystemExit(f"{parser.prog}: {error}") from None
    else:
        report(transcribe, options.clips, options.seed, options.errors)


if __name__ == "__main__":
    main()
