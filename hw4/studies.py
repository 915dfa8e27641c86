"""What each study wants, given what exists: which runs come next, what trains together and what starts first.

From specs and records alone, without torch. A study is a function from the records made so far, with None for a run
that is being made, to the runs that it wants beside them.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hw4.errors import SpecError
from hw4.geometry import TEXT_LENGTH, pooling_windows, text_function
from hw4.specs import (
    HOMEWORK_RATE,
    TRIALS,
    ConvNetSpec,
    Dataset,
    TextCNNSpec,
    by_setting,
    exercise_specs,
    variant_specs,
)
from hw4.variants import EXERCISES

if TYPE_CHECKING:  # records bring pydantic's models of everything, which a command's --help need not wait for
    from hw4.records import ConvNetRecord, TextCNNRecord

Spec = ConvNetSpec | TextCNNSpec

Made = Mapping[Spec, "ConvNetRecord | TextCNNRecord | None"]
"""Runs that a study has asked for so far, with their records, or None while they are being made."""
Study = Callable[[Made], list[Spec]]
"""Everything that is wanted, given what exists. It is asked again as runs end, until it asks for nothing new."""

GRADIENTS_OF_SHARPNESS, GRADIENTS_OF_KINKS = 40, 25
"""Full gradients that one measurement of sharpness, or of kinks, costs, roughly; it decides what starts first."""

RESCUE_RATES = (0.05, 0.025, 0.0125, 0.00625)
"""Learning rates tried, largest first, for a stride of which most trials diverge."""
RATES, CHOOSING_TRIALS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4), 5
"""Learning rates of which a stride gets its own, and how many trials of each choose it."""


def cost(spec: Spec) -> float:
    """About how long a run takes, in training passes of the pooled network; it orders runs and weighs progress."""
    if isinstance(spec, TextCNNSpec):
        return 1e-4 * spec.epochs * (4 + len(pooling_windows(TEXT_LENGTH, spec.stride)))
    width = {"pool": 1.0, "stride": 0.4}[spec.downsample] * (1.1 if spec.norm else 1.0)
    rows = sum(map(spec.evaluated_after, range(spec.passes + 1)))
    read = sum(map(spec.read_after, range(spec.passes + 1)))
    gradients = read * (spec.directions + 1 + spec.noise_floor + 8 * spec.range_view) + 9 * len(spec.step_passes)
    hessians = (GRADIENTS_OF_SHARPNESS + GRADIENTS_OF_KINKS * spec.kinks) * len(spec.curvature_passes)
    return width * (spec.passes + rows + gradients + hessians)


def networks(exercises: Sequence[str], **settings: Any) -> tuple[ConvNetSpec, ...]:
    """List the ConvNets of some exercises, see :func:`hw4.specs.exercise_specs`, measured where any exercise needs it.

    One that is in none on smoothness goes without its cost.
    """
    measured = {name for each in EXERCISES.values() for name in each.variants if "smoothness" in each.measures}
    nets = exercise_specs(exercises, **settings)
    return tuple(net if net.variant in measured else net.model_copy(update={"directions": 0}) for net in nets)


def grid(specs: Sequence[Spec]) -> Study:
    """A study that wants these runs, whatever they show."""
    return lambda _made: list(specs)


def sweep(trials: Sequence[TextCNNSpec], *, rescue: bool = True) -> Study:
    """These trials and, with ``rescue``, the same at smaller learning rates where most of a setting's diverged.

    The rates are tried, largest first, until no trial diverges; at most the homework's ten trials of each.
    """
    settings = by_setting(trials) if rescue else []
    return lambda made: [*trials, *(spec for setting in settings for spec in _rescue(setting, made))]


def controls(trials: Sequence[TextCNNSpec]) -> Study:
    """What a sweep of these trials is to be seen beside: each stride at its own best learning rate, and permuted there.

    The rate is chosen by trials of other numbers on held-out training questions, see :func:`best_rate`. Then, at most,
    the homework's ten trials run at it, and each of them again with a permutation of its own. Strides that compute one
    function are run as the first of them.
    """
    functions: dict[object, list[TextCNNSpec]] = {}
    for setting in by_setting(trials):
        functions.setdefault(text_function(setting[0].stride), setting)
    return lambda made: [spec for setting in functions.values() for spec in _own_rate(setting, made)]


def _own_rate(trials: Sequence[TextCNNSpec], made: Made) -> list[TextCNNSpec]:
    """The controls of trials that are equal but for the trial, as far as their rate is chosen."""
    choosing = [
        trials[0].model_copy(update={"learning_rate": rate, "held_out": True, "trial": TRIALS + trial})
        for rate in RATES
        for trial in range(min(len(trials), CHOOSING_TRIALS))
    ]
    rate = best_rate(_ended(choosing, made) or [])
    own = [spec.model_copy(update={"learning_rate": rate}) for spec in trials[:TRIALS] if rate is not None]
    return [*choosing, *own, *(spec.model_copy(update={"permutation": spec.trial}) for spec in own)]


def best_rate(tried: "Sequence[TextCNNRecord]") -> float | None:
    """The learning rate of the highest mean accuracy, the smaller of equals, of those at which no trial diverged."""
    right: dict[float, list[int]] = {}
    for run in sorted(tried, key=lambda run: run.spec.learning_rate):
        right.setdefault(run.spec.learning_rate, []).append(-1 if run.correct is None else sum(run.correct))
    trained = {rate: statistics.fmean(counts) for rate, counts in right.items() if min(counts) >= 0}
    return max(trained, key=trained.__getitem__, default=None)


def require_equal_trials(wanted: Sequence[TextCNNSpec], found: "Sequence[TextCNNRecord]") -> None:
    """Raise SpecError when these trials, beside those found, would leave strides of one sweep with unequal numbers.

    No chart compares such strides, so it is said before anything is trained. What a rescue made does not count.
    """

    def setting(spec: TextCNNSpec, **changes: float) -> TextCNNSpec:
        return spec.model_copy(update={"stride": 1, "trial": 0, **changes})

    rate, here = wanted[0].learning_rate, setting(wanted[0])
    lost = [run.spec for run in found if run.diverged and run.spec.learning_rate > rate and rate in RESCUE_RATES]
    rescued = {spec.stride for spec in lost if setting(spec, learning_rate=rate) == here}
    trials: dict[int, set[int]] = {}
    for spec in (*wanted, *(run.spec for run in found if run.stride not in rescued)):
        if setting(spec) == here:
            trials.setdefault(spec.stride, set()).add(spec.trial)
    most, fewest = (choose(trials, key=lambda stride: len(trials[stride])) for choose in (max, min))
    if (few := len(trials[fewest])) < len(trials[most]):
        raise SpecError(
            f"stride {fewest} would have {few} trial{'s' * (few > 1)} beside {len(trials[most])} of stride {most} that "
            f"the folder holds or gets, and no chart compares such strides; give them equally many, or another --out"
        )


def length(spec: ConvNetSpec) -> int:
    """Passes at the run's own learning rate."""
    return spec.passes - spec.warmup_passes


def require_one_protocol(wanted: Sequence[ConvNetSpec], found: "Sequence[ConvNetRecord]") -> None:
    """Raise SpecError when these would stand beside runs of other lengths or data, with which no claim is decided."""
    specs = [*wanted, *(run.spec for run in found)]
    lengths, data = sorted({length(spec) for spec in specs}), sorted({spec.data for spec in specs})
    differ = [f"{' and '.join(map(str, lengths))} passes"] * (len(lengths) > 1) + [" and ".join(data)] * (len(data) > 1)
    if wanted and differ:
        raise SpecError(
            f"the folder holds or gets runs of {', and of '.join(differ)}, which do not belong together; give another "
            f"--out, or delete the others from its folder 'claim'"
        )


def require_same_code(wanted: Sequence[Spec], found: "Sequence[ConvNetRecord | TextCNNRecord]", code: str) -> None:
    """Raise SpecError when the page would mix these with runs that other code made.

    ``found`` are runs for the same parts of the page. At other learning rates a study may ask for them yet.
    """
    keys, rates = {spec.key for spec in wanted}, {spec.learning_rate for spec in wanted}
    beside = [run for run in found if run.key not in keys and run.spec.learning_rate in rates]
    old = [run.key for run in beside if run.environment.code != code]
    if old:
        raise SpecError(
            f"{len(old)} of the runs in the folder, such as {old[0]}, were made by another version of the code and "
            f"would not be made again by these options, so the page could not compare them; ask for those runs too, "
            f"give another --out, or delete them"
        )


def _rescue(trials: Sequence[TextCNNSpec], made: Made) -> list[TextCNNSpec]:
    """Trials at smaller rates that are wanted beside trials that are equal but for the trial."""
    lost, wanted = _diverged(trials, made), list[TextCNNSpec]()
    if lost is None or 2 * lost <= len(trials):
        return []
    for rate in (rate for rate in RESCUE_RATES if rate < trials[0].learning_rate):
        tried = [spec.model_copy(update={"learning_rate": rate}) for spec in trials[:TRIALS]]
        wanted += tried
        if not _diverged(tried, made):  # none did, or they are yet to be made
            break
    return wanted


def _diverged(specs: Sequence[TextCNNSpec], made: Made) -> int | None:
    """How many of some trials diverged, or None while any is not made."""
    records = _ended(specs, made)
    return None if records is None else sum(record.diverged for record in records)


def _ended(specs: Sequence[TextCNNSpec], made: Made) -> "list[TextCNNRecord] | None":
    """The records of some trials, or None while any is not made."""
    records = [cast("TextCNNRecord", record) for spec in specs if (record := made.get(spec)) is not None]
    return records if len(records) == len(specs) else None


LADDER_RATES = (0.04, 0.08, 0.16, 0.226, 0.32, 0.381, 0.453, 0.64)
"""Learning rates from the homework's 0.04 on, each at most twice the one before, closer where training ends."""
LADDER_PASSES, LANDSCAPE_PASSES = 4, 10

SEEDS, AUDIT_SEEDS, NOTEBOOK_SEEDS = 5, 3, 10
"""Default seeds: of each ConvNet in ``hw4 run``, in ``hw4 audit``, and of the notebook's protocol there."""

SETTLED_PASS = 3
"""Smoothness is averaged from this pass on: the first leave the initialisation, where the order is another."""

CLAIM_SEEDS, FIRST_SEED, VIEWS, BISECTIONS = 12, 5, 3, 0
"""Seeds of everything that the claim decides, and the first of them (those before it were the pilot that its criteria
come from); runs of each network that are looked around in; narrowings of each seed's limit."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A shorter ladder beside the claim's: what it is called, its networks and rates, and how else it is trained."""

    label: str
    rates: tuple[float, ...]
    variants: tuple[str, ...] = EXERCISES["smoothness"].variants
    settings: Mapping[str, float] = field(default_factory=dict)


WARMUP = 2
CONTROLS: dict[str, Control] = {
    "groupnorm": Control(label="GroupNorm", rates=(0.16, 0.32, 0.453, 0.64), variants=("pool-groupnorm",)),
    "momentum": Control(label="momentum 0.9", rates=(0.016, 0.032, 0.064), settings={"momentum": 0.9}),
    "warmup": Control(label=f"after {WARMUP} passes at 0.04", rates=(0.32, 0.453), settings={"warmup_passes": WARMUP}),
    "head": Control(
        label="head and last affine at 0.04", rates=(0.64, 2.56, 10.24), settings={"head_rate": HOMEWORK_RATE}
    ),
}
"""What tells possible causes apart. A new control is one entry here."""


def ladder_specs(
    *,
    rates: Sequence[float] = LADDER_RATES,
    seeds: int,
    data: Dataset,
    passes: int = LADDER_PASSES,
    first_seed: int = FIRST_SEED,
) -> tuple[ConvNetSpec, ...]:
    """List the ladder's runs: both architectures of exercise 1 at every learning rate, paired seed by seed."""
    if not rates or sorted(set(rates)) != list(rates):
        raise SpecError(f"the learning rates must rise and differ, at least one, got {list(rates)}")
    sparse: dict[str, Any] = {"row_passes": (), "reading_passes": (passes,), "directions": 1, "noise_floor": False}
    how = {"seeds": seeds, "first_seed": first_seed, "data": data, "passes": passes, **sparse}
    return tuple(spec for rate in rates for spec in exercise_specs(["smoothness"], learning_rate=rate, **how))


def control_specs(
    *, seeds: int, data: Dataset, passes: int = LADDER_PASSES, first_seed: int = FIRST_SEED
) -> tuple[ConvNetSpec, ...]:
    """List the runs of all controls, for the ladder's seeds; warm-up passes come before as many as the ladder's."""
    how: dict[str, Any] = {"seeds": range(first_seed, first_seed + seeds), "data": data, "directions": 0}
    return tuple(
        spec
        for control in CONTROLS.values()
        for rate in control.rates
        for spec in variant_specs(
            control.variants,
            passes=passes + int(control.settings.get("warmup_passes", 0)),
            learning_rate=rate,
            **{**how, "row_passes": (), **control.settings},
        )
    )


def landscape_specs(
    *, seeds: int, views: int, data: Dataset, passes: int = LANDSCAPE_PASSES, first_seed: int = FIRST_SEED
) -> tuple[ConvNetSpec, ...]:
    """List the runs to look around in: both architectures of exercise 1 at the homework's learning rate.

    All have smoothness and the largest steps measured, ``views`` of them sharpness, kinks and the range view as well.
    """
    if views < 1:
        raise SpecError(f"the number of landscapes, runs that are looked around in, must be at least 1, got {views}")
    few: dict[str, Any] = {
        name: tuple(each for each in after if each <= passes) for name, after in LOOKED_AFTER.items()
    }
    few |= {"seeds": 1, "data": data, "passes": passes, "directions": 1, "noise_floor": False}
    looked = few | {"range_view": True, "curvature_passes": few["step_passes"]}
    return tuple(
        spec
        for at in range(max(seeds, views))
        for spec in exercise_specs(["smoothness"], first_seed=first_seed + at, **(looked if at < views else few))
    )


LOOKED_AFTER = {"row_passes": (1, 2, 4, 6), "step_passes": (1, 4)}
"""Passes after which landscapes are evaluated and smoothness is read, besides start and end; those after which
largest steps and curvature are measured, too."""


def ladder(rungs: Sequence[ConvNetSpec], *, bisections: int) -> Study:
    """These runs, and for every network and seed so many more that narrow where training stops to work.

    Each lies halfway (geometrically) between the largest stable rate and the next, see :func:`largest_working`.
    """
    by_net: dict[ConvNetSpec, list[ConvNetSpec]] = {}
    for spec in rungs:
        by_net.setdefault(spec.model_copy(update={"learning_rate": 1.0}), []).append(spec)
    return lambda made: [*rungs, *(spec for net in by_net.values() for spec in _narrowed(net, made, bisections))]


def _narrowed(rungs: Sequence[ConvNetSpec], made: Made, bisections: int) -> list[ConvNetSpec]:
    """Runs at further rates that are wanted beside one network's and seed's ladder."""
    tried = list(rungs)
    for _ in range(bisections):
        runs = [cast("ConvNetRecord", record) for spec in tried if (record := made.get(spec)) is not None]
        low, high = largest_working(runs) if len(runs) == len(tried) else (0.0, math.inf)
        if not low or high == math.inf:
            break
        middle = float(f"{math.sqrt(low * high):.3g}")  # three digits keep the keys readable
        tried.append(rungs[0].model_copy(update={"learning_rate": middle}))
    return tried[len(rungs) :]


def learnt(run: "ConvNetRecord") -> bool:
    """Whether a run is finite and learnt anything, see :attr:`hw4.records.ConvNetRecord.outcome`."""
    return run.outcome == "trained"


def largest_working(
    runs: "Sequence[ConvNetRecord]", works: "Callable[[ConvNetRecord], bool]" = learnt
) -> tuple[float, float]:
    """The largest learning rate up to which every one of these runs works, and the next, at which one does not.

    0 where the smallest rate fails already, and infinity where none fails: then they do not say where the limit lies.
    """
    good = 0.0
    for run in sorted(runs, key=lambda run: run.spec.learning_rate):
        if not works(run):
            return good, run.spec.learning_rate
        good = run.spec.learning_rate
    return good, math.inf
