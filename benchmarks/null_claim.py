"""Does the claim's page cry wolf, and does it see what is there? On embedded data, by its own tests.

    python -m benchmarks.null_claim [--repetitions 20] [--processes 2]
    python -m benchmarks.null_claim --swaps 500

Each repetition draws twice twelve seeds of one network, calls the second twelve "with BatchNorm", and asks every test
that compares the two: all they can find is chance. A known effect is planted beside it: the second twelve again, each
run told to have been made at twice its learning rate, which doubles every limit.

``--swaps`` trains nothing: it takes the reference's own runs, and lets a coin decide for every seed which of its two
networks is called which. Then nothing tells the two apart, and how often a family decides something is its error.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hw4.claim import BY_RATE, EDGE, LARGER, NORMED, Claim, Decision, decide
from hw4.files import LADDER as LADDER_RECORDS
from hw4.files import LANDSCAPES
from hw4.machine import ONE_THREAD
from hw4.records import ConvNetRecord, Store
from hw4.studies import CLAIM_SEEDS, grid, ladder_specs
from hw4.variants import VARIANTS

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"
LADDER = (0.04, 0.08, 0.16, 0.32, 0.64)
"""Rates that are each twice the one before, so that a run may be named by the next."""
OF_ONE = ("slope without BatchNorm", "slope with BatchNorm")
"""Tests of one network alone, which no other name changes."""
SUBSET = 0.25
"""Share of the digits: what is asked is whether the tests err, not what these images show."""


def renamed(run: ConvNetRecord, **changes: object) -> ConvNetRecord:
    """A run under another name: of another seed, as the other network's, at another learning rate."""
    spec = run.spec.model_copy(update=changes)
    return run.model_copy(update={"spec": spec, "key": spec.key})


def arms(runs: Sequence[ConvNetRecord], first: int, *, factor: float = 1) -> Claim:
    """Twelve seeds from a number on, and the next twelve as the second network, on the rates that both have."""
    told = [run for run in runs if first <= run.spec.seed < first + CLAIM_SEEDS]
    for run in runs:
        if first + CLAIM_SEEDS <= run.spec.seed < first + 2 * CLAIM_SEEDS:
            seed, rate = run.spec.seed - CLAIM_SEEDS, run.spec.learning_rate * factor
            told.append(renamed(run, seed=seed, learning_rate=rate, norm=VARIANTS[NORMED].norm))
    rates = {rate for rate in LADDER if factor == 1 or rate > LADDER[0]}
    kept = [run for run in told if run.spec.learning_rate in rates]
    return Claim(sorted(kept, key=lambda run: run.spec.learning_rate), [], [])


def comparisons(found: Claim) -> list[Decision]:
    """The tests that compare the two networks; a slope of one alone is no comparison."""
    tests = decide(found)
    return [t for t in tests if t.family in {LARGER, BY_RATE} or (t.family == EDGE and "BatchNorm" not in t.name)]


def tossed(runs: Sequence[ConvNetRecord], swapped: set[int]) -> list[ConvNetRecord]:
    """Runs by learning rate, those of some seeds under the other network's name."""
    other = {None: VARIANTS[NORMED].norm, VARIANTS[NORMED].norm: None}
    told = [renamed(run, norm=other[run.spec.norm]) if run.spec.seed in swapped else run for run in runs]
    return sorted(told, key=lambda run: run.spec.learning_rate)


def swap(times: int) -> None:
    """Print, family by family, in how many of so many coin tosses over the seeds something is decided."""
    ladder, views = (Store(REFERENCE / part, ConvNetRecord).load_all() for part in (LADDER_RECORDS, LANDSCAPES))
    draws, decided = np.random.default_rng(0), Counter[str]()
    for _ in range(times):
        swapped = set(np.flatnonzero(draws.integers(2, size=100)).tolist())
        tests = decide(Claim(tossed(ladder, swapped), tossed(views, swapped), []))
        found = {t.family for t in tests if t.verdict != "not decided" and t.name not in OF_ONE}
        decided.update(found or {"none"})
        decided["any"] += bool(found)
    for family, count in decided.items():
        print(f"{family}: {count} of {times}")


def main() -> None:
    """Train, compare, and print what each repetition decides."""
    from hw4.runs import make_all

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--swaps", type=int, help="of the reference's runs, instead of training")
    asked = parser.parse_args()
    os.environ.update(ONE_THREAD)
    if asked.swaps:
        swap(asked.swaps)
        return
    seeds = 2 * CLAIM_SEEDS * asked.repetitions
    specs = ladder_specs(rates=LADDER, seeds=seeds, first_seed=0, data="digits", passes=1)
    plain = [spec.model_copy(update={"subset": SUBSET}) for spec in specs if spec.norm is None]
    with tempfile.TemporaryDirectory() as folder:
        made = make_all([(Path(folder), grid(plain))], processes=asked.processes)
    runs = [run for run in made if isinstance(run, ConvNetRecord)]
    quiet = found = 0
    for first in range(0, seeds, 2 * CLAIM_SEEDS):
        wrong = [f"{t.family}: {t.name}" for t in comparisons(arms(runs, first)) if t.verdict != "not decided"]
        seen = [t for t in comparisons(arms(runs, first, factor=2)) if t.family == LARGER]
        planted = [t.name for t in seen if t.verdict == "above"]
        quiet, found = quiet + (not wrong), found + bool(planted)
        print(f"seeds {first} on: decided of nothing {wrong or 'nothing'}; of the planted effect {planted}")
    print(f"not decided in {quiet} of {asked.repetitions} repetitions; the planted effect found in {found}")


if __name__ == "__main__":
    main()
