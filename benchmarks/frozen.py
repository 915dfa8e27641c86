"""The fast way, frozen: hw4's computations as they were when the gate was made, for the gate to time beside today's.

A ratio holds on a noisy machine only between two pieces of code that suffer alike from the noise. Against the plain
code in ``plain.py`` the ratio of unchanged code moved by 2 to 3% with the machine's mood, for evaluation and the text
models, since the two lean on cache and interpreter differently; against this file it moves by less than 1%. It is not
to be edited, faster or slower: a test holds its checksum, and every stored ratio is one to this file.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, channels_last, nn


class FrozenConvNet(nn.Module):
    """The pooled or strided ConvNet, with or without BatchNorm, channels-last and pooled before the ReLU."""

    def __init__(self, norm: str | None = None, downsample: str = "pool") -> None:
        super().__init__()
        self.pooled = downsample == "pool"
        stride = 1 if self.pooled else 2
        self.convs = nn.ModuleList(
            [nn.Conv2d(1, 16, 5, stride=stride, padding=2), nn.Conv2d(16, 32, 5, stride=stride, padding=2)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(32)] if norm else [nn.Identity(), nn.Identity()])
        self.linear = nn.Linear(1568, 10)
        self.to(memory_format=channels_last)  # type: ignore[call-overload]  # absent from torch's stubs

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to scores (batch, 10)."""
        x = x.reshape(-1, 28, 28, 1).permute(0, 3, 1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            if self.pooled:
                x = F.max_pool2d(x, 2)
            x = norm(F.relu_(x))
        weight = self.linear.weight.view(-1, 32, 7, 7).permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, self.linear.bias)


def frozen_pass(
    model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, batch_size: int, generator: torch.Generator
) -> float:
    """One pass of SGD over batches drawn with replacement."""
    batches = torch.randint(len(x), (max(1, round(len(x) / batch_size)), batch_size), generator=generator)
    model.train()
    parameters = list(model.parameters())
    values = [parameter.detach() for parameter in parameters]
    losses = []
    for batch in batches:
        objective = F.cross_entropy(model(x.index_select(0, batch)), y.index_select(0, batch))
        for value, gradient in zip(values, torch.autograd.grad(objective, parameters), strict=True):
            value.sub_(gradient, alpha=learning_rate)
        losses.append(objective.detach())
    return torch.stack(losses).double().mean().item()


@torch.no_grad()
def frozen_scores(model: nn.Module, x: Tensor, y: Tensor, *, chunk_size: int = 100) -> tuple[float, float]:
    """Mean loss and accuracy from one forward pass in chunks."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    parts = -(-len(x) // chunk_size)
    total, correct = 0.0, 0
    for inputs, targets in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        outputs = model(inputs)
        total += F.cross_entropy(outputs, targets).item() * len(targets)
        correct += int((outputs.argmax(1) == targets).sum())
    for module, mode in modes:
        module.training = mode
    return total / len(x), correct / len(x)


def frozen_gradient(model: nn.Module, x: Tensor, y: Tensor, *, chunk_size: int = 100) -> Tensor:
    """Full gradient in chunks, flat."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    parts = -(-len(x) // chunk_size)
    for inputs, targets in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        objective = F.cross_entropy(model(inputs), targets) * (len(targets) / len(y))
        for accumulated, part in zip(total, torch.autograd.grad(objective, parameters), strict=True):
            accumulated.add_(part)
    return torch.cat([part.reshape(-1) for part in total])


def frozen_reading(
    model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, batch_size: int, generator: torch.Generator
) -> float:
    """Effective smoothness along one minibatch update, on a copy of the model."""
    probe = copy.deepcopy(model).train()
    parameters = list(probe.parameters())
    (batch,) = torch.randint(len(x), (1, batch_size), generator=generator)
    update = -learning_rate * frozen_gradient(probe, x.index_select(0, batch), y.index_select(0, batch))
    w = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    gradients = []
    for point in (w, w + update):
        with torch.no_grad():
            sizes = [parameter.numel() for parameter in parameters]
            for parameter, values in zip(parameters, torch.split(point, sizes), strict=True):
                parameter.copy_(values.view(parameter.shape))
        gradients.append(frozen_gradient(probe, x, y))
    change = torch.linalg.vector_norm(gradients[1] - gradients[0], dtype=torch.float64)
    return float(change / torch.linalg.vector_norm(update, dtype=torch.float64))


class FrozenEnsemble:
    """Text CNNs of one stride trained as one, with the hand-written gradient of hw4's ensemble."""

    def __init__(self, stride: int, trials: int) -> None:
        convolved = (96 - 1) // stride + 1
        self.windows = (convolved - 1) // stride + 1
        middle = [window * stride for window in range(self.windows)]
        if stride == 1:
            positions, starts = [middle[0], *middle, middle[-1]], (0, 1, 2)
        else:
            positions = [m + side if 0 <= m + side < convolved else m for side in (-1, 0, 1) for m in middle]
            starts = (0, len(middle), 2 * len(middle))
        self.sides = tuple(slice(start, start + self.windows) for start in starts)
        self.taps = torch.tensor([[position * stride + tap for tap in range(3)] for position in positions])
        generator = torch.Generator().manual_seed(0)
        self.conv = 0.5 * torch.randn(trials, 4, 64, generator=generator)
        self.weight = 0.01 * torch.randn(trials, 6, 64 * self.windows, generator=generator)
        self.bias = torch.zeros(trials, 1, 6)
        self.buffers: dict[str, Tensor] = {}

    def kept(self, name: str, *shape: int) -> Tensor:
        """A buffer that outlives the call."""
        if name not in self.buffers or self.buffers[name].shape != shape:
            self.buffers[name] = self.conv.new_empty(shape)
        return self.buffers[name]

    @torch.no_grad()
    def gradients(self, fields: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the trials' mean losses over receptive fields (trials, batch, positions, 4)."""
        trials, batch, rows, taps = fields.shape
        wide = (trials, batch, self.windows, 64)
        convolved = self.kept("convolved", trials, batch * rows, 64)
        torch.bmm(fields.view(trials, batch * rows, taps), self.conv, out=convolved)
        left, middle, right = (convolved.view(trials, batch, rows, 64)[:, :, side] for side in self.sides)
        pooled = torch.maximum(left, middle, out=self.kept("pooled", *wide))
        middle_wins = torch.sub(middle, left, out=self.kept("middle", *wide))
        right_wins = torch.sub(right, pooled, out=self.kept("right", *wide))
        torch.maximum(pooled, right, out=pooled)
        features = pooled.view(trials, batch, -1)
        errors = F.softmax(torch.baddbmm(self.bias.mT, self.weight, features.mT).mT, dim=-1)
        errors.scatter_add_(-1, y.unsqueeze(-1), torch.full_like(errors[..., :1], -1))
        errors /= batch
        d_weight = torch.bmm(errors.mT, features)
        d_pooled = torch.bmm(errors, self.weight, out=self.kept("d_pooled", trials, batch, self.windows * 64))
        d_pooled = d_pooled.view(wide)
        sides = [fields[:, :, side].reshape(trials, batch * self.windows, taps).mT for side in self.sides]
        d_conv = torch.bmm(sides[0], d_pooled.view(trials, batch * self.windows, 64))
        d_side = self.kept("d_side", *wide)
        flat = d_side.view(trials, batch * self.windows, 64)
        threshold_backward(d_pooled, right_wins, 0, grad_input=d_side)
        torch.baddbmm(d_conv, sides[2] - sides[0], flat, out=d_conv)
        d_pooled -= d_side
        threshold_backward(d_pooled, middle_wins, 0, grad_input=d_side)
        torch.baddbmm(d_conv, sides[1] - sides[0], flat, out=d_conv)
        return d_conv, d_weight, errors.sum(1, keepdim=True)

    def epoch(
        self, x: Tensor, y: Tensor, *, learning_rate: float, batch_size: int, generators: list[torch.Generator]
    ) -> bool:
        """One round through questions (n, 1, 96) by SGD with momentum 0.8; whether any trial is still finite."""
        fields = F.pad(x.squeeze(-2), (1, 1))[..., self.taps]
        fields = torch.cat([fields, torch.ones_like(fields[..., :1])], dim=-1)
        values = [self.conv, self.weight, self.bias]
        velocities = [torch.zeros_like(value) for value in values]
        order = torch.stack([torch.randperm(len(x), generator=generator) for generator in generators])
        for batch in torch.split(order, batch_size, dim=1):
            gradients = self.gradients(fields[batch], y[batch])
            for value, velocity, gradient in zip(values, velocities, gradients, strict=True):
                velocity.mul_(0.8).add_(gradient)
                value.sub_(velocity, alpha=learning_rate)
        return any(bool(torch.isfinite(conv).all()) for conv in self.conv)


threshold_backward = torch.ops.aten.threshold_backward.grad_input
