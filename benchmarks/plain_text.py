"""The plain way to train a text CNN, frozen: a DataLoader, one model at a time, torch.optim's SGD.

Speed is reported relative to this file; it is not to be made faster.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class PlainTextCNN(nn.Module):
    """Conv1d 1 to 64, MaxPool1d, both kernel 3, padding 1 and the given stride; linear to 6; log-softmax."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 64, 3, stride=stride, padding=1)
        self.pool = nn.MaxPool1d(3, stride=stride, padding=1)
        features = self.pool(self.conv(torch.zeros(1, 1, 96))).numel()
        self.linear = nn.Linear(features, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, 96) to log-probabilities (batch, 6)."""
        return F.log_softmax(self.linear(self.pool(self.conv(x)).flatten(1)), dim=1)


def plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, ...]]) -> None:
    """One round through the questions."""
    for inputs, targets in loader:
        optimizer.zero_grad()
        F.nll_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def plain_trial(
    stride: int, trial: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, epochs: int, lr: float
) -> float:
    """Train one model as the homework says and return its test accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(trial)
    model = PlainTextCNN(stride)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.8)
    loader = DataLoader(TensorDataset(*train), batch_size=32, shuffle=True)
    for _ in range(epochs):
        plain_epoch(model, optimizer, loader)
    with torch.no_grad():
        return float((model(test[0]).argmax(1) == test[1]).float().mean())
