"""The build: one abi3 extension with the engine compiled in, and the built-in model as package data.

No instruction-set flags: the engine picks its kernels at run time, so that one binary serves every CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# What lives in the root of the checkout and goes into the package: the built-in models and what `doctor` lets it hear.
PACKAGED = (
    Path("models") / "qwen3-asr-mini-q8_0.bin",
    Path("models") / "qwen3-aligner-mini-q8_0.bin",
    Path("samples") / "phone-number-zh-TW.wav",
)

# -g0: Python's own flags ask for debugging information, which would be most of the wheel.
C_FLAGS = {"unix": ["-O3", "-g0", "-std=gnu11", "-fvisibility=hidden"], "msvc": ["/O2", "/std:c11", "/utf-8"]}
CXX_FLAGS = {
    "unix": ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-fvisibility-inlines-hidden"],
    "msvc": ["/O2", "/std:c++17", "/utf-8", "/EHsc"],
}
LINK_FLAGS = {"unix": ["-pthread"], "msvc": []}
# Nothing but the initialization is exported: C++ templates of the standard library would be, whatever the flags above say.
if sys.platform == "darwin":
    LINK_FLAGS["unix"].append("-Wl,-exported_symbol,_PyInit__native")
elif sys.platform.startswith("linux"):
    LINK_FLAGS["unix"].append("-Wl,--version-script=qwen3asr_native/_native.map")

# The files that the engine reads come from strangers: what slips through its checks should not become more than a crash.
HARDENING = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
if platform.machine() in ("x86_64", "AMD64") and sys.platform.startswith("linux"):
    HARDENING.append("-fcf-protection=full")
for flags in (C_FLAGS, CXX_FLAGS):
    flags["unix"] += HARDENING
    flags["msvc"] += ["/guard:cf"]
LINK_FLAGS["msvc"].append("/guard:cf")
if sys.platform.startswith("linux"):
    LINK_FLAGS["unix"].append("-Wl,-z,relro,-z,now,-z,noexecstack")


def processors() -> int:
    """Compilers at a time: BUILD_THREADS, else the processors that the process may use."""
    if os.environ.get("BUILD_THREADS"):
        return max(1, int(os.environ["BUILD_THREADS"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BuildExtension(build_ext):
    """Compiles the engine's C++ with flags of its own, over all cores; leaves the C files to setuptools."""

    def build_extension(self, ext: Extension) -> None:
        compiler = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        cxx_sources = [source for source in ext.sources if source.endswith(".cpp")]
        ext.sources = [source for source in ext.sources if not source.endswith(".cpp")]
        ext.depends = [*ext.depends, *cxx_sources]
        ext.extra_objects = [*ext.extra_objects, *self.compile_cxx(ext, cxx_sources, CXX_FLAGS[compiler])]
        ext.extra_compile_args = [*ext.extra_compile_args, *C_FLAGS[compiler]]
        ext.extra_link_args = [*ext.extra_link_args, *LINK_FLAGS[compiler]]
        super().build_extension(ext)

    def compile_cxx(self, ext: Extension, sources: list[str], flags: list[str]) -> list[str]:
        if hasattr(self.compiler, "initialize") and not getattr(self.compiler, "initialized", True):
            self.compiler.initialize()  # MSVC looks for its tools on first use, which is not safe in parallel
        newest_header = max(
            (os.path.getmtime(path) for path in ext.depends if path.endswith((".h", ".inl", ".inc"))),
            default=0,
        )

        def compile_one(source: str) -> list[str]:
            objects = self.compiler.object_filenames([source], output_dir=self.build_temp)
            if not self.force and all(
                os.path.exists(path) and os.path.getmtime(path) > max(newest_header, os.path.getmtime(source))
                for path in objects
            ):
                return objects
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=ext.define_macros,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=flags,
            )

        with ThreadPoolExecutor(processors()) as pool:
            return [path for objects in pool.map(compile_one, sources) for path in objects]


class BuildPackage(build_py):
    """Puts the built-in model, which lives in models/ beside its recipe, and a sample recording into the package."""

    def packaged(self) -> dict[Path, Path]:
        package = Path(self.build_lib) / "qwen3asr_native"
        return {path: package / path for path in PACKAGED if path.exists()}

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):
            for source, target in self.packaged().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self.packaged().values())]


class BuildWheel(bdist_wheel):
    """Puts the bill of materials into the wheel's metadata, where PEP 770 looks for it."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: str) -> None:
        super().write_wheelfile(wheelfile_base, *arguments)
        folder = Path(wheelfile_base) / "sboms"
        folder.mkdir(exist_ok=True)
        text = json.dumps(self.materials(), indent=2, ensure_ascii=False)
        (folder / "qwen3asr-native.cdx.json").write_text(text + "\n", encoding="utf-8")

    def materials(self) -> dict[str, object]:
        """What the wheel consists of, as CycloneDX 1.5; the same for the same sources."""
        metadata = self.distribution.metadata
        name, version, license_ = metadata.get_name(), metadata.get_version(), "Apache-2.0"
        licenses = [{"license": {"id": license_}}]
        component = {
            "type": "library",
            "bom-ref": name,
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "licenses": licenses,
        }
        tables = Path("chatllm.cpp", "src", "model", "unicode_tables.inc").read_text(encoding="utf-8")
        unicode = re.search(r"Unicode (\d+\.\d+\.\d+)", tables)
        parts = [
            {
                "type": "library",
                "bom-ref": "chatllm",
                "name": "chatllm",
                "version": version,
                "licenses": licenses,
            },
            {
                "type": "data",
                "bom-ref": "unicode",
                "name": "Unicode Character Database",
                "version": unicode[1] if unicode else "unknown",
                "licenses": [{"license": {"id": "Unicode-DFS-2016"}}],
            },
        ]
        for path in filter(Path.exists, PACKAGED):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            kind = "machine-learning-model" if path.suffix == ".bin" else "data"
            parts.append(
                {
                    "type": kind,
                    "bom-ref": path.name,
                    "name": path.name,
                    "licenses": licenses,
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
            )
        return {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": component},
            "components": parts,
            "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
        }


setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPackage, "bdist_wheel": BuildWheel},
    # One wheel for Python 3.9 and later; a free-threaded Python has no stable ABI yet.
    options={}
    if sysconfig.get_config_var("Py_GIL_DISABLED")
    else {"bdist_wheel": {"py_limited_api": "cp39"}},
)
