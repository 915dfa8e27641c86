"""What is timed: eight pieces of hw4's work, each beside a frozen reference that does the same.

Every workload comes in two sizes. ``whole`` is what the homework asks for, a pass or a round through all the data,
beside plain PyTorch; ``pytest benchmarks`` times that. ``slice`` is the same code on a few examples, some milliseconds
long, beside the frozen fast code; the gate times that, for the noise of shared machines is slower than such a slice, so
that a slice and the reference right beside it suffer alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.frozen import (
    FrozenConvNet,
    FrozenEnsemble,
    frozen_gradient,
    frozen_pass,
    frozen_reading,
    frozen_scores,
)
from benchmarks.plain import PlainConvNet, plain_gradient, plain_pass, plain_reading, plain_scores
from benchmarks.plain_text import PlainTextCNN, plain_epoch
from hw4.geometry import TEXT_KERNEL, TEXT_LENGTH, TEXT_PADDING, conv_output_length
from hw4.models import CHANNELS, KERNEL, ConvNet, TextCNN, TextCNNEnsemble
from hw4.smoothness import full_gradient, measure_smoothness
from hw4.specs import TRIALS, sweep_specs
from hw4.sweep import groups
from hw4.training import evaluate, train_ensemble, train_pass

Size = Literal["whole", "slice"]
Variant = Literal["pool", "pool-batchnorm", "stride"]
VARIANTS: dict[Variant, tuple[Literal["batch"] | None, Literal["pool", "stride"]]] = {
    "pool": (None, "pool"),
    "pool-batchnorm": ("batch", "pool"),
    "stride": (None, "stride"),
}
IMAGES, TEST_IMAGES, QUESTIONS, BATCH = 6_000, 10_000, 900, 32
CLASSES, TEXT_CLASSES = 10, 6
# Small enough that nothing diverges, however often a workload is repeated: lost trials would end early.
LEARNING_RATE = 0.001


@dataclass(frozen=True)
class Workload:
    """Two ways of doing one thing, and what one call of ``target`` amounts to.

    ``examples`` are images or questions (``unit`` says which), ``multiply_adds`` those that the network's definition
    asks for (forward, and for gradients those of weights and inputs), ``parameters`` those of all models trained.
    """

    group: str
    unit: Literal["images", "questions"]
    target: Callable[[], object]
    reference: Callable[[], object]
    examples: int
    multiply_adds: int
    parameters: int


def noise(n: int, *shape: int, classes: int) -> tuple[Tensor, Tensor]:
    """Random inputs (n, *shape) and classes (n,): the operations do not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, *shape, generator=generator), torch.randint(classes, (n,), generator=generator)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _convnets(variant: Variant, size: Size) -> tuple[ConvNet, nn.Module]:
    """One architecture twice, of today and frozen, with the same weights: plain when whole, fast when in slices."""
    norm, downsample = VARIANTS[variant]
    today = ConvNet(norm, downsample)
    frozen = (PlainConvNet if size == "whole" else FrozenConvNet)(norm, downsample)
    frozen.load_state_dict(today.state_dict())
    return today.train(), frozen.train()


def convnet_multiply_adds(model: ConvNet, *, gradient: bool) -> int:
    """Multiply-adds for one image: forward, plus those of weight and input gradients (none for the pixels)."""
    length, counts = 28, []
    for channels_in, channels_out, conv in zip(CHANNELS, CHANNELS[1:], model.convs, strict=False):
        convolved = conv_output_length(length, KERNEL, int(conv.stride[0]), KERNEL // 2)  # type: ignore[index]
        counts.append(convolved**2 * channels_out * channels_in * KERNEL**2)
        length //= 2
    counts.append(model.linear.weight.numel())
    return 3 * sum(counts) - counts[0] if gradient else sum(counts)


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _training(variant: Variant, size: Size) -> Workload:
    today, frozen = _convnets(variant, size)
    # A pass is round(n / batch) updates, so n decides; 6,000 images make the homework's 188.
    n = IMAGES if size == "whole" else {"pool": 1, "pool-batchnorm": 1, "stride": 2}[variant] * BATCH
    x, y = noise(n, 1, 28, 28, classes=CLASSES)
    reference: Callable[..., object] = plain_pass if size == "whole" else frozen_pass
    settings: dict[str, Any] = {"learning_rate": LEARNING_RATE, "batch_size": BATCH}
    seen = max(1, round(n / BATCH)) * BATCH
    return Workload(
        "training pass",
        "images",
        lambda: train_pass(today, x, y, generator=_generator(), **settings),
        lambda: reference(frozen, x, y, generator=_generator(), **settings),
        seen,
        seen * convnet_multiply_adds(today, gradient=True),
        _parameters(today),
    )


def _gradient(size: Size) -> Workload:
    today, frozen = _convnets("pool", size)
    n = IMAGES if size == "whole" else 20
    x, y = noise(n, 1, 28, 28, classes=CLASSES)
    reference = plain_gradient if size == "whole" else frozen_gradient
    return Workload(
        "full gradient",
        "images",
        lambda: full_gradient(today, x, y),
        lambda: reference(frozen, x, y),
        n,
        n * convnet_multiply_adds(today, gradient=True),
        _parameters(today),
    )


def _evaluation(size: Size) -> Workload:
    today, frozen = _convnets("pool", size)
    sets = [noise(n, 1, 28, 28, classes=CLASSES) for n in ((IMAGES, TEST_IMAGES) if size == "whole" else (50,))]
    n = sum(len(x) for x, _ in sets)
    return Workload(
        "loss and accuracy",
        "images",
        lambda: [evaluate(today, x, y) for x, y in sets],
        (lambda: plain_scores(frozen, sets)) if size == "whole" else lambda: frozen_scores(frozen, *sets[0]),
        n,
        n * convnet_multiply_adds(today, gradient=False),
        _parameters(today),
    )


def _reading(size: Size) -> Workload:
    today, frozen = _convnets("pool", size)
    n, batch = (IMAGES, BATCH) if size == "whole" else (10, 6)
    x, y = noise(n, 1, 28, 28, classes=CLASSES)
    reference: Callable[..., object] = plain_reading if size == "whole" else frozen_reading
    settings: dict[str, Any] = {"learning_rate": 0.04, "batch_size": batch}
    return Workload(
        "one smoothness reading",
        "images",
        lambda: measure_smoothness(today, x, y, generator=_generator(), **settings),
        lambda: reference(frozen, x, y, generator=_generator(), **settings),
        2 * n + batch,
        (2 * n + batch) * convnet_multiply_adds(today, gradient=True),
        _parameters(today),
    )


def _text(stride: int, size: Size) -> Workload:
    """Ten trials trained together as the sweep groups them; a slice is some updates of the first group."""
    sizes = [len(group) for group in groups(sweep_specs("grammar", strides=[stride], trials=TRIALS))]
    if size == "slice":
        sizes = sizes[:1]
    n = QUESTIONS if size == "whole" else {1: 4, 10: 12}[stride] * BATCH
    x, y = noise(n, 1, TEXT_LENGTH, classes=TEXT_CLASSES)
    ensembles = [TextCNNEnsemble.from_models([TextCNN(stride) for _ in range(trials)]) for trials in sizes]

    def target() -> None:
        for ensemble in ensembles:
            train_ensemble(
                ensemble,
                x,
                y,
                learning_rate=LEARNING_RATE,
                momentum=0.8,
                batch_size=BATCH,
                epochs=1,
                generators=[_generator() for _ in range(ensemble.trials)],
            )

    model = TextCNN(stride)
    convolution = conv_output_length(TEXT_LENGTH, TEXT_KERNEL, stride, TEXT_PADDING) * model.conv.weight.numel()
    multiply_adds = 3 * (convolution + model.linear.weight.numel()) - convolution
    questions = n * sum(sizes)
    reference = _plain_text(stride, sum(sizes), x, y) if size == "whole" else _frozen_text(stride, sum(sizes), x, y)
    return Workload(
        "round through 900 questions, 10 trials",
        "questions",
        target,
        reference,
        questions,
        questions * multiply_adds,
        sum(sizes) * _parameters(model),
    )


def _plain_text(stride: int, trials: int, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Plain models trained one after the other."""
    models = [PlainTextCNN(stride) for _ in range(trials)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.8) for model in models]
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)

    def reference() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            plain_epoch(model, optimizer, loader)

    return reference


def _frozen_text(stride: int, trials: int, x: Tensor, y: Tensor) -> Callable[[], object]:
    ensemble = FrozenEnsemble(stride, trials)
    return lambda: ensemble.epoch(
        x, y, learning_rate=LEARNING_RATE, batch_size=BATCH, generators=[_generator() for _ in range(trials)]
    )


WORKLOADS: dict[str, Callable[[Size], Workload]] = {
    **{f"training-{variant}": partial(_training, variant) for variant in VARIANTS},
    "full-gradient": _gradient,
    "evaluation": _evaluation,
    "smoothness-reading": _reading,
    "text-stride1": partial(_text, 1),
    "text-stride10": partial(_text, 10),
}
