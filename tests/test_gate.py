"""The gate: what its judges say of known truths, what hw4's own refuses, and that its references are what they are."""

import functools
import hashlib
import json
import math
import os
import random
import re
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import conftest as benchmark_rules
from benchmarks import own_gate
from benchmarks.frozen import FrozenConvNet, FrozenEnsemble, frozen_gradient, frozen_pass, frozen_reading, frozen_scores
from benchmarks.workloads import WORKLOADS
from hw4 import ConvNet, TextCNN, TextCNNEnsemble, cli, gate, measure_smoothness
from hw4.gate import (
    LEAST_VISITS,
    PLANTED,
    Estimate,
    Finding,
    Outcome,
    Part,
    Rules,
    Sample,
    Slice,
    UnmeasurableError,
    Verdict,
    as_json,
    combined,
    estimate,
    judge_outcomes,
    judge_times,
    overall,
    refusal,
    table,
)
from hw4.plugin import BASELINE, Call, Judging, read_baseline
from hw4.smoothness import full_gradient
from hw4.training import evaluate, train_ensemble, train_pass
from tests.factory import Command, python

ROOT = Path(__file__).parents[1]
FROZEN_SHA256 = {
    "frozen.py": "f3e72c83add2bea04b93545189c873015b07daece628f8f306fcf50d2a611416",
    "plain.py": "0e99001708e5a4326bc95a9392081320cf1d5ffd90c1796baa7642912a8dd52d",
    "plain_homework.py": "2be1ee46044c2dcdc3782c90129ac1145c1155ab2d3c80784d7518b3ae1044b6",
    "plain_text.py": "e98834fca8d7f936f010ae58a7673c13c49f1921b16d435c80930cb2aa26d042",
}
BEFORE = Estimate(0.0, 0.003)


# --- times: a simulated machine, whose truth is known ------------------------------------------------------------


class Machine:
    """A noisy computer: every slice costs 5 ms times today's slowdown, the machine's mood and its own luck."""

    def __init__(self, seed: int, *, slower: float = 0.0, luck: float = 0.1, tail: float = 0.0, **faults: bool) -> None:
        self.rng, self.slower, self.luck, self.faults = np.random.default_rng(seed), slower, luck, faults
        self.tail = tail
        self.mood = 0.0

    def visit(self, slices: list[Slice]) -> tuple[list[float], float]:
        """Seconds of each slice; none of them spent waiting."""
        seconds = []
        for index, piece in enumerate(slices):
            self.mood = 0.97 * self.mood + self.rng.normal(0, 0.03)
            cost = 1.0
            if not isinstance(piece, str):
                planted = 0.0 if self.faults.get("deaf") else 2 * piece if self.faults.get("loud") else piece
                cost = (1 + self.slower) * (1 + planted)
                if self.faults.get("first_is_slow") and index % 4 == 1:
                    cost *= 1.5
            late = self.rng.exponential(self.tail)  # whatever else runs makes a slice longer, and never shorter
            seconds.append(0.005 * cost * math.exp(self.mood + self.rng.normal(0, self.luck)) * (1 + late))
        return seconds, 0.0


def measured(machine: Machine, visits: int = 20, *, seed: int = 0) -> Sample:
    """A sample of so many visits."""
    sample, rng = Sample(), random.Random(seed)
    for _ in range(visits):
        sample.visit(machine.visit, rng)
    return sample


def judged(sample: Sample, before: Estimate = BEFORE) -> Finding:
    """What is said of a sample."""
    return judge_times("it", before, sample, take="take it")


@functools.cache
def hundred(slower: float) -> list[Sample]:
    """As many samples of code that became slower by a share."""
    return [measured(Machine(seed, slower=slower, luck=0.05), 30) for seed in range(100)]


def test_unchanged_code_passes_and_slower_code_does_not() -> None:
    """Power and false alarms of one look, before the second that a regression needs; 5% has to be seen."""
    verdict = {slower: [judged(sample).verdict for sample in hundred(slower)] for slower in (0.0, 0.05, 0.1)}
    assert verdict[0.0].count("REGRESSION") == 0
    assert verdict[0.0].count("UNMEASURABLE") <= 5
    assert verdict[0.05].count("REGRESSION") >= 90
    assert verdict[0.1].count("REGRESSION") >= 99


def test_a_margin_lets_pass_what_it_says() -> None:
    for slower, wanted in ((0.05, "PASS"), (0.1, "REGRESSION")):
        verdicts = [judge_times("it", BEFORE, each, take="take it", margin=1.06).verdict for each in hundred(slower)]
        assert sum(verdict == wanted for verdict in verdicts) >= 90


@pytest.mark.parametrize("confidence", [95, 0.0, 1.0, -0.5, math.nan])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"a confidence is a share above 0 and below 1, got .*; 95% is 0\.95"):
        gate.Estimate(0, 1, 5).quantile(confidence)


@pytest.mark.parametrize("visits", [12, 20])
def test_the_interval_is_students(visits: int) -> None:
    """The standard error of the trimmed mean covers the truth as often as it says, outliers or not."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1_000):
        found = estimate(rng.standard_t(3, visits).tolist())
        covered += abs(found.log) < found.quantile(0.975) * found.error
    assert 0.93 <= covered / 1_000 <= 0.98  # 0.95 within three standard errors of a share, and some for the trimming
    assert found.quantile(0.975) == pytest.approx(stats.t.ppf(0.975, visits - 2 * (visits // 5) - 1))


def test_differences_have_satterthwaites_freedom() -> None:
    a, b = Estimate(0.1, 0.03, 7), Estimate(0.05, 0.01, 11)
    found = a.minus(b)
    expected = (0.03**2 + 0.01**2) ** 2 / (0.03**4 / 7 + 0.01**4 / 11)
    assert (found.log, found.error, found.freedom) == pytest.approx((0.05, math.hypot(0.03, 0.01), expected))
    assert a.minus(Estimate(0.0, 0.0)).freedom == pytest.approx(7)


def test_a_baselines_error_is_what_its_measurements_state_or_show() -> None:
    steady, apart = [Estimate(0.0, 0.01, 7)] * 4, [Estimate(log, 0.001, 7) for log in (-0.03, -0.01, 0.01, 0.03)]
    assert combined(steady).error == pytest.approx(0.005)
    assert combined(apart).error == pytest.approx(np.std([-0.03, -0.01, 0.01, 0.03], ddof=1) / 2)
    assert combined(apart).freedom == 3


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(0, deaf=True, luck=0.02), "planted slowdown"),
        (Machine(0, loud=True, luck=0.02), "planted slowdown"),
        (Machine(0, luck=1.5), "planted slowdown"),
        (Machine(0, luck=0.2), "error of the change"),
    ],
    ids=["a timer that sees no slowdown", "one that sees twice as much", "hopeless noise", "too much noise"],
)
def test_a_measurement_that_fails_its_own_check_says_nothing(machine: Machine, reason: str) -> None:
    finding = judged(measured(machine))
    assert finding.verdict == "UNMEASURABLE"
    assert reason in finding.advice


def test_the_same_code_that_differs_is_caught() -> None:
    """With the A/A arms in one fixed order, a slot that is slow makes a commit slower than itself."""

    class Fixed(random.Random):
        def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:  # noqa: ARG002
            return list(population)[:k]

    machine, sample = Machine(0, luck=0.02, first_is_slow=True), Sample()
    for _ in range(20):
        sample.visit(machine.visit, Fixed())
    finding = judged(sample)
    assert finding.verdict == "UNMEASURABLE"
    assert "timed twice" in finding.advice
    assert judged(measured(Machine(0, luck=0.02))).verdict == "PASS"


def test_the_planted_slowdown_comes_back_as_it_is_beside_a_neighbour() -> None:
    """Beside times with a long tail a slice has another median than the mean of two."""
    found = estimate(measured(Machine(0, luck=0.01, tail=0.2), visits=2_000).planted)
    assert abs(found.log - math.log(1 + PLANTED)) < 3 * found.error < 0.01


def test_a_slowdown_far_beyond_its_error_is_seen_beside_noise() -> None:
    """An error above what a pass may have does not hide what is twice as slow."""
    finding = judged(measured(Machine(0, slower=1.0, luck=0.2)))
    assert finding.verdict == "REGRESSION"
    assert finding.numbers["error"] > gate.LARGEST_ERROR


def test_what_passes_may_have_a_word_to_it() -> None:
    finding = judged(measured(Machine(1, slower=-0.2, luck=0.03)))
    assert finding.verdict == "PASS"
    assert "take it" in finding.advice
    assert finding.numbers["change"] == pytest.approx(0.8, abs=0.03)
    idle = measured(Machine(1, luck=0.03))
    idle.waiting = [0.5] * 20
    assert "50% of a call is waiting" in judged(idle).advice
    idle.waiting = [0.9] * 20
    assert judged(idle).verdict == "UNMEASURABLE"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_says_nothing(broken: float) -> None:
    sample = measured(Machine(0, luck=0.02))
    assert judged(sample, Estimate(broken, 0.003)).verdict == "UNMEASURABLE"
    assert judged(sample, Estimate(0.0, abs(broken))).verdict == "UNMEASURABLE"
    sample.ratios[3] = broken
    assert judged(sample).verdict == "UNMEASURABLE"


def test_too_few_visits_are_not_enough() -> None:
    assert judged(measured(Machine(0, luck=0.01), LEAST_VISITS - 1)).verdict == "UNMEASURABLE"
    assert judged(measured(Machine(0, luck=0.01), LEAST_VISITS)).verdict == "PASS"
    assert judged(Sample()).verdict == "UNMEASURABLE"


@pytest.mark.parametrize(
    ("looked", "then", "now", "verdict", "sentence"),
    [
        (0.05, 0.05, 0.05, "PASS", "its commit takes as long here: it is the machine or the hour"),
        (0.05, 0.0, 0.05, "REGRESSION", "also beside the baseline's commit"),
        (0.2, 0.2, 0.2, "UNMEASURABLE", "something that git does not keep"),
        (0.2, 0.04, 0.2, "REGRESSION", "also beside the baseline's commit"),
    ],
)
def test_what_looks_slower_is_judged_beside_the_baselines_commit(
    looked: float, then: float, now: float, verdict: str, sentence: str
) -> None:
    """Of a baseline whose ratio is 1: how much slower today's code looked, and its commit and it measured anew."""
    beside = [measured(Machine(seed, slower=slower, luck=0.01)) for seed, slower in enumerate((then, now))]
    judging: Any = SimpleNamespace(against="", _beside_commit=lambda *_: beside)
    judging._found = functools.partial(Judging._found, judging)
    call = Call("t::step", 1, "", Path("gate-baseline.json"), "t::", "renew")
    row = {"log": 0.0, "error": 0.004, "freedom": 20, "commit": "0" * 40}
    found = Judging._look_again(judging, [], [measured(Machine(2, slower=looked, luck=0.01))], call, row)
    assert found.verdict == verdict
    assert sentence in found.advice


def test_a_second_measurement_confirms_or_replaces_the_first() -> None:
    """The first looked slower: what does not repeat that takes its place; what says nothing does neither."""
    for machine, visits, confirmed in (
        (Machine(1, slower=0.1, luck=0.02), 40, True),
        (Machine(1, luck=0.02), 20, False),
    ):
        first = measured(Machine(0, slower=0.1, luck=0.02))
        first.add(measured(machine), confirmed=confirmed)
        assert len(first.ratios) == len(first.same) == len(first.planted) == visits
    for says_nothing in (measured(Machine(1, deaf=True, luck=0.02)), measured(Machine(1, slower=0.1, luck=0.02), 5)):
        first = measured(Machine(0, slower=0.1, luck=0.02))
        for confirmed in (True, False):
            with pytest.raises(UnmeasurableError, match="it looked slower, and measured once more"):
                first.add(says_nothing, confirmed=confirmed)


# --- outcomes ----------------------------------------------------------------------------------------------------


def outcomes(values: list[float | None], *, loss: float | None = 0.1, digest: str = "same") -> dict[str, Outcome]:
    """Runs with these accuracies; None has diverged."""
    return {
        str(seed): Outcome(
            value, None if value is None or loss is None else loss * (1 + 0.01 * seed), value is None, digest
        )
        for seed, value in enumerate(values)
    }


GOOD: list[float | None] = [0.90, 0.91, 0.92, 0.90, 0.91, 0.92]


def said(before: dict[str, Outcome], now: dict[str, Outcome], **settings: Any) -> Finding:
    """What is said of outcomes on the same machine, where up to two more may diverge."""
    rules = Rules(**{"diverged": 2, **settings})
    return judge_outcomes("net", before, now, rules=rules, same_machine=True, take="take it")


@pytest.mark.parametrize(
    ("now", "exact", "verdict"),
    [
        (outcomes(GOOD), True, "PASS"),
        (outcomes(GOOD, digest="other"), True, "CHANGED"),
        (outcomes(GOOD, digest="other"), False, "PASS"),
        (outcomes([0.87, 0.89, 0.89, 0.87, 0.88, 0.89], digest="other"), False, "REGRESSION"),
        (outcomes([0.94, 0.95, 0.97, 0.95, 0.96, 0.97], digest="other"), False, "SUSPICIOUS"),
        (outcomes(GOOD, loss=0.12, digest="other"), False, "REGRESSION"),
        (outcomes(GOOD, loss=0.08, digest="other"), False, "SUSPICIOUS"),
        (outcomes([None, *GOOD[1:]], digest="other"), False, "PASS"),
        (outcomes([None, None, *GOOD[2:]], digest="other"), False, "PASS"),
        (outcomes([None, None, None, *GOOD[3:]], digest="other"), False, "REGRESSION"),
        (outcomes([None] * 6, digest="other"), False, "REGRESSION"),
    ],
)
def test_outcomes_are_judged(now: dict[str, Outcome], exact: bool, verdict: str) -> None:
    assert said(outcomes(GOOD), now, exact=exact).verdict == verdict


def test_one_more_diverged_run_passes_unless_all_others_are_the_same() -> None:
    lost = outcomes([None, *GOOD[1:]], digest="other")
    assert "1 more diverged, which diverged_margin=2 lets pass" in said(outcomes(GOOD), lost).advice
    assert said(outcomes([None, None, None, 0.9]), outcomes([None] * 4), diverged=3).verdict == "UNMEASURABLE"
    finding = said(outcomes(GOOD), outcomes([None, *GOOD[1:]]))
    assert (finding.verdict, finding.advice) == ("REGRESSION", "1 more diverged: find out why")


def test_what_could_not_be_seen_is_shown() -> None:
    """A seed that collapses hides behind its own scatter, and not from the table."""
    finding = said(outcomes(GOOD), outcomes([0.1, *GOOD[1:]], digest="other"))
    assert finding.verdict == "UNMEASURABLE"
    assert "0.91" in finding.before
    assert "-0.13" in finding.change


def test_fewer_diverged_runs_are_suspicious() -> None:
    before, now = outcomes([None, None, None, *GOOD]), outcomes([0.9, 0.9, 0.9, *GOOD])
    assert said(before, now).verdict == "SUSPICIOUS"


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (outcomes([0.955]), outcomes([0.6]), "1 seed can show nothing: give at least 4"),
        (outcomes([0.955] * 3), outcomes([0.6] * 3, digest="other"), "3 seeds"),
        (outcomes([None] * 6), outcomes([None] * 6), "all of 6 runs diverged"),
        (outcomes([None] * 6), outcomes([None] * 6, digest="other"), "all of 6 runs diverged"),
        (outcomes(GOOD, loss=0.0), outcomes(GOOD, loss=0.0), "a loss that is finite and above 0"),
        (outcomes(GOOD, loss=-1.0), outcomes(GOOD, loss=-1.0), "a loss that is finite and above 0"),
        (outcomes([None, None, None, *GOOD[3:]]), outcomes([None, None, None, *GOOD[3:]]), "3 of 6 seeds"),
        (
            outcomes(GOOD),
            outcomes([0.99, 0.82, 0.99, 0.82, 0.99, 0.85], digest="other"),
            "the least change of accuracy",
        ),
        (outcomes(GOOD), outcomes(GOOD[:5]), "seed 5 is only in what was before"),
        (outcomes(GOOD), outcomes([*GOOD, 0.9]), "seed 6 is only in this measurement"),
    ],
)
def test_absence_of_evidence_is_never_a_pass(before: dict[str, Outcome], now: dict[str, Outcome], reason: str) -> None:
    for exact in (True, False) if all(before[seed] == now.get(seed) for seed in before) else (False,):
        finding = said(before, now, exact=exact)
        assert finding.verdict == "UNMEASURABLE"
        assert reason in finding.advice


def test_seeds_that_training_ignores_are_one_run() -> None:
    """Of which no test can say anything, but whether its bits are the same."""
    runs = [
        {str(seed): Outcome(share, None, False, name) for seed in range(8)} for name, share in (("a", 0.9), ("b", 0.88))
    ]
    assert said(*runs).verdict == "UNMEASURABLE"
    assert "let training use its seed" in said(*runs).advice
    assert said(*runs, exact=True).verdict == "CHANGED"
    assert said(runs[0], runs[0]).verdict == "PASS"


def test_a_seed_that_is_left_out_may_be_the_one_that_got_worse() -> None:
    """A loss of nothing has no logarithm; half of the runs had one, and went to 0.5."""
    before = {str(seed): Outcome(None, 0.0 if seed < 4 else 0.1, False, "before") for seed in range(8)}
    now = {str(seed): Outcome(None, 0.5 if seed < 4 else 0.1, False, "now") for seed in range(8)}
    finding = said(before, now)
    assert finding.verdict == "UNMEASURABLE"
    assert "4 of 8 seeds have a loss that is finite and above 0" in finding.advice


def test_a_change_of_the_margin_passes() -> None:
    """0.95 - 0.945 is more than 0.005, by the last bit."""
    before, now = outcomes([0.95] * 8), outcomes([0.945] * 8, digest="other")
    assert said(before, now).verdict == "PASS"
    assert said(before, outcomes([0.9449] * 8, digest="other")).verdict == "REGRESSION"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"accuracy": math.nan}, "accuracy_margin is nan"),
        ({"accuracy": -0.1}, "accuracy_margin is -0.1"),
        ({"accuracy": 0.5}, "accuracy_margin is 0.5 and sees=0.05"),
        ({"accuracy": 5, "sees": 10}, "accuracy in percent"),
        ({"loss": 0.1}, "loss_margin is 0.1 and sees=0.05 asks for 0.1"),
        ({"sees": math.nan}, "sees=nan"),
        ({"diverged": -1}, "diverged_margin is -1"),
    ],
)
def test_margins_are_shares_that_leave_something_to_see(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Rules(**settings)  # type: ignore[arg-type]


def test_the_least_change_is_seen_half_of_the_time() -> None:
    """What is said to be the least that could be seen: planted, it is found by every second test."""
    rng, seen, level = np.random.default_rng(0), 0, 0.005
    for _ in range(400):
        noise = rng.normal(0, 0.02, 8)
        least = gate.Shift(tuple(noise - noise.mean()), 0.005).least(level)
        seen += gate.Shift(tuple(rng.normal(0, noise.std(ddof=1), 8) + least), 0.005).p_value(1) <= level
    assert 0.35 <= seen / 400 <= 0.65  # the spread of eight numbers is itself known to a quarter


def test_rounding_alone_hardly_ever_alarms() -> None:
    """Seeds move by two points either way, as other processors move them; nine groups at once."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        verdicts = [
            judge_outcomes(
                "net",
                outcomes(rng.normal(0.8, 0.02, 10).tolist()),
                outcomes(rng.normal(0.8, 0.02, 10).tolist(), digest="other"),
                rules=Rules(sees=0.2),
                same_machine=False,
                tests=9,
                take="",
            ).verdict
            for _ in range(9)
        ]
        alarms += any(verdict != "PASS" for verdict in verdicts)
    assert alarms <= 4


# --- one verdict, and how it is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        ([("timing", "PASS"), ("accuracy", "PASS")], "PASS", 0),
        ([("timing", "PASS"), ("timing", "NEW")], "PASS", 0),
        ([("timing", "NEW"), ("timing", "NEW")], "UNMEASURABLE", 3),
        ([("timing", "NEW"), ("accuracy", "PASS")], "UNMEASURABLE", 3),
        ([("timing", "PASS"), ("timing", "REGRESSION")], "REGRESSION", 1),
        ([("timing", "PASS"), ("timing", "UNMEASURABLE")], "UNMEASURABLE", 3),
        ([("timing", "REGRESSION"), ("timing", "UNMEASURABLE")], "REGRESSION", 1),
        ([("timing", "UNMEASURABLE"), ("accuracy", "CHANGED")], "CHANGED", 1),
        ([("accuracy", "SUSPICIOUS"), ("accuracy", "PASS")], "SUSPICIOUS", 1),
        ([], "UNMEASURABLE", 3),
    ],
)
def test_one_verdict_over_all(found: list[tuple[Part, Verdict]], verdict: str, code: int) -> None:
    findings = [Finding(part=part, what="it", verdict=each, advice="see to it") for part, each in found]
    document = json.loads(as_json(findings, {"against": None}))
    assert overall(findings) == document["verdict"] == verdict
    assert document["exit_code"] == code


def test_the_table_says_what_to_do() -> None:
    lines = table([refusal("timing", "it", "run again"), refusal("accuracy", "another", "")]).splitlines()
    assert [line.split()[-1] for line in lines] == ["verdict", "UNMEASURABLE", "again", "UNMEASURABLE"]


# --- hw4's own gate ----------------------------------------------------------------------------------------------


def test_the_committed_baseline_is_of_these_benchmarks() -> None:
    """A benchmark that is added, renamed or gone needs a new baseline, in the same commit."""
    kept = read_baseline(ROOT / "benchmarks" / BASELINE)
    assert {key.partition("::")[2] for key, entry in kept.items() if "times" in entry} == set(WORKLOADS)
    assert sum("outcomes" in entry for entry in kept.values()) == 9


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--update", "--against", "HEAD"], "--against", cli.USAGE),
        (["--against", ""], "is a variable empty?", cli.USAGE),
        (["--out", "file/below"], "nothing was judged", cli.UNFINISHED),
        (["--out", "."], "needs a checkout", cli.UNFINISHED),
    ],
)
def test_the_gate_refuses_before_it_measures(  # noqa: PLR0917  most are fixtures
    arguments: list[str], sentence: str, code: int, hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert sentence in hw4("gate", *arguments, code=code).err


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("REGRESSION", 1), ("UNMEASURABLE", 3)])
def test_the_gate_tells_what_pytest_judged(
    verdict: Verdict, code: int, hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pytest over the gated tests, here replaced by what it leaves."""
    asked: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.extend(command)
        path = next(Path(word.partition("=")[2]) for word in command if word.startswith("--gate-json="))
        path.write_bytes(as_json([Finding(part="timing", what="it", verdict=verdict)], {"compared": "the baseline"}))
        path.with_suffix(".xml").write_text("<testsuites/>")
        return SimpleNamespace(stdout="", stderr="")

    monkeypatch.setattr(own_gate, "subprocess", SimpleNamespace(run=run))
    out = hw4("gate", "--part", "timing", "--against", "HEAD~1", "--out", str(tmp_path), code=code).out
    assert f"Verdict: {verdict}, compared with the baseline." in out
    assert json.loads((tmp_path / "gate.json").read_bytes())["environment"]["threads"] == 1
    assert (tmp_path / "gate.xml").exists()
    assert "--gate-against=HEAD~1" in asked
    assert not any("accuracy" in word for word in asked)


def test_a_gate_whose_pytest_fails_says_why(hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(stdout="", stderr="ERROR: it is broken\n")
    monkeypatch.setattr(own_gate, "subprocess", SimpleNamespace(run=lambda *_, **__: failed))
    assert "pytest said: it is broken" in hw4("gate", "--out", str(tmp_path), code=cli.UNFINISHED).err


# --- the references ----------------------------------------------------------------------------------------------


def test_references_are_frozen() -> None:
    """Every ratio kept anywhere is one to these files; who edits one starts all of them anew, on purpose."""
    for name, digest in FROZEN_SHA256.items():
        assert hashlib.sha256((ROOT / "benchmarks" / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(("norm", "downsample"), [(None, "pool"), ("batch", "pool"), (None, "stride")])
def test_the_frozen_convnet_computes_the_same(norm: Any, downsample: Any) -> None:
    """Same work or no reference: to the last bit, or within rounding once hw4 sums in another order."""
    torch.manual_seed(0)
    today, frozen = ConvNet(norm, downsample), FrozenConvNet(norm, downsample)
    frozen.load_state_dict(today.state_dict())
    x, y = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    settings: dict[str, Any] = {"learning_rate": 0.04, "batch_size": 16}
    a, b = (
        step(net, x, y, generator=generator(), **settings) for step, net in ((train_pass, today), (frozen_pass, frozen))
    )
    assert a == pytest.approx(b, rel=1e-5)
    torch.testing.assert_close(
        full_gradient(today, x, y), frozen_gradient(deepcopy(frozen), x, y), rtol=1e-3, atol=1e-5
    )
    reading = measure_smoothness(today, x, y, generator=generator(), **settings)
    then = frozen_reading(frozen, x, y, generator=generator(), **settings)
    assert reading.smoothness == pytest.approx(then, rel=1e-2)
    found = evaluate(today, x, y)
    assert (found.loss, found.accuracy) == pytest.approx(frozen_scores(frozen, x, y), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 10])
def test_the_frozen_ensemble_computes_the_same(stride: int) -> None:
    today, frozen = TextCNNEnsemble.from_models([TextCNN(stride) for _ in range(3)]), FrozenEnsemble(stride, 3)
    with torch.no_grad():
        for parameter, value in zip(today.parameters(), (frozen.conv, frozen.weight, frozen.bias), strict=True):
            parameter.copy_(value)
    x, y = torch.randn(64, 1, 96), torch.randint(6, (64,))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    train_ensemble(today, x, y, learning_rate=0.01, momentum=0.8, batch_size=32, epochs=1, generators=generators())
    assert frozen.epoch(x, y, learning_rate=0.01, batch_size=32, generators=generators())
    for parameter, value in zip(today.parameters(), (frozen.conv, frozen.weight, frozen.bias), strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-4, atol=1e-6)


# --- pytest benchmarks fails closed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("dist", "load", "pytest-xdist is active"),
        ("benchmark_disable", True, "--benchmark-disable times nothing"),
        ("benchmark_skip", True, "--benchmark-skip times nothing"),
        ("benchmark_compare_fail", ["min:5%"], "'hw4 gate' judges"),
        ("benchmark_compare", "7777", "no saved run begins with '7777'"),
    ],
)
def test_benchmarks_refuse_what_times_nothing(
    option: str, value: object, sentence: str, request: pytest.FixtureRequest
) -> None:
    options = {**vars(request.config.option), "dist": "no", "benchmark_disable": False}
    assert option in options
    config: Any = SimpleNamespace(
        option=SimpleNamespace(**{**options, option: value}),
        args=[str(ROOT / "benchmarks")],
        pluginmanager=SimpleNamespace(hasplugin=lambda _: True),
    )
    config.option.benchmark_storage = "file://./.benchmarks"
    with pytest.raises(pytest.UsageError, match=re.escape(sentence)):
        benchmark_rules.pytest_configure(config)


def test_what_times_nothing_ends_pytest_itself(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = ["-m", "pytest", str(ROOT / "benchmarks"), "-k", "evaluation", "--numprocesses=2"]
    done = python(*command, cwd=tmp_path, env=environment)
    assert done.returncode not in (0, 5)
    assert "pytest-xdist is active" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("timed", "keyword", "fails"),
    [(list(WORKLOADS), "", False), (list(WORKLOADS)[1:], "", True), ([], "", True), ([], "evaluation", False)],
)
def test_a_whole_run_must_time_every_workload(timed: list[str], keyword: str, fails: bool) -> None:
    stash = pytest.Stash()
    stash[benchmark_rules.TIMED] = timed
    names = ("deselect", "lf", "ignore", "ignore_glob", "collectonly", "setuponly", "setupplan")
    option = SimpleNamespace(keyword=keyword, markexpr="", **dict.fromkeys(names, None))
    plugins = SimpleNamespace(hasplugin=lambda _: True)
    config = SimpleNamespace(args=[str(ROOT / "benchmarks")], option=option, stash=stash, pluginmanager=plugins)
    session: Any = SimpleNamespace(config=config, exitstatus=0)
    benchmark_rules.pytest_sessionfinish(session, 0)
    assert (session.exitstatus != 0) == fails
