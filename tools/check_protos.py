"""Holds the contract: stubs fresh, style clean, nothing broken for those who use it. `make check` runs it.

    python tools/check_protos.py            checks
    python tools/check_protos.py --accept   makes today's contract the baseline that later ones must not break

`protos/baseline.binpb` is the contract as it was last accepted. Additions pass without accepting them, but are
guarded from the next acceptance on only: accept at every release. Accepting a breaking change is a decision, and
its commit says why.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import protos as stubs  # noqa: E402 - found by the line above

PROTOS = stubs.PROTOS

BASELINE = PROTOS / "baseline.binpb"


def stale() -> list[str]:
    """The stubs that differ from what the protos generate, as paths from the root; missing and surplus ones too."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        if stubs.generate(fresh) != 0:
            return ["(the protos do not compile)"]
        wrong: set[Path] = set()
        for package in stubs.packages():
            names = {
                path.relative_to(top)
                for top in (fresh, ROOT)
                for path in (top / package).iterdir()
                if path.suffix in {".py", ".pyi"}
            }
            for name in names:
                both = (fresh / name).exists() and (ROOT / name).exists()
                if not both or not filecmp.cmp(fresh / name, ROOT / name, shallow=False):
                    wrong.add(name)
    return sorted(map(str, wrong))


def buf(*arguments: str) -> bool:
    command = Path(sys.executable).parent / "buf"
    # Our own tool with our own paths.
    return subprocess.run([command, *arguments], cwd=ROOT, check=False).returncode == 0  # noqa: S603


def main(arguments: list[str]) -> int:
    if arguments == ["--accept"]:
        return 0 if buf("build", str(PROTOS), "-o", str(BASELINE)) else 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    problems: list[str] = []
    if not buf("lint", str(PROTOS)):
        problems.append("the protos break buf's STANDARD style: see above")
    if names := stale():
        problems.append("stubs are not what the protos say: run `make protos` and commit\n  " + "\n  ".join(names))
    if not buf("breaking", str(PROTOS), "--against", str(BASELINE)):
        problems.append(
            "the contract breaks programs that use it: see above. Add instead of changing; or, if nobody can be using "
            "it yet, run `python tools/check_protos.py --accept` and say in the commit why"
        )
    for problem in problems:
        print(f"protos: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
