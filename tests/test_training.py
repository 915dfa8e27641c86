"""Laws of SGD and evaluation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.plain import PlainConvNet, plain_pass
from hw4.data.images import Data
from hw4.models import ConvNet, TextCNN, TextCNNEnsemble
from hw4.training import chunks, draw_batches, evaluate, train_ensemble, train_pass


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(n: int = 23) -> tuple[Tensor, Tensor]:
    """A small float64 classification problem with a ragged number of examples."""
    return torch.randn(n, 5, dtype=torch.float64, generator=generator()), torch.randint(3, (n,), generator=generator(1))


def linear_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@given(st.integers(1, 400), st.integers(1, 130))
def test_chunks_cover_every_example_once_in_order_and_evenly(n: int, chunk_size: int) -> None:
    x = torch.arange(n)
    parts = [inputs for inputs, _ in chunks(x, x, chunk_size)]
    sizes = [len(part) for part in parts]
    assert torch.equal(torch.cat(parts), x)
    assert max(sizes) <= chunk_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-n // chunk_size)


@given(st.integers(1, 40))
def test_evaluation_is_the_full_batch_mean_for_any_chunk_size(chunk_size: int) -> None:
    (x, y), model = problem(), linear_model()
    found, scores = evaluate(model, x, y, chunk_size=chunk_size), model(x)
    assert found.loss == pytest.approx(F.cross_entropy(scores, y).item(), rel=1e-14)  # a few float64 roundings
    assert found.accuracy == (scores.argmax(1) == y).double().mean().item()


def test_evaluation_does_not_depend_on_the_order_of_examples() -> None:
    (x, y), model, order = problem(), linear_model(), torch.randperm(23, generator=generator())
    first, second = evaluate(model, x, y, chunk_size=7), evaluate(model, x[order], y[order], chunk_size=7)
    assert first.loss == pytest.approx(second.loss, rel=1e-14)
    assert first.accuracy == second.accuracy


def test_an_evaluation_looks_at_every_example_once() -> None:
    (x, y), model, seen, graphs = problem(), linear_model(), list[int](), list[bool]()
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    model.register_forward_pre_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    evaluate(model, x, y, chunk_size=10)
    assert sum(seen) == len(x)
    assert not any(graphs), "a graph is kept of what is only looked at"


def test_evaluation_uses_running_statistics_and_leaves_every_mode_and_buffer() -> None:
    model = ConvNet("batch")
    model.norms[0].eval()  # a module frozen by its owner must stay frozen
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.randn(40, 784, generator=generator()), torch.randint(10, (40,), generator=generator())
    whole, single = evaluate(model, x, y, chunk_size=40), evaluate(model, x, y, chunk_size=1)
    assert whole.loss == pytest.approx(single.loss, rel=1e-5)  # batch statistics would differ in the first digit
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_pass_draws_round_n_over_b_batches_uniformly() -> None:
    for n, updates in ((6_000, 188), (7_200, 225), (1_347, 42), (40, 1), (32, 1)):
        assert draw_batches(n, batch_size=32, generator=generator()).shape == (updates, 32)
    drawn = draw_batches(50, updates=4_000, batch_size=10, generator=generator())
    counts = torch.bincount(drawn.flatten(), minlength=50).double()
    # Each of 50 examples is expected 800 times in 40,000 draws, with standard deviation 28; 5 of them is 140.
    assert (counts - 800).abs().max() < 140
    assert any(len(set(batch.tolist())) < 10 for batch in drawn), "drawn without replacement"


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("downsample", ["pool", "stride"])
def test_a_pass_is_the_plain_pass(norm: str | None, downsample: str) -> None:
    plain = PlainConvNet(norm, downsample)
    fast = ConvNet(norm, downsample)  # type: ignore[arg-type]
    fast.load_state_dict(plain.state_dict())
    plain.double(), fast.double()
    x, y = torch.randn(96, 784, dtype=torch.float64, generator=generator()), torch.arange(96) % 10
    for train, model in ((plain_pass, plain), (train_pass, fast)):
        for _ in range(2):
            train(model, x, y, learning_rate=0.1, batch_size=16, generator=generator(5))
    for name, value in plain.state_dict().items():
        # Twelve updates multiply rounding a little; a wrong batch or step would show in the first digits.
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_and_rates_by_parameter_are_those_of_torchs_sgd(momentum: float) -> None:
    x, y = problem()
    ours, theirs = linear_model(), linear_model()
    rates = [0.3, 0.2, 0.1, 0.05]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(theirs.parameters(), rates, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=momentum)
    velocities = [torch.zeros_like(p) for p in ours.parameters()] if momentum else []
    drawn = generator(5)
    for seed in (5, 6):  # velocities go on from pass to pass
        how: dict[str, Any] = {"batch_size": 4, "generator": generator(seed), "momentum": momentum}
        train_pass(ours, x, y, learning_rate=rates, velocities=velocities, **how)
        drawn.manual_seed(seed)
        for batch in draw_batches(len(x), batch_size=4, generator=drawn):
            optimizer.zero_grad()
            F.cross_entropy(theirs(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)


def test_momentum_without_velocities_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum 0\.9 needs velocities"):
        train_pass(linear_model(), *problem(), learning_rate=0.1, batch_size=4, generator=generator(), momentum=0.9)


def test_equal_generators_give_equal_bits_and_others_do_not() -> None:
    x, y = problem()

    def trained(seed: int) -> Tensor:
        model = linear_model()
        train_pass(model, x, y, learning_rate=0.3, batch_size=4, generator=generator(seed))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_learning_rate_zero_changes_no_parameter() -> None:
    model, (x, y) = linear_model(), problem()
    before = [p.detach().clone() for p in model.parameters()]
    train_pass(model, x, y, learning_rate=0.0, batch_size=4, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_frozen_parameters_stay() -> None:
    model, (x, y) = linear_model(), problem()
    first, *others = model.parameters()
    first.requires_grad = False
    before = first.clone(), others[0].detach().clone()
    train_pass(model, x, y, learning_rate=0.5, batch_size=4, generator=generator())
    assert torch.equal(first, before[0])
    assert not torch.equal(others[0], before[1])


def test_a_handful_of_images_can_be_learnt_by_heart(digits: Data) -> None:
    x, y, model = digits.x_train[:32], digits.y_train[:32], ConvNet()
    for seed in range(60):
        train_pass(model, x, y, learning_rate=0.1, batch_size=32, generator=generator(seed))
    assert evaluate(model, x, y).loss < 0.05  # from log 10 = 2.3
    assert evaluate(model, x, y).accuracy == 1


def test_a_diverged_pass_says_so() -> None:
    model, (x, y) = linear_model(), problem()
    assert not torch.tensor(
        train_pass(model, x * 1e200, y, learning_rate=1e200, batch_size=4, generator=generator())
    ).isfinite()


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_cannot_be_drawn_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and the number of examples \(23\), got {batch_size}"):
        train_pass(linear_model(), *problem(), learning_rate=0.1, batch_size=batch_size, generator=generator())


def test_unequal_or_empty_examples_are_refused() -> None:
    x, y = problem()
    for inputs, targets in ((x, y[:-1]), (x[:0], y[:0])):
        with pytest.raises(ValueError, match="equally many and at least one"):
            evaluate(linear_model(), inputs, targets)


def text_problem() -> tuple[Tensor, Tensor]:
    """Forty random signals; a batch of 16 leaves a short last one."""
    return torch.randn(40, 1, 96, dtype=torch.float64, generator=generator()), torch.randint(
        6, (40,), generator=generator()
    )


@pytest.mark.parametrize("stride", [1, 5, 100])
def test_an_ensemble_trains_as_torchs_sgd_trains_each_member(stride: int) -> None:
    x, y = text_problem()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [TextCNN(stride).double() for _ in range(3)]
    ensemble = TextCNNEnsemble.from_models(models)
    how: dict[str, Any] = {"learning_rate": 0.05, "momentum": 0.8, "batch_size": 16, "epochs": 4}
    assert train_ensemble(ensemble, x, y, generators=[*map(generator, range(3))], **how) == 4
    for seed, (model, found) in enumerate(zip(models, ensemble.to_models(), strict=True)):
        optimizer, order = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8), generator(seed)
        for _ in range(4):
            for batch in torch.split(torch.randperm(40, generator=order), 16):
                optimizer.zero_grad()
                F.nll_loss(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        for a, b in zip(model.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)  # twelve updates multiply rounding a little


def test_an_ensemble_of_lost_trials_stops_and_one_lost_trial_harms_no_other() -> None:
    x, y = text_problem()
    settings: dict[str, Any] = {"momentum": 0.8, "batch_size": 16, "epochs": 9}

    def ensemble(trials: int) -> TextCNNEnsemble:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return TextCNNEnsemble.from_models([TextCNN(5).double() for _ in range(trials)])

    lost = ensemble(2)
    assert train_ensemble(lost, x, y, learning_rate=1e200, generators=[generator(), generator(1)], **settings) < 9
    half, whole = ensemble(2), ensemble(2)
    half.conv.data[1] = torch.nan
    for model in (half, whole):
        assert train_ensemble(model, x, y, learning_rate=0.05, generators=[*map(generator, range(2))], **settings) == 9
    assert torch.equal(half.conv[0], whole.conv[0])
    assert torch.equal(half.linear_weight[0], whole.linear_weight[0])


def test_batches_of_one_are_taken_and_smaller_ones_refused() -> None:
    x, y = text_problem()
    assert draw_batches(5, batch_size=1, generator=generator()).shape == (5, 1)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        chunks(x, y, 0)
    model = TextCNNEnsemble.from_models([TextCNN(100).double()])
    settings: dict[str, Any] = {"learning_rate": 0.1, "momentum": 0.8, "epochs": 1, "generators": [generator()]}
    assert train_ensemble(model, x, y, batch_size=1, **settings) == 1
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        train_ensemble(model, x, y, batch_size=0, **settings)
    with pytest.raises(ValueError, match="one generator for each of 1 trials, got 2"):
        train_ensemble(model, x, y, batch_size=1, **{**settings, "generators": [generator(), generator(1)]})
