"""The Qwen3-ASR and Qwen3-ForcedAligner networks in a form that trains fast: padded batches instead of one clip at a time.

Parameter names and numbers are those of the official `Qwen3ASRForConditionalGeneration.thinker`, so that a state
dictionary moves between the two; a test compares their outputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 100  # mel frames per convolution chunk
CHUNK_TOKENS = 13
WINDOW_TOKENS = 8 * CHUNK_TOKENS


def audio_tokens(frames: int) -> int:
    """Number of encoder outputs for ``frames`` mel frames."""
    full, rest = divmod(frames, CHUNK)
    return full * CHUNK_TOKENS + (rest + 7) // 8


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention; on a CPU as two products: on short sequences its backward pass is faster than the fused kernel's."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.float().masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype) @ v


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class EncoderAttention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, size = x.shape
        q, k, v = (
            proj(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attend(q, k, v, mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, size))


class EncoderLayer(nn.Module):
    def __init__(self, size: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = EncoderAttention(size, heads)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1, self.fc2 = nn.Linear(size, inner), nn.Linear(inner, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution with channels last in memory, which is half again as fast on a CPU."""
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)


class Encoder(nn.Module):
    """Mel chunks -> audio embeddings; see :meth:`forward`."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        size, channels = config["d_model"], config["downsample_hidden_size"]
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv_out = nn.Linear(channels * 16, size, bias=False)
        self.layers = nn.ModuleList(
            EncoderLayer(size, config["encoder_attention_heads"], config["encoder_ffn_dim"])
            for _ in range(config["encoder_layers"])
        )
        self.ln_post = nn.LayerNorm(size)
        self.proj1, self.proj2 = nn.Linear(size, size), nn.Linear(size, config["output_dim"])
        rates = torch.exp(-math.log(10000) / (size // 2 - 1) * torch.arange(size // 2).float())
        angles = torch.arange(CHUNK_TOKENS)[:, None] * rates[None]
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], 1), persistent=False)

    def forward(self, mels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``mels``: [128, frames] each -> embeddings [batch, tokens, hidden] and the mask of real tokens."""
        frames = [mel.shape[1] for mel in mels]
        chunks = max(math.ceil(count / CHUNK) for count in frames)
        padded = torch.stack([F.pad(mel, (0, chunks * CHUNK - mel.shape[1])) for mel in mels])
        return self.encode(padded, frames)

    def encode(self, padded: Tensor, frames: list[int]) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, of features [batch, 128, chunks * 100] that are 0 from each clip's number of frames on."""
        batch, chunks, device = len(frames), padded.shape[2] // CHUNK, padded.device
        x = padded.view(batch, -1, chunks, CHUNK).permute(0, 2, 1, 3).reshape(batch * chunks, 1, -1, CHUNK)
        # A clip of one short chunk is not padded to a full one: beyond its end the convolutions must see zeros.
        widths = torch.tensor([min(CHUNK, count) for count in frames], device=device)
        widths, narrow = widths.repeat_interleave(chunks), min(frames) < CHUNK
        if device.type != "cpu":  # few different shapes: kernels are looked for anew for each
            padding = -len(x) % 128
            x, widths = F.pad(x, (0, 0, 0, 0, 0, 0, 0, padding)), F.pad(widths, (0, padding))
        for conv in (self.conv2d1, self.conv2d2, self.conv2d3):
            x = F.gelu(_convolve(conv, x))
            widths = (widths + 1) // 2
            if narrow:
                x = x * (torch.arange(x.shape[-1], device=device) < widths[:, None])[:, None, None, :]
        x = self.conv_out(x[: batch * chunks].permute(0, 3, 1, 2).flatten(2)) + self.positions
        x = x.reshape(batch, chunks * CHUNK_TOKENS, -1)
        lengths = torch.tensor([audio_tokens(count) for count in frames], device=device)
        index = torch.arange(x.shape[1], device=device)
        valid = index < lengths[:, None]
        window = index // WINDOW_TOKENS
        # Padding attends to itself only, which keeps its softmax defined.
        mask = (window[:, None] == window) & valid[:, None, :]
        mask = mask | torch.eye(len(index), dtype=torch.bool, device=device)
        for layer in self.layers:
            x = layer(x, mask[:, None])
        return self.proj2(F.gelu(self.proj1(self.ln_post(x)))), valid


class DecoderAttention(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        hidden, head = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * head, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * head, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * head, bias=False)
        self.o_proj = nn.Linear(self.heads * head, hidden, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(head, config["rms_norm_eps"]) for _ in range(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, -1)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, -1)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, -1).transpose(1, 2)
        q, k = (t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin for t in (q, k))
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        mixed = attend(q.to(v.dtype), k.to(v.dtype), v, causal)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(hidden, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(config)
        self.mlp = MLP(config["hidden_size"], config["intermediate_size"])
        self.input_layernorm, self.post_attention_layernorm = (
            RMSNorm(config["hidden_size"], config["rms_norm_eps"]) for _ in range(2)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        head = config["head_dim"]
        self.register_buffer(
            "frequencies",
            config["rope_theta"] ** (-torch.arange(0, head, 2).float() / head),
            persistent=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * self.frequencies
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class MiniASR(nn.Module):
    """Encoder and decoder; the output matrix is the embedding (tied)."""

    def __init__(self, thinker_config: dict) -> None:
        super().__init__()
        self.audio_tower = Encoder(thinker_config["audio_config"])
        self.model = Decoder(thinker_config["text_config"])
        self.audio_token_id = thinker_config["audio_token_id"]
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)

    def embed(self, ids: Tensor, audio: Tensor) -> Tensor:
        """Embed right-padded ``ids`` [batch, length]; the audio positions take the rows of ``audio`` [n, hidden]."""
        x = self.model.embed_tokens(ids)
        return x.masked_scatter((ids == self.audio_token_id)[..., None], audio.to(x.dtype))

    def embed_at(self, ids: Tensor, audio: Tensor, rows: Tensor) -> Tensor:
        """As :meth:`embed`, without waiting for the device: ``rows`` [batch, length] are the rows of ``audio`` flattened,
        -1 where a token is embedded."""
        taken = audio.flatten(0, 1)[rows.clamp(min=0)]
        return torch.where((rows >= 0)[..., None], taken, self.model.embed_tokens(ids).to(taken.dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.model.embed_tokens.weight.T


class MiniAligner(MiniASR):
    """The same network with a matrix of its own from a position's hidden state to the classes of time."""

    def __init__(self, thinker_config: dict) -> None:
        super().__init__(thinker_config)
        self.lm_head = nn.Linear(
            thinker_config["text_config"]["hidden_size"], thinker_config["classify_num"], bias=False
        )

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)
