"""Generates the typed stubs under `tollway/` from `protos/`: `python tools/protos.py`.

The directory under `protos/` is the import path, so nothing is rewritten afterwards. It is the proto package too,
except for Envoy's protos: the import path `envoy` is not ours to take.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PLUGINS = ("mypy", "mypy_grpc")


def packages() -> set[Path]:
    """The folders that hold protos, which are also the folders of the stubs."""
    return {source.parent.relative_to(PROTOS) for source in PROTOS.rglob("*.proto")}


def generate(into: Path) -> int:
    """Writes all stubs below the folder `into`; returns protoc's exit code."""
    for package in packages():  # a proto that was removed leaves no stub behind
        shutil.rmtree(into / package, ignore_errors=True)
    code = protoc.main(
        [
            "protoc",
            # Beside this interpreter, whether or not its environment is active.
            *(f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in PLUGINS),
            f"-I{PROTOS}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={into}",
            f"--mypy_out=quiet:{into}",
            f"--grpc_python_out={into}",
            f"--mypy_grpc_out=only_async,quiet:{into}",
            *(str(source) for source in sorted(PROTOS.rglob("*.proto"))),
        ]
    )
    for package in packages():
        for folder in (package, *package.parents[:-1]):  # all but the root itself
            if (into / folder).exists():
                (into / folder / "__init__.py").touch()
    return int(code)


if __name__ == "__main__":
    sys.exit(generate(ROOT))
