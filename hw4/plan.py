"""What starts first, what trains together and what comes next: from specs and records alone, without torch."""

from collections.abc import Mapping, Sequence

from hw4.geometry import TEXT_FILTERS, TEXT_LENGTH, pooling_windows
from hw4.records import TextCNNRecord
from hw4.specs import TRIALS, ConvNetSpec, LandscapeSpec, TextCNNSpec

Spec = ConvNetSpec | LandscapeSpec | TextCNNSpec

GRADIENTS_OF_A_HESSIAN = 80
"""Full gradients that one measurement of sharpness and kinks costs, roughly; it decides what starts first."""

CACHED_FLOATS = 2**18
"""Trials are trained together while one intermediate of theirs stays below this many floats: 1 MiB, a core's cache."""

RESCUE_RATES = (0.05, 0.025, 0.0125, 0.00625)
"""Learning rates tried, largest first, for a stride of which most trials diverge."""


def cost(spec: Spec) -> float:
    """About how long a run takes, in training passes of the pooled network; it orders runs and weighs progress."""
    if isinstance(spec, TextCNNSpec):
        return 1e-4 * spec.epochs * (4 + _windows(spec))
    if isinstance(spec, LandscapeSpec):
        extra = (spec.run.passes + 1) * 10 + GRADIENTS_OF_A_HESSIAN * len(spec.curvature_passes)
        return cost(spec.run) + extra
    width = {"pool": 1.0, "stride": 0.4}[spec.downsample] * (1.1 if spec.norm else 1.0)
    readings = spec.directions + 1 + spec.noise_floor if spec.directions else 0
    return width * (spec.passes * 2 + readings * (spec.passes + 1))


def by_setting(specs: Sequence[TextCNNSpec]) -> list[list[TextCNNSpec]]:
    """Trials that are equal but for the trial, together."""
    found: dict[TextCNNSpec, list[TextCNNSpec]] = {}
    for spec in specs:
        found.setdefault(spec.model_copy(update={"trial": 0}), []).append(spec)
    return list(found.values())


def groups(specs: Sequence[TextCNNSpec]) -> list[list[TextCNNSpec]]:
    """Trials that are trained together: equal but for the trial, as many as fit the cache; costliest group first."""
    found: list[list[TextCNNSpec]] = []
    for trials in by_setting(specs):
        together = max(1, CACHED_FLOATS // (_windows(trials[0]) * TEXT_FILTERS * trials[0].batch_size))
        found += [trials[start : start + together] for start in range(0, len(trials), together)]
    return sorted(found, key=lambda group: -sum(map(cost, group)))


def _windows(spec: TextCNNSpec) -> int:
    return len(pooling_windows(TEXT_LENGTH, spec.stride))


def rescue_trials(
    trials: Sequence[TextCNNSpec], records: Mapping[TextCNNSpec, TextCNNRecord | None]
) -> list[TextCNNSpec]:
    """Trials to make next, to show at which smaller learning rate those train of which most diverged.

    ``trials`` are equal but for the trial; ``records`` holds what was made so far, and None for what is being made.
    Rates are tried, largest first, until no trial diverges; at most the homework's ten trials of each.
    """
    lost = _diverged(trials, records)
    if lost is None or 2 * lost <= len(trials):
        return []
    for rate in (rate for rate in RESCUE_RATES if rate < trials[0].learning_rate):
        tried = [spec.model_copy(update={"learning_rate": rate}) for spec in trials[:TRIALS]]
        if not _diverged(tried, records):  # none did, or they are yet to be made
            return [spec for spec in tried if spec not in records]
    return []


def _diverged(specs: Sequence[TextCNNSpec], records: Mapping[TextCNNSpec, TextCNNRecord | None]) -> int | None:
    """How many of some trials diverged, or None while any is not made."""
    made = [record for spec in specs if (record := records.get(spec)) is not None]
    return sum(record.diverged for record in made) if len(made) == len(specs) else None
