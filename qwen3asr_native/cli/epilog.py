"""The parts that the help of every command has: examples, exit statuses, environment variables."""

from __future__ import annotations

_STATUSES = {
    "0": "it worked",
    "1": "it did not; one sentence on standard error says why",
    "2": "the command line has a mistake",
    "130": "Ctrl-C; in general 128 + the number of the signal that ended it",
}
# What the options take for themselves (INFERENCE_THREADS, CONTEXT_LENGTH, ASR_LANGUAGE) stands beside them too.
_VARIABLES = {
    "INFERENCE_THREADS": "threads to compute with",
    "CONTEXT_LENGTH": "most tokens of prompt and answer together",
    "ASR_LANGUAGE": "language to force (bench)",
    "QWEN3ASR_API_KEY": "key that clients of the server must send (serve)",
    "HF_HOME": "downloads lie in its folder qwen3asr; default: ~/.cache/huggingface",
    "HF_ENDPOINT": "address of another hub, such as a mirror",
    "HF_HUB_OFFLINE": "1: never use the network",
    "HF_TOKEN": "token for private repositories",
}


def closing(*examples: str, statuses: dict[str, str] | None = None, variables: bool = False) -> str:
    """The text after the options. ``statuses`` replaces the meaning of some exit statuses."""
    parts = [
        _section("Examples", list(examples)),
        _section("Exit status", _table({**_STATUSES, **(statuses or {})})),
    ]
    if variables:
        parts.append(_section("Environment", _table(_VARIABLES)))
    return "\n\n".join(parts)


def _section(title: str, lines: list[str]) -> str:
    return "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines)])  # \b: the lines stay as they are


def _table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"{name:{width}}  {meaning}" for name, meaning in rows.items()]
