"""What is compared: network variants and the exercises that pair them. A new arm is one entry here.

Finished runs stay what they are when a label, a colour or an exercise changes; another variant, or another layer, is
another version of the code that computes (:func:`hw4.records.code_digest`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hw4.errors import SpecError

Downsample = Literal["pool", "stride"]


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


def _group_norm(channels: int) -> Any:
    """Normalise each image over groups of channels (Wu and He, 2018): nothing of the batch takes part."""
    from torch import nn  # specs are read by processes that never compute

    return nn.GroupNorm(4, channels)


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
    "pool-groupnorm": Variant(
        label="ConvNet + GroupNorm", norm="group", layer=_group_norm, color="#E69F00", marker="D", linestyle=":"
    ),
}
"""Every architecture by its short name, which stands in keys and file names. A new one is one entry here."""


def known(names: Sequence[str], table: Collection[str]) -> Sequence[str]:
    """These names, each of the table; raises SpecError for one that is not, and for a word in the place of a list."""
    for name in [names] if isinstance(names, str) else names:
        if isinstance(names, str) or name not in table:
            raise SpecError(f"expected a list of names, each one of {', '.join(map(repr, table))}, got {names!r}")
    return names


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

    def __post_init__(self) -> None:
        """Raises SpecError for what could not be shown after the training."""
        known(self.measures, (*CURVES, *SECONDS))
        if not set(self.measures) & set(CURVES):
            raise SpecError(f"an exercise draws at least one of {', '.join(map(repr, CURVES))}, got {self.measures!r}")


SCORES = tuple(f"{part} {what}" for part in ("train", "test") for what in ("loss", "accuracy"))
CURVES = (*SCORES, "smoothness")
SECONDS = ("seconds per pass", "processor seconds per pass")
"""What exercises may show: over passes and in their table, or there alone."""


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
        measures=(*SCORES, *SECONDS),
        # A stride of two leaves a quarter of the multiplications: four times the passes fill the pooled network's time.
        longer=4,
    ),
}
"""What ``hw4 run --exercise`` takes beside the text CNNs. A new comparison is one entry here."""
