"""What people really have: for each model, loss and way of feeding, the right value or a refusal that names the cause.

The right value is plain ``autograd.grad`` in float64 on the user's own model, moved by hand; nothing of hw4 is in it.
"""

# mypy: allow-untyped-calls, disable-error-code="no-any-return,list-item,index,attr-defined,operator,misc,arg-type"
# mypy: no-warn-unused-ignores
import configparser
import contextlib
import copy
import functools
import gc
import io
import itertools
import random
import threading
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from tempfile import NamedTemporaryFile, TemporaryFile
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, Subset, TensorDataset

from hw4 import measure_smoothness
from hw4.borrowed import reachable
from hw4.curvature import sharpness
from hw4.objective import Objective, ObjectiveError
from hw4.smoothness import optimizer_update

N, RATE, BATCH = 60, 0.1, 16
Full = Callable[[nn.Module, Any], Tensor]
"""A model and indices to the mean loss over these examples, in plain torch."""


def settings() -> dict[str, Any]:
    return {"learning_rate": RATE, "batch_size": BATCH, "generator": torch.Generator().manual_seed(0)}


def right(model: nn.Module, loss: Full) -> float:
    """The quotient by hand: gradients at the parameters and a minibatch's step further, in float64."""
    model = model.double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    batch = torch.randint(N, (1, BATCH), generator=torch.Generator().manual_seed(0))[0]
    everything = torch.arange(N)
    step = [-RATE * g for g in torch.autograd.grad(loss(model, batch), parameters, materialize_grads=True)]
    before = torch.autograd.grad(loss(model, everything), parameters, materialize_grads=True)
    with torch.no_grad():
        for parameter, part in zip(parameters, step, strict=True):
            parameter.add_(part)
    after = torch.autograd.grad(loss(model, everything), parameters, materialize_grads=True)
    change = sum(float(((a - b) ** 2).sum()) for a, b in zip(after, before, strict=True))
    return float((change / sum(float((part**2).sum()) for part in step)) ** 0.5)


torch.manual_seed(0)
X, Y = torch.randn(N, 6), torch.randint(3, (N,))
WEIGHTS = torch.tensor([1.0, 5.0, 0.2])


def net(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), *between, nn.Linear(12, 3))


def hooked_norm(runs: int = 1) -> nn.Module:
    model = net(nn.utils.spectral_norm(nn.Linear(12, 12)))
    for _ in range(runs):
        model(X)
    return model.eval()


def entropy(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(X.double()[batch]), Y[batch])


def evaluated(model: nn.Module, batch: Tensor) -> Tensor:
    return entropy(model.eval(), batch)


def of_body(model: Any, batch: Tensor) -> Tensor:
    return entropy(model.body, batch)


def of_entry(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model({"a": X.double()[batch]}), Y[batch])


class Case:
    """A call, and the loss in plain torch whose value it must have, or what its refusal must say.

    ``given`` are the call's settings; ``made`` makes more of them, of the model.
    """

    def __init__(
        self,
        name: str,
        model: Callable[[], nn.Module] = net,
        data: Callable[[], tuple[Any, ...]] = lambda: (X, Y),
        *,
        plain: Full = entropy,
        refusal: str = "",
        inside: Callable[[], Any] = torch.enable_grad,
        made: Callable[[Any], dict[str, Any]] = lambda _: {},
        **given: Any,
    ) -> None:
        self.name, self.model, self.data, self.plain, self.refusal = name, model, data, plain, refusal
        self.inside, self.made, self.given = inside, made, given


class Items(Dataset[Any]):
    """A data set of what a function makes of an index."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def loader(item: Callable[[int], Any] = lambda i: (X[i], Y[i]), **options: Any) -> tuple[Any, ...]:
    return (DataLoader(Items(item), **{"batch_size": 16, **options}),)


def collated(make: Callable[[Tensor, Tensor], Any]) -> tuple[Any, ...]:
    """A loader whose batches a function makes of stacked inputs and targets."""
    return loader(collate_fn=lambda pairs: make(*map(torch.stack, zip(*pairs, strict=True))))


Pair = namedtuple("Pair", "inputs targets")


def first_alone(pair: Any) -> Any:
    """A collate_fn that drops every batch's last example when its label is 0."""
    kept = [each for each in pair if int(each[1]) != 0] or pair
    return torch.stack([a for a, _ in kept]), torch.stack([b for _, b in kept])


def flattened(x: Tensor, y: Tensor) -> Any:
    """A batch as for language models: two tokens an example, targets in one row."""
    return torch.stack([x, 2 * x], 1).flatten(0, 1), y.repeat_interleave(2)


def tokens(model: nn.Module, batch: Tensor) -> Tensor:
    x = X.double()[batch]
    scores = model(torch.stack([x, 2 * x], 1).flatten(0, 1))
    return F.cross_entropy(scores, Y[batch].repeat_interleave(2))


IGNORED = torch.where(torch.arange(N) % 4 == 0, -100, Y)


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    shares, wanted = outputs.softmax(1), F.one_hot(targets, 3)
    return (1 - 2 * (shares * wanted).sum(0) / (shares.sum(0) + wanted.sum(0))).mean()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    del targets
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def weighted(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    weights = WEIGHTS.to(outputs.dtype)
    return F.cross_entropy(outputs, targets, weight=weights, reduction="sum"), weights[targets].sum()


def weighted_mean(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(X.double()[batch]), Y[batch], weight=WEIGHTS.double())


def not_ignored(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(outputs, targets, reduction="sum"), (targets != -100).sum()


class Own(nn.Module):
    """A model of a function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.body = net()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        return self.function(self, *inputs, **named_inputs)


def keeping(self: Any, x: Tensor) -> Tensor:
    self.last = self.body(x)
    self.log.append(self.last)
    return self.last


def counting(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.body(x) * (1 + 0.01 * self.calls)


def rarely(draw: Callable[[Any], Any]) -> Callable[[Any, Tensor], Tensor]:
    return lambda self, x: self.body(x) * (2 if draw(self) < 0.01 else 1)


rarely_private = rarely(lambda self: torch.rand((), generator=self.draws))


def own_normalisation(self: Any, x: Tensor) -> Tensor:
    scores = self.body(x)
    return (scores - scores.mean(0)) / scores.std(0)


def force(self: Any, x: Tensor) -> Tensor:
    """Scores that rest on a gradient with respect to the inputs, as energies' forces do."""
    points = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(self.body(points).sum(), points, create_graph=True)
    return self.body(x) + slope[:, :3]


def checkpointed(reentrant: bool) -> Callable[[Any, Tensor], Tensor]:
    return lambda self, x: checkpoint(self.body, x.clone().requires_grad_(), use_reentrant=reentrant)


def named(self: Any, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
    """A model as Hugging Face has them: inputs by name, and the loss in what it returns."""
    scores = self.body(input_ids)
    return {"logits": scores} if labels is None else {"logits": scores, "loss": F.cross_entropy(scores, labels)}


class Frozen(nn.Module):
    """One BatchNorm trains, the other is frozen whatever the mode, by a train() of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b = nn.BatchNorm1d(12), nn.BatchNorm1d(12)
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.train()

    def train(self, mode: bool = True) -> "Frozen":
        """Train all but b."""
        super().train(mode)
        self.b.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.second(torch.tanh(self.a(self.first(x))))))


class Mixed(nn.Module):
    """bfloat16 layers beside a float32 LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 12).bfloat16(), nn.LayerNorm(12), nn.Linear(12, 3).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x.bfloat16()).float()).bfloat16()).float()


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].weight = model[0].weight  # type: ignore[assignment]
    return model


def squares(model: nn.Module) -> Tensor:
    return torch.stack([(p**2).sum() for p in model.parameters()]).sum()


def wrapped() -> Case:
    model = net()
    original = model.forward
    model.forward = lambda x: 2 * original(x)  # type: ignore[method-assign]
    return Case(
        "forward wrapped by a closure",
        lambda: model,
        plain=lambda twin, batch: F.cross_entropy(2 * nn.Sequential.forward(twin, X.double()[batch]), Y[batch]),  # type: ignore[arg-type]
    )


def outside() -> Case:
    scale = torch.ones((), requires_grad=True)
    return Case(
        "a trained tensor outside the model",
        loss=lambda o, t: F.cross_entropy(scale * o, t),
        refusal="requires a gradient and is no parameter of the model",
    )


class Wrapper:
    """A loader inside something else."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)


class Doubling(DataLoader[Any]):
    """A loader with a way of iterating of its own."""

    def __iter__(self) -> Any:
        return ((2 * x, y) for x, y in super().__iter__())


class Stream(IterableDataset[Any]):
    """Examples that can only be iterated."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


def autocast() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def recurrent(self: Any, x: Tensor) -> Tensor:
    return self.body(self.cell(x[:, None].expand(-1, 4, -1))[0][:, -1])


class Doubled(DataLoader[Any]):
    """A loader whose batches are others than its data set's."""

    def _get_iterator(self) -> Any:
        return ((2 * x, y) for x, y in super()._get_iterator())


def doubling() -> DataLoader[Any]:
    return Doubled(TensorDataset(X, Y), batch_size=20)


def lazy_loaded() -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(12), nn.Tanh(), nn.LazyLinear(3))
    model.load_state_dict({name: torch.randn_like(value) for name, value in net().state_dict().items()})
    return model


def trained_buffer() -> nn.Module:
    model = Own(lambda s, x: s.body(x) * s.scale)
    model.register_buffer("scale", torch.ones(3, requires_grad=True))
    return model


def seeded_by_index(i: int) -> Any:
    torch.manual_seed(i)
    return torch.randn(6), int(Y[i])


@functools.cache
def scripted() -> Any:
    torch.manual_seed(2)
    layer = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).eval().requires_grad_(False)
    return torch.jit.trace(layer, torch.zeros(2, 3)), copy.deepcopy(layer).double()


def named_refusal(message: str, *cases: Case) -> list[Case]:
    for case in cases:
        case.refusal = message
    return list(cases)


MEAN = "is no mean over the examples"
RANDOM = "random numbers were drawn from"
CASES = [
    Case("tensors"),
    Case("one chunk", chunk_size=N),
    Case("chunks of one", chunk_size=1),
    # Weighting: examples are counted by what was drawn.
    Case("a loader with its own batch sizes", data=loader),
    Case("a batch_sampler", data=lambda: (DataLoader(TensorDataset(X, Y), batch_sampler=[range(7), range(7, N)]),)),  # type: ignore[arg-type]
    Case("a sampler backwards", data=lambda: loader(sampler=range(N - 1, -1, -1)), refusal=""),
    Case("a data set", data=lambda: (TensorDataset(X, Y),)),
    Case(
        "targets in a dict",
        data=lambda: loader(lambda i: (X[i], {"cls": Y[i], "extra": torch.ones(2)})),
        loss=lambda o, t: F.cross_entropy(o, t["cls"]),
    ),
    Case(
        "targets in a tuple",
        data=lambda: loader(lambda i: (X[i], (Y[i], 1))),
        loss=lambda o, t: F.cross_entropy(o, t[0]),
    ),
    Case(
        "tensors in dicts",
        model=lambda: Own(lambda self, x: self.body(x["a"])),
        data=lambda: ({"a": X}, {"cls": Y}),
        loss=lambda o, t: F.cross_entropy(o, t["cls"]),
        noise_floor="reordered",
        plain=of_entry,
    ),
    Case(
        "inputs in a UserDict",
        model=lambda: Own(lambda self, x: self.body(x["a"])),
        data=lambda: collated(lambda x, y: (UserDict(a=x), y)),
        plain=of_entry,
    ),
    Case(
        "inputs in a named tuple",
        model=lambda: Own(lambda self, x: self.body(x.inputs)),
        data=lambda: loader(lambda i: (Pair(X[i], 0), Y[i])),
        plain=lambda m, b: F.cross_entropy(m(Pair(X.double()[b], 0)), Y[b]),
    ),
    Case(
        "packed sequences",
        model=lambda: Own(lambda self, x: self.body(self.cell(x)[1][0][0]), cell=nn.LSTM(6, 6)),
        data=lambda: collated(lambda x, y: (pack_padded_sequence(torch.stack([x, x]), torch.full((len(x),), 2)), y)),
        plain=lambda m, b: F.cross_entropy(m(torch.stack([X.double()[b]] * 2)), Y[b]),
    ),
    Case("targets flattened, all alike", data=lambda: collated(flattened), plain=tokens),
    Case(
        "time first",
        model=lambda: Own(lambda self, x: self.body(x[0] + x[1])),
        data=lambda: collated(lambda x, y: (torch.stack([x, 2 * x]), y)),
        plain=lambda m, b: F.cross_entropy(m(torch.stack([X.double()[b], 2 * X.double()[b]])), Y[b]),
    ),
    Case("collating drops some", data=lambda: loader(collate_fn=first_alone), refusal=MEAN),
    Case("shuffled", data=lambda: loader(shuffle=True), refusal="RandomSampler.*shuffle=False"),
    Case(
        "dropped",
        data=lambda: loader(drop_last=True, batch_size=7),
        refusal="drops the last 4 of 60 examples.*drop_last=False",
    ),
    Case("a sampler of a part", data=lambda: loader(sampler=range(30)), refusal="Subset"),
    Case("a Subset of all", data=lambda: (DataLoader(Subset(TensorDataset(X, Y), range(N)), batch_size=9),)),
    Case(
        "a loader of one's own",
        data=lambda: (Doubling(TensorDataset(X, Y), batch_size=20),),
        refusal="iterating of its own",
    ),
    Case("a wrapper", data=lambda: (Wrapper(loader()[0]),), refusal="of type Wrapper"),
    Case("a stream", data=lambda: (DataLoader(Stream(), batch_size=20),), refusal="only be iterated"),
    Case("a list of batches", data=lambda: ([(X, Y)],), refusal="list of batches"),
    Case("numpy", data=lambda: (X.numpy(), Y.numpy()), refusal="numpy array"),
    Case("lists of numbers", data=lambda: (X.tolist(), Y.tolist()), refusal="of type list"),
    Case("no targets", data=lambda: (X,), refusal="targets y are missing"),
    Case("targets twice", data=lambda: (*loader(), Y), refusal="holds the targets already"),
    Case("no batches", data=lambda: loader(batch_size=None), refusal="must batch a dataset"),
    # Additivity.
    *named_refusal(
        MEAN,
        Case("class weights", loss=nn.CrossEntropyLoss(weight=WEIGHTS), chunk_size=20),
        Case("a sum", loss=nn.CrossEntropyLoss(reduction="sum"), chunk_size=20),
        Case("ignored targets", data=lambda: (X, IGNORED), chunk_size=20),
        Case("Dice", loss=dice, chunk_size=20),
        Case("contrastive", loss=contrastive, chunk_size=20),
        Case("a BatchNorm of one's own", model=lambda: Own(own_normalisation), chunk_size=20),
    ),
    Case("class weights, all at once", loss=nn.CrossEntropyLoss(weight=WEIGHTS), chunk_size=N, plain=weighted_mean),
    Case("class weights as a pair", loss=weighted, chunk_size=7, plain=weighted_mean),
    Case(
        "class weights in float64",
        loss=nn.CrossEntropyLoss(weight=WEIGHTS),
        chunk_size=N,
        dtype=torch.float64,
        plain=weighted_mean,
    ),
    Case(
        "class weights of a partial in float64",
        loss=functools.partial(F.cross_entropy, weight=WEIGHTS),
        chunk_size=N,
        dtype=torch.float64,
        plain=weighted_mean,
    ),
    Case(
        "a sum, all at once",
        loss=nn.CrossEntropyLoss(reduction="sum"),
        chunk_size=N,
        plain=lambda m, b: len(b) * entropy(m, b),
    ),
    Case(
        "ignored targets as a pair",
        data=lambda: (X, IGNORED),
        loss=not_ignored,
        chunk_size=7,
        plain=lambda m, b: F.cross_entropy(m(X.double()[b]), IGNORED[b]),
    ),
    Case(
        "Dice, all at once",
        loss=dice,
        chunk_size=N,
        dtype=torch.float64,
        plain=lambda m, b: dice(m(X.double()[b]), Y[b]),
    ),
    Case(
        "label smoothing",
        loss=functools.partial(F.cross_entropy, label_smoothing=0.1),
        plain=lambda m, b: F.cross_entropy(m(X.double()[b]), Y[b], label_smoothing=0.1),
    ),
    Case("a loss for each example", loss=nn.CrossEntropyLoss(reduction="none"), refusal="got shape"),
    Case("a weight of parameters", loss=lambda o, t: (F.cross_entropy(o, t), o.sum() ** 2), refusal="must not depend"),
    # Ownership.
    Case(
        "a penalty on the model's own parameters",
        made=lambda model: {"loss": lambda o, t: F.cross_entropy(o, t) + 0.5 * squares(model)},
        plain=lambda twin, batch: entropy(twin, batch) + 0.5 * squares(twin),
    ),
    wrapped(),
    outside(),
    Case(
        "keeps its output, a log and a lock",
        model=lambda: Own(keeping, last=None, log=[], lock=threading.Lock()),
        plain=of_body,
    ),  # type: ignore[operator]
    Case("old weight_norm", model=lambda: net(nn.utils.weight_norm(nn.Linear(12, 12)))),
    Case("parametrised weight_norm", model=lambda: net(nn.utils.parametrizations.weight_norm(nn.Linear(12, 12)))),
    Case("tied weights", model=tied),
    Case("an LSTM", model=lambda: Own(recurrent, cell=nn.LSTM(6, 6, batch_first=True))),
    Case("a frozen layer", model=lambda: net(nn.Linear(12, 12).requires_grad_(False))),
    Case("a scripted module", model=lambda: torch.jit.script(net()), refusal="scripted"),
    Case("everything frozen", model=lambda: net().requires_grad_(False), refusal="nothing is trained"),
    Case("a lazy module", model=lambda: nn.Sequential(nn.LazyLinear(3)), refusal="has no shape yet"),
    # Context.
    Case("inside no_grad", inside=torch.no_grad),
    Case("inside inference_mode", inside=torch.inference_mode),
    Case("forces", model=lambda: Own(force)),
    Case("forces inside no_grad", model=lambda: Own(force), inside=torch.no_grad),
    # Fixedness.
    *named_refusal(
        RANDOM,
        Case("rare events", model=lambda: Own(rarely(lambda _: torch.rand(())))),
        Case("rare events, numpy", model=lambda: Own(rarely(lambda _: np.random.random()))),  # noqa: NPY002
        Case("rare events, Python", model=lambda: Own(rarely(lambda _: random.random()))),
        Case("rare events, a generator kept", model=lambda: Own(rarely_private, draws=torch.Generator())),
        Case("augmentation", data=lambda: loader(lambda i: (X[i] + 0.1 * torch.randn(6), Y[i]))),
    ),
    *named_refusal(
        "remembers",
        Case("a counter", model=lambda: Own(counting, calls=0)),
        Case("spectral norm", model=lambda: net(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 12)))),
    ),
    Case(
        "spectral norm, evaluated",
        model=lambda: net(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 12))),
        norm_mode="running",
        plain=evaluated,
    ),
    Case("spectral norm by hooks, evaluated", model=hooked_norm, norm_mode="running", plain=evaluated),
    Case(
        "spectral norm by hooks, before it has run",
        model=lambda: hooked_norm(runs=0),
        refusal="run the model once on a batch",
    ),
    Case("float8 parameters", model=lambda: net().to(torch.float8_e4m3fn), refusal="of torch.float8_e4m3fn"),
    Case(
        "nested tensors",
        data=lambda: (torch.nested.nested_tensor(list(X), layout=torch.jagged), Y),
        refusal="x or y is a nested tensor",
    ),
    Case("dropout", model=lambda: net(nn.Dropout(0.5)), refusal=r"dropout is on in 2 \(p = 0.5\).*norm_mode='running'"),
    Case("dropout, evaluated", model=lambda: net(nn.Dropout(0.5)), norm_mode="running", plain=evaluated),
    Case(
        "NaN in the data",
        data=lambda: (torch.where(torch.arange(N)[:, None] == 3, torch.nan, X), Y),
        refusal="are not finite",
    ),
    # Mode.
    Case("frozen BatchNorm by train()", model=Frozen, chunk_size=N, norm_mode="as is"),
    *named_refusal(
        "norm_mode='as is'",
        Case("frozen BatchNorm, mode overwritten", model=lambda: net(nn.BatchNorm1d(12).eval())),
        Case("dropout set to eval", model=lambda: net(nn.Dropout(0.5).eval())),
    ),
    Case("dropout set to eval, as is", model=lambda: net(nn.Dropout(0.5).eval()), norm_mode="as is"),
    Case("BatchNorm, all at once", model=lambda: net(nn.BatchNorm1d(12)), chunk_size=N),
    Case("GroupNorm", model=lambda: net(nn.GroupNorm(3, 12))),
    # Kinds of models.
    Case("complex parameters", model=lambda: nn.Linear(6, 3, dtype=torch.complex64), refusal="complex"),
    Case("checkpointing", model=lambda: Own(checkpointed(False))),
    Case("reentrant checkpointing", model=lambda: Own(checkpointed(True)), refusal="use_reentrant=False"),
    # Feeding.
    *named_refusal(
        "forward=",
        Case("batches of three", data=lambda: loader(lambda i: (X[i], X[i], Y[i]))),
        Case("dict batches", data=lambda: loader(lambda i: {"input_ids": X[i], "labels": Y[i]})),
    ),
    Case(
        "two inputs",
        model=lambda: Own(lambda self, x, other=None: self.body(x + (other if other is not None else x))),
        data=lambda: loader(lambda i: (X[i], X[i], Y[i])),
        forward=lambda m, b: F.cross_entropy(m(b[0], other=b[1]), b[2]),
        plain=entropy,
    ),  # type: ignore[arg-type]
    Case(
        "a model of named inputs",
        model=lambda: Own(named),
        data=lambda: loader(lambda i: {"input_ids": X[i], "labels": Y[i]}),
        forward=lambda m, b: m(**b)["loss"],
        plain=lambda m, b: m(X.double()[b], labels=Y[b])["loss"],
    ),
]


@dataclass
class Settings:
    """What layers share, with something in it that cannot be copied."""

    scale: float = 1.0
    lock: Any = None


def scaled(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(self.settings.scale * self.body(x))


def sharing_settings() -> nn.Module:
    shared = Settings(3.0, threading.Lock())
    first, second = (Own(scaled, settings=shared) for _ in range(2))
    return nn.Sequential(first, nn.Linear(3, 6), second)


def late(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.body(x) + (0.5 * torch.randn(3) if self.calls > 45 else 0)


def warming(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.body(x) * (2 if self.calls > 45 else 1)


class Augmented(Items):
    """Some examples are noisy, by a generator of the data set's own."""

    def __init__(self) -> None:
        super().__init__(lambda i: (X[i], Y[i]))
        self.draws = np.random.default_rng(0)

    def __getitem__(self, index: int) -> Any:
        noise = self.draws.standard_normal(6).astype(np.float32) if 20 <= index < 30 else np.zeros(6, np.float32)
        return X[index] + torch.from_numpy(noise), Y[index]


def hooked() -> nn.Module:
    model = net()
    model[0].weight.register_hook(lambda gradient: 0 * gradient)
    return model


class Marked(nn.Parameter):
    """A kind of parameter that a model tells from others."""


def by_kind(self: Any, x: Tensor) -> Tensor:
    return self.body(x) * (self.mark if isinstance(self.mark, Marked) else 1)


def aliased() -> nn.Module:
    model = Own(lambda self, x: self.body(x) + x @ self.alias[:3].T)
    model.alias = model.body[0].weight.data
    return model


def adjacency(self: Any, x: Tensor) -> Tensor:
    return self.body(x @ self.links.to_dense().to(x.dtype))


def sparse() -> nn.Module:
    model = Own(adjacency)
    model.register_buffer("links", torch.eye(6).to_sparse())
    return model


def holding(weights: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def loss(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(outputs, targets, weight=weights, reduction="sum"), weights[targets].sum()

    return loss


def penalty(kept: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) + sum((p**2).sum() for p in kept)


def chunked(model: nn.Module, batch: Tensor) -> Tensor:
    """As chunks of 13 see it, for layers that look at the whole batch."""
    parts = batch.tensor_split(5) if len(batch) == N else (batch,)
    return torch.stack([entropy(model, part) * len(part) for part in parts]).sum() / len(batch)


def untracked() -> nn.Module:
    return net(nn.BatchNorm1d(12, track_running_stats=False))


BY_CLASS = Y.argsort()
MIDDLE = torch.where((torch.arange(N) >= 26) & (torch.arange(N) < 34), -100, Y)
TARGETS = torch.randn(N, 3, dtype=torch.float64)
RARE = (torch.arange(N) == 20).long()


class Entries(dict[str, Any]):
    """A dictionary whose entries are its attributes, as configurations are."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(**entries)
        self.__dict__ = self


class Dotted(dict[str, Any]):
    """The same another way, which raises KeyError for attributes that are not there."""

    __getattr__ = dict.__getitem__


def dotted() -> Dotted:
    found = Dotted(a=X)
    vars(found)["note"] = "an attribute"
    return found


class Wrapped:
    """A batch that looks its attributes up in a dictionary."""

    def __init__(self, **entries: Any) -> None:
        self._entries = entries

    def __getattr__(self, name: str) -> Any:
        return self._entries[name]


class Hidden:
    """A slot whose place a property takes in a subclass, as in libraries of symbols."""

    __slots__ = ("value",)


class Property(Hidden):
    """It has no setter."""

    @property
    def value(self) -> int:  # type: ignore[override]
        return 3


SYMBOL = Property()
FITTED = net()(X).detach()
FITTED[:20] += 1.0
FITTED[40:] -= 1.0


def expanded(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean square written out, of which rounding alone is left where nothing else is."""
    return (outputs * outputs).mean() - 2 * (outputs * targets).mean() + (targets * targets).mean()


def with_loss(function: Any) -> Any:
    """A decorator that gives the loss."""
    return functools.wraps(function)(lambda model, batch: function(model, batch, F.cross_entropy))


@with_loss
def decorated(model: nn.Module, batch: Any, loss: Any) -> Tensor:
    return loss(model(batch[0]), batch[1])


class Documents(Items):
    """Examples beside the numbers that they were made of."""

    def __init__(self, numbers: list[Any]) -> None:
        super().__init__(lambda i: (X[i], Y[i]))
        self.numbers = [[list(map(int, map(str, part))) for part in each] for each in numbers]


def stacked(self: Any, x: Tensor) -> Tensor:
    """As an ensemble over a skeleton without numbers is computed."""
    (base,) = self.base
    moved = functools.partial(torch.func.functional_call, base)
    return self.body(x) + 0 * moved({"weight": x.new_ones(3, 6), "bias": x.new_ones(3)}, (x,))


def skeleton() -> nn.Module:
    base = nn.Linear(6, 3, device="meta")
    base.register_buffer("mean", torch.zeros(6, device="meta"))
    return Own(stacked, base=[base])


def of_entries(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch.x), batch.y)


class Folding(nn.Module):
    """Weights of two factors, put together for evaluation: into a frozen weight, or an attribute that is new."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.body, self.first, self.second = net(), nn.Linear(6, 2, bias=False), nn.Linear(2, 3, bias=False)
        self.frozen = nn.Parameter(torch.zeros(3, 6), requires_grad=False) if frozen else None

    def train(self, mode: bool = True) -> "Folding":
        """Put them together, or take them apart."""
        super().train(mode)
        with torch.no_grad():
            folded = self.second.weight @ self.first.weight * (not mode)
        if self.frozen is None:
            self.folded = folded
        else:
            self.frozen.data = folded
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Through the factors in training, and through their product otherwise."""
        folded = self.folded if self.frozen is None else self.frozen
        return self.body(x) + (self.second(self.first(x)) if self.training else F.linear(x, folded))


class Npz(Items):
    """A data set that keeps the file that it was read from."""

    def __init__(self, *, closed: bool) -> None:
        file = io.BytesIO()
        np.savez(file, x=X.numpy())
        self.file = np.load(io.BytesIO(file.getvalue()))
        read = torch.from_numpy(self.file["x"])
        super().__init__(lambda i: (read[i], Y[i]))
        if closed:
            self.file.close()


def percent() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read_string("[log]\nformat=%(asctime)s\n")
    return found


class Opened(Items):
    """A data set that worker_init_fn opens."""

    def __init__(self) -> None:
        super().__init__(lambda i: (self.file[i], Y[i]))
        self.file: Any = None


def by_step(batch: Any, number: int) -> Tensor:
    return F.cross_entropy(batch[0], batch[number])


encoder = nn.Linear(2, 2)  # as in another cell of a notebook, and refused where a model has it
encoder.register_full_backward_hook(lambda *_: None)


def ragged() -> Any:
    found = np.empty(2, dtype=object)
    found[0], found[1] = np.arange(3), np.arange(4)
    return found


def batches_of(kind: Callable[..., Any]) -> Callable[[], tuple[Any, ...]]:
    return lambda: (DataLoader(range(N), batch_size=8, collate_fn=lambda b: kind(x=X[b], y=Y[b])),)


CASES += [
    Case(
        "a configuration whose attributes are its entries",
        model=lambda: Own(
            lambda self, x: self.body(x) * self.settings.scale, settings=Entries(scale=1.0), lock=threading.Lock()
        ),
    ),
    Case(
        "inputs whose attributes are their entries",
        data=lambda: (Entries(a=X), Y),
        forward=lambda m, b: F.cross_entropy(m(b[0].a), b[1]),
        chunk_size=20,
    ),
    Case(
        "inputs that raise KeyError for attributes",
        data=lambda: (Dotted(a=X), Y),
        forward=lambda m, b: F.cross_entropy(m(b[0].a), b[1]),
        chunk_size=20,
    ),
    Case("batches of entries in float64", data=batches_of(Entries), forward=of_entries, dtype=torch.float64),
    Case("batches that raise KeyError for attributes", data=batches_of(Wrapped), forward=of_entries),
    Case("a skeleton without numbers", model=skeleton),
    *(
        Case(
            f"factors that eval() puts together in {where}",
            model=functools.partial(Folding, frozen),
            norm_mode="running",
            refusal=rf"changes Folding\.{name} in train\(\) or eval\(\), .* with nothing merged",
        )
        for frozen, where, name in ((True, "a frozen weight", "frozen"), (False, "an attribute", "folded"))
    ),
    *(
        Case(f"a data set that keeps {kind} npz file", data=lambda closed=closed: (Npz(closed=closed),))
        for kind, closed in (("an open", False), ("a closed", True))
    ),
    Case(
        "a configuration that cannot be read",
        model=lambda: Own(lambda self, x: self.body(x), settings=percent(), lock=threading.Lock()),
    ),
    Case(
        "matrices in rows, and arrays of arrays",
        model=lambda: Own(
            lambda self, x: self.body(x), near=torch.eye(4).to_sparse_csr(), split=ragged(), lock=threading.Lock()
        ),
    ),
    Case(
        "an attribute that has the name of something else's",
        model=lambda: Own(lambda self, x: self.body(self.encoder(x)), encoder=nn.Identity(), lock=threading.Lock()),
    ),
    Case(
        "a data set that workers open",
        data=lambda: (DataLoader(Opened(), batch_size=16, num_workers=1),),
        refusal=r"read in this process, without workers, where it failed \(TypeError: .* what worker_init_fn opens",
    ),
    Case(
        "a training step as forward=",
        model=lambda: Own(lambda self, x: self.body(x)),
        forward=by_step,
        refusal=r"forward\(model, batch\) failed \(TypeError: .*, here a tuple; a training_step is given by forward=",
    ),
    Case("a decorated forward=", forward=decorated),
    Case(
        "a batch in the middle that is fitted",
        data=lambda: (X, FITTED),
        loss=expanded,
        chunk_size=10,
        plain=lambda m, b: F.mse_loss(m(X.double()[b]), FITTED.double()[b]),
    ),
    Case(
        "inputs with an attribute and entries that raise KeyError",
        data=lambda: (dotted(), Y),
        forward=lambda m, b: F.cross_entropy(m(b[0].a), b[1]),
        chunk_size=20,
    ),
    Case(
        "a data set of many numbers in lists",
        data=lambda: (DataLoader(Documents([[[*range(999, 1029)]] * 50 for _ in range(100)]), batch_size=16),),
    ),
    Case(
        "a property in the place of a slot",
        model=lambda: Own(lambda self, x: self.body(x), held=SYMBOL, lock=threading.Lock()),
        forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]) + 0 * SYMBOL.value,
    ),
    Case(
        "a forward= of one argument",
        forward=lambda m: m(X).sum(),
        refusal=r"forward is called as forward\(model, batch\), but of this one too many positional arguments",
    ),
    Case("a list of examples", data=lambda: (list(X), Y), refusal=r"torch\.stack makes one of them"),
]
CASES += [
    *named_refusal(
        MEAN,
        Case(
            "class weights, ordered by class",
            data=lambda: (X[BY_CLASS], Y[BY_CLASS]),
            loss=nn.CrossEntropyLoss(weight=WEIGHTS),
            chunk_size=12,
        ),
        Case("ignored targets in the middle", data=lambda: (X, MIDDLE), chunk_size=6),
        Case(
            "a rare class of great weight, in no sample",
            data=lambda: (X, RARE),
            loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 100.0, 1.0])),
            chunk_size=6,
        ),
        Case("class weights in batches of one", loss=nn.CrossEntropyLoss(weight=WEIGHTS), chunk_size=1),
        Case(
            "a sum in bfloat16",
            model=lambda: net().bfloat16(),
            data=lambda: (X.bfloat16(), Y),
            loss=nn.CrossEntropyLoss(reduction="sum"),
        ),
    ),
    *named_refusal(
        "return the mean alone, or",
        Case("loss and accuracy", loss=lambda o, t: (F.cross_entropy(o, t), (o.argmax(1) == t).float().mean())),
        Case("mean and count", loss=lambda o, t: (F.cross_entropy(o, t), len(t))),
        Case("loss and scores", loss=lambda o, t: (F.cross_entropy(o, t), o.detach())),
    ),
    Case("layers that share what cannot be copied", model=sharing_settings),
    Case("a gradient hook", model=hooked, refusal="hook that may change"),
    *named_refusal(
        RANDOM,
        Case("augmentation deep inside", data=lambda: (DataLoader(ConcatDataset([Augmented()]), batch_size=10),)),
        Case("randomness that comes late", model=lambda: Own(late, calls=0)),
    ),
    Case("a warm-up", model=lambda: Own(warming, calls=0), refusal="remembers"),
    Case(
        "examples drawn twice", data=lambda: loader(sampler=[torch.tensor(i % 30) for i in range(N)]), refusal="Subset"
    ),
    Case("indices that are pairs", data=lambda: loader(sampler=[(i, 0) for i in range(N)]), refusal="whole numbers"),
    Case(
        "an InstanceNorm set to eval",
        model=lambda: net(nn.Unflatten(1, (4, 3)), nn.InstanceNorm1d(4, track_running_stats=True).eval(), nn.Flatten()),
        refusal="norm_mode='as is'",
    ),
    Case("a kind of parameter", model=lambda: Own(by_kind, mark=Marked(torch.full((), 2.0)))),
    Case("an alias of a weight", model=aliased, refusal="share memory"),
    Case("an attribute called args", model=lambda: Own(lambda self, x: self.body(x), args=None, keywords=[1])),
    Case("a closure over a tensor", loss=holding(WEIGHTS), plain=weighted_mean),
    Case("a sparse buffer", model=sparse),
    Case(
        "inputs changed in place",
        data=lambda: (X.clone(), Y),
        model=lambda: nn.Sequential(nn.ReLU(inplace=True), net()),
        plain=lambda m, b: F.cross_entropy(m(X.double()[b].clone()), Y[b]),
    ),
    Case(
        "targets in float64",
        data=lambda: (X, TARGETS),
        loss=F.mse_loss,
        chunk_size=7,
        plain=lambda m, b: F.mse_loss(m(X.double()[b]), TARGETS[b]),
    ),
    Case("BatchNorm in chunks", model=lambda: net(nn.BatchNorm1d(12)), plain=chunked),
    Case("BatchNorm without running statistics", model=untracked, plain=chunked),
    Case(
        "a defaultdict",
        model=lambda: Own(lambda self, x: self.body(x["a"])),
        data=lambda: collated(lambda x, y: (defaultdict(int, a=x), y)),
        plain=of_entry,
    ),
    Case(
        "parameters taken out beforehand",
        made=lambda model: {"loss": penalty(list(model.parameters()))},
        refusal="taken out of the model beforehand",
    ),
    Case("no generator", generator=None, refusal="must be a torch.Generator"),
    Case("an integer precision", dtype=torch.int64, refusal="floating-point"),
    Case("a whole number as the loss", loss=lambda o, t: (o.argmax(1) != t).sum(), refusal="one real number"),
    Case(
        "float64 beside a tensor of float32",
        loss=lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS),
        chunk_size=N,
        dtype=torch.float64,
        refusal="failed",
    ),
]


def telling_apart(name: str, penalty: Callable[[Tensor, set[int], Tensor], Any], **given: Any) -> Case:
    """A loss that knows the model's first weight again by what it is."""
    model = net()
    first = next(model.parameters())
    ids = {id(first)}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) + sum(penalty(p, ids, first) for p in model.parameters())

    return Case(name, lambda: model, loss=loss, **given, refusal="tells parameters apart")


def knowing_ids() -> nn.Module:
    model = Own(lambda self, x: self.body(x) * (2 if id(self.body[0].weight) in self.ids else 1))
    vars(model)["ids"] = {id(model.body[0].weight)}
    return model


FIRST_NETS_FISHER = net()
FISHER = {p: torch.ones_like(p) for p in FIRST_NETS_FISHER.parameters()}


class Remembering(nn.Module):
    """A loss that grows with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return F.cross_entropy(outputs, targets) * (1 + 0.001 * self.get_buffer("calls"))


MEMORY = Remembering()
WEIGHING = nn.CrossEntropyLoss(weight=WEIGHTS)
NORM_OF_LOSS = nn.BatchNorm1d(3, affine=False)
TEACHER = net().requires_grad_(False)


@dataclass
class Fed:
    """A batch with names."""

    inputs: Tensor
    targets: Tensor


def in_place() -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=True), net())


def calling_backward(self: Any, x: Tensor) -> Tensor:
    self.body(x.detach()).sum().backward()
    return self.body(x)


def low_rank() -> nn.Module:
    """A frozen net and what is trained beside it."""
    parts = {"down": nn.Parameter(torch.ones(6, 2) / 3), "up": nn.Parameter(torch.eye(2, 3))}
    model = Own(lambda self, x: self.body(x) + x @ self.down @ self.up, **parts)
    model.body.requires_grad_(False)
    return model


@contextlib.contextmanager
def defaulting_to_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def updated(update: Any) -> dict[str, Any]:
    return {"update": update, "learning_rate": None, "batch_size": None, "generator": None}


BY_NAME = {name: p.detach() for name, p in net().named_parameters()}
CASES += [
    telling_apart("a mask by id", lambda p, ids, _: (p**2).sum() if id(p) in ids else 0),
    telling_apart("frozen by id", lambda p, ids, _: ((p.detach() if id(p) in ids else p) ** 2).sum()),
    telling_apart("all but one parameter", lambda p, _, first: (p**2).sum() if p is not first else 0),
    telling_apart("the same in float64", lambda p, ids, _: (p**2).sum() if id(p) in ids else 0, dtype=torch.float64),
    *named_refusal(
        "tells parameters apart",
        Case("a model that keeps ids", model=knowing_ids),
        Case(
            "weights by parameter",
            model=lambda: FIRST_NETS_FISHER,
            forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]) + sum(FISHER[p].sum() for p in m.parameters()),
        ),
    ),
    Case("a loss with a memory in a partial", loss=functools.partial(MEMORY.__call__), refusal="remembers"),
    Case(
        "class weights in a module named in a function, float64",
        loss=lambda o, t: 1.0 * WEIGHING(o, t),
        chunk_size=N,
        dtype=torch.float64,
        plain=weighted_mean,
    ),
    Case(
        "a BatchNorm inside the loss",
        loss=lambda o, t: F.cross_entropy(NORM_OF_LOSS(o), t),
        chunk_size=N,
        plain=lambda m, b: F.cross_entropy(F.batch_norm(m(X.double()[b]), None, None, training=True), Y[b]),
    ),
    Case(
        "a teacher beside it, float64",
        forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]) + F.mse_loss(m(b[0]), 2 * TEACHER(b[0])),
        dtype=torch.float64,
        plain=lambda m, b: (
            entropy(m, b) + F.mse_loss(m(X.double()[b]), 2 * copy.deepcopy(TEACHER).double()(X.double()[b]))
        ),
    ),
    Case("an average of weights", model=lambda: AveragedModel(net())),
    Case(
        "a functional call",
        forward=lambda m, b: F.cross_entropy(torch.func.functional_call(m, dict(m.named_parameters()), (b[0],)), b[1]),
    ),
    Case("low-rank parts beside a frozen net", model=low_rank),
    Case("a model that calls backward()", model=lambda: Own(calling_backward), plain=of_body),
    Case("float64 by default", inside=defaulting_to_double),
    Case(
        "keys that are tuples",
        model=lambda: Own(lambda self, x: self.body(x["a", 1])),
        data=lambda: loader(lambda i: ({("a", 1): X[i]}, Y[i])),
        plain=lambda m, b: F.cross_entropy(m({("a", 1): X.double()[b]}), Y[b]),
    ),
    Case(
        "a mapping that cannot be changed",
        data=lambda: collated(lambda x, _: MappingProxyType({"a": x})),
        refusal="return a dict",
    ),
    *named_refusal(
        "on one device",
        Case("no values yet", model=lambda: net().to("meta")),
        Case("two devices", model=lambda: Own(None, extra=nn.Parameter(torch.empty(3, device="meta")))),
    ),
    *named_refusal(
        "real tensors",
        Case("a list as the update", **updated([1.0, 2.0])),
        Case("an update of lists", **updated({name: part.tolist() for name, part in BY_NAME.items()})),
        Case("a complex update", **updated({name: part + 0j for name, part in BY_NAME.items()})),
    ),
    Case("an update with NaN", **updated({**BY_NAME, "0.bias": torch.full((12,), torch.nan)}), refusal="not finite"),
    Case("an update of other shapes", **updated({**BY_NAME, "0.bias": torch.ones(1)}), refusal="of its shape"),
]


def clamped(self: Any, x: Tensor) -> Tensor:
    """Weights are clamped whenever scores are asked for, as of critics in Wasserstein GANs."""
    for parameter in self.body.parameters():
        parameter.data.clamp_(-0.1, 0.1)
    return self.body(x)


class Merging(nn.Module):
    """An adapter that is merged into the weights for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.adapter, self.merged = nn.Parameter(torch.ones(6, 3)), nn.Parameter(torch.ones(6, 3)), False

    def train(self, mode: bool = True) -> "Merging":
        """Take the adapter out, or put it in."""
        if self.merged == mode:
            self.weight.data.add_(self.adapter.data, alpha=-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight if self.merged else self.weight + self.adapter)


def scaled_by(name: str, get: Callable[[nn.Module], Callable[[], Tensor]]) -> Case:
    """A loss that has the last layer's weight by another way than the model, as a constant."""
    model = net()
    kept = get(model)
    return Case(
        name,
        lambda: model,
        loss=lambda o, t: F.cross_entropy(o * kept().detach().norm(), t),
        refusal="taken out of the model beforehand and shares its memory",
    )


def from_optimizer(model: nn.Module) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return lambda: optimizer.param_groups[0]["params"][2]


def from_state(model: nn.Module) -> Callable[[], Tensor]:
    values = model.state_dict()
    return lambda: values["2.weight"]


def listing() -> nn.Module:
    model = Own(lambda self, x: self.body(x) * self.values[2].norm())
    vars(model)["values"] = [p.data for p in model.body.parameters()]
    return model


class Tap:
    """A hook that keeps what a layer gives."""

    out: Any

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.out = output


def tapped() -> Case:
    model, tap = net(), Tap()
    model[0].register_forward_hook(tap)
    return Case(
        "a penalty on what a hook kept",
        lambda: model,
        loss=lambda o, t: F.cross_entropy(o, t) + (tap.out**2).mean(),
        plain=lambda m, b: entropy(m, b) + (m[0](X.double()[b]) ** 2).mean(),
    )


def routed() -> Case:
    aux = {"z": 0.0}

    def noting(self: Any, x: Tensor) -> Tensor:
        scores = self.body(x)
        self.aux["z"] = (scores.logsumexp(1) ** 2).mean()
        return scores

    return Case(
        "a loss in a dict that model and loss share",
        lambda: Own(noting, aux=aux),
        loss=lambda o, t: F.cross_entropy(o, t) + aux["z"],
        plain=lambda m, b: entropy(m.body, b) + (m.body(X.double()[b]).logsumexp(1) ** 2).mean(),
    )


def confident(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Confident examples alone count, as in FixMatch."""
    sure = (outputs.detach().softmax(1).amax(1) > 0.45).to(outputs.dtype)
    return (F.cross_entropy(outputs, targets, reduction="none") * sure).sum(), sure.sum()


def lazily(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.body(x) * (2 if self.calls % 32 == 0 else 1)


def viewed(self: Any, x: Tensor) -> Tensor:
    self.stats[0].copy_(self.body[0].weight.detach().norm(dim=0))
    return self.body(x * self.scale)


def viewing() -> nn.Module:
    """Two buffers of the same memory, one of which is written."""
    model = Own(viewed)
    model.register_buffer("stats", torch.ones(2, 6))
    model.register_buffer("scale", model.stats[0])
    return model


def freezing(self: Any, x: Tensor) -> Tensor:
    self.body[0].requires_grad_(False)
    return self.body(x)


class NoGradient(torch.autograd.Function):
    """A product whose backward leaves out the weight."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(weight)
        return x @ weight

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return gradients[0] @ context.saved_tensors[0].T, None


FEW = torch.full((N,), -100)
FEW[32] = 1
CASES += [
    *named_refusal(
        "return the mean alone, or",
        Case(
            "loss and accuracy, all at once",
            loss=lambda o, t: (F.cross_entropy(o, t), (o.argmax(1) == t).float().mean()),
            chunk_size=N,
        ),
        Case("mean and count, all at once", loss=lambda o, t: (F.cross_entropy(o, t), len(t)), chunk_size=N),
    ),
    *named_refusal(
        "changes its trained weights",
        Case("weights clamped in forward", model=lambda: Own(clamped)),
        Case(
            "an embedding that renormalises",
            model=lambda: nn.Sequential(nn.Embedding(10, 6, max_norm=1.0), net()),
            data=lambda: (torch.arange(N) % 10, Y),
        ),
        Case("an adapter merged in eval()", model=Merging, norm_mode="running"),
    ),
    scaled_by("a weight kept", lambda model: functools.partial(getattr, model.get_parameter("2.weight"), "data")),
    scaled_by("a weight in a state_dict", from_state),
    scaled_by("a weight in an optimiser", from_optimizer),
    Case("a list of weights' data", model=listing, refusal="share memory"),
    tapped(),
    routed(),
    *named_refusal(
        MEAN,
        Case(
            "class weights under a large constant",
            data=lambda: (X[BY_CLASS], Y[BY_CLASS]),
            loss=lambda o, t: F.cross_entropy(o, t, weight=WEIGHTS) + 1e3,
            chunk_size=20,
        ),
        Case(
            "class weights, bfloat16 outputs in float32",
            model=lambda: net().bfloat16(),
            data=lambda: (X.bfloat16()[BY_CLASS], Y[BY_CLASS]),
            loss=lambda o, t: F.cross_entropy(o.float(), t, weight=WEIGHTS),
            chunk_size=20,
        ),
    ),
    Case("confident examples alone", loss=confident, refusal="depends on the outputs"),
    Case("a chunk where no target counts", data=lambda: (X, FEW), refusal="parts' mean is nan: it is no mean"),
    Case(
        "a minibatch where no target counts", data=lambda: (X, FEW), loss=not_ignored, refusal="weight of the minibatch"
    ),
    *named_refusal(
        RANDOM,
        Case(
            "a generator inside a dict",
            model=lambda: Own(
                lambda self, x: self.body(x) * (2 if self.own["draws"].random() < 0.05 else 1),
                own={"draws": random.Random(0)},
            ),
        ),
        Case(
            "a generator in one of many layers",
            model=lambda: nn.Sequential(
                Own(rarely_private, draws=torch.Generator()), *(nn.Tanh() for _ in range(1500)), nn.Linear(3, 3)
            ),
        ),
    ),
    Case("a SystemRandom", model=lambda: Own(None, draws=random.SystemRandom()), refusal="SystemRandom"),
    *named_refusal(
        "remembers|is no mean",
        *(
            Case(f"every 32nd call from {start}", model=lambda s=start: Own(lazily, calls=s))
            for start in range(0, 32, 4)
        ),
    ),
    Case("buffers that are views", model=viewing, refusal="shares memory with"),
    Case("weights cached", inside=nn.utils.parametrize.cached, refusal="cached"),
    Case("frozen in forward", model=lambda: Own(freezing), refusal="sets requires_grad"),
    Case(
        "a function without a gradient",
        model=lambda: Own(
            lambda self, x: self.body(x) + NoGradient.apply(self.body(x), self.more),
            more=nn.Parameter(torch.ones(3, 3)),
        ),
        refusal="gives None",
    ),
    Case("a batch_size of 16.0", batch_size=16.0, refusal="whole number"),
    Case(
        "BatchNorm in batches of one",
        model=lambda: net(nn.BatchNorm1d(12)),
        chunk_size=1,
        refusal="more than one example",
    ),
    Case(
        "pairs by place, reordered",
        loss=lambda o, t: F.mse_loss(*o.chunk(2)) + 0 * len(t),
        chunk_size=N,
        noise_floor="reordered",
        refusal="in another order",
    ),
]


def balanced(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss with a small term that looks at the whole batch, as for a mixture of experts."""
    return F.cross_entropy(outputs, targets) + 0.01 * (outputs.softmax(1).mean(0) ** 2).sum()


def balanced_in_float32(outputs: Tensor, targets: Tensor) -> Tensor:
    shares = outputs.softmax(1, dtype=torch.float32).mean(0)
    return F.cross_entropy(outputs, targets) + 0.03 * (shares**2).sum()


def sometimes_paired(outputs: Tensor, targets: Tensor) -> Any:
    value = F.cross_entropy(outputs, targets)
    return (value * len(targets), float(len(targets))) if len(targets) == 12 else value


ALMOST = torch.tensor([1.0, 1.001, 0.999])
CASES += [
    *named_refusal(
        MEAN,
        Case("a small term of the whole batch", loss=balanced),
        Case("a small term of the whole batch in float32", loss=balanced_in_float32),
        Case("class weights that are almost alike", loss=nn.CrossEntropyLoss(weight=ALMOST)),
        Case(
            "a penalty divided by the batch",
            forward=lambda m, b: (
                F.cross_entropy(m(b[0]), b[1]) + 1e-4 * sum((p**2).sum() for p in m.parameters()) / len(b[1])
            ),
        ),
    ),
    Case("a pair for some batches", loss=sometimes_paired, refusal="a number for others"),
    Case(
        "class weights as a pair, float32 beside float64",
        loss=lambda o, t: (
            F.cross_entropy(o, t, weight=WEIGHTS.to(o.dtype), reduction="sum"),
            WEIGHTS[t].sum(dtype=torch.float64),
        ),
        dtype=torch.float64,
        plain=lambda m, b: F.cross_entropy(m(X.double()[b]), Y[b], weight=WEIGHTS.double()),
    ),
]


def scaled_by_squares(values: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) * (1 + float((values**2).sum()))


class State:
    """What counts calls, for everybody."""

    __slots__ = ("own",)
    calls = 0

    def __init__(self, calls: int) -> None:
        self.own = calls


def counted_by_a_class(self: Any, x: Tensor) -> Tensor:
    State.calls += 1
    return self.body(x) * (2 if State.calls % 32 == 0 else 1)


def counted_in_a_slot(self: Any, x: Tensor) -> Tensor:
    self.state.own += 1
    return self.body(x) * (2 if self.state.own % 32 == 0 else 1)


def counted_in_a_tensor(self: Any, x: Tensor) -> Tensor:
    self.calls = self.calls + 1
    return self.body(x) * (2 if self.calls % 32 == 0 else 1)


def counted_in_an_array(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.body(x) * (2 if self.calls[0] % 32 == 0 else 1)


def counted_by_an_iterator(self: Any, x: Tensor) -> Tensor:
    return self.body(x) * (2 if next(self.calls) % 32 == 0 else 1)


def beginning(calls: int) -> nn.Module:
    State.calls = calls
    return Own(counted_by_a_class)


STORED: dict[str, Tensor] = {}


def gram(self: Any) -> Tensor:
    return (self.body[0].weight @ self.body[0].weight.T).detach()


def through(self: Any, x: Tensor, matrix: Tensor) -> Tensor:
    return self.body[2](torch.tanh(self.body[0](x) @ matrix))


def cached_attribute(self: Any, x: Tensor) -> Tensor:
    if self.gram is None:
        self.gram = gram(self)
    return through(self, x, self.gram)


def cached_in(self: Any, x: Tensor) -> Tensor:
    """A cache in whatever the model has for it."""
    if self.kept.get("gram") is None:
        self.kept["gram"] = gram(self)
    return through(self, x, self.kept["gram"])


def cached_in_a_set(self: Any, x: Tensor) -> Tensor:
    """A cache that takes a set's only entry's place."""
    if None in self.kept:
        self.kept.discard(None)
        self.kept.add(gram(self))
    return through(self, x, next(iter(self.kept)))


def cached_elsewhere(self: Any, x: Tensor) -> Tensor:
    if "gram" not in STORED:
        STORED["gram"] = gram(self)
    return through(self, x, STORED["gram"])


def caching_elsewhere() -> nn.Module:
    STORED.clear()
    return Own(cached_elsewhere)


class Scaled(Own):
    """A model with a number that it works out once."""

    @functools.cached_property
    def scale(self) -> float:
        """The size of the first weight."""
        return float(self.body[0].weight.detach().norm())


def clipped_backward() -> nn.Module:
    model = net()
    model[1].register_full_backward_hook(lambda _, gradients, __: (gradients[0] / gradients[0].norm(),))
    return model


class Labelled(list[Any]):
    """A list with a name."""

    def __init__(self, items: Any, name: str) -> None:
        super().__init__(items)
        self.name = name


CASES += [
    Case(
        "a weight's own array",
        made=lambda model: {"loss": scaled_by_squares(model[0].weight.detach().numpy())},
        refusal="taken out of the model beforehand and shares its memory",
    ),
    *named_refusal(
        "remembers|is no mean",
        *(Case(f"every 32nd call by a class, from {start}", model=lambda s=start: beginning(s)) for start in (8, 16)),
        *(
            Case(f"every 32nd call by {what}, from {start}", model=lambda f=function, s=start, make=make: make(f, s))
            for start in (8, 16)
            for what, function, make in (
                ("a slot", counted_in_a_slot, lambda f, s: Own(f, state=State(s))),
                ("a tensor", counted_in_a_tensor, lambda f, s: Own(f, calls=torch.tensor(float(s)))),
                ("an array", counted_in_an_array, lambda f, s: Own(f, calls=np.array([s]))),
                ("an iterator", counted_by_an_iterator, lambda f, s: Own(f, calls=itertools.count(s))),
            )
        ),
    ),
    Case(
        "images in bytes",
        model=lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)),
        data=lambda: (torch.ones(60, 1, 4, 4, dtype=torch.uint8), Y),
        refusal=r"types .*convert the examples \(x\.float",
    ),
    *named_refusal(
        "keeps something that it computed",
        Case("a cache of weights", model=lambda: Own(cached_attribute, gram=None)),
        Case("a cache of weights in a dict", model=lambda: Own(cached_in, kept={})),
        Case("a cache of weights in a set", model=lambda: Own(cached_in_a_set, kept={None})),
        Case("a cache of weights outside", model=caching_elsewhere),
        Case("a property that is cached", model=lambda: Scaled(lambda self, x: self.body(x) * self.scale)),
    ),
    Case("a hook that clips gradients", model=clipped_backward, refusal="backward hook"),
    Case(
        "a list of one's own",
        data=lambda: loader(collate_fn=lambda p: Labelled(p, "batch")),
        refusal="plain list in collate_fn",
    ),
    Case(
        "sparse inputs",
        model=lambda: Own(lambda self, x: self.body(x.to_dense())),
        data=lambda: (X.to_sparse(), Y),
        plain=of_body,
    ),
    Case(
        "sparse batches",
        model=lambda: Own(lambda self, x: self.body(x.to_dense())),
        data=lambda: collated(lambda x, y: (x.to_sparse(), y)),
        plain=of_body,
    ),
]


def slopes(self: Any, x: Tensor) -> Tensor:
    """Scores that rest on a derivative with respect to inputs that came as tensors which require one."""
    x += 1
    (slope,) = torch.autograd.grad(self.body(x).sum(), x, create_graph=True)
    return self.body(x) + slope[:, :3]


class Exported(Own):
    """A model without a training mode, as exported ones are."""

    def train(self, mode: bool = True) -> Any:
        raise NotImplementedError(f"Calling train({mode})\nis not supported yet.")


def noting_in_a_file(self: Any, x: Tensor) -> Tensor:
    with NamedTemporaryFile():
        return self.body(x)


def on_constants(kept: dict[str, Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    def forward(model: nn.Module, batch: Any) -> Tensor:
        constants = {name: p.detach() for name, p in kept.items()}
        return F.cross_entropy(torch.func.functional_call(model, constants, (batch[0],)), batch[1])

    return forward


ROUNDED = {"loss": lambda o, t: F.cross_entropy(o.float(), t)}
CASES += [
    Case(
        "inputs that require a gradient",
        model=lambda: Own(slopes),
        data=lambda: (X.clone().requires_grad_(), Y),
        plain=lambda m, b: F.cross_entropy(m(X.double().requires_grad_()[b]), Y[b]),
    ),
    Case(
        "many things with slots, one by one",
        model=lambda: Own(
            lambda self, x: self.body(x) * (1 + sum(each.own for each in vars(self).values() if type(each) is State)),
            **{f"state_{i}": State(i) for i in range(100)},
        ),
    ),
    Case("a file with a random name", model=lambda: Own(noting_in_a_file), plain=of_body),
    Case("outputs in float32", **ROUNDED),
    Case(
        "a functional call on constants",
        made=lambda model: {"forward": on_constants(dict(model.named_parameters()))},
        refusal="taken out of the model beforehand",
    ),
    *named_refusal(
        r"rounds to torch\.float32",
        Case("outputs in float32, float64", **ROUNDED, dtype=torch.float64),
        Case("outputs in float32, beside float64", **ROUNDED, noise_floor="float64"),
    ),
    Case("a model without a mode", model=lambda: Exported(None), refusal="norm_mode='as is'"),
    Case("inputs in float64", data=lambda: (X.double(), Y), refusal="cannot compute with these types"),
    Case(
        "a model that returns two",
        model=lambda: Own(lambda self, x: self.body(x).chunk(2)),
        refusal="tuple that the model returns .*forward=",
    ),
    Case(
        "loss and logits",
        forward=lambda m, b: (F.cross_entropy(m(b[0]), b[1]), m(b[0])),
        refusal="return the mean alone",
    ),
    Case("a class of losses", loss=nn.CrossEntropyLoss, refusal="such as torch.nn.CrossEntropyLoss"),
    Case("a table", data=lambda: (State(1), Y), refusal="holds no tensor"),
    Case("no chunk", chunk_size=None, refusal="must be at least 1 and whole"),
    Case("a tensor as batch_size", batch_size=torch.tensor(16), refusal="must be a whole number"),
    Case("a text as learning_rate", learning_rate="0.1", refusal="must be a number"),
]


TEN = torch.arange(N) % 10
FAKE = 0.5 * X + 0.1 * torch.randn(N, 6, generator=torch.Generator().manual_seed(2))
SETTINGS = ModuleType("settings")
SETTINGS.draws = ModuleType("settings.draws")  # type: ignore[attr-defined]
SETTINGS.draws.generator = np.random.default_rng(0)


def padded_pairs(pairs: Any) -> Any:
    return pad_sequence([a for a, _ in pairs], batch_first=True), torch.stack([b for _, b in pairs])


def by_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over classes of their means, which has no value where a class is missing."""
    return torch.stack([F.cross_entropy(outputs[targets == c], targets[targets == c]) for c in range(10)]).mean()


class Endless(Sampler[int]):
    """A sampler that goes round and round."""

    def __iter__(self) -> Iterator[int]:
        return itertools.cycle(range(N))


def following(self: Any, x: Tensor) -> Tensor:
    """A target network follows the net whenever scores are asked for, as in BYOL."""
    with torch.no_grad():
        for slow, fast in zip(self.target.parameters(), self.body.parameters(), strict=True):
            slow.lerp_(fast, 1e-5)
    return self.body(x) - 0.5 * self.target(x)


def padded(self: Any, x: Tensor) -> Tensor:
    """The first of four places, of which some are padding: a frozen encoder computes it with nested tensors."""
    steps = x[:, None] * torch.tensor([1.0, 2.0, 0.5, -1.0]).to(x)[:, None]
    return self.body(self.encoder(steps, src_key_padding_mask=torch.arange(4) >= 2 + (x[:, :1] > 0).long())[:, 0])


def frozen_encoder() -> nn.Module:
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
    return Own(padded, encoder=nn.TransformerEncoder(layer, 2).requires_grad_(False)).eval()


def of_twenty(self: Any, x: Tensor) -> Tensor:
    return self.body(self.cell(x[:, None], torch.zeros(1, 20, 6).to(x))[0][:, 0])


def drifted() -> nn.Module:
    """A critic whose scores have drifted away, which their difference does not see."""
    model = net()
    model[2].bias.data.fill_(1000.0)
    return model


def critic(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0]).mean() - model(batch[1]).mean()


@dataclass(slots=True)
class Packed:
    """A batch with names and no dictionary."""

    inputs: Tensor
    targets: Tensor


@dataclass
class Movable(Fed):
    """A batch that knows how it is moved."""

    def to(self, device: Any) -> "Movable":
        return Movable(self.inputs.to(device), self.targets.to(device))


class Graph:
    """A batch that keeps its tensors in a store, as graphs do."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        vars(self)["store"] = UserDict(inputs=inputs, targets=targets)

    def __getattr__(self, name: str) -> Any:
        if name in vars(self).get("store", ()):
            return vars(self)["store"][name]
        raise AttributeError(name)

    def to(self, device: Any) -> "Graph":
        return Graph(self.inputs.to(device), self.targets.to(device))


def fed_as(name: str, kind: Any) -> Case:
    return Case(
        name,
        model=in_place,
        data=lambda: collated(kind),
        forward=lambda m, b: F.cross_entropy(m(b.inputs), b.targets),
        dtype=torch.float64,
        plain=lambda m, b: F.cross_entropy(m(X.double()[b].clone()), Y[b]),
    )


def in_parts() -> nn.Module:
    """Parameters that lie between each other in memory."""
    both = torch.randn(6, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    parts = {"real": nn.Parameter(both.real), "imaginary": nn.Parameter(both.imag)}
    return Own(lambda self, x: self.body(x) + x @ self.real * (x @ self.imaginary), **parts)


def far_inside(self: Any, x: Tensor) -> Tensor:
    return self.body(x) * (2 if SETTINGS.draws.generator.random() < 0.001 else 1)


@contextlib.contextmanager
def hooked_everywhere() -> Iterator[None]:
    handle = nn.modules.module.register_module_full_backward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


LAST: Tensor | None = None


def cached_in_a_global(self: Any, x: Tensor) -> Tensor:
    global LAST  # noqa: PLW0603  what others do
    if LAST is None:
        LAST = gram(self)
    return through(self, x, LAST)


def caching_in_a_global() -> nn.Module:
    global LAST  # noqa: PLW0603
    LAST = None
    return Own(cached_in_a_global)


def caching_in_a_closure() -> nn.Module:
    last: Tensor | None = None

    def cached(self: Any, x: Tensor) -> Tensor:
        nonlocal last
        if last is None:
            last = gram(self)
        return through(self, x, last)

    return Own(cached)


def cached_in_a_helper(self: Any, x: Tensor) -> Tensor:
    if self.settings.lock is None:
        self.settings.lock = gram(self)
    return through(self, x, self.settings.lock)


def cached_in_a_place(self: Any, x: Tensor) -> Tensor:
    if self.store[0] is None:
        self.store[0] = gram(self)
    return through(self, x, self.store[0])


def cached_in_numbers(self: Any, x: Tensor) -> Tensor:
    """In a tensor, and another says that it is filled."""
    if not self.filled:
        self.store.copy_(self.made_of(self))
        self.filled.fill_(True)
    return through(self, x, self.store.to(x))


def buffered(made_of: Callable[[Any], Tensor]) -> nn.Module:
    model = Own(cached_in_numbers, made_of=made_of)
    model.register_buffer("store", torch.zeros(12, 12))
    model.register_buffer("filled", torch.tensor(False))
    return model


CASES += [
    *named_refusal(
        MEAN,
        Case(
            "padding that counts",
            model=lambda: Own(lambda self, x: self.body(x.mean(1))),
            data=lambda: loader(lambda i: (X[i].expand(1 + i % 4, 6), Y[i]), collate_fn=padded_pairs, batch_size=15),
        ),
        Case(
            "a mean over classes that parts lack",
            model=lambda: nn.Sequential(net(), nn.Linear(3, 10)),
            data=lambda: (X, TEN),
            loss=by_class,
            chunk_size=15,
        ),
    ),
    Case(
        "an embedding whose gradient counts the batch",
        model=lambda: nn.Sequential(nn.Embedding(10, 6, scale_grad_by_freq=True), net()),
        data=lambda: (TEN, Y),
        refusal="scale_grad_by_freq",
    ),
    Case("a sampler without an end", data=lambda: loader(sampler=Endless()), refusal="Subset"),
    Case(
        "a loss without a gradient",
        **updated(BY_NAME),
        forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]).detach(),
        refusal="is detached from",
    ),
    Case(
        "a target network that follows",
        model=lambda: Own(following, target=net().requires_grad_(False)),
        refusal="remembers",
    ),
    *named_refusal(
        "cannot be computed.*take any number",
        Case(
            "a model of batches of twenty",
            model=lambda: Own(of_twenty, cell=nn.GRU(6, 6, batch_first=True)),
            chunk_size=20,
        ),
        Case(
            "a graph of all examples",
            model=lambda: Own(lambda self, x: self.body(x + torch.eye(N).to(x) @ x)),
            chunk_size=N,
        ),
    ),
    Case("a frozen encoder with padding", model=frozen_encoder, norm_mode="running"),
    Case(
        "terms that cancel",
        model=drifted,
        data=lambda: (X, FAKE),
        forward=critic,
        plain=lambda m, b: critic(m, (X.double()[b], FAKE.double()[b])),
    ),
    Case("real and imaginary parts of one tensor", model=in_parts),
    fed_as("a dataclass", Fed),
    fed_as("a dataclass with slots", Packed),
    fed_as("a dataclass that moves itself", Movable),
    fed_as("tensors in a store of a graph", Graph),
    Case("a generator in a module's module", model=lambda: Own(far_inside), refusal=RANDOM),
    Case(
        "a penalty on an LSTM, float64 data",  # whose parameters the model lists
        model=lambda: Own(recurrent, cell=nn.LSTM(6, 6, batch_first=True)),
        data=lambda: (X.double(), Y),
        made=lambda model: {"loss": lambda o, t: F.cross_entropy(o, t) + 0.01 * squares(model), "dtype": torch.float64},
        plain=lambda m, b: entropy(m, b) + 0.01 * squares(m),
    ),
    Case("a backward hook on every module", inside=hooked_everywhere, refusal="backward hook"),
    *named_refusal(
        "keeps something that it computed",
        Case("a cache of weights in a global name", model=caching_in_a_global),
        Case("a cache of weights in a closure", model=caching_in_a_closure),
        Case("a cache of weights in a helper", model=lambda: Own(cached_in_a_helper, settings=Settings())),
        Case("a cache of weights in a place of a list", model=lambda: Own(cached_in_a_place, store=[None])),
        Case("a cache of weights in a buffer", model=lambda: buffered(gram)),
    ),
    Case(
        "a constant in a buffer", model=lambda: buffered(lambda _: torch.eye(12)), plain=lambda m, b: entropy(m.body, b)
    ),
]

UNSET = object()


class Instances(OrderedDict[str, Any]):
    """A registry that gives a new module for its class, as transformers' does."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)()


REGISTRY = Instances(tanh=nn.Tanh)


class Closing:
    """Something that closes its file in the end."""

    def __init__(self) -> None:
        self.file = TemporaryFile()  # noqa: SIM115  it closes it

    def scale(self) -> float:
        return 1.0 + len(self.file.read())

    def __del__(self) -> None:
        self.file.close()


class ByState(nn.Module):
    """A module whose hash is of what it holds, as those of torchmetrics are."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(())

    def __hash__(self) -> int:
        return hash(id(self.total))


def hooked_notes() -> nn.Module:
    """A hook notes in a dict what the model's loss reads there."""
    notes: dict[str, Tensor] = {}
    model = Own(lambda self, x: self.body(x), notes=notes)
    model.body[0].register_forward_hook(lambda *given: notes.__setitem__("hidden", given[-1]))
    return model


def by_pointer(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A penalty on parameters that are told by where they lie."""
    known = {p.data_ptr() for p in model.parameters()}
    return lambda o, t: F.cross_entropy(o, t) + sum((p**2).sum() for p in model.parameters() if p.data_ptr() in known)


PADDED = net()
FLAT = torch.zeros(sum(p.numel() for p in PADDED.parameters()) + 512)
for place, p in zip(FLAT.split([p.numel() for p in PADDED.parameters()] + [512]), PADDED.parameters(), strict=False):
    p.data = place.copy_(p.detach().flatten()).view(p.shape)


def in_numpy() -> nn.Module:
    model = Own(lambda self, x: self.body(x) * float((self.array**2).sum()))
    vars(model)["array"] = model.body[0].weight.detach().numpy()
    return model


def cached_beside_a_weight(self: Any, x: Tensor) -> Tensor:
    weight = self.body[0].weight
    if not hasattr(weight, "gram"):
        weight.gram = gram(self)
    return through(self, x, weight.gram)


def over_itself(o: Tensor, t: Tensor) -> Tensor:
    value = F.cross_entropy(o, t)
    return value / value.detach()


def evened(o: Tensor, t: Tensor) -> Tensor:
    """Two terms of equal size, by a weight that is detached."""
    first, second = F.cross_entropy(o, t), (o**2).mean()
    return first + second * (first.detach() / second.detach())


def chosen(self: Any, x: Tensor) -> Tensor:
    return self.body(x) * (1.0 if self.scale is UNSET else 3.0)


def sparse_weight() -> nn.Module:
    return Own(lambda self, x: self.body(x), extra=nn.Parameter(torch.eye(3).to_sparse()))


def branching(self: Any, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda z: z + 1, lambda z: z - 1, (self.body(x),))


def shares(self: Any, x: Tensor) -> Tensor:
    """Scores; how often each class was the largest is noted."""
    scores = self.body(x)
    self.load.copy_(scores.detach().argmax(1).bincount(minlength=3) / len(x))
    return scores


def with_load(*, captured: bool, buffer: bool = True) -> tuple[nn.Module, Callable[[Any, Tensor], Tensor]]:
    """A model that notes its load, and a loss that weighs by it: as it was taken out, or as the model has it."""
    model = Own(shares)
    if buffer:
        model.register_buffer("load", torch.zeros(3))
    else:
        model.load = torch.zeros(3)
    load = model.load

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        weights = load if captured else model.load
        return F.cross_entropy(outputs, targets) + 3 * (weights * outputs.softmax(1).mean(0)).sum()

    return model, loss


ROUTED = [with_load(captured=True, buffer=buffer) for buffer in (True, False)]


def weighed() -> tuple[nn.Module, Callable[[Any, Tensor], Tensor]]:
    """A model with constant class weights in a buffer, which the loss has taken out."""
    model = net()
    model.register_buffer("scale", torch.ones(3) * 2)
    scale = model.get_buffer("scale")
    return model, lambda outputs, targets: F.cross_entropy(outputs * scale, targets)


WEIGHED = weighed()


def replacing(self: Any, x: Tensor) -> Tensor:
    weight = self.body[0].weight
    self.body[0].weight = nn.Parameter(weight / weight.norm(dim=1, keepdim=True))
    return self.body(x)


def sorting(self: Any, x: Tensor) -> Tensor:
    self.cut.data = self.cut.data.sort().values
    return self.body(x) * self.cut[0]


PAIRS = TensorDataset(X, Y)


def counted_collate() -> DataLoader[Any]:
    """A loader whose collate_fn doubles inputs at every 47th call."""
    calls = [0]

    def collate(examples: Any) -> Any:
        calls[0] += 1
        x, y = torch.utils.data.default_collate(examples)
        return x * (2 if calls[0] % 47 == 0 else 1), y

    return DataLoader(PAIRS, batch_size=15, collate_fn=collate)


def stepping(*, step: bool) -> Callable[[Any, Any], Tensor]:
    """The training closure of a user, with his optimiser in it."""

    def forward(model: nn.Module, batch: Any) -> Tensor:
        STEPPED[1].zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        if step:
            loss.backward()
            STEPPED[1].step()
        return loss

    return forward


def with_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    return model, optimizer


STEPPED = with_optimizer()


class Node:
    """A tree's node, which knows its parent."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.child = x, SimpleNamespace()
        self.child.parent = self


def waves(self: Any, x: Tensor) -> Tensor:
    return self.body(torch.fft.ifft(torch.fft.fft(x) * self.phase).real)


def phased() -> nn.Module:
    model = Own(waves)
    model.register_buffer("phase", torch.polar(torch.ones(6), torch.arange(6.0)))
    return model


def batches(**given: Any) -> DataLoader[Any]:
    return DataLoader(PAIRS, batch_sampler=torch.utils.data.BatchSampler(**given))


CASES += [
    *named_refusal(
        "taken out of the model beforehand",
        *(
            Case(f"a {name} that the model writes and the loss took", lambda m=m: m, loss=loss, chunk_size=N)
            for (m, loss), name in zip(ROUTED, ("buffer", "tensor"), strict=True)
        ),
    ),
    Case(
        "a constant buffer that the loss took",
        lambda: WEIGHED[0],
        loss=WEIGHED[1],
        plain=lambda m, b: F.cross_entropy(2 * m(X.double()[b]), Y[b]),
    ),
    Case("weights made anew", lambda: Own(replacing), refusal="makes the parameter body.0.weight, or puts another"),
    Case(
        "thresholds that are sorted",
        lambda: Own(sorting, cut=nn.Parameter(torch.tensor([1.0, 0.5, 0.7]))),
        refusal="changes its trained weights",
    ),
    Case("a collate_fn that counts", data=lambda: (counted_collate(),), refusal="remembers"),
    Case(
        "a training closure",
        lambda: STEPPED[0],
        forward=stepping(step=True),
        refusal="makes a step of the optimiser Adam",
    ),
    Case("a closure that empties gradients", lambda: STEPPED[0], forward=stepping(step=False)),
    Case(
        "a tree",
        data=lambda: loader(lambda i: (Node(X[i]), Y[i]), collate_fn=lambda b: (b[0][0], b[0][1])),
        refusal="refers to itself",
    ),
    Case(
        "complex buffers in float64",
        phased,
        dtype=torch.float64,
        plain=lambda m, b: F.cross_entropy(waves(m, X.double()[b]), Y[b]),
    ),
    Case(
        "batches drawn at random",
        data=lambda: (batches(sampler=torch.utils.data.RandomSampler(PAIRS), batch_size=8, drop_last=False),),
        refusal="draws its examples by RandomSampler",
    ),
    Case(
        "batches without the last",
        data=lambda: (batches(sampler=range(N), batch_size=8, drop_last=True),),
        refusal="drops the last 4 of 60",
    ),
    Case("no targets", data=lambda: (X,), forward=lambda m, b: m(b).square().mean(), refusal="TensorDataset"),
    Case(
        "inputs that are made float",
        lambda: Own(lambda s, x: s.body(x.float() / 255)),
        data=lambda: ((X * 9).long().abs(), Y),
        dtype=torch.float64,
        refusal="let the model convert inputs by",
    ),
]


CASES += [
    Case("a sentinel", model=lambda: Own(chosen, scale=UNSET), plain=of_body),
    Case(
        "notes of a hook",
        model=hooked_notes,
        forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]) + 0.1 * (m.notes["hidden"] ** 2).mean(),
        plain=lambda m, b: entropy(m.body, b) + 0.1 * (m.body[0](X.double()[b]) ** 2).mean(),
    ),
    Case("a registry of classes", model=lambda: Own(lambda self, x: self.body[2](REGISTRY["tanh"](self.body[0](x))))),
    Case(
        "a file that is closed in the end", model=lambda: Own(lambda s, x: s.body(x) * s.kept.scale(), kept=Closing())
    ),
    Case("a module whose hash is of its state", model=lambda: Own(lambda self, x: self.body(x), metric=ByState())),
    *named_refusal(
        MEAN, Case("a loss over its own value", loss=over_itself), Case("terms that are balanced", loss=evened)
    ),
    *named_refusal(
        "keeps something that it computed",
        Case("a cache of weights in a UserDict", model=lambda: Own(cached_in, kept=UserDict())),
        Case("a cache of weights beside a weight", model=lambda: Own(cached_beside_a_weight)),
        Case(
            "a cache of weights in plain tensors",
            model=lambda: Own(cached_in_numbers, made_of=gram, store=torch.zeros(12, 12), filled=torch.tensor(False)),
        ),
    ),
    Case("addresses", made=lambda model: {"loss": by_pointer(model)}, refusal="tells parameters apart"),
    *named_refusal(
        "taken out of the model beforehand",
        Case("a norm of padded memory", model=lambda: PADDED, loss=lambda o, t: F.cross_entropy(o * FLAT.norm(), t)),
        Case("a weight's numbers in numpy", model=in_numpy),
    ),
    Case(
        "a list as long as the data",
        model=lambda: Own(lambda self, x: self.body(x["a"])),
        data=lambda: ({"a": X, "scale": [1.0] * N}, Y),
        chunk_size=N,
        refusal="a list of 60 things that are no tensors",
    ),
    Case("a sparse parameter", model=sparse_weight, refusal="extra is sparse_coo"),
    Case("data by rows, compressed", data=lambda: ({"x": X.to_sparse_csr()}, Y), refusal="to_sparse_coo"),
    Case(
        "examples of unequal lengths",
        model=lambda: Own(lambda self, x: self.body(x.mean(1, keepdim=True).expand(-1, 6))),
        data=lambda: loader(lambda i: (X[i, : 1 + i % 5], Y[i]), batch_size=1),
        refusal="cannot be put together in a batch",
    ),
    Case("torch.cond", model=lambda: Own(branching), refusal="cannot be looked into"),
    Case("a rate that is a fraction", learning_rate=Fraction(1, 10)),
    Case("a lazy layer whose weights were loaded", model=lazy_loaded, refusal="becomes another module"),
    Case(
        "a loader with an iterator of its own", data=lambda: (doubling(),), refusal="has a way of iterating of its own"
    ),
    Case("a trained buffer", model=trained_buffer, refusal="the buffer scale requires a gradient"),
    Case(
        "two inputs",
        model=lambda: Own(lambda s, a, b: s.body(a + b)),
        data=lambda: ((X, X), Y),
        refusal="cannot be given a tuple as its one input",
    ),
    Case(
        "a dict of inputs", data=lambda: ({"ids": X, "mask": X}, Y), refusal="cannot be given a dict as its one input"
    ),
    Case(
        "two outputs",
        model=lambda: Own(lambda s, x: (s.body(x), x)),
        loss=F.mse_loss,
        data=lambda: (X, torch.randn(N, 3)),
        refusal="the tuple that the model returns",
    ),
    Case(
        "a scripted loss network",
        model=lambda: (scripted(), net())[1],
        forward=lambda m, b: F.cross_entropy(scripted()[0](m(b[0])), b[1]),
        plain=lambda model, batch: F.cross_entropy(scripted()[1](model(X.double()[batch])), Y[batch]),
    ),
    Case("a data set that seeds by index", data=lambda: loader(seeded_by_index), refusal="made anew for each example"),
    Case(
        "a sampler that draws from a part",
        data=lambda: loader(sampler=torch.utils.data.SubsetRandomSampler(range(N))),
        refusal="Subset",
    ),
    Case(
        "a last batch of one",
        model=lambda: net(nn.BatchNorm1d(12)),
        data=lambda: loader(batch_size=59),
        refusal="whose last batch has more than one",
    ),
    Case(
        "a number",
        forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]).item(),
        refusal="is detached from the trained parameters",
    ),
    Case(
        "outputs squeezed too far",
        model=lambda: Own(lambda s, x: s.body(x) + 0 * x[1, 0]),
        chunk_size=2,
        refusal="the loss of 1 examples cannot be computed",
    ),
    Case("batches that are named pairs", data=lambda: loader(lambda i: Pair(X[i], Y[i]))),
    Case(
        "binary targets that are whole numbers",
        data=lambda: (X, torch.randint(2, (N, 3))),
        loss=nn.BCEWithLogitsLoss(),
        refusal="convert the examples",
    ),
    *(
        Case(f"a rate of {rate}", learning_rate=rate, refusal="learning_rate must be above 0 and finite")
        for rate in (-0.1, float("nan"), float("inf"))
    ),
]


def test_low_precision_adds_up_in_a_higher_one() -> None:
    """Shares of a long data set are below half a unit of bfloat16's sums, and gradients of them below fp16's least."""
    x, y = torch.randn(6_000, 6), torch.randint(3, (6_000,))

    def small(outputs: Tensor, targets: Tensor) -> Tensor:
        return 1e-3 * F.cross_entropy(outputs, targets)

    for dtype, close in ((torch.bfloat16, 0.02), (torch.float16, 0.003)):
        low = net().to(dtype)
        high = copy.deepcopy(low).float()
        found, expected = (
            Objective(model, x.to(dtype).to(kind), y, loss=small, chunk_size=10).loss_and_gradient()
            for model, kind in ((low, dtype), (high, torch.float32))
        )
        assert found[0] == pytest.approx(expected[0], rel=close)
        assert found[1].dtype == torch.float32
        assert float((found[1] - expected[1]).norm()) < 3 * close * float(expected[1].norm())


class OwnSlope(torch.autograd.Function):
    """A loss that gives its gradient whatever is asked for, as home-made ones do."""

    forward = staticmethod(lambda ctx, outputs, y: ctx.save_for_backward(outputs, y) or F.cross_entropy(outputs, y))

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        """The gradient, and not its product with what is asked for."""
        outputs, targets = ctx.saved_tensors
        return (outputs.softmax(1) - F.one_hot(targets, outputs.shape[1])) / len(targets), None


class Auxiliary(torch.autograd.Function):
    """Outputs as they are, with a loss of its own added on the way back, as in mixtures of experts."""

    forward = staticmethod(lambda _, *given: given[0].view_as(given[0]))

    @staticmethod
    def backward(_: Any, *asked: Tensor) -> Any:
        """What is asked for, and a slope of one for the loss."""
        return *asked, torch.ones((), dtype=asked[0].dtype)


def with_auxiliary(model: Any, x: Tensor) -> Tensor:
    return Auxiliary.apply(found := model.body(x), found.square().mean())


def entropy_and_squares(model: Any, batch: Tensor) -> Tensor:
    return F.cross_entropy(found := model.body(X.double()[batch]), Y[batch]) + found.square().mean()


def own_sum(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """A sum with a gradient of its own, and its weight."""
    return OwnSum.apply(outputs, targets), len(targets)


class OwnSum(OwnSlope):
    """The same as a sum over the batch."""

    forward = staticmethod(lambda ctx, outputs, y: len(y) * OwnSlope.forward(ctx, outputs, y))

    @staticmethod
    def backward(ctx: Any, asked: Tensor) -> Any:
        """The gradient of the sum, whatever is asked for."""
        slope, _ = OwnSlope.backward(ctx, asked)
        return len(slope) * slope, None


def half_before(model: Any, x: Tensor) -> Tensor:
    """A frozen part in half precision, and an exact mask through it: nothing that is trained is rounded."""
    return model.body(x * (x < 9).half().to(x.dtype))


CASES += [
    Case("a sum with a gradient of its own, in chunks", chunk_size=13, loss=own_sum),
    Case(
        "a mask in half precision, in another order",
        model=lambda: Own(half_before),
        noise_floor="reordered",
        plain=of_body,
    ),
    *(
        Case(f"{name}, in chunks of {size}", model=model, chunk_size=size, **given, plain=full)
        for size in (N, 13)
        for name, model, given, full in (
            ("a gradient of its own", net, {"loss": OwnSlope.apply}, entropy),
            ("a loss that is added on the way back", lambda: Own(with_auxiliary), {}, entropy_and_squares),
        )
    ),
    Case(
        "NaN in the middle",
        data=lambda: (torch.cat([X[:31], X[31:32] * torch.nan, X[32:]]), Y),
        refusal="hold values that are not finite",
    ),
    *named_refusal(
        "the loss of a batch of 12 cannot be computed",
        Case("inputs that are too wide", data=lambda: (torch.cat([X, X], 1), Y)),
        Case("labels that are out of range", data=lambda: (X, Y + 1)),
    ),
    Case(
        "two examples in another order",
        data=lambda: (X[:2], Y[:2]),
        noise_floor="reordered",
        batch_size=2,
        refusal="the same sum in any order",
    ),
    Case(
        "another order in bfloat16",
        noise_floor="reordered",
        inside=lambda: torch.autocast("cpu", torch.bfloat16),
        refusal="below float32",
    ),
]


class Standardised(nn.Module):
    """A branch that begins with zeros standardises over the batch by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.branch = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.branch.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(h + self.branch((h - h.mean(0)) / (h.std(0) + 1e-3)))


class Slotted(nn.Module):
    """What it keeps is in a slot."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        super().__init__()
        self.body = net()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class SlottedBatch:
    """A batch whose attributes are in slots, of which the model changes one in place."""

    __slots__ = ("x", "y")

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


def with_gradients() -> nn.Module:
    model = net()
    entropy(model.double(), torch.arange(9)).backward()
    return model.float()


def slopes_of_before(model: nn.Module, batch: Any) -> Tensor:
    read = (p for p in model.parameters() if p.grad is not None)
    return F.cross_entropy(model(batch[0]), batch[1]) + sum((p * p.grad).sum() for p in read)


CASES += [
    Case(
        "one example, and an accuracy beside its loss",
        data=lambda: (DataLoader([0]),),
        forward=lambda m, _: (F.cross_entropy(m(X), Y), (m(X).argmax(1) == Y).float().mean()),
        batch_size=1,
        refusal="return its loss alone",
    ),
    Case("coupled by zeros", lambda: Standardised(400), chunk_size=13, refusal="no mean over the examples"),
    Case("coupled by zeros, whole", lambda: Standardised(400), chunk_size=N, learning_rate=RATE),
    Case("gradients that the loss reads", with_gradients, forward=slopes_of_before, refusal=r"gradients \(.grad\)"),
    Case("gradients that it does not read", with_gradients),
    Case("a slot of a module", Slotted, refusal="keeps kept in __slots__"),
    Case(
        "a batch in slots",
        data=lambda: collated(SlottedBatch),
        forward=lambda m, b: F.cross_entropy(m(b.x.mul_(1)), b.y),
        dtype=torch.float64,
    ),
    Case(
        "a sampler of a part that drops the last",
        data=lambda: loader(batch_size=5, sampler=range(30), drop_last=True),
        refusal="range gives 30 of 60 examples; give",
    ),
    Case(
        "a part of no dimensions",
        data=lambda: ({"x": X, "t": torch.tensor(2.0)}, Y),
        refusal="a tensor of no dimensions cannot be cut",
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_right_or_refused(case: Case) -> None:
    MEMORY.get_buffer("calls").zero_()  # a planted fault, in the same process, may have left something
    NORM_OF_LOSS.reset_running_stats()
    model, data = case.model(), case.data()
    given = {"chunk_size": 13, **case.given, **case.made(model)}
    lazy = nn.parameter.UninitializedParameter
    state = {
        k: v.clone()
        for k, v in model.state_dict().items()
        if isinstance(v, Tensor) and not isinstance(v, lazy) and not v.is_meta
    }
    drawn, inputs = torch.get_rng_state(), copy.deepcopy(data[0]) if isinstance(data[0], Tensor) else None

    def found() -> float:
        return measure_smoothness(model, *data, **{**settings(), **given}).smoothness

    if case.refusal:
        with case.inside(), pytest.raises(ValueError, match=case.refusal) as refused:
            found()
        assert "\n" not in str(refused.value)
    else:
        try:
            twin = copy.deepcopy(model)
        except (TypeError, RuntimeError, AttributeError):  # a lock, or a weight with a history
            twin = case.model()
        expected = right(twin, case.plain)
        with case.inside():
            value = found()
        # float32 against float64; in float64 there is rounding of the step alone.
        assert value == pytest.approx(expected, rel=1e-9 if given.get("dtype") == torch.float64 else 1e-5)
    assert NORM_OF_LOSS.num_batches_tracked == MEMORY.calls == 0
    for name, kept in state.items():
        assert torch.equal(model.state_dict()[name].to_dense(), kept.to_dense())
    assert torch.equal(torch.get_rng_state(), drawn)
    if inputs is not None:
        now, then = (each.values() if each.is_nested else each.to_dense() for each in (data[0], inputs))
        assert torch.equal(now.nan_to_num(), then.nan_to_num())


def test_nothing_that_is_noted_beside_the_model_stays() -> None:
    """Gradients, tensors kept on a parameter, a list beside a lock in a tuple, a BatchNorm that a hook holds."""

    def noting(self: Any, x: Tensor) -> Tensor:
        vars(self.body[0].weight)["average"].add_(1)
        self.log[1].append(len(x))
        self.body(x.detach()).sum().backward()
        return self.body(x)

    model, norm = Own(noting, log=(threading.Lock(), [])), nn.BatchNorm1d(12, affine=False)
    average = vars(model.body[0].weight)["average"] = torch.zeros(12, 6)
    model.body[0].register_forward_hook(lambda *given: norm(given[-1]))
    kept = list(model.parameters())
    measure_smoothness(model, X, Y, loss=lambda o, t: F.cross_entropy(o, t) + 0 * len(kept), **settings())
    assert all(p.grad is None for p in kept)
    assert vars(model.body[0].weight)["average"] is average
    assert not average.any()
    assert (model.log[1], int(norm.num_batches_tracked)) == ([], 0)


class Halving(torch.optim.SGD):
    """An optimiser with an attribute of its own."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.half = 0.05


def hooking(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


def patched(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    vars(optimizer)["step"] = functools.partial(optimizer.step)
    return optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [(hooking, "has hooks"), (patched, "was replaced"), (torch.optim.LBFGS, "a closure"), (Halving, "of its own")],
)
def test_an_optimiser_whose_copy_would_step_elsewhere_is_refused(make: Any, message: str) -> None:
    model = net()
    F.cross_entropy(model(X), Y).backward()
    with pytest.raises(ObjectiveError, match=message):
        optimizer_update(model, make(model.parameters()))
    with pytest.raises(ObjectiveError, match=r"is no torch\.optim\.Optimizer"):
        optimizer_update(model, Wrapper(torch.optim.SGD(model.parameters())))
    scheduled = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(scheduled, 1)
    assert optimizer_update(model, scheduled)["0.bias"] == pytest.approx(-0.1 * model[0].bias.grad, abs=1e-7)


def test_an_optimiser_in_the_loss_is_left_as_it_was() -> None:
    model, optimizer = STEPPED
    gradients, state = [p.grad for p in model.parameters()], copy.deepcopy(optimizer.state_dict())
    values = [each.clone() for each in gradients if each is not None]
    with contextlib.suppress(ObjectiveError):
        measure_smoothness(model, X, Y, forward=stepping(step=True), **settings())
    measure_smoothness(model, X, Y, forward=stepping(step=False), **settings())
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(values, [g for g in gradients if g is not None], strict=True))
    assert not optimizer._optimizer_step_pre_hooks
    for key, kept in state["state"].items():
        assert all(torch.equal(optimizer.state_dict()["state"][key][name], each) for name, each in kept.items())


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_may_have_kept_its_last_inputs(whole: bool) -> None:
    """As a view of the data, as it was trained on."""

    def keep(self: Any, x: Tensor) -> Tensor:
        self.last = x
        return self.body(x)

    model = Own(keep)
    model(X[15:30])
    given: Any = (X, Y) if whole else (DataLoader(PAIRS, batch_size=15),)
    assert measure_smoothness(model, *given, **settings()).smoothness > 0


def test_a_loss_at_its_minimum_is_a_mean_still() -> None:
    """In float64, where rounding leaves 1e-35 of it, as of students that have become their teachers."""
    model, x = net().double(), X.double()
    y = model(x).detach()
    update = 0.1 * torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    whole, cut = (
        measure_smoothness(model, x, y, loss=F.mse_loss, update=update, chunk_size=size).smoothness for size in (N, 13)
    )
    assert cut == pytest.approx(whole, rel=1e-9)
    with pytest.raises(ObjectiveError, match="it is no mean"):
        measure_smoothness(model, x, y, loss=nn.MSELoss(reduction="sum"), update=update, chunk_size=13)


def test_weights_that_only_change_places_are_other_weights() -> None:
    model = net()
    objective = Objective(model, X, Y)
    model[0].weight.data = model[0].weight.data.flip(0)
    with pytest.raises(ObjectiveError, match="build one anew"):
        objective.loss_and_gradient()


def test_what_a_model_holds_serves_on() -> None:
    """A registry gives classes still, and a file is open."""
    model = Own(lambda s, x: s.body[2](REGISTRY["tanh"](s.body[0](x))) * s.kept.scale(), kept=Closing())
    for _ in range(2):
        measure_smoothness(model, X, Y, **settings())
        gc.collect()
        model(X)
    assert dict.__getitem__(REGISTRY, "tanh") is nn.Tanh


def test_a_teacher_that_is_a_default_is_left_as_it_was() -> None:
    teacher = nn.BatchNorm1d(6, affine=False)

    def forward(model: nn.Module, batch: Any, *, teacher: nn.Module = teacher) -> Tensor:
        return F.cross_entropy(model(teacher(batch[0])), batch[1])

    measure_smoothness(net(), X, Y, forward=forward, **settings())
    assert int(teacher.num_batches_tracked) == 0


def test_rates_that_stand_beside_parameters_are_those_of_the_step() -> None:
    class Scaled(torch.optim.SGD):
        """A rate for each parameter."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            del closure
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=-0.1 * getattr(p, "scale", 1.0))

    model = net()
    vars(model[0].weight)["scale"] = 10.0
    F.cross_entropy(model(X), Y).backward()
    optimizer, before = Scaled(model.parameters(), lr=0.1), [p.detach().clone() for p in model.parameters()]
    update = optimizer_update(model, optimizer)
    optimizer.step()
    for part, p, then in zip(update.values(), model.parameters(), before, strict=True):
        assert torch.equal(part, p - then)


class Noisy(torch.optim.SGD):
    """Gradient descent with noise, as Langevin's."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(torch.randn_like(parameter))


KNOWN: list[Tensor] = []


class Elsewhere(torch.optim.SGD):
    """An optimiser that has its parameters from a global list."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        del closure
        for parameter in KNOWN:
            parameter.sub_(1)


def test_the_step_that_is_not_made_draws_the_same_numbers_and_leaves_everything() -> None:
    model = net()
    F.cross_entropy(model(X), Y).backward()
    state, before = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    optimizer = Noisy(model.parameters(), lr=0.1)
    update = optimizer_update(model, optimizer)
    assert torch.equal(torch.get_rng_state(), state)
    KNOWN[:] = list(model.parameters())
    with pytest.raises(ObjectiveError, match="moves the model's own parameters"):
        optimizer_update(model, Elsewhere(model.parameters(), lr=0.1))
    assert all(torch.equal(p, then) for p, then in zip(model.parameters(), before, strict=True))
    optimizer.step()
    for part, p, then in zip(update.values(), model.parameters(), before, strict=True):
        assert torch.equal(part, p - then)


def test_an_optimiser_that_would_move_what_is_frozen_is_refused() -> None:
    model = net()
    F.cross_entropy(model(X), Y).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[0].requires_grad_(False)
    with pytest.raises(ObjectiveError, match=r"would move 0\.weight, which requires no gradient"):
        optimizer_update(model, optimizer)
    optimizer.zero_grad()
    F.cross_entropy(model(X), Y).backward()
    assert list(optimizer_update(model, optimizer)) == ["2.weight", "2.bias"]


def test_another_default_device_changes_nothing() -> None:
    given = settings()
    expected = measure_smoothness(net(), X, Y, **settings())
    model = net()
    torch.set_default_device("meta")
    try:
        assert measure_smoothness(model, X, Y, **given) == expected
    finally:
        torch.set_default_device(None)


class Epochs(Sampler[int]):
    """A sampler that counts its passes."""

    def __init__(self) -> None:
        self.epoch, self.passes = 0, [0]

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        self.passes.append(self.epoch)
        return iter(range(N))


def test_what_is_kept_beside_a_lock_and_by_a_sampler_is_left_as_it_was() -> None:
    def counted(self: Any, x: Tensor) -> Tensor:
        self.settings.scale += 1
        self.log["calls"].append(len(x))
        return self.body(x)

    sampler = Epochs()
    kept, log = Settings(3.0, threading.Lock()), {"calls": [], "lock": threading.Lock()}
    measure_smoothness(Own(counted, settings=kept, log=log), *loader(sampler=sampler), **settings())
    assert (kept.scale, log["calls"], sampler.epoch, sampler.passes) == (3.0, [], 0, [0])


class Squared(torch.autograd.Function):
    """x**2, with a backward that cannot be differentiated."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> Any:
        return 2 * context.saved_tensors[0] * gradients[0]


class Fused(torch.autograd.Function):
    """x**2 whose gradient is made beforehand, as fused losses do."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.slope = 2 * x
        return x**2

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return context.slope * gradients[0]


def energetic(self: Any, x: Tensor) -> Tensor:
    return self.body(x) + (3 * torch.randn(3) if torch.equal(x[0], X[24]) else 0)


def fused_late(self: Any, x: Tensor) -> Tensor:
    scores = self.body(x)
    return Fused.apply(scores) if torch.equal(x[0], X[24].to(x)) else scores**2


def normed(self: Any, x: Tensor) -> Tensor:
    return self.body(self.normed(x))


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda self, x: Squared.apply(self.body(x)), "once_differentiable"),
        (lambda self, x: Fused.apply(self.body(x)), "own derivative is wrong"),
        (fused_late, "own derivative is wrong"),
        (normed, "torch's weight_norm"),
        (energetic, RANDOM),
        (lambda self, x: Fused.apply(self.body(x)).float(), r"rounds to torch\.float32"),
    ],
    ids=["once differentiable", "fused", "fused in one chunk", "weight_norm", "random in one chunk", "fused, rounded"],
)
def test_what_has_no_hessian_is_refused(function: Any, message: str, dtype: torch.dtype | None) -> None:
    model = Own(function, normed=nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))
    with pytest.raises(ObjectiveError, match=message):
        sharpness(Objective(model, X, Y, chunk_size=6, dtype=dtype))


def test_outputs_in_float32_have_the_same_hessian() -> None:
    """As large language models have them: a difference of gradients in float64 cannot tell there."""
    rounded = sharpness(Objective(net(), X, Y, loss=ROUNDED["loss"]), tolerance=1e-6)
    assert rounded.value == pytest.approx(sharpness(Objective(net(), X, Y), tolerance=1e-6).value, rel=1e-5)


def test_attention_has_the_hessian_of_its_plain_form() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
    model = Own(lambda self, x: self.body(self.layer(x[:, None].expand(-1, 3, -1))[:, 0]), layer=layer)
    objective = Objective(model, X, Y, dtype=torch.float64)
    v = torch.randn(len(objective.w), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v /= v.norm()
    step = 1e-6  # a central difference of float64 gradients is exact to about step**2 and 1e-16 / step
    ends = [objective.gradient(objective.w + sign * step * v) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(objective.hessian_product(objective.w, v), difference, rtol=1e-5, atol=1e-7)


def test_the_step_is_the_one_that_mixed_precision_took() -> None:
    """By hand, in the model's own precisions: float32 parameters move by all of u, bfloat16 ones by what is left."""
    torch.manual_seed(3)
    model = Mixed()
    reading = measure_smoothness(model, X, Y, chunk_size=N, **settings())
    parameters = list(model.parameters())
    batch = torch.randint(N, (1, BATCH), generator=torch.Generator().manual_seed(0))[0]
    drawn = torch.autograd.grad(F.cross_entropy(model(X[batch]), Y[batch]), parameters)
    before = torch.autograd.grad(F.cross_entropy(model(X), Y), parameters)
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, drawn, strict=True):
            parameter.copy_(parameter.float() - RATE * part.float())
    after = torch.autograd.grad(F.cross_entropy(model(X), Y), parameters)
    change, step = (
        torch.cat([(a.float() - b.float()).flatten() for a, b in zip(ends, starts, strict=True)])
        for ends, starts in ((after, before), ([p.detach() for p in parameters], start))
    )
    assert reading.smoothness == pytest.approx(float(change.norm() / step.norm()), rel=1e-5)
    assert reading.update_norm == pytest.approx(float(step.norm()), rel=1e-5)


def test_an_assert_that_pytest_looks_into_leads_to_nothing_of_pytests() -> None:
    """In tests of others, too, a loss may check its inputs: pytest's settings and all tests would be reached by it."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        assert len(outputs) == len(targets)
        return F.cross_entropy(outputs, targets)

    assert "@pytest_ar" in loss.__code__.co_names
    assert len(list(reachable([loss]))) < 100


def test_a_model_may_have_thousands_of_modules() -> None:
    many = [nn.Linear(1, 1, device="meta") for _ in range(10_000)]
    assert len(list(reachable(many))) > len(many), "or it is refused"


def test_the_compiler_leaves_the_checks_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Every operation of theirs would be compiled, up to its limit, and said to be."""
    torch._dynamo.reset()
    model = torch.compile(net(), backend="eager")
    F.cross_entropy(model(X), Y).backward()
    measure_smoothness(model, *loader(), **settings())
    assert "recompile" not in capfd.readouterr().err


def test_a_collate_fn_takes_nothing_out_of_the_data() -> None:
    data = [{"x": x, "label": y} for x, y in zip(X, Y, strict=True)]

    def pop(found: list[dict[str, Tensor]]) -> Any:
        labels = torch.stack([each.pop("label") for each in found])
        return torch.stack([each["x"] for each in found]), labels

    measure_smoothness(net(), DataLoader(data, batch_size=16, collate_fn=pop, num_workers=2), **settings())
    assert all(each.keys() == {"x", "label"} for each in data)


def test_a_data_set_may_give_whole_batches_to_its_collate_fn() -> None:
    class Whole(Items):
        def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
            return {"x": X[indices], "y": Y[indices]}

    batches = DataLoader(Whole(lambda i: X[i]), batch_size=16, collate_fn=lambda found: found)
    feed = {"forward": lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"])}
    found = measure_smoothness(net(), batches, **feed, **settings()).smoothness
    assert found == pytest.approx(right(net(), entropy), rel=1e-4)


def named_case(name: str) -> Case:
    """A case of the table, for faults that are planted."""
    return next(case for case in CASES if case.name == name)


def test_a_batch_that_stands_out_and_is_no_mean_in_float64_alone_is_refused() -> None:
    """float32 does not tell it from rounding; an objective in float64 looks at no sample before its first pass."""
    x, place, model = torch.randn(600, 6, generator=torch.Generator().manual_seed(0)), 333, net()
    with torch.no_grad():
        model[2].weight.mul_(8)
        y = model(x).argmax(1)
        y[place] = model(x)[place].argmin()
        each = F.cross_entropy(model(x), y, reduction="none")
    assert each[place] == each.max()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        own = F.cross_entropy(outputs, targets, reduction="none")
        return own.mean() + (own.max() > 0.999 * each[place]) * 1e-6 * len(targets)

    double = Objective(model, x, y, loss=loss, chunk_size=10).in_double()
    double.move_to()
    with pytest.raises(ObjectiveError, match="no mean over the examples"):
        double.loss_and_gradient_here()


IN_ORDER = torch.arange(1600)


@pytest.mark.parametrize("rare", [IN_ORDER % 100 // 20 == 3, IN_ORDER // 40 == 13], ids=["in every series", "in a row"])
def test_no_order_of_the_data_hides_what_is_no_mean(rare: Tensor) -> None:
    x, y = torch.randn(len(rare), 6), torch.where(rare, 2, IN_ORDER % 2)
    with pytest.raises(ObjectiveError, match="no mean over the examples"):
        Objective(net(), x, y, loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 5.0])), chunk_size=16)


def test_a_chunk_without_a_target_among_many_is_refused() -> None:
    """No sample that is drawn holds one of them."""
    x, y = torch.randn(3000, 6), torch.randint(3, (3000,))
    y[60:75] = -100
    with pytest.raises(ObjectiveError, match="of 1 of 200 batches is not finite, but its gradient is"):
        Objective(net(), x, y, chunk_size=15).gradient()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.body.load_state_dict(net().state_dict(), assign=True), "Linear.weight"),
        (lambda m: m.body[0].requires_grad_(False), "Linear.weight"),
        (lambda m: m.body.__setitem__(1, nn.ReLU()), "Sequential.1"),
        (lambda m: m.scale.fill_(0.2), "Own.scale"),
        (lambda m: setattr(m, "temperature", 2.0), "Own.temperature"),
        (lambda m: m.eval(), "Own.training"),
    ],
)
def test_an_objective_of_a_model_that_was_changed_is_refused(change: Callable[[Any], Any], what: str) -> None:
    model = Own(lambda self, x: self.body(x) * self.scale / self.temperature, temperature=1.0)
    model.register_buffer("scale", torch.ones(()))
    objective = Objective(model, X, Y, norm_mode="as is")
    objective.gradient()
    model(X)  # changes nothing
    objective.gradient()
    change(model)
    with pytest.raises(ObjectiveError, match=f"{what} is another than when"):
        sharpness(objective)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.load_state_dict({name: each.clone() for name, each in m.state_dict().items()}),
        lambda m: m(X),
        lambda m: m.frozen.copy_(m.frozen.clone()),
    ],
)
def test_an_objective_of_a_model_that_only_seems_changed_serves_on(change: Callable[[Any], Any]) -> None:
    """Equal numbers were written, or what every evaluation counts has counted."""
    model = Own(
        lambda self, x: counted(self, x) * self.frozen, calls=0, inner=nn.InstanceNorm1d(2, track_running_stats=True)
    )
    model.register_buffer("frozen", torch.ones(()))
    model.register_buffer("seen", torch.zeros(()))
    objective = Objective(model, X, Y)
    before = objective.gradient()
    with torch.no_grad():
        change(model)
    assert torch.equal(objective.gradient(), before)


def counted(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    self.seen += 1
    return self.body(x)


class OwnSquare(torch.autograd.Function):
    """A square whose gradient cannot be differentiated rightly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The squares' sum."""
        ctx.save_for_backward(x)
        return x.square().sum()

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Tensor:
        """Their gradient, of a constant."""
        return given * 2 * ctx.saved_tensors[0].detach()


def test_a_wrong_hessian_is_refused_where_the_gradient_is_0() -> None:
    model = Own(
        lambda m, x: (OwnSquare.apply(m.a) + m.b.square().sum()) * x.square().mean(1, keepdim=True) + torch.zeros(3)
    )
    del model.body
    model.a, model.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    with pytest.raises(ObjectiveError, match="whose own derivative is wrong"):
        sharpness(Objective(model, X, Y, loss=lambda o, _: o.mean()))


@pytest.mark.parametrize("padding", [None, 0])
def test_a_coupling_by_zeros_is_seen_beside_padding(padding: int | None) -> None:
    words = torch.randint(1, 9, (N, 5))
    model = Own(lambda m, t: coupled_by(m.first * m.second, m.words(t).mean(1), m.last), last=nn.Linear(4, 3))
    del model.body
    model.words = nn.Embedding(9, 4, padding_idx=padding)
    model.first, model.second = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    with pytest.raises(ObjectiveError, match="no mean over the examples"):
        Objective(model, words, Y, chunk_size=16)


def coupled_by(strength: Tensor, h: Tensor, last: nn.Module) -> Tensor:
    return last(h + strength * (h - h.mean(0)))


def test_running_statistics_that_are_measured_may_not_change() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), net())
    model(X)
    objective = Objective(model, X, Y, norm_mode="running")
    objective.gradient()
    model(3 * X + 1)
    with pytest.raises(ObjectiveError, match=r"InstanceNorm1d\.running_mean is another"):
        objective.gradient()


def test_padding_may_be_of_any_length() -> None:
    """Sums over words that stand in batches with more padding or less are means over examples."""
    words = [torch.randint(1, 9, (length,)) for length in torch.randint(1, 9, (N,)).tolist()]
    torch.manual_seed(1)
    model = Own(lambda m, pair: m.last(m.words(pair[0]).sum(1) / pair[1][:, None]), last=nn.Linear(4, 3))
    del model.body
    model.words = nn.Embedding(9, 4, padding_idx=0)

    def collate(batch: Any) -> Any:
        lengths = torch.tensor([float(len(each)) for each, _ in batch])
        return (pad_sequence([each for each, _ in batch], batch_first=True), lengths), torch.stack(
            [y for _, y in batch]
        )

    data: Any = DataLoader([(each, y) for each, y in zip(words, Y, strict=True)], batch_size=16, collate_fn=collate)
    assert Objective(model, data).gradient().norm() > 0


def test_padding_is_no_wrong_hessian() -> None:
    """Torch leaves the derivative by its embedding out, of gradients and Hessians alike: a constant."""
    words = torch.randint(9, (N, 5)) * (torch.rand(N, 5) < 0.7)
    torch.manual_seed(1)
    rest = nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 3))
    padded, constant = nn.Embedding(9, 4, padding_idx=0), nn.Embedding(8, 4)
    constant.weight.data = padded.weight.data[1:].clone()
    other = Own(
        lambda m, t: m.rest(m.constant((t - 1).clamp(min=0)) * (t > 0)[..., None]), rest=rest, constant=constant
    )
    del other.body
    found = [sharpness(Objective(each, words, Y)).value for each in (nn.Sequential(padded, *rest), other)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)
