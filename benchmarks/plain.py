"""The plain way, frozen: the homework's networks and measurements as one would first write them in PyTorch.

Speed is reported relative to this file, and tests hold the fast code to its results; it is not to be made faster.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainConvNet(nn.Module):
    """The same networks as :class:`hw4.ConvNet` with the same parameter names: ReLU before pooling, default layout."""

    def __init__(self, norm: str | None = None, downsample: str = "pool") -> None:
        super().__init__()
        stride = 2 if downsample == "stride" else 1
        self.pooled = downsample == "pool"
        self.convs = nn.ModuleList(
            [nn.Conv2d(1, 16, 5, stride=stride, padding=2), nn.Conv2d(16, 32, 5, stride=stride, padding=2)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(32)] if norm else [nn.Identity(), nn.Identity()])
        self.linear = nn.Linear(1568, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) or (batch, 784) to scores (batch, 10)."""
        x = x.view(-1, 1, 28, 28)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(conv(x))
            if self.pooled:
                x = F.max_pool2d(x, 2)
            x = norm(x)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


def plain_pass(
    model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, batch_size: int, generator: torch.Generator
) -> None:
    """One pass of SGD, batches drawn one by one with replacement."""
    model.train()
    parameters = list(model.parameters())
    for _ in range(round(len(x) / batch_size)):
        batch = torch.randint(len(x), (batch_size,), generator=generator)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= learning_rate * gradient  # type: ignore[misc]  # noqa: PLW2901  in place


def plain_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Full gradient from one batch that holds all examples, flat, in training mode."""
    model.train()
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


@torch.no_grad()
def plain_scores(model: nn.Module, sets: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Loss and accuracy of each set, one whole forward pass for each number."""
    model.eval()
    scores = []
    for x, y in sets:
        scores.append(F.cross_entropy(model(x), y).item())
        scores.append((model(x).argmax(1) == y).float().mean().item())
    return scores


def plain_reading(
    model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, batch_size: int, generator: torch.Generator
) -> float:
    """Effective smoothness along one minibatch update: full gradients before and after it, parameters put back."""
    batch = torch.randint(len(x), (batch_size,), generator=generator)
    parameters = list(model.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    before = plain_gradient(model, x, y)
    loss = F.cross_entropy(model(x[batch]), y[batch])
    updates = [-learning_rate * gradient for gradient in torch.autograd.grad(loss, parameters)]
    with torch.no_grad():
        for parameter, update in zip(parameters, updates, strict=True):
            parameter += update  # type: ignore[misc]  # noqa: PLW2901  in place
    after = plain_gradient(model, x, y)
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return float((after - before).norm() / torch.cat([update.flatten() for update in updates]).norm())
