"""Images: standardisation that cannot explode, the embedded digits, FashionMNIST from packed files."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hw4.data.choose import choose_data
from hw4.data.images import LARGEST_STANDARDISED, Data, load_images, standardise
from hw4.data.locate import IMAGES
from hw4.data.vectors import load_questions
from hw4.errors import DataError
from hw4.specs import DEFAULT_SUBSET, WHOLE, DataChoice


def idx(values: np.ndarray) -> bytes:
    """Unsigned bytes in the IDX format: magic number with type and dimensions, sizes, values."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def small_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a packed FashionMNIST of 40 training and 20 test images, taken for the published one."""
    random = np.random.default_rng(0)
    folder = tmp_path / "root" / IMAGES.folder
    folder.mkdir(parents=True)
    for name in list(IMAGES.sha256):
        n = 40 if name.startswith("train") else 20
        high, shape = (256, (n, 28, 28)) if "images" in name else (10, (n,))
        contents = idx(random.integers(0, high, shape, dtype=np.uint8))
        (folder / f"{name}.gz").write_bytes(gzip.compress(contents))
        monkeypatch.setitem(IMAGES.sha256, name, hashlib.sha256(contents).hexdigest())
    return tmp_path / "root"


def test_packed_files_are_read_without_writing_beside_them(
    small_fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in small_fashion_mnist.rglob("*"))

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = snapshot()
    images = load_images("fashion-mnist", subset=1, root=small_fashion_mnist)
    assert snapshot() == before
    assert not list(temporary.glob("hw4-*")), "unpacked files were left behind"
    assert images.x_train.shape == (40, 1, 28, 28)
    assert images.x_test.shape == (20, 1, 28, 28)
    assert images.x_train.dtype == torch.float32
    labels = gzip.decompress((small_fashion_mnist / IMAGES.folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    assert images.y_test.tolist() == list(labels[8:])


def test_the_subset_is_fixed_and_the_test_set_whole(small_fashion_mnist: Path) -> None:
    first, second = (load_images("fashion-mnist", subset=0.25, root=small_fashion_mnist) for _ in range(2))
    other = load_images("fashion-mnist", subset=0.5, root=small_fashion_mnist)
    assert (len(first.x_train), len(other.x_train), len(first.x_test)) == (10, 20, 20)
    assert first.checksum == second.checksum != other.checksum
    assert torch.equal(first.x_train, second.x_train)


@pytest.mark.parametrize("subset", [0.0, -1.0, 1.5, 0.001])
def test_an_impossible_subset_is_refused(small_fashion_mnist: Path, subset: float) -> None:
    with pytest.raises(DataError, match=str(subset)):
        load_images("fashion-mnist", subset=subset, root=small_fashion_mnist)


def test_a_damaged_copy_is_refused_and_never_replaced_in_silence(
    small_fashion_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_fashion_mnist / IMAGES.folder / "train-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("HW4_DATA", str(small_fashion_mnist))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is missing"):
        load_images("fashion-mnist")
    with pytest.raises(DataError, match=r"lacks train-labels-idx1-ubyte\.gz; run 'hw4 fetch'"):
        choose_data("real", images=True, questions=False)
    name, _, (sentence,) = choose_data("auto", images=True, questions=False)
    assert name == "digits"
    assert "because" in sentence
    assert "lacks train-labels-idx1-ubyte.gz" in sentence


def test_the_choice_of_data_is_said_aloud(
    small_fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(choice: DataChoice) -> tuple[str, str]:
        name, _, (sentence,) = choose_data(choice, images=True, questions=False)
        return name, sentence

    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    monkeypatch.setenv("HW4_DATA", str(tmp_path))
    assert choose("auto")[0] == choose("embedded")[0] == "digits"
    assert str(tmp_path) in choose("auto")[1]
    with pytest.raises(DataError, match="run 'hw4 fetch' or set HW4_DATA"):
        choose("real")
    monkeypatch.setenv("HW4_DATA", str(small_fashion_mnist))
    assert choose("auto")[0] == choose("real")[0] == "fashion-mnist"
    assert str(small_fashion_mnist) in choose("real")[1]


@given(st.integers(2, 50), st.integers(0, 2**32))
def test_standardised_pixels_are_bounded_whatever_the_images(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Pixels that are constant in training but not in the test set are what the notebook's std + 1e-6 blew up.
    train = torch.from_numpy(random.integers(0, 256, (n, 8)) * random.integers(0, 2, 8)).float()
    test = torch.from_numpy(random.integers(0, 256, (n, 8))).float()
    for values in standardise(train, test):
        assert values.abs().max() <= LARGEST_STANDARDISED
        assert values.isfinite().all()


def test_ordinary_pixels_get_mean_zero_and_deviation_one() -> None:
    train = torch.randint(0, 256, (500, 28, 28), generator=torch.Generator().manual_seed(0)).double()
    x, _ = standardise(train, train[:1])
    torch.testing.assert_close(x.mean(0), torch.zeros(28, 28, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(28, 28, dtype=torch.float64), atol=1e-12, rtol=0)


def test_statistics_come_from_the_training_images_alone() -> None:
    train = torch.rand(30, 4) * 255
    assert torch.equal(standardise(train, train)[0], standardise(train, torch.zeros(5, 4))[0])
    assert torch.equal(standardise(train, train)[1][:3], standardise(train, train[:3])[1])


def test_the_digits(digits: Data) -> None:
    assert digits.x_train.shape == (WHOLE["digits"], 1, 28, 28) == (1347, 1, 28, 28)
    assert digits.x_test.shape == (450, 1, 28, 28)
    assert load_images("digits").checksum == digits.checksum
    shares = torch.bincount(digits.y_test) / 450
    assert shares.min() > 0.09, "held out by class"
    train = {image.tobytes() for image in digits.x_train.numpy()}
    assert not train & {image.tobytes() for image in digits.x_test.numpy()}, "a test image was trained on"


def test_the_real_fashion_mnist(real_images: Data) -> None:
    assert real_images.x_train.shape == (6_000, 1, 28, 28)
    assert WHOLE["fashion-mnist"] * DEFAULT_SUBSET["fashion-mnist"] == 6_000, "specs refuse batches by it"
    assert real_images.x_test.shape == (10_000, 1, 28, 28)
    assert torch.bincount(real_images.y_test).tolist() == [1_000] * 10
    # A random tenth of 60,000 in ten equal classes: 600 each, with standard deviation 22; five of them is 110.
    assert (torch.bincount(real_images.y_train) - 600).abs().max() < 110
    largest = max(real_images.x_train.abs().max(), real_images.x_test.abs().max())
    assert 10 < largest <= LARGEST_STANDARDISED


def test_a_set_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="no images 'embedded'; expected one of 'fashion-mnist', 'digits'"):
        load_images("embedded", subset=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no questions 'digits'; expected one of 'trec', 'grammar'"):
        load_questions("digits")  # type: ignore[arg-type]
