"""Shapes, shape arithmetic, and the fast networks as the same function as the plain ones."""

import re
from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.plain import PlainConvNet
from hw4 import variants
from hw4.geometry import TEXT_LENGTH, conv_output_length, input_coverage, stride_for, text_function
from hw4.models import ConvNet, TextCNN, TextCNNEnsemble

Norm = Literal["batch"] | Callable[[int], nn.Module] | None
VARIANTS = {name: (each.layer or each.norm, each.downsample) for name, each in variants.VARIANTS.items()}

every_variant = pytest.mark.parametrize(("norm", "downsample"), VARIANTS.values(), ids=list(VARIANTS))


@every_variant
def test_without_gradients_the_scores_are_the_same_bit_for_bit(
    norm: Norm, downsample: Literal["pool", "stride"]
) -> None:
    """Pooling then goes another way, also where values are equal or not numbers."""
    model = ConvNet(norm, downsample).eval()  # so that one image's NaN stays its own
    images = torch.randn(5, 1, 28, 28).round()
    images[0] = 0
    images[1, 0, 3, 4] = float("nan")
    with torch.no_grad():
        without = model(images)
    assert torch.equal(without.nan_to_num(), model(images).nan_to_num())
    assert without[1].isnan().all()


@every_variant
def test_shapes(norm: Norm, downsample: Literal["pool", "stride"]) -> None:
    model = ConvNet(norm, downsample)
    seen: list[tuple[int, ...]] = []
    for layer in model.norms:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:])))
    assert model(torch.zeros(3, 1, 28, 28)).shape == model(torch.zeros(3, 784)).shape == (3, 10)
    assert seen[:2] == [(16, 14, 14), (32, 7, 7)]
    assert model.linear.in_features == 1568
    assert {layer.num_features for layer in model.norms if isinstance(layer, nn.BatchNorm2d)} == (
        {16, 32} if norm == "batch" else set()
    )
    # 16 (25 + 1) + 32 (16 * 25 + 1) + 10 (1568 + 1), and two parameters for each normalised channel
    assert sum(p.numel() for p in model.parameters()) == 416 + 12_832 + 15_690 + (96 if norm else 0)


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 1, 28, 27), (3, 3, 28, 28), (784,), (2, 783)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        ConvNet()(torch.zeros(shape))


@pytest.mark.parametrize("arguments", [("layer", "pool"), (None, "average")])
def test_unknown_variants_are_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ConvNet(*arguments)  # type: ignore[arg-type]


lengths, kernels, strides = st.integers(1, 60), st.integers(1, 9), st.integers(1, 70)


@given(lengths, kernels, strides, st.integers(0, 8))
def test_output_length_is_that_of_a_real_convolution(length: int, kernel: int, stride: int, padding: int) -> None:
    assume(kernel <= length + 2 * padding)
    output = nn.Conv1d(1, 1, kernel, stride=stride, padding=padding)(torch.zeros(1, 1, length))
    assert conv_output_length(length, kernel, stride, padding) == output.shape[-1]


@given(lengths, kernels, strides, st.data())
def test_output_length_is_that_of_a_real_pooling(length: int, kernel: int, stride: int, data: st.DataObject) -> None:
    padding = data.draw(st.integers(0, kernel // 2))  # more is refused by pooling layers
    assume(kernel <= length + 2 * padding)
    output = F.max_pool1d(torch.zeros(1, 1, length), kernel, stride, padding)
    assert conv_output_length(length, kernel, stride, padding) == output.shape[-1]


@given(lengths, st.integers(1, 60), kernels, st.integers(0, 4))
def test_stride_is_the_smallest_that_gives_the_length(length: int, wanted: int, kernel: int, padding: int) -> None:
    assume(kernel <= length + 2 * padding)
    # Beyond the padded length a larger stride changes nothing: searching that far is an exhaustive reference.
    fitting = [
        s for s in range(1, length + 2 * padding + 2) if conv_output_length(length, kernel, s, padding) == wanted
    ]
    if fitting:
        assert stride_for(length, wanted, kernel, padding) == fitting[0]
    else:
        with pytest.raises(ValueError, match="no stride"):
            stride_for(length, wanted, kernel, padding)


def test_the_strides_of_exercise_3() -> None:
    assert stride_for(28, 14, kernel=5, padding=2) == stride_for(14, 7, kernel=5, padding=2) == 2


@pytest.mark.parametrize("arguments", [(0, 3, 1, 0), (5, 0, 1, 0), (5, 3, 0, 0), (5, 3, 1, -1), (2, 5, 1, 1)])
def test_impossible_geometry_is_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"must be at least|does not fit"):
        conv_output_length(*arguments)


def pooled(x: Tensor, *, relu_first: bool) -> tuple[Tensor, Tensor]:
    """Output and input gradient of ReLU and 2x2 pooling in either order, under a fixed random objective."""
    x = x.clone().requires_grad_()
    out = F.max_pool2d(F.relu(x), 2) if relu_first else F.relu(F.max_pool2d(x, 2))
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return out.detach(), torch.autograd.grad((out * weight).sum(), x)[0]


@given(st.integers(0, 2**32), st.booleans())
def test_pooling_and_relu_commute_bit_for_bit(seed: int, channels_last: bool) -> None:
    # Few distinct values, so that windows hold ties, zeros and nothing positive.
    x = torch.randint(-2, 3, (2, 3, 6, 6), generator=torch.Generator().manual_seed(seed)).float()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for first, second in zip(pooled(x, relu_first=True), pooled(x, relu_first=False), strict=True):
        assert torch.equal(first, second)


def twins(norm: Norm, downsample: Literal["pool", "stride"]) -> tuple[PlainConvNet, ConvNet]:
    """The plain and the fast network with the same parameters, drawn from the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = PlainConvNet("batch" if norm == "batch" else None, downsample)
        if callable(norm):
            plain.norms = nn.ModuleList([norm(channels) for channels in (16, 32)])
        torch.manual_seed(3)
        fast = ConvNet(norm, downsample)
    for name, value in plain.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value), f"{name} differs at equal seeds"
    return plain, fast


def outputs_and_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores, and the gradient of the mean loss for every parameter."""
    model.train()
    out = model(x)
    loss = F.cross_entropy(out, torch.arange(len(x)) % 10)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return out.detach(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@every_variant
def test_the_fast_network_is_the_plain_one(norm: Norm, downsample: Literal["pool", "stride"]) -> None:
    plain, fast = (model.double() for model in twins(norm, downsample))
    x = torch.randn(12, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (expected, gradients), (found, found_gradients) = outputs_and_gradients(plain, x), outputs_and_gradients(fast, x)
    # Sums run in another order; 1e-12 is a few thousand roundings of float64.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-12, atol=1e-12)


@every_variant
def test_features_are_bitwise_the_plain_ones_in_the_same_layout(
    norm: Norm, downsample: Literal["pool", "stride"]
) -> None:
    plain, fast = twins(norm, downsample)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features: list[Tensor] = []
    for model in (plain, fast):
        model.norms[-1].register_forward_hook(lambda _module, _inputs, output: features.append(output))
        model(torch.randn(12, 784, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(*features)


def test_backward_agrees_with_finite_differences() -> None:
    model = ConvNet().double()
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = model.convs[1].bias

    def scores(value: Tensor) -> Tensor:
        out = torch.func.functional_call(model, {"convs.1.bias": value}, x)
        assert isinstance(out, Tensor)
        return out

    assert isinstance(bias, Tensor)
    assert torch.autograd.gradcheck(scores, (bias.detach().clone().requires_grad_(),))


STRIDES = {1: 6144, 2: 1536, 3: 704, 5: 256, 10: 64, 30: 64, 100: 64, 500: 64}

every_stride = pytest.mark.parametrize("stride", STRIDES)


def text_models(stride: int, trials: int = 3) -> list[TextCNN]:
    """Text networks in float64 from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(stride)
        return [TextCNN(stride).double() for _ in range(trials)]


def signals(*shape: int) -> Tensor:
    return torch.randn(*shape, 1, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@every_stride
def test_text_shapes(stride: int) -> None:
    (model,) = text_models(stride, 1)
    out = model(signals(5))
    assert model.linear_in == model.linear.in_features == STRIDES[stride]
    assert out.shape == (5, 6)
    torch.testing.assert_close(out.exp().sum(1), torch.ones(5, dtype=torch.float64))
    with pytest.raises(ValueError, match=re.escape("(batch, 1, 96), got (5, 96)")):
        model(torch.zeros(5, 96))


@given(st.integers(1, 120), st.integers(3, 110))
def test_input_coverage_is_what_gradients_reach(stride: int, length: int) -> None:
    model = TextCNN(stride, length=length, filters=16).double()
    reached = torch.zeros(length, dtype=torch.bool)
    for seed in range(20):  # a position is seen only when some filter's maximum falls on it
        x = torch.randn(4, 1, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        (gradient,) = torch.autograd.grad(model(x.requires_grad_())[:, 0].sum(), x)
        reached |= (gradient != 0).any(dim=0)[0]
    assert reached.nonzero().flatten().tolist() == input_coverage(stride, length=length)


@pytest.mark.parametrize("first", [1, 2, 5, 10, 30, 47, 50, 94, 95, 96, 100, 500])
def test_strides_are_one_function_exactly_where_equal_weights_give_equal_answers(first: int) -> None:
    """Of equal weights alone: where the shapes differ the weights cannot be equal."""
    (model,), x = text_models(first, 1), signals(20)
    for second in (1, 2, 5, 10, 30, 47, 48, 50, 51, 94, 95, 96, 97, 100, 500):
        other = TextCNN(second).double()
        same = other.linear_in == model.linear_in
        if same:
            other.load_state_dict(model.state_dict())
            same = torch.equal(model(x), other(x))
        assert (text_function(first) == text_function(second)) == same, (first, second)
    assert (text_function(first) == ((0,),)) == (first >= TEXT_LENGTH)


def test_how_little_large_strides_read() -> None:
    assert [len(input_coverage(stride)) for stride in (1, 5, 10, 30, 100, 500)] == [96, 32, 5, 5, 2, 2]


@every_stride
def test_the_ensemble_is_its_members(stride: int) -> None:
    models, x = text_models(stride), signals(3, 7)
    ensemble = TextCNNEnsemble.from_models(models)
    expected = torch.stack([model(part) for model, part in zip(models, x, strict=True)])
    torch.testing.assert_close(ensemble(x), expected, rtol=1e-12, atol=1e-12)  # sums in another order
    for model, back in zip(models, ensemble.to_models(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))


@every_stride
@pytest.mark.parametrize("batch", [1, 7])
def test_the_ensembles_gradients_are_those_of_autograd(stride: int, batch: int) -> None:
    ensemble, x = TextCNNEnsemble.from_models(text_models(stride)), signals(3, batch)
    y = torch.randint(6, (3, batch), generator=torch.Generator().manual_seed(1))
    loss = F.nll_loss(ensemble(x).flatten(0, 1), y.flatten(), reduction="sum") / batch
    expected = torch.autograd.grad(loss, list(ensemble.parameters()))
    ensemble.float().loss_gradients(ensemble.receptive_fields(x.float()), y)  # its buffers fit float32
    ensemble.double().load_state_dict(TextCNNEnsemble.from_models(text_models(stride)).state_dict())
    for _ in range(2):  # the second time buffers hold what the first left
        for found, gradient in zip(ensemble.loss_gradients(ensemble.receptive_fields(x), y), expected, strict=True):
            torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-13)


def test_a_plain_stacks_tensors_fit_when_their_keys_are_renamed() -> None:
    plain = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10)),
    ).double()
    model, x = ConvNet().double(), torch.randn(3, 1, 28, 28, dtype=torch.float64)
    renamed = {"0": "convs.0", "3": "convs.1", "7": "linear"}
    parts = {key: key.partition(".") for key in plain.state_dict()}
    model.load_state_dict({f"{renamed[a]}.{b}": plain.state_dict()[key] for key, (a, _, b) in parts.items()})
    torch.testing.assert_close(model(x), plain(x), rtol=1e-12, atol=1e-12)


def test_models_that_do_not_go_together_are_refused() -> None:
    for models in ([], [TextCNN(5), TextCNN(10)]):
        with pytest.raises(ValueError, match="all of one stride and shape"):
            TextCNNEnsemble.from_models(models)
