"""The estimator on closed forms, its invariances, and measure_smoothness against a naive reference."""

import contextlib
import copy
import itertools
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hw4.models import ConvNet
from hw4.objective import Objective, ObjectiveError
from hw4.readings import SmoothnessReading
from hw4.smoothness import (
    SmoothnessUndefinedError,
    effective_smoothness,
    full_gradient,
    measure_directions,
    measure_smoothness,
    optimizer_update,
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
    for bad in (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.complex64), np.ones(3)):
        with pytest.raises(ValueError, match="must be tensors of real floating-point numbers, got"):
            effective_smoothness(lambda w: w, torch.ones(3), bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flat and equally long"):
        effective_smoothness(lambda v: v, torch.ones(w), torch.ones(u))


@pytest.mark.parametrize("gradient", [lambda w: (w,), lambda _: None, lambda w: w.numpy(), lambda w: w.long()])
def test_what_is_no_gradient_is_refused(gradient: Any) -> None:
    with pytest.raises(
        ValueError, match=r"must return a floating-point tensor .* got (tuple|None|nd|shape \(3,\), torch.i)"
    ):
        effective_smoothness(gradient, torch.ones(3), torch.ones(3))


def test_the_gradient_may_be_found_by_backward() -> None:
    def gradient(w: Any) -> Any:
        w.grad = None
        (w @ w).backward()
        return w.grad

    assert effective_smoothness(gradient, nn.Parameter(torch.ones(3)), torch.ones(3)) == pytest.approx(2)


def test_a_partial_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="must return a floating-point tensor of the shape of w"):
        effective_smoothness(lambda v: v[:2], torch.ones(3), torch.ones(3))


def test_memory_that_a_gradient_gives_again_is_not_written_to() -> None:
    held, draw = torch.empty(4, dtype=torch.float64), draws(0)
    w, u = draw(4), draw(4)
    assert effective_smoothness(lambda v: held.copy_(3 * v), w, u) == pytest.approx(3, rel=EXACT)
    assert torch.equal(held, 3 * (w + u))


class SmallNet(nn.Module):
    """A convolution, optionally a BatchNorm, and a linear layer: small enough for naive references."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.linear = nn.Linear(3 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
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
    found = measured(model, x, y, norm_mode=norm_mode, chunk_size=len(x))
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


@pytest.mark.parametrize(
    ("interruption", "call"),
    [(None, 0), *itertools.product([RuntimeError("half-way"), KeyboardInterrupt()], [1, 2, 3, 12])],
)
@pytest.mark.parametrize("norm_mode", ["batch", "running", "as is"])
def test_the_model_is_left_bit_for_bit(
    interruption: BaseException | None, call: int, norm_mode: Literal["batch", "running", "as is"]
) -> None:
    model = ConvNet("batch")
    model.norms[1].train(norm_mode != "as is")
    model.linear.bias.grad = torch.ones(10)
    x, y = torch.randn(40, 784, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            assert interruption is not None
            raise interruption
        return F.cross_entropy(outputs, targets)

    before = state(model)
    settings = {"norm_mode": norm_mode, "chunk_size": 20, "loss": loss}
    if interruption is None:
        measured(model, x, y, **settings)
    else:
        # The third call is in float64, in which a model need not compute; of parts of a batch it must, which is said.
        tried = call == 3 and isinstance(interruption, Exception)
        said = (type(interruption), ObjectiveError) if isinstance(interruption, Exception) else type(interruption)
        with contextlib.nullcontext() if tried else pytest.raises(said):
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
        ({"noise_floor": "yes"}, "noise_floor must be"),
    ):
        with pytest.raises(ValueError, match=message):
            measured(model, x, y, **settings)


def test_the_companions_agree_with_the_reading() -> None:
    model, x, y = small_problem(norm=True)
    found = measured(model, x, y, noise_floor="reordered")
    assert abs(found.cosine) * found.smoothness == pytest.approx(found.along_update, rel=EXACT)
    assert 0 < found.along_update <= found.smoothness
    assert found.scaled == 0.1 * found.smoothness
    assert [block.name for block in found.blocks] == [name for name, _ in model.named_parameters()]
    for total in ("weight_norm", "update_norm", "gradient_change_norm"):
        parts = math.hypot(*(getattr(block, total) for block in found.blocks))
        assert parts == pytest.approx(getattr(found, total), rel=EXACT)
    assert found.noise_floor is not None
    assert found.noise_floor < 1e-10 * found.smoothness
    assert found.usable
    assert measured(model, x, y).noise_floor is None, "nobody asked for it"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        long = measured(nn.Linear(1100, 1000), torch.randn(8, 1100), torch.arange(8))  # more than is summed at a time
    assert abs(long.cosine) * long.smoothness == pytest.approx(long.along_update, rel=EXACT)


def test_on_a_quadratic_the_cosine_and_the_slope_along_the_update_are_exact() -> None:
    # f(w) = w1^2/2 + w2^2 at (1, 1): the gradient is (1, 2), its change over u = -(1, 2)/2 is -(1, 4)/2.
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.w**2 * torch.tensor([0.5, 1.0])).sum().expand(len(x))

    x = torch.zeros(5, dtype=torch.float64)
    found = measure_smoothness(
        Quadratic(), x, x, learning_rate=0.5, batch_size=2, generator=torch.Generator(), loss=lambda out, _: out.mean()
    )
    assert found.smoothness == pytest.approx(math.sqrt(17 / 5), rel=EXACT)
    assert found.along_update == pytest.approx(9 / 5, rel=EXACT)
    assert found.cosine == pytest.approx(9 / math.sqrt(5 * 17), rel=EXACT)
    assert found.weight_norm == pytest.approx(math.sqrt(2), rel=EXACT)
    assert found.update_norm == pytest.approx(math.sqrt(5) / 2, rel=EXACT)


@pytest.mark.parametrize(("rate", "usable"), [(0.04, True), (1e-8, False)])
@pytest.mark.parametrize("kind", ["reordered", "float64"])
@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "kinked"])
def test_the_noise_floor_is_the_error_that_float64_reveals(
    rate: float, usable: bool, smooth: bool, kind: Literal["reordered", "float64"]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        convs = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh() if smooth else nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
        x, y = torch.randn(300, 1, 6, 6), torch.arange(300) % 10
    found = measured(convs, x, y, learning_rate=rate, noise_floor=kind)
    assert found.noise_floor is not None
    assert found.usable == usable
    objective = Objective(convs, x, y)
    double, w = objective.in_double(), objective.w
    u = -rate * objective.minibatch_gradient(w, 8, torch.Generator().manual_seed(4))
    exact = double.gradient((w + u).double()) - double.gradient(w.double())
    error = abs(found.smoothness - float(exact.norm()) / found.update_norm)
    # The reordered floor is one draw of a norm of some hundred rounding errors, the actual error another.
    assert error <= found.noise_floor * (3 if kind == "reordered" else 1 + 1e-6)


def test_double_precision_on_request_is_that_of_a_double_model() -> None:
    torch.manual_seed(3)
    model, x, y = ConvNet(), torch.randn(40, 784), torch.arange(40) % 10
    asked = measured(model, x, y, dtype=torch.float64)
    assert asked == measured(copy.deepcopy(model).double(), x.double(), y)
    assert next(model.parameters()).dtype == torch.float32


def test_several_directions_share_the_point_and_are_single_readings() -> None:
    model, x, y = small_problem(norm=True)
    settings = {"learning_rate": 0.1, "batch_size": 8}
    one, several = (torch.Generator().manual_seed(4) for _ in range(2))
    singles = [measure_smoothness(model, x, y, generator=one, **settings) for _ in range(3)]  # type: ignore[arg-type]
    together = measure_directions(Objective(model, x, y), 3, generator=several, **settings)  # type: ignore[arg-type]
    assert together == singles
    with torch.inference_mode():
        again = torch.Generator().manual_seed(4)
        assert measure_directions(Objective(model, x, y), 3, generator=again, **settings) == singles  # type: ignore[arg-type]
    assert len({found.smoothness for found in together}) == 3
    with pytest.raises(ValueError, match="directions must be at least 1"):
        measure_directions(Objective(model, x, y), 0, generator=one, **settings)  # type: ignore[arg-type]


def test_a_data_loader_gives_what_its_tensors_give() -> None:
    model, x, y = small_problem(norm=True, n=20)  # in chunks of 10, as the loader's batches
    loader = DataLoader(TensorDataset(x, y), batch_size=10)
    settings = {"learning_rate": 0.1, "batch_size": 8, "noise_floor": "reordered"}
    found, expected = (
        measure_smoothness(model, *data, generator=torch.Generator().manual_seed(4), **settings, **given)  # type: ignore[arg-type, misc]
        for data, given in (((loader,), {}), ((x, y), {"chunk_size": 10}))
    )
    assert found == expected


@pytest.mark.parametrize(("noise_floor", "times"), [(None, 3), ("reordered", 3), ("float64", 8)])
@pytest.mark.parametrize("sizes", [[400] * 21, [2000, 1000, 10]], ids=["many parameters", "one large parameter"])
def test_memory_is_what_the_docstring_says(noise_floor: Any, times: int, sizes: list[int]) -> None:
    """In multiples of the parameters' bytes, from torch's own account of what it allocates and frees."""
    model = nn.Sequential(*(nn.Linear(before, after) for before, after in itertools.pairwise(sizes)))
    parameters = 4 * sum(p.numel() for p in model.parameters())
    x, y = torch.randn(4, sizes[0]), torch.arange(4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        measured(model, x, y, batch_size=2, chunk_size=2, noise_floor=noise_floor)
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    live = list(itertools.accumulate(each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())))
    largest = (8 if noise_floor == "float64" else 4) * max(p.numel() for p in model.parameters())
    assert max(live) < (times + 0.2) * parameters + largest  # 0.2: activations, and norms' pieces in float64
    assert live[-1] < 0.01 * parameters, "what is left behind"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_same_function() -> None:
    model, x, y = small_problem(norm=True)
    found = reading(model.cuda(), x, y)
    assert found == pytest.approx(reading(model.cpu(), x, y), rel=1e-8)


def test_an_update_given_is_measured_as_the_same_update_drawn() -> None:
    model, x, y = small_problem(norm=True)
    drawn = measured(model, x, y, noise_floor="reordered")
    objective = Objective(model, x, y)
    u = -0.1 * objective.minibatch_gradient(objective.w, 8, torch.Generator().manual_seed(4))
    parts = dict(zip(objective.names, objective.split(u), strict=True))
    by_name = {name: parts[name].view(p.shape) for name, p in model.named_parameters()}
    for update in (u, by_name):
        found = measure_smoothness(model, x, y, update=update, noise_floor="reordered")
        assert found == replace(drawn, learning_rate=None)
        assert found.scaled is None
    assert json.loads(json.dumps(drawn.as_dict()))["smoothness"] == drawn.smoothness
    assert drawn.as_dict().keys() >= {field.name for field in fields(SmoothnessReading)}
    with pytest.raises(ValueError, match="not both"):
        measure_smoothness(model, x, y, update=u, learning_rate=0.1)
    with pytest.raises(ValueError, match="or give an update"):
        measure_smoothness(model, x, y)
    with pytest.raises(ValueError, match="flat update of"):
        measure_smoothness(model, x, y, update=u[:-1])
    with pytest.raises(ValueError, match="must have a tensor of its shape"):
        measure_smoothness(model, x, y, update={"nothing": u})


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: torch.optim.Adam(ps, lr=1e-2),
        lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
        lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
    ],
    ids=["Adam", "momentum", "AdamW"],
)
def test_an_optimisers_update_is_its_next_step_and_nothing_is_changed(make: Any) -> None:
    model, x, y = small_problem(norm=False)
    optimizer = make(model.parameters())
    for _ in range(3):  # so that it has a state
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    before, kept = state(model), json.dumps(optimizer.state_dict(), default=lambda t: t.tolist())
    update = optimizer_update(model, optimizer)
    assert state(model) == before
    assert json.dumps(optimizer.state_dict(), default=lambda t: t.tolist()) == kept
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    reading = measure_smoothness(model, x, y, update=update)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(update[name], p.detach() - start[name], rtol=0, atol=0)
    norm = math.sqrt(sum(float((part.double() ** 2).sum()) for part in update.values()))
    assert reading.update_norm == pytest.approx(norm, rel=1e-6)
    optimizer.zero_grad()
    with pytest.raises(ObjectiveError, match="call backward"):
        optimizer_update(model, optimizer)


def test_an_objective_of_a_model_that_was_trained_since_is_refused() -> None:
    model, x, y = small_problem(norm=False)
    objective = Objective(model, x, y)
    next(model.parameters()).data.mul_(1.5)
    with pytest.raises(ObjectiveError, match="build one anew"):
        objective.confirm()
    with pytest.raises(ObjectiveError, match="build one anew"):
        _ = objective.w
    model, x, y = small_problem(norm=True)
    evaluated, trained = (Objective(model, x, y, norm_mode=mode) for mode in ("running", "batch"))
    model.train()(x)  # its running statistics move, by which the first one is evaluated
    trained.gradient()
    with pytest.raises(ObjectiveError, match="build one anew"):
        evaluated.gradient()


def test_threads_that_measure_one_model_wait_for_one_another() -> None:
    """One that began amid another's work would take the other's copies for the user's parameters."""
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    x, y, before = torch.randn(60, 6), torch.randint(3, (60,)), list(model.parameters())

    def read(chunk_size: int) -> float:
        generator = torch.Generator().manual_seed(0)
        how: dict[str, Any] = {"learning_rate": 0.1, "batch_size": 16, "chunk_size": chunk_size}
        return measure_smoothness(model, x, y, generator=generator, **how).smoothness

    right = read(60)
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(read, [5, 10, 20, 60])) == pytest.approx([right] * 4, rel=1e-4)
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))
