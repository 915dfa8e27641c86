"""Exercise 2's charts, tables and words."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hw4.errors import RecordError
from hw4.files import RECORDS, SWEEP_CONTROLS
from hw4.geometry import TEXT_LENGTH, input_coverage, text_function
from hw4.records import ConvNetRecord, QuestionIdentity, Store, TextCNNRecord
from hw4.report.drawing import DPI, error_bar, legend_below, told
from hw4.report.entry import CHOICE, Entry, Table, again, changed, data_words, grouped, mixed
from hw4.report.words import bounded, counted, p_value, plural, show, span
from hw4.specs import HELD_OUT_EVERY, HOMEWORK_VECTORS, STRIDES, TRIALS, TextCNNSpec
from hw4.stats import Interval, compare_crossed, holm, mean_interval
from hw4.studies import RATES, RESCUE_RATES, Spec, best_rate, controls

LEVEL = 0.05
ENDS = {RATES[0]: "smallest", RATES[-1]: "largest"}
"""At which end of the grid a best learning rate lies, if at one: a better one may lie beyond."""
NOT_THE_HOMEWORKS = "not the homework's vectors; 'hw4 fetch' brings those"

PAIRS_HEADER = ("strides", "difference in accuracy (95% interval of this pair alone)", "Holm p", "verdict")


class Bar(NamedTuple):
    """All trials of one stride at one learning rate."""

    stride: int
    learning_rate: float
    records: tuple[TextCNNRecord, ...]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of every trial that did not diverge."""
        return [record.test_accuracy for record in self.records if record.test_accuracy is not None]

    @property
    def diverged(self) -> int:
        """How many trials diverged."""
        return len(self.records) - len(self.accuracies)

    @property
    def lost(self) -> str:
        """How many trials diverged, of how many, in words."""
        return f"{self.diverged} of {len(self.records)}"

    @property
    def mean(self) -> Interval | None:
        """Mean accuracy of the trials that did not diverge, with its interval over trials, cut to what a share can be.

        Where trials diverged those that are left are a selected sample, so this mean is compared with no other.
        """
        return bounded(mean_interval(self.accuracies), 1) if self.accuracies else None

    @property
    def top(self) -> float:
        """Upper end of all that the chart shows of it."""
        whisker = self.mean.high if self.mean is not None and self.mean.n > 1 else 0
        return max([whisker, *self.accuracies])

    @property
    def reads(self) -> int:
        """How many of the vector's numbers it reads."""
        return len(input_coverage(self.stride))

    @property
    def function(self) -> object:
        """What it computes of its weights: some strides read the same windows and are one function."""
        return text_function(self.stride)


class Pair(NamedTuple):
    """Two strides, by how much the first is more accurate and Holm's p, or the reason why that is not said."""

    first: int
    second: int
    difference: Interval | None = None
    p_value: float = 1
    reason: str = ""

    @property
    def order(self) -> tuple[int, int] | None:
        """The more accurate stride and the other, where that is decided."""
        if self.difference is None or self.p_value > LEVEL:
            return None
        return (self.first, self.second) if self.difference.estimate > 0 else (self.second, self.first)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its row in the table of pairs."""
        name = f"{self.first} against {self.second}"
        if self.difference is None:
            return name, "-", "-", self.reason
        verdict = "not decided" if self.order is None else "higher" if self.difference.estimate > 0 else "lower"
        return name, show(self.difference, sign=True), p_value(self.p_value), verdict


Own = tuple[Bar, Bar, Bar]
"""A function at its own best learning rate: the trials that chose it on held-out questions, others on all, permuted."""


class Sweep(NamedTuple):
    """One sweep as it is reported: ``bars`` ran at its learning rate, ``slower`` at smaller ones, for lost strides.

    So many ``trials`` of each stride were asked for, and ``beside`` are the controls. ``suffix`` tells the sweep from
    others of the folder, in titles and file names; it is empty for the homework's own settings and for a sweep that is
    alone.
    """

    bars: list[Bar]
    slower: list[Bar]
    trials: int
    suffix: str = ""
    beside: Sequence[TextCNNRecord] = ()

    @property
    def records(self) -> list[TextCNNRecord]:
        """All records that it tells of."""
        return [*(record for bar in (*self.bars, *self.slower) for record in bar.records), *self.beside]

    @property
    def own(self) -> list[Own]:
        """The controls by function, where there are all three kinds of trials at the rate that is best."""
        found = []
        for stride in dict.fromkeys(record.stride for record in self.beside):
            here = [record for record in self.beside if record.stride == stride]
            rate = best_rate([record for record in here if record.spec.held_out])
            at = [record for record in here if record.spec.learning_rate == rate]
            kinds = [
                [r for r in at if (r.spec.held_out, r.spec.permutation is not None) == kind]
                for kind in ((True, False), (False, False), (False, True))
            ]
            if rate is not None and all(kinds):
                chosen, plain, permuted = (Bar(stride, rate, tuple(records)) for records in kinds)
                found.append((chosen, plain, permuted))
        return found

    def named(self, stride: int) -> str:
        """A stride, with all others of the sweep that compute its function."""
        same = [bar.stride for bar in self.bars if bar.function == text_function(stride)]
        return _listed(sorted({stride, *same}))

    @property
    def data(self) -> QuestionIdentity:
        """The questions, and what other accuracies are to be seen beside."""
        return self.records[0].data

    @property
    def unrescued(self) -> bool:
        """Whether a stride that lost most trials was tried at no smaller rate, though there are some to try."""
        rate, tried = self.bars[0].learning_rate, {bar.stride for bar in self.slower}
        lost = {bar.stride for bar in self.bars if 2 * bar.diverged > len(bar.records)}
        return bool(lost - tried) and rate > min(RESCUE_RATES)

    def stable(self, bar: Bar) -> Bar | None:
        """The largest smaller rate at which every trial of a stride trained, where one was tried."""
        return next((other for other in self.slower if other.stride == bar.stride and not other.diverged), None)


def sweeps(records: Sequence[TextCNNRecord], beside: Sequence[TextCNNRecord] = ()) -> list[Sweep]:
    """A folder's trials as one sweep for each protocol and learning rate, the homework's own first.

    What stands ``beside``, the controls, goes with the first sweep of its protocol.
    """
    plain = [each for each in records if not each.spec.held_out and each.spec.permutation is None]
    plain.sort(key=lambda r: (r.stride, -r.spec.learning_rate, r.trial))
    both = len({record.spec.data for record in plain}) > 1
    found = dict[str, Sweep]()
    for protocol in grouped(plain, _protocol).values():
        bars = grouped(protocol, lambda record: (record.stride, record.spec.learning_rate))
        for sweep in _of_protocol([Bar(*setting, tuple(group)) for setting, group in bars.items()]):
            spec = sweep.records[0].spec
            # All that is not the homework's, as in the records' names between stride and trial.
            suffix = [*["embedded"] * (both and spec.data == "grammar"), *spec.key.split("_")[2:-1]]
            found["_".join(suffix)] = sweep
    left, in_order = grouped(sorted(beside, key=lambda r: (r.stride, r.trial)), _protocol), list[Sweep]()
    for name, sweep in sorted(found.items()):
        mine = left.pop(_protocol(sweep.records[0]), [])
        in_order.append(sweep._replace(suffix=name if len(found) > 1 else "", beside=mine))
    return in_order


def _protocol(record: TextCNNRecord) -> tuple[str, float, int, int]:
    spec = record.spec
    return spec.data, spec.momentum, spec.batch_size, spec.epochs


def _of_protocol(bars: Sequence[Bar]) -> Iterator[Sweep]:
    """The sweeps of one protocol.

    Trials at a rate of RESCUE_RATES, of a stride that lost trials at a larger one, count as its rescue: they make no
    sweep of their own, and do not say how many trials the others must have.
    """
    for rate in {bar.learning_rate for bar in bars}:
        mine = [bar for bar in bars if bar.learning_rate == rate]
        lost_above = {bar.stride for bar in bars if bar.learning_rate > rate and bar.diverged}
        asked = [bar for bar in mine if rate not in RESCUE_RATES or bar.stride not in lost_above]
        lost = {bar.stride for bar in mine if bar.diverged}
        slower = [bar for bar in bars if bar.learning_rate < rate and bar.stride in lost]
        if asked:
            yield Sweep(mine, slower, 1 + max(record.trial for bar in asked for record in bar.records))


def _faults(sweep: Sweep) -> Iterator[str]:
    """Why these trials cannot stand in one chart, each in a sentence with the way out."""
    yield from mixed(sweep.records)
    for bar in sweep.bars:
        absent = sorted(set(range(sweep.trials)) - {record.trial for record in bar.records})
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            yield (
                f"the sweep is incomplete: stride {bar.stride} at learning rate {bar.learning_rate:g} lacks trial "
                f"{absent[0]}{more}; 'hw4 sweep' with that sweep's options makes what is missing"
            )
    if lacking := _lacking(sweep.beside):
        yield (
            f"the sweep's controls are incomplete: {lacking[0].key} and perhaps more are not there; 'hw4 sweep "
            f"--controls' makes what is missing"
        )


def _lacking(beside: Sequence[TextCNNRecord]) -> list[TextCNNSpec]:
    """Controls that are wanted next beside those that are there."""
    made: dict[Spec, ConvNetRecord | TextCNNRecord | None] = {record.spec: record for record in beside}
    most = max(len({record.trial for record in beside if record.spec.held_out == which}) for which in (True, False))
    trials = [
        record.spec.model_copy(update={"trial": trial, "held_out": False, "permutation": None})
        for record in {record.stride: record for record in beside}.values()
        for trial in range(most)
    ]
    return [spec for spec in controls(trials)(made) if isinstance(spec, TextCNNSpec) and spec not in made]


def caption(sweep: Sweep) -> str:
    """What was run."""
    data, spec = sweep.data, sweep.records[0].spec
    return (
        f"{data.title}, {data.n_train:,} training and {data.n_test:,} test questions, vectors: {data.vectors}"
        f"{f' ({NOT_THE_HOMEWORKS})' if _other_vectors(data) else ''}, data sha256 {data.checksum[:12]}; SGD, learning "
        f"rate {spec.learning_rate:g}, momentum {spec.momentum:g}, batch {spec.batch_size}, "
        f"{plural(spec.epochs, 'epoch')}; {counted([len(bar.records) for bar in sweep.bars], 'trial')} per stride"
    )


def _other_vectors(data: QuestionIdentity) -> bool:
    return data.name == "trec" and data.vectors != HOMEWORK_VECTORS


def tables(sweep: Sweep, pairs: Sequence[Pair]) -> list[Table]:
    """One row for each stride and learning rate, and one for each pair of strides."""
    rows = [
        (
            str(bar.stride),
            f"{bar.learning_rate:g}",
            f"{bar.reads} of {TEXT_LENGTH}",
            show(bar.mean),
            f"{sum(bar.accuracies) / len(bar.records):.3f}",
            span(bar.accuracies, ".3f"),
            bar.lost,
        )
        for bar in (*sweep.bars, *sweep.slower)
    ]
    means = ("mean of the converged", "mean of all, a diverged trial as 0")
    header = ("stride", "learning rate", "inputs read", *means, "lowest to highest", "diverged")
    of_pairs: Table = ("Pairs of strides", PAIRS_HEADER, [pair.row for pair in pairs])
    return [("", header, rows), *([of_pairs] if pairs else []), *_own_tables(sweep)]


def _own_tables(sweep: Sweep) -> Iterator[Table]:
    """What each stride reaches at its own best rate, its pairs there, and what other orders of the numbers change."""
    if not sweep.own:
        return
    rows = [
        (
            sweep.named(bar.stride),
            f"{bar.learning_rate:g}{ENDS.get(bar.learning_rate, '') and f', the {ENDS[bar.learning_rate]} tried'}",
            show(chosen.mean),
            show(bar.mean),
            bar.lost,
        )
        for chosen, bar, _ in sweep.own
    ]
    header = ("stride", "its best rate", "held-out accuracy", "test accuracy", "diverged")
    yield "Each stride at its own best learning rate", header, rows
    if pairs := _compare([bar for _, bar, _ in sweep.own]):
        yield "Pairs of strides at their own best rates", PAIRS_HEADER, [pair.row for pair in pairs]
    if permuted := _permuted(sweep.own):
        cells = [
            (sweep.named(bar.stride), f"{bar.reads} of {TEXT_LENGTH}", *pair.row[1:])
            for (_, bar, _), pair in zip(sweep.own, permuted, strict=True)
        ]
        gap = "permuted less not (95% interval of this one alone)"
        header = ("stride", "inputs read", gap, "Holm p", "verdict")
        yield "The vector's numbers in other orders, at the same rates", header, cells


def _matrices(first: Bar, second: Bar, *, independent: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """Right answers (trials, questions) of both, trial by trial of equal seeds.

    With ``independent`` the first half of one's trials stands beside the second half of the other's: no seed twice.
    None when a trial of either diverged, when fewer than two are left, or when the questions differ.
    """
    other = {record.trial: record.correct for record in second.records}
    half = (max(other, default=0) + 1) // 2
    pairs = [
        (record.correct, right)
        for record in first.records
        if (right := other.get(record.trial + half * independent)) is not None
        and record.correct is not None
        and (record.trial < half or not independent)
    ]
    if first.diverged or second.diverged or len(pairs) < 2 or len({len(right) for pair in pairs for right in pair}) > 1:
        return None
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def _compare(bars: Sequence[Bar]) -> list[Pair]:
    """Every two strides, paired per trial and per question, with Holm's correction over all that can be compared.

    A stride that lost trials is not compared: its survivors are a selected sample. Two functions are compared once,
    however many strides compute them. Nothing is when each stride has one trial.
    """
    found, compared = list[Pair](), dict[object, Pair]()
    for first, second in combinations(bars, 2):
        pair, reason = _tested(first, second), ""
        if first.function == second.function and not first.diverged + second.diverged:
            reason = "one function: the control"
        elif pair.difference is not None:
            of = compared.setdefault(frozenset((first.function, second.function)), pair)
            reason = "" if of is pair else f"the functions of {of.first} against {of.second}"
        found.append(Pair(first.stride, second.stride, reason=reason) if reason else pair)
    return _adjusted(found) if max(len(bar.records) for bar in bars) > 1 else []


def _permuted(own: Sequence[Own]) -> list[Pair]:
    """Each function's trials permuted against the same trials as they are, with Holm's correction over the functions.

    A permutation goes with its trial, so the interval over trials speaks of other permutations too.
    """
    return _adjusted([_tested(permuted, bar) for _, bar, permuted in own if len(bar.records) > 1])


def _tested(first: Bar, second: Bar, *, independent: bool = False) -> Pair:
    """Two bars with their difference, cut to what one of shares can be, and its p-value, or why they are not compared.

    Differences that do not vary say nothing of other trials and questions.
    """
    matrices, pair = _matrices(first, second, independent=independent), Pair(first.stride, second.stride)
    losses = dict.fromkeys(f"{bar.lost} trials of stride {bar.stride}" for bar in (first, second) if bar.diverged)
    if losses:
        return pair._replace(reason=f"not compared: {' and '.join(losses)} diverged")
    if matrices is None:
        return pair._replace(reason="not compared: fewer than two trials on the same questions")
    try:
        difference, p_value = compare_crossed(*matrices)
    except ValueError:
        return pair._replace(reason="not compared: the differences vary neither by trial nor by question")
    return pair._replace(difference=bounded(difference, 1, -1), p_value=p_value)


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's p-values over those that are compared."""
    adjusted = iter(holm([pair.p_value for pair in pairs if pair.difference]))
    return [pair._replace(p_value=next(adjusted)) if pair.difference else pair for pair in pairs]


def answer(sweep: Sweep, pairs: Sequence[Pair]) -> list[str]:
    """The exercise's answer in words."""
    return [
        *(
            f"Drawn although {fault.partition(';')[0]}: what follows may compare more than strides."
            for fault in _faults(sweep)
        ),
        _headline(sweep, pairs, f"at learning rate {sweep.bars[0].learning_rate:g}"),
        *_background(sweep),
        *(_loss(sweep, bar) for bar in sweep.bars if bar.diverged),
        *_verdicts(pairs),
        *_control(sweep.bars),
        *_own_words(sweep),
    ]


def _headline(sweep: Sweep, pairs: Sequence[Pair], where: str) -> str:
    """The most accurate of the strides at which every trial trained, as far as decided, and the rescued strides."""
    trained = [bar for bar in sweep.bars if not bar.diverged]
    rescued = "".join(
        f"; stride {bar.stride}, of which {bar.lost} trials diverged there, trains at {stable.learning_rate:g} and "
        f"reaches {show(stable.mean)}"
        for bar in sweep.bars
        if (stable := sweep.stable(bar)) is not None
    )
    best = max(trained, key=lambda bar: sum(bar.accuracies) / len(bar.accuracies), default=None)
    if best is None:
        return f"At no stride did every trial train {where}{rescued}."
    whom = " of the strides at which every trial trained" if len(trained) < len(sweep.bars) else ""
    others = {bar.function: bar.stride for bar in reversed(trained) if bar.function != best.function}
    orders = [tuple(map(text_function, pair.order)) for pair in pairs if pair.order is not None]
    undecided = sorted(stride for function, stride in others.items() if (best.function, function) not in orders)
    if not others:
        every = ", of which every trial trained," if whom else ""
        found = f"Stride {best.stride}{every} reaches a test accuracy of {show(best.mean)} {where}"
    elif not pairs:
        found = f"In one trial each, stride {best.stride} comes out highest{whom} {where}, with {show(best.mean)}"
    elif undecided:
        found = (
            f"Stride {best.stride} has the highest mean test accuracy{whom} {where}, {show(best.mean)}; whether it is "
            f"more accurate than stride{'s' if len(undecided) > 1 else ''} {_listed(undecided)} is not decided"
        )
    else:
        found = f"Stride {best.stride} is the most accurate{whom} {where}, {show(best.mean)} in the mean"
    return f"{found}{rescued}."


def _listed(strides: Sequence[int]) -> str:
    *most, last = map(str, strides)
    return f"{', '.join(most)} and {last}" if most else last


def _strides(named: str) -> str:
    """One or several strides, as listed, with the word before them."""
    return f"stride{'s' * (' and ' in named)} {named}"


def _background(sweep: Sweep) -> Iterator[str]:
    """What every bar is to be seen against: baselines, vectors, inputs read, and the questions that all share."""
    data = sweep.data
    yield (
        f"A logistic regression on the same vectors reaches {data.logistic_accuracy:.3f}, the majority class "
        f"{data.majority_accuracy:.3f}."
    )
    if _other_vectors(data):
        yield f"The vectors are those of {data.vectors}: {NOT_THE_HOMEWORKS}."
    if len({bar.reads for bar in sweep.bars}) > 1:
        read = ", ".join(f"stride {bar.stride} reads {bar.reads}" for bar in sweep.bars)
        left = "most" if 2 * min(bar.reads for bar in sweep.bars) < TEXT_LENGTH else "part"
        yield (
            f"The strides of convolution and pooling multiply, so large ones leave {left} of the vector unread: {read} "
            f"of the {TEXT_LENGTH} numbers. The chart shows how much of the question is read as much as it shows the "
            f"stride."
        )
    shift = 2 * (0.25 / data.n_test) ** 0.5  # two standard errors of a share of so many, where they are largest
    yield (
        f"All bars share {data.n_test:,} test questions; other questions could move them together by about {shift:.2f}."
    )


def _loss(sweep: Sweep, bar: Bar) -> str:
    """How many trials of a stride diverged, what that makes of those left, and what smaller learning rates did."""
    left, stable = len(bar.accuracies), sweep.stable(bar)
    words = (
        f"At stride {bar.stride}, {bar.lost} trials diverged at learning rate {bar.learning_rate:g}; "
        f"{'it has' if bar.diverged == 1 else 'they have'} no accuracy"
    )
    if left:
        words += (
            f", and the {left} that trained {'is' if left == 1 else 'are'} a selected sample, so the stride is "
            f"compared with no other"
        )
    tried = [f"{other.lost} at {other.learning_rate:g}" for other in sweep.slower if other.stride == bar.stride]
    if stable is not None:
        trials = plural(len(stable.records), "trial")
        found = f"At {stable.learning_rate:g} all train, to a test accuracy of {show(stable.mean)} over {trials}."
    elif tried:
        found = f"Smaller rates lost trials too: {', '.join(tried)}."
    else:
        found = "No smaller learning rate was tried."
    return f"{words}. {found}"


def _verdicts(pairs: Sequence[Pair], where: str = "") -> Iterator[str]:
    """Which strides differ reliably, of those that can be compared."""
    tested = [pair for pair in pairs if pair.difference is not None]
    orders = [pair.order for pair in tested if pair.order is not None]
    found = ": " + "; ".join(f"{better} above {worse}" for better, worse in orders) if orders else ""
    rest = len(tested) - len(orders)
    undecided = f"; {plural(rest, 'pair')} {'is' if rest == 1 else 'are'} not decided" if rest else ""
    family = ", allowing for the number of comparisons (Holm)" if len(tested) > 1 else ""
    once = ", each two functions once" if any(pair.reason.startswith("the functions") for pair in pairs) else ""
    if tested:
        yield (
            f"Of {plural(len(tested), 'pair')} of strides{where}{once}, compared trial by trial and question by "
            f"question, {len(orders) or 'none'} differ{'s' if len(orders) < 2 else ''} reliably{family}{found}"
            f"{undecided}."
        )


def _control(bars: Sequence[Bar]) -> Iterator[str]:
    """Compare strides that compute one function: they differ by their seeds alone."""
    for same in grouped(bars, lambda bar: bar.function).values():
        if len(same) < 2 or not same[0].accuracies:
            continue
        words = f"Strides {_listed([bar.stride for bar in same])} compute the same function"
        if noise := _tested(same[0], same[1], independent=True).difference:
            open_ = noise.compared_with(0) == "not decided"
            words += (
                f", so at independent seeds their difference measures noise alone: {show(noise, sign=True)}, which "
                f"{'includes zero' if open_ else 'leaves out zero, as chance does once in 20'}"
            )
        answers = [[record.correct for record in bar.records] for bar in same]
        alike = "the same" if all(each == answers[0] for each in answers) else "not the same"
        yield f"{words}; at equal seeds their answers are {alike} on every question."


def _own_words(sweep: Sweep) -> Iterator[str]:
    """Which stride is best when each has its own best rate, how far the grid reaches, and what other orders change."""
    for stride in dict.fromkeys(record.stride for record in sweep.beside):
        if stride not in [bar.stride for _, bar, _ in sweep.own]:
            named = _strides(sweep.named(stride))
            has = "have" if "and" in named else "has"
            yield f"{named.capitalize()} {has} no best rate: at none of those tried did every trial train."
    if not sweep.own:
        return
    bars, where = [bar for _, bar, _ in sweep.own], "at its own best learning rate"
    pairs, asked = _compare(bars), len(range(0, sweep.data.n_train, HELD_OUT_EVERY))
    yield _headline(Sweep(bars, [], len(bars[0].records)), pairs, where)
    yield (
        f"Each rate is the best of {', '.join(f'{rate:g}' for rate in RATES)} for "
        f"{plural(len(sweep.own[0][0].records), 'other trial')} on {asked:,} training questions that were held "
        f"out; the test questions had no part in it."
    )
    for end, beyond in (("smallest", "smaller"), ("largest", "larger")):
        if censored := [sweep.named(bar.stride) for bar in bars if ENDS.get(bar.learning_rate) == end]:
            many = "s" if len(censored) > 1 or "and" in censored[0] else ""
            yield (
                f"The best rate of stride{many} {', '.join(censored)} is the {end} that was tried: a {beyond} one may "
                f"be better still (censored)."
            )
    yield from _verdicts(pairs, " at their own best rates")
    yield from _order_words(sweep)


def _order_words(sweep: Sweep) -> Iterator[str]:
    """What the order of the vector's numbers is worth to each function."""
    pairs = [pair for pair in _permuted(sweep.own) if pair.difference is not None]
    if not pairs:
        return
    found = [
        f"{_strides(sweep.named(pair.first))} {difference} ({verdict}, {p})"
        for pair in pairs
        for _, difference, p, verdict in [pair.row]
    ]
    whole = [pair.first for pair in pairs if len(input_coverage(pair.first)) == TEXT_LENGTH]
    yield (
        f"The numbers of a vector have no order of their own. In another one, drawn anew for each of "
        f"{len(sweep.own[0][1].records)} trials, the test accuracy at the same rates changes by: {'; '.join(found)}; "
        f"Holm over {plural(len(pairs), 'comparison')}."
    )
    elsewhere = "another order also changes which numbers are read"
    if not whole:
        yield f"{elsewhere.capitalize()}."
        return
    reads = f"{_strides(_listed(whole)).capitalize()} read{'' if len(whole) > 1 else 's'}"
    beyond = f"; elsewhere {elsewhere}" if len(whole) < len(pairs) else ""
    yield (
        f"{reads} every number in any order, so there the change is what a convolution's neighbours are worth{beyond}."
    )


def chart(sweep: Sweep) -> Figure:
    """Draw the bar chart: stride on x, accuracy on y, a dot for every trial, baselines as lines."""
    bars, data = sweep.bars, sweep.data
    canvas = Figure(figsize=(max(6, 1.1 * len(bars)), 5), dpi=DPI, layout="constrained")
    ax = canvas.subplots()
    for x, bar in enumerate(bars):
        _draw(ax, x, bar)
    ax.axhline(data.logistic_accuracy, color="#D55E00", linestyle="--", label="logistic regression")
    ax.axhline(data.majority_accuracy, color="#444444", linestyle=":", label="majority class")
    ax.set_xticks(range(len(bars)), [f"{bar.stride}\n(reads\n{bar.reads} of {TEXT_LENGTH})" for bar in bars])
    ax.set(xlabel="stride of convolution and pooling", ylabel="test accuracy (share of questions)")
    # Above the highest there is room for a count of diverged trials.
    ax.set_ylim(0, 1.2 * max(data.logistic_accuracy, *(bar.top for bar in bars)))
    ax.set_xlim(-0.6, len(bars) - 0.4)
    ax.grid(axis="y", alpha=0.3)
    note = "bar: mean of the trials that converged, dot: trial"
    if any(len(bar.accuracies) > 1 for bar in bars):
        note += ", whisker: 95% t interval of the mean"
    if any(bar.accuracies and bar.diverged for bar in bars):
        note += ", hatched: others of the stride diverged"
    legend_below(canvas, note)
    return canvas


def _draw(ax: Axes, x: int, bar: Bar) -> None:
    """Draw a bar with its whisker and dots, hatched where trials diverged, and their count above all of it."""
    if bar.mean is not None:
        error = error_bar(bar.mean) if bar.mean.n > 1 else None
        color, hatch = ("#DDEFFA", "//") if bar.diverged else ("#56B4E9", None)
        look: dict[str, Any] = {"ecolor": "#222222", "color": color, "hatch": hatch, "ec": "#56B4E9"}
        ax.bar(x, bar.mean.estimate, 0.6, yerr=error, capsize=5, **look)
        offsets = np.random.default_rng(x).uniform(-0.18, 0.18, len(bar.accuracies))
        names = told("trial", (record.trial for record in bar.records if record.test_accuracy is not None))
        ax.plot(x + offsets, bar.accuracies, ".", color="#0072B2", markersize=6, zorder=3, gid=names)
    if bar.diverged:
        white = {"facecolor": "white", "edgecolor": "none", "pad": 2}  # no line behind crosses the words
        look = {"ha": "center", "va": "bottom", "color": "#A03000", "bbox": white, "zorder": 5}
        ax.annotate(f"{bar.lost}\ndiverged", (x, bar.top), xytext=(0, 8), textcoords="offset points", **look)


def chart_alt_text(sweep: Sweep) -> str:
    """Describe the chart for those who cannot see it."""
    values = "; ".join(
        f"{bar.stride}: {'' if bar.mean is None else f'{bar.mean.estimate:.2f}'}"
        f"{', ' * (bar.mean is not None and bar.diverged > 0)}{f'{bar.lost} diverged' if bar.diverged else ''}"
        for bar in sweep.bars
    )
    return f"Bar chart of mean test accuracy against stride. {values}. The first table gives the numbers."


def load(folder: Path, anyway: bool = False) -> list[Entry]:
    """The report's parts on a folder's text CNNs."""
    trials, beside = (
        Store(folder / kind, TextCNNRecord).load_all("*_textcnn-*.json") for kind in (RECORDS, SWEEP_CONTROLS)
    )
    return entries(trials, beside, anyway=anyway)


def entries(
    records: Sequence[TextCNNRecord], beside: Sequence[TextCNNRecord] = (), *, anyway: bool = False
) -> list[Entry]:
    """The report's parts on these trials, one for each sweep, and on the controls ``beside`` them.

    Raises RecordError when trials are missing or the records of one sweep do not belong together. Where only the
    controls are not whole they are left out, and its part says so. With ``anyway`` all of it is drawn and says so.
    """
    drawn = []
    for sweep in sweeps(records, beside):
        alone = sweep._replace(beside=())
        if (fault := next(_faults(alone), None)) and not anyway:
            raise RecordError(f"{fault}, or draw the chart all the same with 'hw4 report --anyway'")
        fault = next(_faults(sweep), None)
        drawn.append(
            _entry(alone, f"Exercise 2's controls are left out: {fault}.") if fault and not anyway else _entry(sweep)
        )
    return drawn


def _setting_words(sweep: Sweep) -> str:
    """What tells a sweep from others of the folder, as in "learning rate 0.05, 5 epochs"."""
    spec = sweep.records[0].spec
    said = {
        "learning_rate": f"learning rate {spec.learning_rate:g}",
        "momentum": f"momentum {spec.momentum:g}",
        "batch_size": f"batch {spec.batch_size}",
        "epochs": plural(spec.epochs, "epoch"),
    }
    differs = [said[name] for name, (value, default) in changed(spec, *said).items() if value != default]
    return ", ".join([*["generated questions"] * sweep.suffix.startswith("embedded"), *differs])


def _entry(sweep: Sweep, left_out: str = "") -> Entry:
    title, suffix, pairs = "Exercise 2: a text CNN against its stride", sweep.suffix, _compare(sweep.bars)
    return Entry(
        title=f"{title} ({_setting_words(sweep)})" if suffix else title,
        question="How does the test accuracy of a text CNN on question vectors depend on the stride of its layers?",
        file_name=f"strides{f'_{suffix}' if suffix else ''}.png",
        figure=chart(sweep),
        alt=chart_alt_text(sweep),
        caption=caption(sweep),
        tables=tables(sweep, pairs),
        answer=[*answer(sweep, pairs), *([left_out] if left_out else [])],
        rerun=again(
            "sweep",
            data=(CHOICE[sweep.data.name], None),
            stride=([bar.stride for bar in sweep.bars], list(STRIDES)),
            trials=(max(len(bar.records) for bar in sweep.bars), TRIALS),
            **changed(sweep.records[0].spec, "epochs", "learning_rate", "momentum"),
            no_rescue=(sweep.unrescued, False),
            controls=(bool(sweep.beside) and sweep.data.name == "grammar", False),
            no_controls=(not sweep.beside and sweep.data.name == "trec", False),
            fresh=(True, False),
        ),
        environments=[record.environment for record in sweep.records],
        data=[data_words(sweep.data)],
    )
