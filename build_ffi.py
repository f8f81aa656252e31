"""The cffi module ``qwen3asr_native._native``: what Python calls of the shim and of the engine."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd()

HEADERS = (
    "chatllm.cpp/include/libchatllm.h",
    "chatllm.cpp/include/libchatllm_asr.h",
    "qwen3asr_native/engine/shim.h",
)


def declarations(header: str) -> str:
    """What a C header declares, in the form that cffi reads: without comments, preprocessor and linkage."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL)
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\b(DLL_DECL|API_CALL)\b", "", text)


ENGINE_SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "chatllm.cpp" / "src").rglob("*.cpp"))

ffibuilder = FFI()
for name in HEADERS:
    ffibuilder.cdef(declarations((ROOT / name).read_text(encoding="utf-8")))
ffibuilder.set_source(
    "qwen3asr_native._native",
    '#include "shim.h"',
    sources=["qwen3asr_native/engine/shim.cpp", *ENGINE_SOURCES],
    include_dirs=["qwen3asr_native/engine", "chatllm.cpp/include", "chatllm.cpp/src"],
    depends=[
        str(path.relative_to(ROOT))
        for folder in ("chatllm.cpp", "qwen3asr_native")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".h", ".inl", ".inc")
    ],
    language="c++",
    py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
)
