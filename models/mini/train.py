"""Training: teacher-forced cross-entropy on the answer, with an auxiliary CTC loss on the encoder.

The CTC loss is what makes the alignment between audio and text appear; cross-entropy alone stalls for long.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checkpoint, corpus
from .evaluate import error_rates, transcribe_network
from .network import MiniASR
from .prompts import answer, prompt, random_context

PEAK_RATE, WARMUP_STEPS, CTC_WEIGHT, EMA_DECAY = 1e-3, 300, 1.0, 0.998
# Going on from finished weights: they bring no CTC head, which first has to learn to read the encoder as it is.
FURTHER_RATE, HEAD_RATE, HEAD_STEPS = 6e-4, 5e-3, 100
SAVE_STEPS, TEST_STEPS = 100, 1000
Batch = "list[tuple[Tensor, str | None, str]]"


class Trainer:
    """The network, its CTC head, optimizer and moving average, and one step of training."""

    def __init__(self, directory: Path, seed: int, start: Path | None = None) -> None:
        torch.manual_seed(seed)
        self.directory = directory
        self._go_on(bool(start))
        config = checkpoint.create(directory)
        self.tokenizer = checkpoint.load_tokenizer(directory)
        self.network = MiniASR(config["thinker_config"])
        if start:
            checkpoint.load_ggmm(start, self.network)
        text_config = config["thinker_config"]["text_config"]
        self.blank = text_config["vocab_size"]
        self.ctc = nn.Linear(text_config["hidden_size"], self.blank + 1)
        self.average = copy.deepcopy(self.network).eval()
        parameters = list(self.network.parameters())
        matrices, vectors = (
            [p for p in parameters if (p.ndim > 1) == is_matrix] for is_matrix in (True, False)
        )
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.02},
                {"params": vectors, "weight_decay": 0.0},
                {"params": list(self.ctc.parameters()), "weight_decay": 0.02},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.rng = random.Random(seed)
        self.step_number, self.seconds = 0, 0.0

    def _go_on(self, further: bool) -> None:
        """Settings of a training from finished weights, or of one from random ones."""
        self.peak_rate, self.head_steps = (FURTHER_RATE, HEAD_STEPS) if further else (PEAK_RATE, 0)
        self.warmup_steps = 2 * HEAD_STEPS if further else WARMUP_STEPS

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answers and CTC loss of the encoder."""
        with torch.autocast("cpu", torch.bfloat16):
            audio, valid = self.network.audio_tower([mel for mel, _, _ in batch])
        audio = audio.float()
        lengths = valid.sum(1)
        ids, labels, targets = [], [], []
        for (_, language, text), length in zip(batch, lengths.tolist()):
            forced = None
            if self.rng.random() < 0.3:
                forced = language or self.rng.choice(("Chinese", "English"))
            context = random_context(self.rng) if self.rng.random() < 0.25 else ""
            question = prompt(self.encode, context, length, forced)
            reply = answer(self.encode, language, text, forced)
            sequence = torch.tensor(question + reply)
            ids.append(sequence[:-1])
            label = sequence[1:].clone()
            label[: len(question) - 1] = -100
            labels.append(label)
            targets.append(torch.tensor(self.encode(text), dtype=torch.long))
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        label = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        padding = (0, -padded.shape[1] % 16)  # few different shapes: see corpus._clips_per_batch
        padded, label = F.pad(padded, padding), F.pad(label, padding, value=-100)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.network.model(self.network.embed(padded, audio[valid]))
        wanted = label != -100
        logits = self.network.logits(hidden.float()[wanted])
        cross_entropy = F.cross_entropy(logits, label[wanted], label_smoothing=0.02)
        if self.step_number < self.head_steps:
            audio = audio.detach()
        scores = F.log_softmax(self.ctc(audio), -1).transpose(0, 1)
        target_lengths = torch.tensor([len(target) for target in targets])
        ctc = F.ctc_loss(
            scores,
            torch.cat(targets),
            lengths,
            target_lengths,
            blank=self.blank,
            reduction="none",
            zero_infinity=True,
        )
        # By token; where nothing is to be written, a token's usual length stands for one.
        ctc = (ctc / torch.where(target_lengths > 0, target_lengths, (lengths + 3) // 4)).mean()
        return cross_entropy, ctc

    def step(self, batch: Batch, progress: float) -> tuple[float, float]:
        """One optimizer step at ``progress`` in [0, 1] of the schedule (linear warm-up, cosine decay)."""
        rate = self.peak_rate * min(1.0, (self.step_number + 1) / self.warmup_steps)
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.step_number < self.head_steps:
            self.optimizer.param_groups[-1]["lr"] = HEAD_RATE
        cross_entropy, ctc = self.losses(batch)
        self.optimizer.zero_grad()
        (cross_entropy + CTC_WEIGHT * ctc).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step_number += 1
        decay = min(EMA_DECAY, self.step_number / (self.step_number + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters()):
                mean.lerp_(value, 1 - decay)
        return float(cross_entropy.detach()), float(ctc.detach())

    def save(self) -> None:
        """Write the averaged weights as a checkpoint, and the state from which training can go on."""
        checkpoint.save_weights(self.directory, self.average.state_dict())
        parts = {
            name: getattr(self, name).state_dict() for name in ("network", "ctc", "average", "optimizer")
        }
        state = {**parts, "step": self.step_number, "seconds": self.seconds, "further": self.head_steps > 0}
        torch.save(state, self.directory / "state.pt.new")
        (self.directory / "state.pt.new").replace(self.directory / "state.pt")

    def restore(self) -> None:
        state = torch.load(self.directory / "state.pt")
        for name in ("network", "ctc", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for group in self.optimizer.param_groups:
            group["fused"] = True
        self.step_number, self.seconds = state["step"], state["seconds"]
        self._go_on(state["further"])


def train(
    shares: dict[Path, float],
    model_dir: Path,
    steps: int,
    minutes: float,
    seed: int,
    resume: bool,
    start: Path | None = None,
) -> None:
    """Train for ``steps`` steps, or for ``minutes`` if that is sooner, keeping a checkpoint in ``model_dir``.

    ``shares`` says how much of the clips is of which corpus; ``start`` is a GGMM file of finished weights to go on from.
    """
    trainer = Trainer(model_dir, seed, start)
    if resume:
        trainer.restore()
    batches = torch.utils.data.DataLoader(
        corpus.Batches(shares, seed + trainer.step_number),
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
    )
    held_out = list(corpus.test_set(60, seed=1))
    started = time.monotonic() - trainer.seconds
    sums = [0.0, 0.0, 0]
    for batch in batches:
        trainer.seconds = time.monotonic() - started
        progress = max(trainer.step_number / steps, trainer.seconds / (60 * minutes))
        losses = trainer.step(batch, progress)
        sums = [sums[0] + losses[0], sums[1] + losses[1], sums[2] + 1]
        if trainer.step_number % 50 == 0:
            mean = [value / sums[2] for value in sums[:2]]
            sums = [0.0, 0.0, 0]
            line = f"step {trainer.step_number} {trainer.seconds:.0f} s, {progress:.3f} done"
            print(f"{line}: cross-entropy {mean[0]:.3f}, ctc {mean[1]:.3f}", flush=True)
        if trainer.step_number % SAVE_STEPS == 0 or progress >= 1:
            trainer.save()
        if trainer.step_number % TEST_STEPS == 0 or progress >= 1:
            answers = [transcribe_network(trainer.average, trainer.tokenizer, item[2]) for item in held_out]
            print(f"step {trainer.step_number}: {error_rates(held_out, answers)}", flush=True)
        if progress >= 1:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument(
        "corpora", nargs="+", metavar="FOLDER=SHARE", help="corpora and how much of the clips each gives"
    )
    parser.add_argument("--start", type=Path, help="GGMM file of finished weights to go on from")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from MODEL/state.pt")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = [entry.rsplit("=", 1) for entry in options.corpora]
    shares = {Path(folder): float(share) for folder, share in pairs}
    train(shares, options.model, options.steps, options.minutes, options.seed, options.resume, options.start)


if __name__ == "__main__":
    main()
