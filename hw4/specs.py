"""What to run: frozen descriptions of runs, without torch and without files. Defaults are the homework's numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hw4.errors import SpecError, first_problem
from hw4.geometry import TEXT_FILTERS, TEXT_LENGTH, pooling_windows

Dataset = Literal["fashion-mnist", "digits"]
Downsample = Literal["pool", "stride"]
NormMode = Literal["batch", "running", "as is"]
QuestionSet = Literal["trec", "grammar"]
DataChoice = Literal["auto", "embedded", "real"]

DEFAULT_SUBSET: dict[Dataset, float] = {"fashion-mnist": 0.1, "digits": 1.0}
"""Share of the training images used when none is asked for: the homework's 10% of FashionMNIST, all of the digits."""


WHOLE: dict[Dataset, int] = {"fashion-mnist": 60_000, "digits": 1_347}
"""Training images of each whole set: nothing but the published files is ever read."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An architecture that can be trained: what it is called, what it is made of, how its lines are drawn.

    ``norm`` names the layer after each halving in a run's spec; ``layer`` makes that layer for a number of channels
    where it is not one that :class:`hw4.ConvNet` knows by its name.
    """

    label: str
    color: str
    marker: str
    linestyle: str
    norm: str | None = None
    downsample: Downsample = "pool"
    layer: Callable[[int], Any] | None = None


VARIANTS: dict[str, Variant] = {
    # Okabe and Ito's colours stay apart for colour-blind readers; markers and dashes for readers of grey prints.
    "pool": Variant(label="ConvNet", color="#0072B2", marker="o", linestyle="-"),
    "pool-batchnorm": Variant(label="ConvNet + BatchNorm", norm="batch", color="#D55E00", marker="s", linestyle="--"),
    "stride": Variant(label="Strided ConvNet", downsample="stride", color="#009E73", marker="^", linestyle="-."),
    "stride-batchnorm": Variant(
        label="Strided ConvNet + BatchNorm",
        norm="batch",
        downsample="stride",
        color="#CC79A7",
        marker="v",
        linestyle=":",
    ),
}
"""Every architecture by its short name, which stands in keys and file names. A new one is one entry here."""


LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
"""What is computed with must fit what it is computed in."""


class ConvNetSpec(BaseModel):
    """One training run of one ConvNet; equal specs give equal results on the same platform.

    What is trained: ``batch_size`` in images, ``passes`` of ``round(n / batch_size)`` updates each, ``subset`` the
    share of the training images, above 0 and at most 1.

    What is measured, see :mod:`hw4.smoothness` and :mod:`hw4.curvature`:
    ``directions``: smoothness readings after each pass, each along a minibatch update of its own (0 = none).
    ``noise_floor``: whether each reading comes with what rounding makes of it.
    ``norm_mode`` and ``chunk_size`` (images): on which function of the weights.
    ``range_view``: whether to walk along the first update after each pass.
    ``curvature_passes``: the passes after which sharpness and kinks are measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: Dataset
    norm: str | None = None
    downsample: Downsample = "pool"
    learning_rate: float = Field(default=0.04, gt=0, le=LARGEST_FLOAT32)
    batch_size: int = Field(default=32, ge=1)
    passes: int = Field(default=10, ge=1)
    subset: float = Field(gt=0, le=1)
    norm_mode: NormMode = "batch"
    chunk_size: int = Field(default=100, ge=1)
    directions: int = Field(default=3, ge=0)
    noise_floor: bool = True
    range_view: bool = False
    curvature_passes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    seed: int = Field(default=0, ge=0)

    @field_validator("norm")
    @classmethod
    def _known_norm(cls, norm: str | None) -> str | None:
        names = dict.fromkeys(variant.norm for variant in VARIANTS.values())
        if norm not in names:
            raise ValueError(f"expected one of {', '.join(map(repr, names))}")
        return norm

    @model_validator(mode="after")
    def _known_variant(self) -> Self:
        if self.variant not in VARIANTS:
            raise ValueError(f"no variant has norm {self.norm!r} and downsample {self.downsample!r}")
        return self

    @classmethod
    def build(cls, *, data: Dataset, subset: float | None = None, **settings: object) -> Self:
        """Make a spec, with the data set's own default subset; raises SpecError with one sentence."""
        try:
            values = {"data": data, "subset": DEFAULT_SUBSET[data] if subset is None else float(subset), **settings}
            spec = cls.model_validate(values)
        except ValidationError as error:
            raise SpecError(f"no such run: {first_problem(error)}") from error
        spec.check_size(round(spec.subset * WHOLE[data]))
        return spec

    def check_size(self, n_train: int) -> None:
        """Raise SpecError when there are fewer training images than a batch has."""
        if self.batch_size > n_train:
            raise SpecError(
                f"a batch of {self.batch_size} images is larger than the training set of {n_train}; "
                f"choose a smaller batch or a larger subset"
            )

    @property
    def variant(self) -> str:
        """The architecture's short name, used in file names; a key of :data:`VARIANTS`."""
        mine = (self.norm, self.downsample)
        return next((name for name, each in VARIANTS.items() if (each.norm, each.downsample) == mine), "")

    @property
    def label(self) -> str:
        """The architecture's name as a figure's legend shows it."""
        return VARIANTS[self.variant].label

    @property
    def key(self) -> str:
        """Name of the run: data, architecture, every setting that is not the homework's, seed.

        Settings at their default do not appear, so a setting added later leaves the old keys as they are.
        """
        parts = [self.data, f"convnet-{self.variant}", *_named(self, CONVNET_FIELDS)]
        if self.subset != DEFAULT_SUBSET[self.data]:
            parts.append(f"subset{self.subset}")
        return "_".join([*parts, f"seed{self.seed}"])

    @property
    def setting(self) -> Self:
        """The spec without architecture, seed and what is measured: runs that share it may stand in one figure."""
        return self.model_copy(update={"norm": None, "downsample": "pool", "seed": 0, **MEASURED})


CONVNET_FIELDS = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "passes": "passes",
    "norm_mode": "norm-",
    "chunk_size": "chunk",
    "directions": "directions",
    "noise_floor": "floor",
    "range_view": "range",
    "curvature_passes": "curvature",
}
"""Settings of a ConvNet's run that its key names when they are not the homework's, and how."""
TEXTCNN_FIELDS = {"learning_rate": "lr", "momentum": "momentum", "batch_size": "batch", "epochs": "epochs"}
"""The same for a text CNN's."""
MEASURED = {
    name: ConvNetSpec.model_fields[name].default
    for name in ("directions", "noise_floor", "range_view", "curvature_passes")
}
"""Settings that change what is measured and not what is trained, with the values of a run of exercise 1."""


def _named(spec: BaseModel, fields: Mapping[str, str]) -> list[str]:
    """The parts of a key: every setting that is not at its default, so that a later setting leaves old keys as is."""
    parts = []
    for name, short in fields.items():
        value = getattr(spec, name)
        if value != type(spec).model_fields[name].default:
            parts.append(short + ("-".join(map(str, value)) if isinstance(value, tuple) else str(value)))
    return parts


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """Two variants compared: the page's heading and question, and what its table shows and its figure draws.

    ``measures`` are names in :data:`hw4.report.exercises.MEASURES`; with "smoothness" among them it is measured.
    The second variant is also trained for ``longer`` times the passes where given, to compare both at equal time.
    """

    title: str
    question: str
    variants: tuple[str, str]
    measures: tuple[str, ...]
    longer: int | None = None


EXERCISES: dict[str, Exercise] = {
    "smoothness": Exercise(
        title="Exercise 1: what BatchNorm does to smoothness",
        question="What does BatchNorm do to the smoothness of the loss, and how may that allow larger learning rates?",
        variants=("pool", "pool-batchnorm"),
        measures=("train loss", "test loss", "test accuracy", "smoothness"),
    ),
    "pooling": Exercise(
        title="Exercise 3: max-pooling or stride?",
        question="Max-pooling or strided convolutions: what does either cost in accuracy and in seconds per pass?",
        variants=("pool", "stride"),
        measures=(
            "train loss",
            "train accuracy",
            "test loss",
            "test accuracy",
            "seconds per pass",
            "processor seconds per pass",
        ),
        # A stride of two leaves a quarter of the multiplications: four times the passes fill the pooled network's time.
        longer=4,
    ),
}
"""What ``hw4 run --exercise`` takes beside the text CNNs. A new comparison is one entry here."""


def exercise_specs(
    exercises: Sequence[str], *, seeds: int, data: Dataset, subset: float | None = None, **settings: object
) -> tuple[ConvNetSpec, ...]:
    """List the runs of some exercises, each architecture once however many exercises share it, seed by seed.

    Seed t has the same initial weights and the same minibatches for every architecture, so they compare pairwise.
    """
    if seeds < 1:
        raise SpecError(f"the number of seeds must be at least 1, got {seeds}")
    names = dict.fromkeys(name for exercise in exercises for name in EXERCISES[exercise].variants)
    return tuple(
        ConvNetSpec.build(
            data=data,
            subset=subset,
            norm=VARIANTS[name].norm,
            downsample=VARIANTS[name].downsample,
            seed=seed,
            **settings,
        )
        for seed in range(seeds)
        for name in names
    )


def longer_specs(exercises: Sequence[str], specs: Sequence[ConvNetSpec]) -> tuple[ConvNetSpec, ...]:
    """List the longer runs that some exercises want beside these, without readings."""
    asked = [EXERCISES[name] for name in exercises]
    factors = {each.variants[1]: each.longer for each in asked if each.longer is not None}
    return tuple(
        spec.model_copy(update={"passes": factors[spec.variant] * spec.passes, "directions": 0})
        for spec in specs
        if spec.variant in factors
    )


SEEDS, VIEWS, BISECTIONS, AUDIT_SEEDS, NOTEBOOK_SEEDS = 5, 3, 3, 3, 10
"""How often: runs of each ConvNet, runs that are looked around in, narrowings of each limit, audited runs, repeats of
the notebook's runs."""

LADDER_RATES = tuple(0.01 * 2**rung for rung in range(10))
"""Learning rates from far below the homework's 0.04 to 5.12, each twice the one before."""
CURVATURE_PASSES = (0, 3, 10)
"""Passes after which the costly measurements are made: before training, under way, at the end."""


def ladder_specs(
    *, rates: Sequence[float] = LADDER_RATES, seeds: int, data: Dataset, subset: float | None = None, **settings: object
) -> tuple[ConvNetSpec, ...]:
    """List the ladder's runs: both architectures of exercise 1 at every learning rate, paired seed by seed."""
    if not rates or sorted(set(rates)) != list(rates):
        raise SpecError(f"the learning rates must rise and differ, at least one, got {list(rates)}")
    return tuple(
        spec
        for rate in rates
        for spec in exercise_specs(
            ["smoothness"], seeds=seeds, data=data, subset=subset, learning_rate=rate, directions=0, **settings
        )
    )


def landscape_specs(*, seeds: int, data: Dataset, passes: int = 10) -> tuple[ConvNetSpec, ...]:
    """List the runs to look around in: both architectures of exercise 1 at the homework's learning rate."""
    if seeds < 1:
        raise SpecError(f"the number of landscapes, runs that are looked around in, must be at least 1, got {seeds}")
    measured = tuple(sorted({min(completed, passes) for completed in CURVATURE_PASSES}))
    return exercise_specs(
        ["smoothness"], seeds=seeds, data=data, passes=passes, directions=1, range_view=True, curvature_passes=measured
    )


HOMEWORK_VECTORS = "en_core_web_sm 3.6.0"
"""What made the homework's question vectors: the spaCy model and version whose 96 numbers the homework prints."""

STRIDES = (1, 5, 10, 30, 100, 500)
TRIALS = 10


class TextCNNSpec(BaseModel):
    """One training run of one text CNN. ``stride`` in positions, ``epochs`` in reshuffled rounds over all questions.

    Trial t has the same data order at every stride, and the same initial weights wherever the shapes agree.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: QuestionSet
    stride: int = Field(ge=1)
    trial: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=0.1, gt=0, le=LARGEST_FLOAT32)
    momentum: float = Field(default=0.8, ge=0, lt=1)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=50, ge=1)

    @property
    def key(self) -> str:
        """Name of the run: data, stride, every setting that is not the homework's, trial."""
        named = _named(self, TEXTCNN_FIELDS)
        return "_".join([self.data, f"textcnn-stride{self.stride}", *named, f"trial{self.trial}"])


def sweep_specs(
    data: QuestionSet, *, strides: Sequence[int] = STRIDES, trials: int = TRIALS, **settings: object
) -> tuple[TextCNNSpec, ...]:
    """List the runs of a sweep, stride by stride, trial by trial: by default the homework's 60. Raises SpecError."""
    if trials < 1:
        raise SpecError(f"the number of trials must be at least 1, got {trials}")
    if not strides or len(set(strides)) != len(strides):
        raise SpecError(f"the strides must be given once each, at least one, got {list(strides)}")
    try:
        return tuple(
            TextCNNSpec.model_validate({"data": data, "stride": stride, "trial": trial, **settings})
            for stride in strides
            for trial in range(trials)
        )
    except ValidationError as error:
        raise SpecError(f"no such run: {first_problem(error)}") from error


CACHED_FLOATS = 2**18
"""Trials are trained together while one intermediate of theirs stays below this many floats: 1 MiB, a core's cache."""


def by_setting(specs: Sequence[TextCNNSpec]) -> list[list[TextCNNSpec]]:
    """Trials that are equal but for the trial, together."""
    found: dict[TextCNNSpec, list[TextCNNSpec]] = {}
    for spec in specs:
        found.setdefault(spec.model_copy(update={"trial": 0}), []).append(spec)
    return list(found.values())


def groups(specs: Sequence[TextCNNSpec]) -> list[list[TextCNNSpec]]:
    """Trials that are trained together: equal but for the trial, as many as fit the cache; the costliest first.

    It is told by the specs, for which trials share a batched product can change their last bits.
    """
    found: list[list[TextCNNSpec]] = []
    for trials in by_setting(specs):
        floats = len(pooling_windows(TEXT_LENGTH, trials[0].stride)) * TEXT_FILTERS * trials[0].batch_size
        together = max(1, CACHED_FLOATS // floats)
        found += [trials[start : start + together] for start in range(0, len(trials), together)]
    return sorted(found, key=lambda group: group[0].stride)
