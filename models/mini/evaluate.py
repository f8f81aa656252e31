"""Character error rate of a checkpoint directory or of a GGMM file on texts and voices that training never used."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch
from transformers import Qwen2TokenizerFast

from . import checkpoint, corpus
from .features import log_mel
from .network import MiniASR
from .prompts import prompt
from .texts import Text

Item = tuple[str, Optional[Text], np.ndarray]
Answer = tuple[str, str]  # language ("" when nobody speaks) and text
Transcribe = Callable[[np.ndarray], Answer]


def edit_distance(reference: str, hypothesis: str) -> int:
    """Levenshtein distance in characters."""
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


@torch.no_grad()
def transcribe_network(network: MiniASR, tokenizer: Qwen2TokenizerFast, samples: np.ndarray) -> Answer:
    """Greedy answer of the PyTorch network (no cache: the clips are short)."""
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
    for title, snr_db in (("clean", None), ("noise at 20 dB", 20.0)):
        items = list(corpus.test_set(clips, seed, snr_db))
        answers = [transcribe(samples) for _, _, samples in items]
        print(f"{title}: {error_rates(items, answers)}", flush=True)
        if not list_errors:
            continue
        for (kind, text, _), (language, hypothesis) in zip(items, answers):
            if (text.written if text else "") != hypothesis:
                print(f"  {kind}: {text.written if text else ''} -> [{language}] {hypothesis}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="checkpoint directory, or GGMM file (needs qwen3asr_native)")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--errors", action="store_true", help="list the clips that are not right")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model.is_dir():
        transcribe = checkpoint_transcriber(options.model)
    else:
        transcribe = ggmm_transcriber(options.model, options.threads)
    report(transcribe, options.clips, options.seed, options.errors)


if __name__ == "__main__":
    main()
