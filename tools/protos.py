"""Generates the typed stubs under `tollway/` from `protos/`: `python tools/protos.py`.

The directory under `protos/` is the proto package and the import path, so nothing is rewritten afterwards.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def main() -> int:
    sources = sorted(PROTOS.rglob("*.proto"))
    packages = {source.parent.relative_to(PROTOS) for source in sources}
    for package in packages:  # a proto that was removed leaves no stub behind
        shutil.rmtree(ROOT / package, ignore_errors=True)
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={ROOT}",
            f"--mypy_out={ROOT}",
            f"--grpc_python_out={ROOT}",
            f"--mypy_grpc_out=only_async:{ROOT}",
            *(str(source) for source in sources),
        ]
    )
    for package in packages:
        for folder in (ROOT / package, (ROOT / package).parent):
            (folder / "__init__.py").touch()
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
