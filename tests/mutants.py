"""The tests of one module, for a mutation tester that has changed it: ``python -m tests.mutants``.

Which module that is, git says. Where nothing is changed all those tests run. See docs/developing.md.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = ("entries", "report", "strides", "claim", "notebook", "benchmark_report", "audit")
TESTS: dict[str, tuple[str, ...]] = {
    "hw4/stats.py": ("stats",),
    "hw4/variants.py": ("specs", "records"),
    "hw4/specs.py": ("specs",),
    "hw4/studies.py": ("studies",),
    "hw4/claim.py": ("claim",),
    "hw4/training.py": ("training",),
    "hw4/smoothness.py": ("smoothness", "contract"),
    "hw4/records.py": ("records", "results", "entries"),
    **{path.relative_to(ROOT).as_posix(): REPORT for path in (ROOT / "hw4" / "report").glob("*.py")},
}
"""Names of the files in tests/ that must see a change of a module, the quickest first."""


def main() -> int:
    """Run them, up to the first that fails."""
    command = ["git", "diff", "--name-only", "HEAD", "--", *TESTS]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    names = dict.fromkeys(name for module in changed or TESTS for name in TESTS[module])
    files = [f"tests/test_{name}.py" for name in names]
    return subprocess.call([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
