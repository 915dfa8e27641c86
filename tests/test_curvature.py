"""Sharpness, kink share and range view: closed forms, dense Hessians, smooth twins of the networks."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hw4.curvature import kink_share, largest_eigenvalues, largest_steps, range_view, sharpness
from hw4.objective import Objective, ObjectiveError
from hw4.smoothness import SmoothnessUndefinedError
from hw4.training import draw_batches

EXACT = 1e-10
seeds = st.integers(0, 2**32)


class Function(nn.Module):
    """Any function of one parameter vector as a model whose output is its value, whatever the input."""

    def __init__(self, value: Callable[[Tensor], Tensor], w: Tensor) -> None:
        super().__init__()
        self.w, self.value = nn.Parameter(w.clone()), value

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.w).expand(len(x))


def function(value: Callable[[Tensor], Tensor], w: Tensor, *, n: int = 7, chunk_size: int = 3) -> Objective:
    x = torch.zeros(n, 1, dtype=w.dtype)
    return Objective(Function(value, w), x, x[:, 0], loss=lambda out, _: out.mean(), chunk_size=chunk_size)


def symmetric(p: int, seed: int) -> tuple[Tensor, Callable[..., Tensor]]:
    """A random symmetric matrix with a largest eigenvalue well apart, and further draws."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    basis = torch.linalg.qr(draw(p, p)).Q
    return basis @ torch.diag(torch.linspace(-5, 7, p, dtype=torch.float64)) @ basis.T, draw


@given(st.integers(2, 12), seeds)
@settings(max_examples=20)
def test_quadratics_have_their_sharpness_no_kinks_and_one_smoothness(p: int, seed: int) -> None:
    hessian, draw = symmetric(p, seed)
    w, u, b = draw(p), draw(p), draw(p)
    objective = function(lambda v: v @ hessian @ v / 2 + b @ v, w)
    torch.testing.assert_close(objective.hessian_product(w, u), hessian @ u, rtol=EXACT, atol=EXACT)
    found = sharpness(objective, tolerance=1e-10)
    assert found.value == pytest.approx(7, rel=EXACT), "it must be the largest, not the largest in size"
    assert found.residual is not None
    assert found.residual < 1e-6
    assert kink_share(objective, u, nodes=2).share < EXACT
    view = range_view(objective, u)
    expected = float((hessian @ u).norm() / u.norm())
    assert view.smoothness == pytest.approx([expected] * len(view.factors), rel=EXACT)
    assert view.losses == pytest.approx(
        [float((w + s * u) @ hessian @ (w + s * u) / 2 + b @ (w + s * u)) for s in view.factors], rel=EXACT
    )


@given(st.integers(2, 12), seeds, st.sampled_from([1e-3, 0.1, 5.0]))
@settings(max_examples=20)
def test_the_largest_step_on_a_quadratic_is_where_it_crosses_its_own_level(p: int, seed: int, start: float) -> None:
    """F falls along -r g for r below 2 g.g / g.Hg, whatever rate the search starts at; the rest is the bracket."""
    hessian, draw = symmetric(p, seed)
    hessian = hessian @ hessian + torch.eye(p, dtype=torch.float64)
    w, b = draw(p), draw(p)
    slope = hessian @ w + b
    curvature = float(slope @ hessian @ slope / (slope @ slope))
    objective = function(lambda v: v @ hessian @ v / 2 + b @ v, w)
    found = largest_steps(objective, start, 3, torch.Generator().manual_seed(0))
    assert [step.direction for step in found] == ["gradient", "minibatch"]
    for step in found:  # of which the minibatch's is the same here: every example has one loss
        assert step.raised is not None
        assert step.stable <= 2 / curvature <= step.raised <= 1.045 * step.stable
        assert step.curvature == pytest.approx(curvature, rel=1e-6)  # at start 1e-3 a difference of near gradients


def test_a_step_that_is_never_raised_or_always_is_said_to_be() -> None:
    concave = function(lambda v: -(v @ v), torch.ones(3, dtype=torch.float64))
    (down, _) = largest_steps(concave, 0.1, 3, torch.Generator().manual_seed(0))
    assert (down.stable, down.raised) == (0.1 * 2**12, None)
    assert down.curvature == pytest.approx(-2)
    # Each example's own gradient points up the mean's slope: no step along it lowers the loss.
    w = torch.zeros(1, dtype=torch.float64)
    x = torch.tensor([[-9.0], [1.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(w.view(1, 1))
    apart = Objective(model, x, x[:, 0], loss=lambda out, _: out.mean(), chunk_size=5)
    drawn = next(
        s
        for s in range(99)
        if draw_batches(5, batch_size=1, generator=torch.Generator().manual_seed(s), updates=1).any()
    )
    _, along = largest_steps(apart, 0.1, 1, torch.Generator().manual_seed(drawn))
    assert (along.stable, along.raised) == (0.0, 0.1 * 2**-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_step_that_rounding_swallows_is_not_called_stable(dtype: torch.dtype) -> None:
    """The minibatch's step goes uphill: the second example's target is below, the mean of both above."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.w

    inputs, targets = torch.ones(2, 1, dtype=dtype), torch.tensor([[1.5], [0.75]], dtype=dtype)
    objective = Objective(Line().to(dtype), inputs, targets, loss=F.mse_loss)
    _, uphill = largest_steps(objective, 1.0, 1, torch.Generator().manual_seed(1))
    assert uphill.stable == 0.0
    assert uphill.raised is not None


def test_what_shows_rounding_alone_is_refused_below_float32() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).bfloat16()
    objective = Objective(model, torch.randn(8, 6).bfloat16(), torch.arange(8) % 3)
    for measure in (kink_share, range_view):
        with pytest.raises(ObjectiveError, match="below float32"):
            measure(objective, torch.full((len(objective.w),), 0.1))


def test_the_largest_eigenvalue_may_be_negative_and_the_largest_in_size_is_another() -> None:
    w = torch.ones(3, dtype=torch.float64)
    curvatures = torch.tensor([-9.0, -4.0, -2.0], dtype=torch.float64)
    assert sharpness(function(lambda v: (curvatures * v**2).sum() / 2, w)).value == pytest.approx(-2, rel=EXACT)


@pytest.mark.parametrize("top", [0.0, 1e-17])
def test_a_largest_eigenvalue_of_0_has_no_relative_residual(top: float) -> None:
    hessian, draw = symmetric(6, 3)
    values, vectors = torch.linalg.eigh(hessian)
    hessian = vectors @ torch.diag(torch.where(values > 0, top, values)) @ vectors.T
    found = sharpness(function(lambda v: v @ hessian @ v / 2, draw(6)))
    assert abs(found.value) < 1e-14
    assert found.residual is None


@pytest.mark.parametrize(("inputs", "outputs", "k"), [(6, 3, 5), (20, 10, 3), (20, 10, 12), (50, 20, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_eigenvalues_are_found_as_often_as_they_are_there(
    inputs: int, outputs: int, k: int, dtype: torch.dtype
) -> None:
    # Least squares has the same Hessian, 2 x'x / (n outputs), for each of its outputs.
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(80, size, generator=generator, dtype=dtype) for size in (inputs, outputs))
    model = nn.Linear(inputs, outputs, bias=False).to(dtype)
    found = largest_eigenvalues(Objective(model, x, y, loss=F.mse_loss), k, most_products=2000)
    each = torch.linalg.eigvalsh(2 * x.double().T @ x.double() / (80 * outputs)).flip(0)
    expected = each.repeat_interleave(outputs)[:k].tolist()
    assert [one.value for one in found] == pytest.approx(expected, rel=1e-5)
    assert all(one.residual is not None and one.residual < 2e-3 for one in found)


def test_few_products_are_no_reason_to_miss_an_eigenvalue() -> None:
    model, x = nn.Linear(20, 10, bias=False), torch.randn(80, 20, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SmoothnessUndefinedError, match="allow more of them"):
        largest_eigenvalues(Objective(model, x, x[:, :10], loss=F.mse_loss), 8, most_products=20)


def test_a_range_view_along_whole_numbers_is_that_along_real_ones() -> None:
    objective = function(lambda v: v.cosh().sum(), torch.full((3,), 0.3, dtype=torch.float64))
    whole = torch.tensor([1, 0, 2])
    assert range_view(objective, whole) == range_view(objective, whole.double())


def test_one_parameter_is_enough() -> None:
    w = torch.tensor([0.3], dtype=torch.float64)
    assert sharpness(function(lambda v: v.cosh().sum(), w)).value == pytest.approx(math.cosh(0.3), rel=EXACT)


@pytest.mark.parametrize("step", [1.0, 3.0])
def test_a_crossed_kink_is_the_share_that_theory_says(step: float) -> None:
    # f = relu(w) + w^2/2 from w = -step/2: the gradient changes by 1 at the kink and by the step without it.
    start, u = torch.tensor([-step / 2], dtype=torch.float64), torch.tensor([step], dtype=torch.float64)
    share = kink_share(function(lambda v: (v.relu() + v**2 / 2).sum(), start), u)
    assert share.share == pytest.approx(1 / (1 + step), rel=EXACT)
    only = kink_share(function(lambda v: v.relu().sum(), start), u)
    assert (only.share, only.quadrature_error) == (1, 0)
    before = kink_share(function(lambda v: (v.relu() + v**2 / 2).sum(), start), u / 4)
    assert before.share < EXACT, "no kink lies on the first quarter of the way"


class Twin(nn.Module):
    """A ConvNet of fewer channels, kinked as ours or with everything smooth: tanh and average pooling."""

    def __init__(self, *, smooth: bool, norm: bool) -> None:
        super().__init__()
        self.smooth = smooth
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) if norm else nn.Identity() for c in (3, 4)])
        self.linear = nn.Linear(4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip((self.first, self.second), self.norms, strict=True):
            x = conv(x)
            x = norm(F.avg_pool2d(x.tanh(), 2) if self.smooth else F.max_pool2d(x.relu(), 2))
        scores: Tensor = self.linear(x.flatten(1))
        return scores


def twin(*, smooth: bool, norm: bool) -> tuple[Objective, Tensor]:
    """A twin of 312 parameters or a few more as an objective in float64, and a minibatch update."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Twin(smooth=smooth, norm=norm).double()
        x, y = torch.randn(24, 1, 8, 8, dtype=torch.float64), torch.randint(10, (24,))
    objective = Objective(model, x, y, chunk_size=12)
    generator = torch.Generator().manual_seed(2)
    return objective, -0.04 * objective.minibatch_gradient(objective.w, 16, generator)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "BatchNorm"])
def test_on_smooth_twins_hessians_account_for_all_of_the_change(norm: bool) -> None:
    objective, u = twin(smooth=True, norm=norm)
    found = kink_share(objective, u, nodes=32)
    assert found.share < EXACT
    assert found.quadrature_error < EXACT


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "BatchNorm"])
def test_on_the_kinked_nets_they_do_not(norm: bool) -> None:
    objective, u = twin(smooth=False, norm=norm)
    found = kink_share(objective, u, nodes=16)
    assert found.share > 0.02
    assert found.quadrature_error < found.share / 2, "the integral's own error could be all there is"


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "BatchNorm"])
def test_sharpness_is_the_dense_hessians(smooth: bool, norm: bool) -> None:
    objective, _ = twin(smooth=smooth, norm=norm)
    w = objective.w
    rows = torch.eye(len(w), dtype=w.dtype)
    dense = torch.stack([objective.hessian_product(w, row) for row in rows])
    torch.testing.assert_close(dense, dense.T, rtol=1e-9, atol=1e-11)
    # The products themselves against finite differences of the gradient, an independent way to the same matrix.
    v = torch.randn(len(w), dtype=w.dtype, generator=torch.Generator().manual_seed(5))
    h = 1e-6 / float(v.norm())
    difference = (objective.gradient(w + h * v) - objective.gradient(w - h * v)) / (2 * h)
    torch.testing.assert_close(dense @ v, difference, rtol=1e-4, atol=1e-4 * float(difference.norm()))
    found = sharpness(objective, tolerance=1e-8)
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)
    assert found.residual is not None
    assert found.residual < 1e-6


def test_smoothness_never_exceeds_the_sharpest_curvature_on_the_way_of_a_smooth_net() -> None:
    objective, u = twin(smooth=True, norm=False)
    view = range_view(objective, u, factors=(1e-3, 1.0))
    w = objective.w
    product = objective.hessian_product(w, u)
    assert view.smoothness[0] == pytest.approx(float(product.norm() / u.norm()), rel=1e-2)
    assert view.largest == max(view.smoothness)


def test_what_has_no_value_says_so() -> None:
    w = torch.ones(2, dtype=torch.float64)
    line = function(lambda v: v.sum(), w)
    with pytest.raises(SmoothnessUndefinedError, match="changes by 0"):
        kink_share(line, torch.ones_like(w))
    with pytest.raises(SmoothnessUndefinedError, match="update is zero"):
        range_view(line, torch.zeros_like(w))
    with pytest.raises(SmoothnessUndefinedError, match="not finite"):
        range_view(function(lambda v: v.exp().sum(), w), torch.full_like(w, 1e3))
    with pytest.raises(ValueError, match="factor"):
        range_view(line, torch.ones_like(w), factors=(1.0, 0.0))
    with pytest.raises(ValueError, match="nodes must be at least 1"):
        kink_share(line, torch.ones_like(w), nodes=0)
    with pytest.raises(ValueError, match="at least 1, whole and below"):
        largest_eigenvalues(line, 1.5)  # type: ignore[arg-type]
    for draws in ((0.0, 1, torch.Generator()), (0.1, 1.0, torch.Generator()), (0.1, 1, None)):
        with pytest.raises(ValueError, match=r"^(learning_rate|batch_size|generator) must be"):
            largest_steps(line, *draws)


def test_a_walk_that_takes_derivatives_itself_and_one_over_a_model_that_was_trained_since() -> None:
    def slope(v: Tensor) -> Tensor:
        point = torch.ones((), dtype=v.dtype, requires_grad=True)
        return (torch.autograd.grad((point * v**2).sum(), point, create_graph=True)[0]).sum()

    objective = function(slope, torch.ones(2, dtype=torch.float64))  # |v|**2: at rate 1 the walk is as far beyond 0
    (down, _) = largest_steps(objective, 0.1, 1, torch.Generator().manual_seed(0))
    assert down.stable <= 1 <= (down.raised or 0)
    objective._borrowed.originals[0].data.add_(1)
    with pytest.raises(ValueError, match="build one anew"):
        range_view(objective, torch.ones(2, dtype=torch.float64))


class Recurrent(nn.Module):
    """The last output of a GRU that sees each example's numbers one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.linear = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.cell(x.unsqueeze(-1))[0][:, -1])
        return scores


def tanh_net(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), *between, nn.Tanh(), nn.Linear(5, 3))


ENTRIES: dict[str, tuple[Callable[[], nn.Module], nn.Module, int]] = {
    "cross-entropy": (tanh_net, nn.CrossEntropyLoss(), 7),
    "mean squares": (tanh_net, nn.MSELoss(), 30),
    "label smoothing": (tanh_net, nn.CrossEntropyLoss(label_smoothing=0.2), 11),
    "a frozen layer": (lambda: tanh_net(nn.Linear(5, 5).requires_grad_(False)), nn.CrossEntropyLoss(), 7),
    "recurrent": (Recurrent, nn.CrossEntropyLoss(), 9),
}
"""A model, a loss and a batch size. Layers that normalise are held against differences of gradients, above: torch.vmap,
on which both witnesses rest, gets the second derivative of their weights wrong (torch 2.13)."""


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("entry", ENTRIES)
def test_curvlinops_and_dense_hessians_by_torch_func_agree(entry: str) -> None:
    from curvlinops import HessianLinearOperator

    torch.manual_seed(0)
    make, loss, batch_size = ENTRIES[entry]
    model = make().double()
    x = torch.randn(30, 4, dtype=torch.float64)
    y = torch.randn(30, 3, dtype=torch.float64) if entry == "mean squares" else torch.randint(3, (30,))
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size)
    batches = list(loader)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in trained.values()]

    def mean(w: Tensor) -> Tensor:
        own = {name: part.view_as(trained[name]) for name, part in zip(trained, torch.split(w, sizes), strict=True)}
        parts = [loss(torch.func.functional_call(model, own, (a,)), b) * len(a) / len(x) for a, b in batches]
        return torch.stack(parts).sum()

    objective = Objective(model, loader, loss=loss)
    w = objective.w
    dense = torch.func.hessian(mean)(w)
    theirs = HessianLinearOperator(model, loss, list(trained.values()), batches)
    # float64's rounding, of numbers of order one.
    for v in torch.randn(3, len(w), dtype=torch.float64):
        found = objective.hessian_product(w, v)
        torch.testing.assert_close(found, theirs @ v, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found, dense @ v, rtol=1e-9, atol=1e-12)
    top = largest_eigenvalues(objective, 3, tolerance=1e-9)
    by_theirs = sorted(eigsh(theirs.to_scipy(), k=3, which="LA", return_eigenvectors=False), reverse=True)
    assert [each.value for each in top] == pytest.approx(by_theirs, rel=1e-7)
    assert [each.value for each in top] == pytest.approx(torch.linalg.eigvalsh(dense).flip(0)[:3].tolist(), rel=1e-7)
    assert all(each.residual is not None and each.residual < 1e-6 for each in top)
