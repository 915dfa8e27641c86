"""How often does the gate cry wolf, and what does it sleep through? Runs it many times and keeps every outcome.

    python -m benchmarks.validate_gate timing --condition quiet --runs 50
    python -m benchmarks.validate_gate timing --condition neighbour --runs 20 --planted
    python -m benchmarks.validate_gate example --condition quiet --runs 50
    python -m benchmarks.validate_gate accuracy --replicates 8 --faults 1
    python -m benchmarks.validate_gate summary

All runs are made in a copy of the checkout, by pytest as users call it, each against a baseline that was made there of
its commit (``--new-baseline`` makes another one first; a line says which it was judged by). ``--planted`` slows two of
the eight benchmarks down by 3% each, two by 5%, two by 10%, two by 20%, others on every run. ``example`` is the project
of docs/example. ``accuracy`` trains code whose initial weights are moved by rounding errors, and with every fault of
``planted.py``, and judges both bit for bit and by the paired tests. Outcomes are appended to files below
``reports/reference/gate``, so runs of several sittings add up; ``summary`` draws the curves from them.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import TypeAdapter
from scipy import stats

from hw4.gate import MARGIN, Outcome, Rules, judge_outcomes
from hw4.machine import ONE_THREAD
from hw4.plugin import BASELINE
from hw4.report.entry import markdown_table

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "reports" / "reference" / "gate"
SCRATCH = Path(os.environ.get("TMPDIR", "/tmp")) / "hw4-gate-validation"
MEASUREMENTS = 2_000
"""Of accuracy, put together from replicates of single runs."""
LEVELS = (0.03, 0.05, 0.10, 0.20)
ATTEMPTS = 3
"""At a baseline, which is not made from times that scatter too much."""
CONDITIONS = ("quiet", "neighbour", "work")
"""Nothing of ours beside it, a process of NEIGHBOUR, or whatever work goes on by itself."""
IDENTITY = ("-c", "user.name=hw4", "-c", "user.email=hw4@localhost")
UNPLANTED = "PLANTED: dict[str, float] = {}"
EXACT, BY_TESTS = Rules(diverged=2, sees=0.1, exact=True), Rules(diverged=2, sees=0.1)
Share = dict[str, float]
Groups = dict[str, dict[str, Outcome]]
"""Outcomes by group and seed."""
NEIGHBOUR = """
import os, numpy as np
a = np.random.default_rng(0).random((800, 800))
parent = os.getppid()
while os.getppid() == parent:
    a @ a
"""


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process of one thread that multiplies matrices (15 MB of traffic, some 10 ms each) until it is not needed."""
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env={**os.environ, **ONE_THREAD}) as process:
        try:
            yield
        finally:
            process.kill()


def copy() -> Path:
    """The checkout's code beside the example, in repositories of their own; baselines made there before stay."""
    for name in ("hw4", "benchmarks", "tests", "docs/example"):
        target = SCRATCH / name
        shutil.copytree(ROOT / name, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", BASELINE))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, SCRATCH)
    for folder in (SCRATCH / "docs/example", SCRATCH):
        (folder / ".gitignore").write_text("__pycache__/\n*.json\nexample/\n")
        for words in ("init -q", "add --all", "commit -q --no-verify --no-gpg-sign --allow-empty -m copy"):
            subprocess.run(["git", *IDENTITY, *words.split()], cwd=folder, check=True)
    return SCRATCH


def judge(test: str, *options: str, **variables: str) -> dict[str, Any]:
    """What pytest with the gate says of a file of the copy."""
    path = SCRATCH / test
    document = SCRATCH / "gate.json"
    document.unlink(missing_ok=True)
    where = path.parent if "example" in test else SCRATCH
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest, str(path), f"--gate-json={document}", *options],
        cwd=where,
        env={**os.environ, **ONE_THREAD, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if not document.exists():
        raise SystemExit(done.stdout + done.stderr)
    said: dict[str, Any] = json.loads(document.read_bytes())
    return said


def append(name: str, line: dict[str, Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_times(test: str, what: str, condition: str, runs: int, *, planted: bool, new_baseline: bool) -> None:
    """Judge times again and again, and append a line for each run."""
    baseline = copy() / Path(test).parent / BASELINE
    if new_baseline:
        baseline.unlink(missing_ok=True)
    for _ in range(ATTEMPTS):
        if not baseline.exists():
            said = judge(test, "--gate-update")
    if not baseline.exists():
        raise SystemExit(f"no baseline could be made, the gate said {said['verdict']}: run it again on a quiet machine")
    made = int(baseline.stat().st_mtime)
    kept = json.loads(baseline.read_bytes())["tests"]
    names = sorted(key.partition("::")[2] for key, entry in kept.items() if "times" in entry)
    with neighbour() if condition == "neighbour" else contextlib.nullcontext():
        for run in range(runs):
            turn = len(read_lines("timing.jsonl"))
            slower = {name: LEVELS[(index + turn) % 4] for index, name in enumerate(names)} if planted else {}
            start = time.perf_counter()
            plant(slower)
            said = judge(test)
            found = {}
            for each in said["findings"]:
                numbers = [round(each["numbers"][key], 4) for key in ("change", "error") if key in each["numbers"]]
                found[each["what"]] = [each["verdict"], *(numbers or [each["advice"]])]
            seconds = round(time.perf_counter() - start, 1)
            line = {"what": what, "condition": condition, "baseline": made, "slower": slower, "seconds": seconds}
            append("timing.jsonl", {**line, "verdict": said["verdict"], "findings": found})
            print(f"{run + 1}/{runs} {what} {condition} {said['verdict']:12} {seconds:5.1f} s", flush=True)


def plant(slower: dict[str, float]) -> None:
    """Write slowdowns into the copy's code, of which its commit has none."""
    source = (ROOT / "benchmarks/gate_timing.py").read_text()
    assert source.count(UNPLANTED) == 1
    (SCRATCH / "benchmarks/gate_timing.py").write_text(source.replace(UNPLANTED, UNPLANTED[:-2] + repr(slower)))


def train(**variables: str) -> dict[str, dict[str, Any]]:
    """Outcomes of the copy's code by group and seed."""
    baseline = copy() / "benchmarks" / BASELINE
    baseline.unlink(missing_ok=True)
    # A planted fault's self-check may fail, as it should; the outcomes are taken from a run without that group's.
    judge("benchmarks/gate_accuracy.py", "--gate-update", **variables)
    entries = json.loads(baseline.read_bytes())["tests"]
    baseline.unlink()
    return {key.partition("::")[2]: entry["outcomes"]["runs"] for key, entry in entries.items()}


def run_accuracy(replicates: int, faults: int) -> None:
    """Train unchanged, perturbed and faulty code, and append how that ended."""
    from benchmarks.planted import FAULTS

    kept = [line["name"] for line in read_lines("accuracy.jsonl")]
    before = kept.count("rounding")
    planned: list[tuple[str, dict[str, str]]] = [("unchanged", {})] * ("unchanged" not in kept)
    planned += [("rounding", {"HW4_PERTURB": str(seed)}) for seed in range(before, before + replicates)]
    planned += [(fault, {"HW4_PLANT_FAULT": fault}) for _ in range(faults) for fault in FAULTS]
    for name, variables in planned:
        append("accuracy.jsonl", {"name": name, "runs": train(**variables)})
        print(name, flush=True)


def share(seen: Sequence[bool]) -> Share:
    """How many of so many were seen, with the exact 95% interval of that share (Clopper and Pearson, 1934)."""
    hits, n = sum(seen), len(seen)
    low, high = stats.binomtest(hits, n).proportion_ci(method="exact") if n else (0.0, 1.0)
    return {"hits": hits, "n": n, "low": round(float(low), 4), "high": round(float(high), 4)}


def summarise() -> dict[str, Any]:
    """False alarms, power and what could not be measured: by condition, and by benchmark over all conditions."""
    found: dict[str, Any] = {"timing": {}, "benchmarks": {}, "accuracy": {}}
    lines = read_lines("timing.jsonl")
    for what, condition in dict.fromkeys((line["what"], line["condition"]) for line in lines):
        mine = [line for line in lines if (line["what"], line["condition"]) == (what, condition)]
        verdicts = [row[0] for line in mine for row in line["findings"].values()]
        found["timing"][f"{what}, {condition}"] = {
            "baselines": len({line["baseline"] for line in mine}),
            "false alarms, runs": share([line["verdict"] == "REGRESSION" for line in mine if not line["slower"]]),
            "unmeasurable, tests": share([verdict == "UNMEASURABLE" for verdict in verdicts]),
            "power": _power(mine),
            "seconds": [round(float(each), 1) for each in np.percentile([line["seconds"] for line in mine], (50, 95))],
        }
    for name in dict.fromkeys(name for line in lines for name in line["findings"]):
        unchanged = [line["findings"][name][0] for line in lines if name in line["findings"] and not line["slower"]]
        alarms = share([verdict == "REGRESSION" for verdict in unchanged])
        found["benchmarks"][name] = {"false alarms": alarms, "power": _power(lines, name)}
    read = TypeAdapter(Groups).validate_python
    trained = [(line["name"], read(line["runs"])) for line in read_lines("accuracy.jsonl")]
    stored: Groups = next((groups for name, groups in trained if name == "unchanged"), {})
    for name in dict.fromkeys(name for name, _ in trained):
        found["accuracy"][name] = {
            tier: share([not _passes(stored, groups, rules) for each, groups in trained if each == name])
            for tier, rules in (("bits", EXACT), ("tests", BY_TESTS))
        }
    found["put together"] = _put_together(stored, [groups for name, groups in trained if name == "rounding"])
    return found


def _power(lines: Sequence[dict[str, Any]], name: str = "") -> dict[str, Share]:
    """Of slowdowns of one benchmark, or of all, the share that was seen, by their size."""
    slowed = [
        (size, line["findings"][each][0])
        for line in lines
        for each, size in line["slower"].items()
        if name in ("", each)
    ]
    return {
        f"{level:.0%}": share([verdict == "REGRESSION" for size, verdict in slowed if size == level])
        for level in LEVELS
    }


def _passes(before: Groups, now: Groups, rules: Rules) -> bool:
    settings: dict[str, Any] = {"rules": rules, "same_machine": rules.exact, "tests": len(before), "take": ""}
    return all(judge_outcomes(group, runs, now[group], **settings).verdict == "PASS" for group, runs in before.items())


def _put_together(stored: Groups, replicates: list[Groups]) -> dict[str, int]:
    """How many of many measurements do not pass, each put together from a random replicate of every single run.

    Whole measurements take a minute each, too long for hundreds of them; but runs are perturbed and trained each by
    itself, so replicates of single runs may be combined freely.
    """
    rng, alarms, measurements = random.Random(0), 0, MEASUREMENTS if replicates else 0
    for _ in range(measurements):
        now = {group: {seed: rng.choice(replicates)[group][seed] for seed in runs} for group, runs in stored.items()}
        alarms += not _passes(stored, now, BY_TESTS)
    return {"alarms": alarms, "measurements": measurements, "replicates": len(replicates)}


def draw(found: dict[str, Any]) -> Figure:
    """Power against the size of the slowdown, by benchmark, with the false alarms of unchanged code at 0."""
    canvas = Figure(figsize=(8, 4.4), dpi=150, layout="constrained")
    axes = canvas.subplots()
    for offset, (name, row) in enumerate(found["benchmarks"].items()):
        shares = [row["false alarms"], *row["power"].values()]
        drawn = [(100 * x, each) for x, each in zip((0, *LEVELS), shares, strict=True) if each["n"]]
        values = [each["hits"] / each["n"] for _, each in drawn]
        ends = np.array([(each["low"], each["high"]) for _, each in drawn]).T
        errors = np.abs(ends - values)
        xs = [x + 0.12 * (offset - 4) for x, _ in drawn]
        axes.errorbar(xs, values, yerr=errors, marker="o", markersize=4, capsize=2, linewidth=1, label=name)
    axes.axvline(100 * (MARGIN - 1), color="#444444", linestyle=":", label=f"margin by default, {MARGIN - 1:.1%}")
    axes.set(xlabel="planted slowdown (%)", ylabel="share of tests judged REGRESSION", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    canvas.supxlabel(
        "95% binomial intervals (Clopper-Pearson); every run is judged by processes of its own", fontsize=8
    )
    return canvas


def markdown(found: dict[str, Any]) -> str:
    """The tables of the documentation: timing by condition and by benchmark, and accuracy by what was planted."""

    def cell(each: Share) -> str:
        return f"{each['hits']} of {each['n']} [{each['low']:.1%}, {each['high']:.1%}]" if each["n"] else "-"

    seen = [f"seen at +{level:.0%}" for level in LEVELS]
    timing = [
        (
            name,
            str(row["baselines"]),
            *map(cell, (row["false alarms, runs"], row["unmeasurable, tests"], *row["power"].values())),
            "{:.0f}, {:.0f}".format(*row["seconds"]),
        )
        for name, row in found["timing"].items()
    ]
    heads = ("gate, beside it", "baselines", "false alarms, runs", "UNMEASURABLE, tests", *seen, "seconds: median, 95%")
    benchmarks = [
        (name, cell(row["false alarms"]), *map(cell, row["power"].values()))
        for name, row in found["benchmarks"].items()
    ]
    trained = [
        (name, *(f"{row[tier]['hits']} of {row[tier]['n']}" for tier in ("bits", "tests")))
        for name, row in found["accuracy"].items()
    ]
    mixed = found["put together"]
    if mixed["measurements"]:
        words = f"rounding, put together from {mixed['replicates']} replicates of every run"
        trained.append((words, "-", f"{mixed['alarms']} of {mixed['measurements']:,}"))
    tables = (
        (heads, timing),
        (("test", "false alarms", *seen), benchmarks),
        (("training", "not PASS, same machine", "not PASS, by paired tests"), trained),
    )
    return "\n\n".join(markdown_table(header, body) for header, body in tables if body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("timing", "hw4's own timing gate"), ("example", "the example project's gate")):
        command = commands.add_parser(name, help=f"run {words} many times")
        command.add_argument("--condition", choices=CONDITIONS, required=True)
        command.add_argument("--runs", type=int, required=True)
        command.add_argument("--planted", action="store_true")
        command.add_argument("--new-baseline", action="store_true", help="make another baseline first")
    trained = commands.add_parser("accuracy", help="judge unchanged, perturbed and faulty training")
    trained.add_argument("--replicates", type=int, default=8, help="runs with perturbed initial weights, new ones")
    trained.add_argument("--faults", type=int, default=1, help="runs with each planted fault")
    commands.add_parser("summary", help="draw the curves of what was run so far")
    asked = parser.parse_args()
    if asked.command == "accuracy":
        run_accuracy(asked.replicates, asked.faults)
    elif asked.command == "summary":
        found = summarise()
        (FOLDER / "validation.json").write_text(json.dumps(found, indent=1) + "\n")
        draw(found).savefig(FOLDER / "validation.png", metadata={"Software": None})
        print(markdown(found))
    else:
        own = asked.command == "timing"
        test = "benchmarks/gate_timing.py" if own else "docs/example/test_gate.py"
        what = "hw4" if own else "example"
        run_times(
            test, what, asked.condition, asked.runs, planted=asked.planted and own, new_baseline=asked.new_baseline
        )


if __name__ == "__main__":
    main()
