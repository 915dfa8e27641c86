"""Vectors: fitted on training questions only, named, cached without pickling, and those of genuine spaCy."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hw4.data import vectors
from hw4.data.choose import choose_data
from hw4.data.locate import QUESTIONS
from hw4.data.questions import CLASSES, embedded_questions
from hw4.data.vectors import WIDTH, find_spacy_model, load_questions, logistic_share, majority_share, spacy_vectors
from hw4.errors import DataError
from hw4.specs import HOMEWORK_VECTORS


@pytest.fixture
def blank_model(tmp_path: Path) -> Path:
    """A spaCy pipeline of a seeded tok2vec of 96 floats, under a data root."""
    import spacy

    nlp = spacy.blank("en")
    tok2vec = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "width": WIDTH,
        "depth": 1,
        "embed_size": 100,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
        "pretrained_vectors": None,
    }
    nlp.add_pipe("tok2vec", config={"model": tok2vec})
    nlp.initialize()
    nlp.meta["version"] = "9.9.9"
    (tmp_path / "root").mkdir()
    nlp.to_disk(tmp_path / "root" / "en_core_web_sm")
    return tmp_path / "root" / "en_core_web_sm"


@pytest.fixture
def small_trec(blank_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with twelve questions and a model, and a cache of its own."""
    folder = blank_model.parent / "trec"
    folder.mkdir()
    for name, n in (("train_1000.label", 2), ("TREC_10.label", 1)):
        lines = [f"{label}:x Question {i} about {label} ?" for label in CLASSES for i in range(n)]
        (folder / name).write_text("\n".join(lines))
        monkeypatch.setitem(QUESTIONS.sha256, name, hashlib.sha256("\n".join([*lines, ""]).encode()).hexdigest())
    monkeypatch.setenv("HW4_DATA", str(blank_model.parent))
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    return blank_model.parent


def test_vectors_are_cached_by_content_and_named(
    small_trec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_questions("trec", root=small_trec)
    assert first.vectors == "en_core_web_sm 9.9.9"
    assert first.x_train.shape == (12, 1, WIDTH)
    (cached,) = (tmp_path / "cache" / "vectors").iterdir()

    def refuse(*_arguments: object) -> None:
        raise AssertionError("spaCy was asked again")

    monkeypatch.setattr(vectors, "spacy_vectors", refuse)
    assert torch.equal(load_questions("trec", root=small_trec).x_train, first.x_train)
    label_file = small_trec / "trec" / "TREC_10.label"
    other = label_file.read_text().replace("Question 0", "Query 0", 1)
    label_file.write_text(other)
    monkeypatch.setitem(QUESTIONS.sha256, label_file.name, hashlib.sha256(f"{other}\n".encode()).hexdigest())
    with pytest.raises(AssertionError, match="asked again"):
        load_questions("trec", root=small_trec)
    assert cached.suffix == ".npy"


def test_a_damaged_cache_is_made_again(small_trec: Path, tmp_path: Path) -> None:
    first = load_questions("trec", root=small_trec)
    (cached,) = (tmp_path / "cache" / "vectors").iterdir()
    cached.write_bytes(cached.read_bytes()[:50])
    assert torch.equal(load_questions("trec", root=small_trec).x_train, first.x_train)

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "unpickled",)

    np.save(cached, np.array([Bomb()], dtype=object), allow_pickle=True)
    assert torch.equal(load_questions("trec", root=small_trec).x_test, first.x_test)
    assert not (tmp_path / "unpickled").exists()


def test_unusable_models_are_named(blank_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy

    with pytest.raises(DataError, match="not a usable spaCy model"):
        spacy_vectors(["x"], tmp_path / "nothing")
    spacy.blank("en").to_disk(tmp_path / "without")
    with pytest.raises(DataError, match="gives vectors of 0 floats"):
        spacy_vectors(["a question"], tmp_path / "without")
    (blank_model / "meta.json").write_text("{")
    monkeypatch.setenv("HW4_DATA", str(blank_model.parent))
    with pytest.raises(DataError, match=r"en_core_web_sm lacks .*fetch the model again with 'hw4 fetch'"):
        find_spacy_model()


def test_the_embedded_vectors_are_fitted_on_training_questions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_questions("grammar")
    train, test = embedded_questions()
    fewer = type(test)(test.texts[:10], test.labels[:10])
    monkeypatch.setattr(vectors, "embedded_questions", lambda: (train, fewer))
    part = load_questions("grammar")
    assert torch.equal(part.x_train, whole.x_train)
    assert torch.equal(part.x_test, whole.x_test[:10])
    assert whole.x_train.square().mean().item() == pytest.approx(1, rel=1e-5)


def test_baselines() -> None:
    questions = load_questions("grammar")
    assert 0.2 < majority_share(questions) < 0.4
    assert majority_share(questions) + 0.3 < logistic_share(questions) < 1, "some questions have two classes"


PRINTED = """
0.0566946 0.14431211 -0.09996037 0.24405442 0.171442 -0.00698107 0.5538774 -0.04801344 0.10472046 -0.07243 0.4615469
0.61935836 -0.27421126 -0.36640364 -0.41472915 -0.3367687 -0.80017847 0.01405566 0.3789693 -0.26699215 0.06921673
0.15967804 0.48105857 -0.5937608 0.54818934 0.47652608 0.5596519 -0.21928823 0.08473988 0.5288324 -0.47222987
-0.03617571 -0.03886651 -0.4117626 -0.0573365 0.0047795 -0.20796026 0.08200786 0.00801056 0.2975297 -0.2289368
0.33473474 0.16553685 -0.12274171 -0.32280177 -0.28731257 0.04599109 0.05031594 0.18770942 0.06129282 -0.10349815
-0.06582403 0.57545674 0.15352702 -0.22472587 -0.04059407 0.11420991 0.4052118 0.30882224 -0.26785436 -0.24282806
0.06950301 -0.37544328 -0.21284622 0.14027737 -0.06516401 -0.03447375 -0.0357369 0.52523625 -0.5992119 0.11967656
0.18832289 0.23694097 -0.5269019 -0.05410558 -0.36719215 -0.6547042 -0.14447653 -0.3175742 -0.3386358 0.10537597
-0.18030104 -0.62075025 -0.40350914 -0.35394078 0.5281108 0.5338561 -0.09701845 -0.49369 0.4283861 0.02411923
-0.29138982 0.8747733 0.23499991 0.1764298 0.06464942
"""
"""The vector that the homework prints for its second training question."""


@pytest.mark.usefixtures("real_questions")
def test_the_homeworks_printed_vector_comes_out() -> None:
    found = load_questions("trec").x_train[1].squeeze().numpy()
    np.testing.assert_allclose(found, [float(each) for each in PRINTED.split()], rtol=0, atol=1e-6)


def test_another_version_is_used_when_it_is_what_there_is_and_said_aloud(
    real_questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = real_questions / "en_core_web_sm-2.2.5"
    if not older.exists():
        pytest.skip("needs the model's version 2.2.5 beside the real data")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("FashionMNIST", "trec"):
        (root / name).symlink_to(real_questions / name)
    (root / "en_core_web_sm").symlink_to(older)
    monkeypatch.setenv("HW4_DATA", str(root))
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "cache")
    _, name, sentences = choose_data("real", images=False, questions=True)
    assert name == "trec"
    assert "not the homework's vectors; 'hw4 fetch' brings those" in sentences[-1]
    questions = load_questions("trec")
    assert questions.vectors == "en_core_web_sm 2.2.5"
    published = np.load(real_questions / "trec" / "check_vectors_en_core_web_sm-2.2.5.npz", allow_pickle=False)
    np.testing.assert_allclose(questions.x_test.squeeze(1).numpy(), published["TREC_10"], rtol=0, atol=5e-6)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "en_core_web_sm").symlink_to(real_questions / "en_core_web_sm")
    assert load_questions("trec").vectors == HOMEWORK_VECTORS, "the homework's own wins, wherever it lies"


def test_real_vectors_are_those_of_genuine_spacy(real_questions: Path) -> None:
    questions = load_questions("trec", root=real_questions)
    assert questions.vectors == "en_core_web_sm 3.6.0"
    # The vectors of nlp(text), the whole pipeline one text at a time: batches and tok2vec alone must give the same.
    published = np.load(real_questions / "trec" / "check_vectors_en_core_web_sm-3.6.0.npz", allow_pickle=False)
    for name, found in (("train_1000", questions.x_train), ("TREC_10", questions.x_test)):
        # float32 sums of some hundred terms of order one, in another order
        np.testing.assert_allclose(found.squeeze(1).numpy(), published[name], rtol=0, atol=2e-6)
    assert logistic_share(questions) == pytest.approx(0.72, abs=0.01)
