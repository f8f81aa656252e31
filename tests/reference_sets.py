"""Small checkpoints of shapes that no released model has, and the official code's outputs for them.

The checkpoints are made again from their seeds by ``qwen3asr_native.files.checkpoints``; the outputs lie in
``tests/data/reference``. ``python tests/reference_sets.py`` computes them anew (needs the extra ``[reference]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).parent / "data" / "reference"
SPEECH = DIRECTORY / "speech.wav"


class ReferenceSet(NamedTuple):
    """Arguments of ``make_checkpoint``, of ``reference``, and the checksum of the weights they were computed on."""

    sizes: dict[str, Any]
    sha256: str
    language: str | None = None
    context: str = ""

    def make(self, directory: Path) -> Path:
        """Write the checkpoint to ``directory``."""
        from qwen3asr_native.files.checkpoints import make_checkpoint

        return make_checkpoint(directory, "tiny", **self.sizes)


SETS: dict[str, ReferenceSet] = {
    # Heads of 96, heads x head size unlike the hidden size, rows of 160, 288, 320 and 416: no multiples of 256.
    "head96": ReferenceSet(
        {
            "audio": {
                "d_model": 192,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 320,
                "downsample_hidden_size": 20,
            },
            "text": {
                "hidden_size": 160,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "head_dim": 96,
                "intermediate_size": 416,
                "vocab_size": 400,
            },
            "seed": 96,
        },
        sha256="1a51a7f8e88c5fbc25680da63dbbd7f4538c5ea56dc1feb274e16a59477b1402",
        language="Chinese",
        context="Kanada, PostgreSQL 零九",
    ),
    # Rows of 72, 80 and 112 that no block divides, attention windows of two chunks, tied embeddings.
    "narrow": ReferenceSet(
        {
            "audio": {
                "d_model": 72,
                "encoder_layers": 3,
                "encoder_attention_heads": 3,
                "encoder_ffn_dim": 112,
                "downsample_hidden_size": 12,
                "n_window_infer": 200,
            },
            "text": {
                "hidden_size": 80,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 40,
                "intermediate_size": 112,
                "vocab_size": 345,
            },
            "tied": True,
            "seed": 40,
        },
        sha256="f4f963230dc8864200454fa4fe4449e142a1929a7fe5ef1ba5196d3bbf7223ed",
    ),
}


def main() -> None:
    """Compute every set's outputs anew and print the checksums of the weights."""
    import hashlib
    import tempfile

    import numpy as np
    import soundfile

    from qwen3asr_native.lab.reference import load_official, reference

    samples, _ = soundfile.read(str(SPEECH), dtype="float32")
    for name, entry in SETS.items():
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = entry.make(Path(directory))
            print(name, hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest())
            arrays = reference(load_official(checkpoint), samples, entry.language, entry.context)
            np.savez_compressed(DIRECTORY / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
