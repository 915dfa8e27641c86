"""What to run: frozen descriptions of runs, without torch and without files. Defaults are the homework's numbers."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hw4.errors import SpecError, first_problem
from hw4.geometry import TEXT_FILTERS, TEXT_LENGTH, pooling_windows
from hw4.variants import EXERCISES, VARIANTS, Downsample, Exercise, Variant, known

Dataset = Literal["fashion-mnist", "digits"]
NormMode = Literal["batch", "running", "as is"]
QuestionSet = Literal["trec", "grammar"]
DataChoice = Literal["auto", "embedded", "real"]

DEFAULT_SUBSET: dict[Dataset, float] = {"fashion-mnist": 0.1, "digits": 1.0}
"""Share of the training images used when none is asked for: the homework's 10% of FashionMNIST, all of the digits."""


WHOLE: dict[Dataset, int] = {"fashion-mnist": 60_000, "digits": 1_347}
"""Training images of each whole set: nothing but the published files is ever read."""


LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127  # what is computed with must fit what it is computed in


def _in_float32(rate: float) -> float:
    """A rate; raises ValueError where nothing is left of it in the precision that networks train in."""
    if 0 < rate < 2.0**-126:
        raise ValueError(f"{rate:g} is next to 0 in float32, in which networks train")
    return rate


Rate = Annotated[float, AfterValidator(_in_float32)]
"""A learning rate above 0."""


MOST = 100_000  # of seeds, trials and positions of a stride: more is a slip of the finger
HOMEWORK_RATE = 0.04  # the homework's learning rate for the ConvNets

Passes = tuple[Annotated[int, Field(ge=0)], ...]


class ConvNetSpec(BaseModel):
    """One training run of one ConvNet; equal specs give equal results on the same platform.

    What is trained: ``batch_size`` in images, ``passes`` of ``round(n / batch_size)`` updates each, ``subset`` the
    share of the training images, above 0 and at most 1; ``momentum`` as torch.optim.SGD's. The first ``warmup_passes``
    go at the homework's learning rate (:data:`HOMEWORK_RATE`), the others at ``learning_rate``; with a ``head_rate``
    the linear layer and the last normalisation's parameters are trained at that and the rest at ``learning_rate``.

    What is measured, see :mod:`hw4.smoothness` and :mod:`hw4.curvature`:
    ``directions``: smoothness readings after each pass, each along a minibatch update of its own (0 = none).
    ``noise_floor``: whether each reading comes with what rounding makes of it.
    ``norm_mode`` and ``chunk_size`` (images): on which function of the weights.
    ``row_passes``: the passes after which the network is evaluated, beside the start and the end; None: each.
    ``reading_passes``: those after which smoothness is read, of these; None: all of them.
    ``curvature_passes``: those after which sharpness is measured, and kinks too unless ``kinks`` is False.
    ``range_view``: whether to walk along the first update wherever smoothness is read.
    ``step_passes``: those after which the largest steps are sought that do not raise the loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: Dataset
    norm: str | None = None
    downsample: Downsample = "pool"
    learning_rate: Rate = Field(default=HOMEWORK_RATE, gt=0, le=LARGEST_FLOAT32)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    warmup_passes: int = Field(default=0, ge=0)
    head_rate: Rate | None = Field(default=None, gt=0, le=LARGEST_FLOAT32)
    batch_size: int = Field(default=32, ge=1)
    passes: int = Field(default=10, ge=1)
    subset: float = Field(gt=0, le=1)
    norm_mode: NormMode = "batch"
    chunk_size: int = Field(default=100, ge=1)
    directions: int = Field(default=3, ge=0)
    noise_floor: bool = True
    row_passes: Passes | None = None
    reading_passes: Passes | None = None
    curvature_passes: Passes = ()
    kinks: bool = True
    range_view: bool = False
    step_passes: Passes = ()
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

    @model_validator(mode="after")
    def _known_update(self) -> Self:
        asked = self.directions or self.step_passes or self.curvature_passes
        if asked and (self.momentum or self.head_rate is not None or self.warmup_passes):
            raise ValueError(
                "readings are along plain SGD's update, so momentum, head_rate and warmup need directions 0"
            )
        return self

    def evaluated_after(self, completed: int) -> bool:
        """Whether the network is evaluated after so many passes."""
        return completed in {0, self.passes} or self.row_passes is None or completed in self.row_passes

    def read_after(self, completed: int) -> bool:
        """Whether smoothness is read after so many passes."""
        return bool(self.directions) and (self.reading_passes is None or completed in self.reading_passes)

    @classmethod
    def build(cls, *, data: Dataset, subset: float | None = None, **settings: object) -> Self:
        """Make a spec, with the data set's own default subset; raises SpecError with one sentence."""
        try:
            share = DEFAULT_SUBSET.get(data, 1.0) if subset is None else float(subset)
            spec = cls.model_validate({"data": data, "subset": share, **settings})
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
        return next((name for name, each in VARIANTS.items() if _told_by(each) == mine), "")

    @property
    def label(self) -> str:
        """The architecture's name as a figure's legend shows it."""
        return VARIANTS[self.variant].label

    @property
    def key(self) -> str:
        """Name of the run: data, architecture, every setting that is not the homework's, seed.

        Settings at their default do not appear, so a setting added later leaves the old keys as they are.
        """
        parts = [self.data, f"convnet-{self.variant}", *_named(self)]
        if self.subset != DEFAULT_SUBSET[self.data]:
            parts.append(f"subset{self.subset}")
        return "_".join([*parts, f"seed{self.seed}"])

    @property
    def setting(self) -> Self:
        """The spec without architecture, seed and what is measured: runs that share it may stand in one figure."""
        return self.model_copy(update={"norm": None, "downsample": "pool", "seed": 0, **MEASURED})


FIELDS = {
    **{"learning_rate": "lr", "momentum": "momentum", "warmup_passes": "warmup", "head_rate": "head"},
    **{"batch_size": "batch", "passes": "passes", "norm_mode": "norm-", "chunk_size": "chunk"},
    **{"directions": "directions", "noise_floor": "floor", "range_view": "range", "row_passes": "rows"},
    **{"reading_passes": "read", "curvature_passes": "curvature", "kinks": "kinks", "step_passes": "steps"},
    **{"epochs": "epochs", "held_out": "held-out", "permutation": "permutation"},
}
"""Settings that a run's key names, in this order, when they are not the homework's, and how."""
MEASURED = {
    name: ConvNetSpec.model_fields[name].default
    for name in (
        *("directions", "noise_floor", "range_view", "row_passes", "reading_passes"),
        *("curvature_passes", "kinks", "step_passes"),
    )
}
"""Settings that change what is measured and not what is trained, with the values of a run of exercise 1."""


def _named(spec: BaseModel) -> list[str]:
    """The parts of a key: every setting that is not at its default, so that a later setting leaves old keys as is."""
    parts, known = [], type(spec).model_fields
    for name, short in FIELDS.items():
        if name in known and (value := getattr(spec, name)) != known[name].default:
            parts.append(short + ("-".join(map(str, value)) if isinstance(value, tuple) else str(value)))
    return parts


def exercise_specs(
    exercises: Sequence[str], *, seeds: int, data: Dataset, first_seed: int = 0, **settings: Any
) -> tuple[ConvNetSpec, ...]:
    """List the runs of some exercises, each architecture once however many exercises share it, seed by seed.

    Seed t has the same initial weights and the same minibatches for every architecture, so they compare pairwise.
    """
    names = [name for exercise in known(exercises, EXERCISES) for name in EXERCISES[exercise].variants]
    numbers = numbered(seeds, first_seed)
    return variant_specs(tuple(dict.fromkeys(names)), seeds=numbers, data=data, **settings)


def numbered(seeds: int, first: int = 0) -> range:
    """So many seeds, from the first on; raises SpecError for none."""
    if not hasattr(seeds, "__index__") or not 1 <= seeds <= MOST:
        raise SpecError(f"the number of seeds must be a whole one, at least 1 and at most {MOST:,}, got {seeds!r}")
    return range(first, first + seeds)


def variant_specs(
    names: Sequence[str], *, seeds: Sequence[int], data: Dataset, **settings: Any
) -> tuple[ConvNetSpec, ...]:
    """List the runs of some variants, seed by seed, paired as those of :func:`exercise_specs`."""
    for name in known(names, VARIANTS):
        same = [each for each in VARIANTS if _told_by(VARIANTS[each]) == _told_by(VARIANTS[name])]
        if len(same) > 1:
            raise SpecError(f"the variants {' and '.join(same)} have one norm and downsample, which tell runs apart")
    return tuple(
        ConvNetSpec.build(data=data, norm=norm, downsample=downsample, seed=seed, **settings)
        for seed in seeds
        for norm, downsample in (_told_by(VARIANTS[name]) for name in names)
    )


def _told_by(variant: Variant) -> tuple[str | None, Downsample]:
    return variant.norm, variant.downsample


def longer_specs(exercises: Sequence[str], specs: Sequence[ConvNetSpec]) -> tuple[ConvNetSpec, ...]:
    """List the longer runs that some exercises want beside these, without readings."""
    asked: list[Exercise] = [EXERCISES[name] for name in exercises]
    factors = {each.variants[1]: each.longer for each in asked if each.longer is not None}
    return tuple(
        spec.model_copy(update={"passes": factors[spec.variant] * spec.passes, "directions": 0})
        for spec in specs
        if spec.variant in factors
    )


HOMEWORK_VECTORS = "en_core_web_sm 3.6.0"
"""What made the homework's question vectors: the spaCy model and version whose 96 numbers the homework prints."""

STRIDES = (1, 5, 10, 30, 100, 500)
TRIALS = 10
HELD_OUT_EVERY = 5
"""What is chosen is chosen on every fifth training question, counted from the first, never on a test question."""


class TextCNNSpec(BaseModel):
    """One training run of one text CNN. ``stride`` in positions, ``epochs`` in reshuffled rounds over all questions.

    Trial t has the same data order at every stride, and the same initial weights wherever the shapes agree.
    ``held_out``: trained without every fifth training question, the first among them, and tested on those alone.
    ``permutation``: seed of another order for every vector's numbers, the same for all questions (None: their own).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: QuestionSet
    stride: int = Field(ge=1, le=MOST)
    trial: int = Field(default=0, ge=0)
    learning_rate: Rate = Field(default=0.1, gt=0, le=LARGEST_FLOAT32)
    momentum: float = Field(default=0.8, ge=0, lt=1)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=50, ge=1)
    held_out: bool = False
    permutation: int | None = Field(default=None, ge=0)

    @property
    def key(self) -> str:
        """Name of the run: data, stride, every setting that is not the homework's, trial."""
        return "_".join([self.data, f"textcnn-stride{self.stride}", *_named(self), f"trial{self.trial}"])


def sweep_specs(
    data: QuestionSet, *, strides: Sequence[int] = STRIDES, trials: int = TRIALS, **settings: object
) -> tuple[TextCNNSpec, ...]:
    """List the runs of a sweep, stride by stride, trial by trial: by default the homework's 60. Raises SpecError."""
    if not 1 <= trials <= MOST:
        raise SpecError(f"the number of trials must be at least 1 and at most {MOST:,}, got {trials}")
    if isinstance(strides, int) or not strides or len(set(strides)) != len(strides):
        raise SpecError(f"the strides must be a list, each given once, at least one, got {strides!r}")
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

    It depends on the specs alone, since training together can change the last bits.
    """
    found: list[list[TextCNNSpec]] = []
    for trials in by_setting(specs):
        floats = len(pooling_windows(TEXT_LENGTH, trials[0].stride)) * TEXT_FILTERS * trials[0].batch_size
        together = max(1, CACHED_FLOATS // floats)
        found += [trials[start : start + together] for start in range(0, len(trials), together)]
    return sorted(found, key=lambda group: group[0].stride)
