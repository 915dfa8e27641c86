"""The estimator on closed forms, its invariances, and measure_smoothness against a naive reference."""

import copy
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hw4.models import ConvNet
from hw4.smoothness import (
    SmoothnessReading,
    SmoothnessUndefinedError,
    effective_smoothness,
    full_gradient,
    measure_smoothness,
)
from hw4.training import chunks

# Curvatures between 0.1 and 10 and vectors of order one leave about 1e-13 of float64's precision to the quotient.
EXACT = 1e-10

seeds = st.integers(0, 2**32)
dimensions = st.integers(1, 12)


def draws(seed: int) -> Callable[..., Tensor]:
    """Standard normal float64 tensors of any shape from one seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


def quadratic(p: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Eigenvalues (either sign, 0.1 to 10), eigenvectors, Hessian and gradient of a random f(w) = w'Hw/2 + b'w."""
    draw = draws(seed)
    eigenvectors = torch.linalg.qr(draw(p, p)).Q
    eigenvalues = draw(p).sign() * torch.logspace(-1, 1, p, dtype=torch.float64)
    hessian = eigenvectors @ torch.diag(eigenvalues) @ eigenvectors.T
    offset = draw(p)
    return eigenvalues, eigenvectors, hessian, lambda w: hessian @ w + offset


@given(dimensions, seeds)
def test_exact_on_quadratics(p: int, seed: int) -> None:
    eigenvalues, _, hessian, gradient = quadratic(p, seed)
    draw = draws(seed + 1)
    w, u = draw(p), draw(p)
    found = effective_smoothness(gradient, w, u)
    assert found == pytest.approx(float((hessian @ u).norm() / u.norm()), rel=EXACT)
    assert found <= float(eigenvalues.abs().max()) * (1 + EXACT)


@given(dimensions, seeds)
def test_an_eigenvector_gives_its_eigenvalue(p: int, seed: int) -> None:
    eigenvalues, eigenvectors, _, gradient = quadratic(p, seed)
    w = draws(seed + 1)(p)
    for eigenvalue, eigenvector in zip(eigenvalues, eigenvectors.T, strict=True):
        assert effective_smoothness(gradient, w, 3 * eigenvector) == pytest.approx(abs(float(eigenvalue)), rel=EXACT)


def test_off_axis_is_not_the_largest_eigenvalue() -> None:
    hessian = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
    w, u = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert effective_smoothness(lambda v: hessian @ v, w, u) == pytest.approx(math.sqrt(17 / 5), rel=EXACT)


@given(dimensions, seeds, st.sampled_from([-3.0, 0.5, 7.0]))
def test_invariances(p: int, seed: int, scale: float) -> None:
    _, _, _, gradient = quadratic(p, seed)
    draw = draws(seed + 1)
    w, u, linear, rotation = draw(p), draw(p), draw(p), torch.linalg.qr(draw(p, p)).Q

    def curved(v: Tensor) -> Tensor:
        return gradient(v) + v**3

    value = effective_smoothness(curved, w, u)
    assert effective_smoothness(lambda v: curved(v) + linear, w, u) == pytest.approx(value, rel=EXACT)
    assert effective_smoothness(lambda v: scale * curved(v), w, u) == pytest.approx(abs(scale) * value, rel=EXACT)
    rotated = effective_smoothness(lambda v: rotation @ curved(rotation.T @ v), rotation @ w, rotation @ u)
    assert rotated == pytest.approx(value, rel=EXACT)
    assert effective_smoothness(curved, w + u, -u) == pytest.approx(value, rel=EXACT)


@given(dimensions, seeds)
def test_between_its_projection_and_the_largest_curvature(p: int, seed: int) -> None:
    draw = draws(seed)
    w, u = draw(p), draw(p)

    def gradient(v: Tensor) -> Tensor:  # of sum cosh(v), whose Hessian is diag(cosh v)
        return v.sinh()

    value = effective_smoothness(gradient, w, u)
    change = gradient(w + u) - gradient(w)
    assert float((u @ change).abs() / (u @ u)) <= value * (1 + EXACT)
    assert value <= float(torch.maximum(w.abs(), (w + u).abs()).max().cosh()) * (1 + EXACT)


def test_a_step_lost_to_rounding_is_measured_as_taken() -> None:
    # u is far below the spacing of float32 numbers near w in one coordinate and a few of them in the other.
    w, u = torch.tensor([1e4, 1.0]), torch.tensor([1e-6, 3e-7])
    taken = (w + u - w).double()
    assert taken.count_nonzero() == 1
    assert effective_smoothness(lambda v: 2 * v, w, u) == 2.0


@pytest.mark.parametrize(
    ("u", "gradient"),
    [(torch.zeros(3), lambda v: v), (torch.full((3,), 1e-30), lambda v: v), (torch.ones(3), lambda v: v / 0)],
    ids=["zero", "lost to rounding", "infinite gradient"],
)
def test_without_a_value_it_says_so(u: Tensor, gradient: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(SmoothnessUndefinedError, match=r"has no value|not finite"):
        effective_smoothness(gradient, torch.ones(3), u)


@pytest.mark.parametrize(("w", "u"), [(3, 4), ((2, 2), (2, 2))])
def test_shapes_that_differ_are_refused(w: tuple[int, ...], u: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="flat and equally long"):
        effective_smoothness(lambda v: v, torch.ones(w), torch.ones(u))


def test_a_partial_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="must have the shape of w"):
        effective_smoothness(lambda v: v[:2], torch.ones(3), torch.ones(3))


class SmallNet(nn.Module):
    """A convolution, optionally a BatchNorm, and a linear layer: small enough for naive references."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.linear = nn.Linear(3 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, 6, 6) to (batch, 4)."""
        scores: Tensor = self.linear(F.relu(self.norm(self.conv(x))).flatten(1))
        return scores


def small_problem(*, norm: bool, n: int = 30) -> tuple[nn.Module, Tensor, Tensor]:
    """A small net in float64 with running statistics of its own, and data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallNet(norm=norm).double()
        x, y = torch.randn(n, 1, 6, 6, dtype=torch.float64), torch.randint(4, (n,))
        model.train()(x[:7] * 2 + 1)
    return model, x, y


def naive_smoothness(
    model: nn.Module, x: Tensor, y: Tensor, batch: Tensor, *, learning_rate: float, training: bool
) -> float:
    """The definition once more, slowly: one whole batch, ``backward``, numpy, one parameter after the other."""

    def gradients(net: nn.Module, inputs: Tensor, targets: Tensor) -> list[np.ndarray]:
        net = copy.deepcopy(net).train(training)
        net.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()  # type: ignore[no-untyped-call]
        return [p.grad.numpy().copy() for p in net.parameters() if p.grad is not None]

    update = [-learning_rate * g for g in gradients(model, x[batch], y[batch])]
    moved = copy.deepcopy(model)
    for parameter, step in zip(moved.parameters(), update, strict=True):
        parameter.data += torch.from_numpy(step)
    change = [a - b for a, b in zip(gradients(moved, x, y), gradients(model, x, y), strict=True)]
    return math.sqrt(sum((c**2).sum() for c in change)) / math.sqrt(sum((u**2).sum() for u in update))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("norm_mode", ["batch", "running"])
def test_it_is_the_definition(norm: bool, norm_mode: Literal["batch", "running"]) -> None:
    model, x, y = small_problem(norm=norm)
    batch = torch.randint(len(x), (1, 8), generator=torch.Generator().manual_seed(4))[0]
    found = measure_smoothness(
        model, x, y, learning_rate=0.1, batch_size=8, generator=torch.Generator().manual_seed(4),
        norm_mode=norm_mode, chunk_size=len(x),
    )  # fmt: skip
    expected = naive_smoothness(model, x, y, batch, learning_rate=0.1, training=norm_mode == "batch")
    assert found.smoothness == pytest.approx(expected, rel=EXACT)
    assert found.smoothness == found.gradient_change_norm / found.update_norm
    assert (found.norm_mode, found.chunk_size) == (norm_mode, len(x))


def test_batch_and_running_statistics_are_different_functions() -> None:
    model, x, y = small_problem(norm=True)
    assert reading(model, x, y, norm_mode="batch") != pytest.approx(reading(model, x, y, norm_mode="running"), rel=0.01)


def reading(model: nn.Module, x: Tensor, y: Tensor, **settings: object) -> float:
    """Smoothness along the minibatch of a fixed seed."""
    return measured(model, x, y, **settings).smoothness


def measured(model: nn.Module, x: Tensor, y: Tensor, **settings: object) -> SmoothnessReading:
    values: dict[str, object] = {"learning_rate": 0.1, "batch_size": 8, **settings}
    return measure_smoothness(model, x, y, generator=torch.Generator().manual_seed(4), **values)  # type: ignore[arg-type]


@given(st.integers(1, 40))
def test_chunks_change_rounding_only_without_batch_statistics(chunk_size: int) -> None:
    model, x, y = small_problem(norm=False, n=23)
    whole = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    found = full_gradient(model, x, y, chunk_size=chunk_size)
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in whole]), rtol=1e-12, atol=1e-14)


def test_with_batch_statistics_the_gradient_is_the_weighted_mean_over_chunks() -> None:
    model, x, y = small_problem(norm=True, n=23)
    parts = [full_gradient(model, *part, chunk_size=23) * len(part[1]) / 23 for part in chunks(x, y, 10)]
    assert sorted(len(targets) for _, targets in chunks(x, y, 10)) == [7, 8, 8]
    torch.testing.assert_close(full_gradient(model, x, y, chunk_size=10), sum(parts), rtol=1e-12, atol=1e-14)


def test_the_order_of_examples_does_not_matter() -> None:
    model, x, y = small_problem(norm=False)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(
        full_gradient(model, x, y, chunk_size=7), full_gradient(model, x[order], y[order], chunk_size=7),
        rtol=1e-12, atol=1e-14,
    )  # fmt: skip


def test_every_parameter_takes_part() -> None:
    model, x, y = small_problem(norm=True)
    # Batch statistics would cancel the bias before them, and its gradient with it.
    whole = reading(model, x, y, norm_mode="running")
    for parameter in model.parameters():
        parameter.requires_grad = False
        assert reading(model, x, y, norm_mode="running") != pytest.approx(whole, rel=1e-9)
        parameter.requires_grad = True
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        reading(model, x, y)


def state(model: nn.Module) -> list[object]:
    """Everything a measurement must leave alone: bytes, layout and identity of tensors, gradients, modes, hooks."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [(id(t), t.data_ptr(), t.stride(), t._version, t.detach().numpy().tobytes()) for t in tensors],
        [None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes()) for p in model.parameters()],
        [(module.training, len(module._forward_hooks)) for module in model.modules()],
        torch.get_rng_state().tolist(),
    ]


@pytest.mark.parametrize("interruption", [None, RuntimeError("half-way"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("call", [1, 2, 3, 5])
@pytest.mark.parametrize("norm_mode", ["batch", "running"])
def test_the_model_is_left_bit_for_bit(
    interruption: BaseException | None, call: int, norm_mode: Literal["batch", "running"]
) -> None:
    model = ConvNet("batch")
    model.norms[1].eval()
    model.linear.bias.grad = torch.ones(10)
    x, y = torch.randn(40, 784, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call and interruption is not None:
            raise interruption
        return F.cross_entropy(outputs, targets)

    before = state(model)
    settings = {"norm_mode": norm_mode, "chunk_size": 20, "loss": loss}
    if interruption is None:
        measured(model, x, y, **settings)
    else:
        with pytest.raises(type(interruption)):
            measured(model, x, y, **settings)
    assert state(model) == before


def test_it_measures_what_a_training_step_does() -> None:
    model, x, y = small_problem(norm=False)
    (batch,) = torch.randint(len(x), (1, 8), generator=torch.Generator().manual_seed(4))
    gradient = full_gradient(model, x[batch], y[batch])
    assert measured(model, x, y).update_norm == pytest.approx(0.1 * float(gradient.norm()), rel=EXACT)


def test_nonsense_is_refused() -> None:
    model, x, y = small_problem(norm=False)
    for settings, message in (
        ({"norm_mode": "eval"}, "norm_mode must be"),
        ({"batch_size": 31}, "between 1 and the number of examples"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"learning_rate": 0.0}, "the update is zero"),
    ):
        with pytest.raises(ValueError, match=message):
            measured(model, x, y, **settings)
