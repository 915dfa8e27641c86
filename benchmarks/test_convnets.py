"""Training, full gradient and evaluation of the ConvNets against the plain way, at the homework's sizes."""

import time
from typing import Literal

import pytest
import torch
from torch import Tensor

from benchmarks.conftest import Compare
from benchmarks.plain import PlainConvNet, plain_gradient, plain_pass, plain_scores
from hw4.models import ConvNet
from hw4.smoothness import full_gradient
from hw4.training import evaluate, train_pass

VARIANTS = {"pool": (None, "pool"), "pool-batchnorm": ("batch", "pool"), "stride": (None, "stride")}


@pytest.fixture(scope="module")
def sets() -> list[tuple[Tensor, Tensor]]:
    """6,000 training and 10,000 test images' worth of noise: the operations do not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 1, 28, 28, generator=generator), torch.randint(10, (n,), generator=generator))
        for n in (6_000, 10_000)
    ]


@pytest.fixture(params=VARIANTS)
def models(request: pytest.FixtureRequest) -> tuple[PlainConvNet, ConvNet]:
    """One architecture twice, plain and fast, with the same weights."""
    norm: Literal["batch"] | None
    downsample: Literal["pool", "stride"]
    norm, downsample = VARIANTS[request.param]  # type: ignore[assignment]
    plain, fast = PlainConvNet(norm, downsample), ConvNet(norm, downsample)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


@pytest.mark.benchmark(group="training pass, 188 updates of 32 images", timer=time.process_time)
def test_training_pass(
    compare: Compare, models: tuple[PlainConvNet, ConvNet], sets: list[tuple[Tensor, Tensor]]
) -> None:
    plain, fast = models
    (x, y), _ = sets
    compare(
        lambda: plain_pass(plain, x, y, learning_rate=0.04, batch_size=32, generator=torch.Generator().manual_seed(1)),
        lambda: train_pass(fast, x, y, learning_rate=0.04, batch_size=32, generator=torch.Generator().manual_seed(1)),
        rounds=9,
    )


@pytest.mark.benchmark(group="full gradient over 6,000 images", timer=time.process_time)
def test_full_gradient(
    compare: Compare, models: tuple[PlainConvNet, ConvNet], sets: list[tuple[Tensor, Tensor]]
) -> None:
    plain, fast = models
    (x, y), _ = sets
    fast.train()
    compare(lambda: plain_gradient(plain, x, y), lambda: full_gradient(fast, x, y), rounds=5)


@pytest.mark.benchmark(group="loss and accuracy over 6,000 and 10,000 images", timer=time.process_time)
def test_evaluation(compare: Compare, models: tuple[PlainConvNet, ConvNet], sets: list[tuple[Tensor, Tensor]]) -> None:
    plain, fast = models
    compare(lambda: plain_scores(plain, sets), lambda: [evaluate(fast, x, y) for x, y in sets], rounds=3)
