"""How often does the gate cry wolf, and what does it sleep through? Runs it many times and keeps every outcome.

    python -m benchmarks.validate_gate timing --condition quiet --runs 100
    python -m benchmarks.validate_gate timing --condition neighbour --runs 40 --planted
    python -m benchmarks.validate_gate timing --condition twin --runs 50     (twice at once, each the other's neighbour)
    python -m benchmarks.validate_gate accuracy
    python -m benchmarks.validate_gate summary

Every timing run is a fresh process judged by the committed baseline; ``--planted`` slows two of the eight benchmarks
down by 3% each, two by 5%, two by 10%, two by 20%, others on every run. ``accuracy`` judges unchanged code, code whose
initial weights are moved by rounding errors (whole measurements, and many more put together from their single runs),
and every fault of ``planted.py``, bit for bit and by the paired tests.
Outcomes are appended to files below ``reports/reference/gate``, so runs of several sittings add up; ``summary`` draws
the curves from them.
"""

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.planted import FAULTS
from hw4.gate import accuracy
from hw4.gate.baseline import Outcome, read_baseline
from hw4.gate.run import BASELINE, time_against_baseline, train_outcomes
from hw4.gate.timing import MARGIN
from hw4.gate.verdicts import UnmeasurableError, overall, refusal
from hw4.gate.workers import ROOT

FOLDER = ROOT / "reports" / "reference" / "gate"
QUIET_LOAD, CROWDED_LOAD = 2.0, 3.0
"""Load averages over the last minute of a run: the gate makes 1, more while its processes start, a neighbour 1 more."""
MEASUREMENTS = 2_000
"""Of accuracy, put together from replicates of single runs."""
Share = dict[str, float]
LEVELS = (0.03, 0.05, 0.10, 0.20)
NEIGHBOUR = """
import os, numpy as np
a = np.random.default_rng(0).random((800, 800))
parent = os.getppid()
while os.getppid() == parent:
    a @ a
"""


@contextlib.contextmanager
def neighbour(present: bool) -> Iterator[None]:
    """A process of one thread that multiplies matrices (15 MB of traffic, some 10 ms each) until it is not needed."""
    if not present:
        yield
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=environment) as process:
        try:
            yield
        finally:
            process.kill()


def run_timing(condition: str, runs: int, planted: bool) -> None:
    """Run the timing gate and append a line for each run."""
    baseline = read_baseline(BASELINE)
    path = FOLDER / "timing.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = sum(1 for _ in path.open()) if path.exists() else 0
    with neighbour(condition == "neighbour"):
        for run in range(before, before + runs):
            names = sorted(next(iter(baseline.timing.values())).benchmarks)
            slower = {name: LEVELS[(index + run) % 4] for index, name in enumerate(names)} if planted else {}
            start = time.perf_counter()
            try:
                findings, _ = time_against_baseline(baseline.timing, slower=slower)
            except UnmeasurableError as error:
                findings = [refusal("timing", "everything", str(error))]
            outcome = {
                "condition": condition,
                "slower": slower,
                "seconds": round(time.perf_counter() - start, 1),
                "load": os.getloadavg()[0],
                "verdict": overall(findings),
                "findings": {
                    f.what: [f.verdict, round(f.numbers.get("change", 0), 4), round(f.numbers.get("error", 0), 4)]
                    if f.verdict != "UNMEASURABLE"
                    else [f.verdict, f.advice]
                    for f in findings
                },
            }
            with path.open("a") as file:
                file.write(json.dumps(outcome) + "\n")
            print(f"{condition} {outcome['verdict']:12} {outcome['seconds']:5.1f} s", flush=True)


def run_accuracy(unchanged: int, replicates: int, faults: int) -> None:
    """Train unchanged, perturbed and faulty code, and append how each is judged by the committed baseline."""
    stored = read_baseline(BASELINE).accuracy["embedded"]
    before = sum(outcome["name"] == "rounding" for outcome in read_lines("accuracy.jsonl"))
    planned: list[tuple[str, list[str]]] = [("unchanged", []) for _ in range(unchanged)]
    planned += [("rounding", ["--perturb", str(seed)]) for seed in range(before, before + replicates)]
    planned += [(fault, ["--fault", fault]) for _ in range(faults) for fault in FAULTS]
    for name, arguments in planned:
        start = time.perf_counter()
        _, runs = train_outcomes("embedded", *arguments)
        verdicts = {
            tier: {f.what: f.verdict for f in accuracy.judge(stored.runs, runs, exact=exact)}
            for tier, exact in (("bits", True), ("tests", False))
        }
        outcome = {"name": name, "seconds": round(time.perf_counter() - start, 1), **verdicts}
        if name == "rounding":
            outcome["runs"] = {
                group: {key: run.model_dump() for key, run in mine.items()} for group, mine in runs.items()
            }
        with (FOLDER / "accuracy.jsonl").open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        print(name, {tier: sorted(set(found.values())) for tier, found in verdicts.items()}, flush=True)


def share(hits: int, n: int) -> Share:
    """A share with its exact 95% interval (Clopper and Pearson, 1934)."""
    low = float(stats.beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"hits": hits, "n": n, "low": round(low, 4), "high": round(high, 4)}


def read_lines(name: str) -> list[dict[str, Any]]:
    """Outcomes kept so far."""
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def condition_of(outcome: dict[str, Any]) -> str:
    """The condition asked for, unless more was running than that, as the load average tells."""
    if outcome["load"] > CROWDED_LOAD:
        return "crowded"
    return "neighbour" if outcome["condition"] == "quiet" and outcome["load"] > QUIET_LOAD else outcome["condition"]


def summarise() -> dict[str, Any]:
    """False alarms, power and what could not be measured, by condition."""
    found: dict[str, Any] = {}
    outcomes = read_lines("timing.jsonl")
    for condition in ("quiet", "neighbour", "twin", "crowded"):
        mine = [outcome for outcome in outcomes if condition_of(outcome) == condition]
        unchanged = [outcome for outcome in mine if not outcome["slower"]]
        measured = [outcome for outcome in mine if outcome["verdict"] != "UNMEASURABLE"]
        power = {}
        for level in LEVELS:
            judged = [
                outcome["findings"][name][0]
                for outcome in measured
                for name, slower in outcome["slower"].items()
                if slower == level
            ]
            power[f"{level:.0%}"] = share(judged.count("REGRESSION"), len(judged))
        single = [row[0] for outcome in unchanged for row in outcome["findings"].values()]
        changes = [row[1] for outcome in unchanged for row in outcome["findings"].values() if row[0] != "UNMEASURABLE"]
        found[condition] = {
            "false alarms, runs": share(sum(o["verdict"] == "REGRESSION" for o in unchanged), len(unchanged)),
            "false alarms, benchmarks": share(single.count("REGRESSION"), len(single)),
            "unmeasurable, runs": share(len(mine) - len(measured), len(mine)),
            "power": power,
            "change of unchanged code, sd": round(statistics.pstdev(map(math.log, changes)), 4) if changes else None,
            "seconds, unchanged code": [
                round(value, 1) for value in np.percentile([o["seconds"] for o in unchanged] or [0], (50, 95, 100))
            ],
        }
    accuracies = read_lines("accuracy.jsonl")
    found["accuracy"] = {}
    for tier in ("bits", "tests"):
        rows = {}
        for name in dict.fromkeys(outcome["name"] for outcome in accuracies):
            judged = [set(outcome[tier].values()) for outcome in accuracies if outcome["name"] == name]
            rows[name] = share(sum(each != {"PASS"} for each in judged), len(judged))
        found["accuracy"][tier] = rows
    found["accuracy"]["put together"] = put_together([outcome["runs"] for outcome in accuracies if "runs" in outcome])
    return found


def put_together(replicates: list[dict[str, dict[str, Any]]]) -> dict[str, int]:
    """How many of many measurements alarm, each put together from a random replicate of every single run.

    Whole measurements take a minute each, too long for hundreds of them; but runs are perturbed and trained each by
    itself, so replicates of single runs may be combined freely.
    """
    if not replicates:
        return {"alarms": 0, "measurements": 0, "replicates": 0}
    stored = read_baseline(BASELINE).accuracy["embedded"].runs
    known = [
        {group: {key: Outcome.model_validate(run) for key, run in runs.items()} for group, runs in each.items()}
        for each in replicates
    ]
    rng, alarms = random.Random(0), 0
    for _ in range(MEASUREMENTS):
        now = {group: {key: rng.choice(known)[group][key] for key in runs} for group, runs in stored.items()}
        alarms += any(finding.verdict != "PASS" for finding in accuracy.judge(stored, now, exact=False))
    return {"alarms": alarms, "measurements": MEASUREMENTS, "replicates": len(known)}


def draw(found: dict[str, Any]) -> Figure:
    """Two panels: power against the size of the slowdown, and how often unchanged code is let through, by condition."""
    canvas = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    power, wrong = canvas.subplots(1, 2, width_ratios=(3, 2))
    styles = {
        "quiet": ("#0072B2", "o"),
        "neighbour": ("#D55E00", "s"),
        "twin": ("#009E73", "^"),
        "crowded": ("#CC79A7", "D"),
    }
    present = [name for name in styles if found[name]["false alarms, runs"]["n"]]
    for offset, condition in enumerate(present):
        colour, marker = styles[condition]
        shares = [found[condition]["false alarms, benchmarks"], *found[condition]["power"].values()]
        drawn = [
            (100 * level + 0.25 * (offset - 1), each)
            for level, each in zip((0, *LEVELS), shares, strict=True)
            if each["n"]
        ]
        values = [each["hits"] / each["n"] for _, each in drawn]
        errors = [
            [v - each["low"] for v, (_, each) in zip(values, drawn, strict=True)],
            [each["high"] - v for v, (_, each) in zip(values, drawn, strict=True)],
        ]
        runs = found[condition]["false alarms, runs"]["n"]
        power.errorbar(
            [x for x, _ in drawn],
            values,
            yerr=errors,
            color=colour,
            marker=marker,
            capsize=3,
            label=f"{condition} ({runs} runs of unchanged code)",
        )
        for x, what in enumerate(("false alarms, runs", "unmeasurable, runs")):
            each = found[condition][what]
            value = each["hits"] / each["n"]
            wrong.errorbar(
                x + 0.3 * (offset - 0.5),
                100 * value,
                yerr=[[100 * (value - each["low"])], [100 * (each["high"] - value)]],
                color=colour,
                marker=marker,
                capsize=3,
            )
            wrong.annotate(f" {each['hits']}/{each['n']}", (x + 0.3 * (offset - 0.5), 100 * value), fontsize=8)
    power.axvline(100 * (MARGIN - 1), color="#444444", linestyle=":", label="margin")
    power.set(xlabel="planted slowdown (%)", ylabel="share of benchmarks judged REGRESSION", ylim=(-0.03, 1.03))
    power.grid(alpha=0.3)
    power.legend(loc="lower right")
    wrong.set_xticks([0, 1], ["false alarm", "UNMEASURABLE"])
    wrong.set(ylabel="runs (%)", xlim=(-0.5, 1.7))
    wrong.set_ylim(bottom=-0.2)
    wrong.grid(axis="y", alpha=0.3)
    canvas.supxlabel("95% binomial intervals (Clopper-Pearson); every run is a fresh process", fontsize=8)
    return canvas


CONDITIONS = {
    "quiet": "nothing",
    "neighbour": "a busy process",
    "twin": "another gate",
    "crowded": "more than processors",
}


def markdown(found: dict[str, Any]) -> str:
    """The README's tables: timing by what ran beside it, and accuracy by what was planted."""

    def cell(each: Share) -> str:
        return f"{each['hits']} of {each['n']} [{each['low']:.1%}, {each['high']:.1%}]" if each["n"] else "-"

    head = (
        "beside it",
        "false alarms, runs",
        "UNMEASURABLE, runs",
        *(f"seen at +{level}" for level in found["quiet"]["power"]),
        "seconds: median, 95%",
    )
    rows = [
        (
            words,
            cell(found[name]["false alarms, runs"]),
            cell(found[name]["unmeasurable, runs"]),
            *map(cell, found[name]["power"].values()),
            "{:.0f}, {:.0f}".format(*found[name]["seconds, unchanged code"]),
        )
        for name, words in CONDITIONS.items()
        if found[name]["false alarms, runs"]["n"]
    ]
    tiers = found["accuracy"]
    trained = [
        (name, *(f"{tiers[tier][name]['hits']} of {tiers[tier][name]['n']}" for tier in ("bits", "tests")))
        for name in tiers["bits"]
    ]
    mixed = tiers["put together"]
    trained.append(
        (
            f"rounding, put together from {mixed['replicates']} replicates of every run",
            "-",
            f"{mixed['alarms']} of {mixed['measurements']:,}",
        )
    )
    tables = ((head, rows), (("training", "not PASS, same machine", "not PASS, by paired tests"), trained))
    return "\n\n".join(
        "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *body))
        for header, body in tables
        if body
    )


def write_summary() -> None:
    """Write ``validation.json`` and ``validation.png`` beside the outcomes, and print the tables."""
    found = summarise()
    (FOLDER / "validation.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found).savefig(FOLDER / "validation.png", metadata={"Software": None})
    print(markdown(found))


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("timing", help="run the timing gate many times")
    timing.add_argument("--condition", choices=("quiet", "neighbour", "twin"), required=True)
    timing.add_argument("--runs", type=int, required=True)
    timing.add_argument("--planted", action="store_true")
    trained = commands.add_parser("accuracy", help="judge unchanged, perturbed and faulty training")
    trained.add_argument("--unchanged", type=int, default=3, help="runs of the code as it is")
    trained.add_argument("--replicates", type=int, default=8, help="runs with perturbed initial weights, new ones")
    trained.add_argument("--faults", type=int, default=1, help="runs with each planted fault")
    commands.add_parser("summary", help="draw the curves of what was run so far")
    arguments = parser.parse_args()
    if arguments.command == "timing":
        run_timing(arguments.condition, arguments.runs, arguments.planted)
    elif arguments.command == "accuracy":
        run_accuracy(arguments.unchanged, arguments.replicates, arguments.faults)
    else:
        write_summary()


if __name__ == "__main__":
    main()
