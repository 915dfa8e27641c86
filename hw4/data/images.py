"""Image data sets as standardised tensors: FashionMNIST, and scikit-learn's digits as the embedded default."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hw4.data.locate import IMAGES, find_root, read_verified
from hw4.errors import DataError
from hw4.specs import DEFAULT_SUBSET, Dataset

PIXEL_RANGE = 255.0
LARGEST_STANDARDISED = 20.0
"""Bound on |standardised pixel|: no divisor is smaller than PIXEL_RANGE / LARGEST_STANDARDISED = 12.75 grey levels."""

SUBSET_SEED = 0  # which images form the subset is part of the data set, the same for every run and seed


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set ready for training.

    ``x_train`` (n, ...) and ``x_test`` (m, ...) are float32: standardised images (1, 28, 28), or questions' vectors
    (1, 96), which ``vectors`` names what made; ``y_train`` (n,) and ``y_test`` (m,) are int64 classes. ``checksum`` is
    the SHA-256 of the grey levels, or vectors, and labels used.
    """

    name: Any  # of a Dataset or a QuestionSet
    title: str
    vectors: str = ""
    checksum: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    def to(self, device: str) -> "Data":
        """The same data on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_test", "y_test")}
        return replace(self, **moved)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to other processes by value: torch would send file descriptors, which a killed process leaves open."""
        return _from_arrays, ({k: v.numpy() if isinstance(v, Tensor) else v for k, v in vars(self).items()},)


def _from_arrays(values: dict[str, Any]) -> Data:
    tensors: dict[str, Any] = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return Data(**tensors)


Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Grey levels of training (n, ...) and test images (m, ...) to standardised ones."""


def load_images(
    name: Dataset,
    *,
    subset: float | None = None,
    root: Path | None = None,
    rule: Rule | None = None,
    seed: int = SUBSET_SEED,
) -> Data:
    """Load a data set, keep the ``subset`` share of its training images, standardise pixelwise with their statistics.

    ``root`` is the data root of FashionMNIST (default: the first found), ``rule`` another rule than
    :func:`standardise`, ``seed`` draws another subset. Raises DataError for unusable files.
    """
    if name not in DEFAULT_SUBSET:
        raise DataError(f"there are no images {name!r}; expected one of {', '.join(map(repr, DEFAULT_SUBSET))}")
    share = DEFAULT_SUBSET[name] if subset is None else subset
    if not 0 < share <= 1:
        raise DataError(f"the subset must be a share above 0 and at most 1 of the training images, got {share}")
    train, train_labels, test, test_labels = _fashion_mnist(root) if name == "fashion-mnist" else _digits()
    kept = round(share * len(train))
    if kept < 1:
        raise DataError(f"a subset of {share} leaves none of the {len(train)} training images; choose a larger share")
    if kept < len(train):
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:kept]
        train, train_labels = train[chosen], train_labels[chosen]
    seen = b"".join(part.numpy().tobytes() for part in (train, train_labels, test, test_labels))
    x_train, x_test = (rule or standardise)(train.float(), test.float())
    title = {"fashion-mnist": "FashionMNIST", "digits": "scikit-learn digits, enlarged to 28x28"}[name]
    return Data(
        name=name,
        title=title,
        checksum=hashlib.sha256(seen).hexdigest(),
        x_train=x_train.unsqueeze(1),
        y_train=train_labels,
        x_test=x_test.unsqueeze(1),
        y_test=test_labels,
    )


def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise grey levels in [0, 255], (n, ...) and (m, ...), pixel by pixel with the training statistics.

    Rule: (pixel - mean) / max(std, 12.75), with mean and std over the training images. Values of either set differ
    from the mean by at most 255, so none exceeds 20 in magnitude, also at pixels that hardly vary in training.
    """
    std, mean = torch.std_mean(train, dim=0, correction=0)
    divisor = std.clamp(min=PIXEL_RANGE / LARGEST_STANDARDISED)
    return (train - mean) / divisor, (test - mean) / divisor


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 1,797 handwritten digits that come with scikit-learn, bilinearly enlarged, a quarter held out by class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) * (PIXEL_RANGE / digits.images.max())
    large = F.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False).squeeze(1)
    images, labels = large.round().to(torch.uint8), torch.from_numpy(digits.target.astype(np.int64))
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=digits.target, random_state=0)
    return images[train], labels[train], images[test], labels[test]


def _fashion_mnist(root: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read FashionMNIST through torchvision: uint8 images (60000, 28, 28) and (10000, 28, 28), int64 labels.

    torchvision wants uncompressed files; they are laid out, once verified, in a temporary folder, so that a folder
    with the published ``.gz`` files is enough and is never written to.
    """
    root = root or find_root(IMAGES)
    if root is None:
        raise DataError("FashionMNIST was not found; run 'hw4 fetch' or set HW4_DATA to the folder it lies in")
    fashion_mnist = _torchvision_class()
    with tempfile.TemporaryDirectory(prefix="hw4-") as unpacked:
        folder = Path(unpacked) / IMAGES.folder
        folder.mkdir(parents=True)
        for name in IMAGES.sha256:
            (folder / name).write_bytes(read_verified(IMAGES, root / IMAGES.folder, name))
        train, test = fashion_mnist(unpacked, train=True), fashion_mnist(unpacked, train=False)
    return train.data, train.targets, test.data, test.targets


def _torchvision_class() -> type:
    """Import ``torchvision.datasets.FashionMNIST``, also where a CUDA build of torchvision meets a CPU build of torch.

    There the import fails because torchvision's compiled operators are absent, yet describes two of them; nothing
    here calls them, so declaring their schemas is enough. The declaration lives as long as the process.
    """
    try:
        from torchvision.datasets import FashionMNIST
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        global _torchvision_operators  # noqa: PLW0603  the library object must outlive this call
        _torchvision_operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _torchvision_operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.datasets import FashionMNIST
    return FashionMNIST  # type: ignore[no-any-return]


_torchvision_operators: torch.library.Library | None = None
