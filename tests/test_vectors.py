"""Vectors: fitted on training questions only, named, cached without pickling, and those of genuine spaCy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hw4.data import vectors
from hw4.data.questions import CLASSES, embedded_questions
from hw4.data.vectors import WIDTH, load_questions, logistic_share, majority_share, spacy_vectors
from hw4.errors import DataError


@pytest.fixture
def blank_model(tmp_path: Path) -> Path:
    """A spaCy pipeline of a seeded tok2vec of 96 floats, under a data root."""
    import spacy

    nlp = spacy.blank("en")
    tok2vec = {"@architectures": "spacy.HashEmbedCNN.v2", "width": WIDTH, "depth": 1, "embed_size": 100,
               "window_size": 1, "maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None}  # fmt: skip
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
    monkeypatch.setenv("HW4_DATA", str(blank_model.parent))
    monkeypatch.setattr(vectors, "cache_root", lambda: tmp_path / "cache")
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
    label_file.write_text(label_file.read_text().replace("Question 0", "Query 0", 1))
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


def test_unusable_models_are_named(blank_model: Path, tmp_path: Path) -> None:
    import spacy

    with pytest.raises(DataError, match="not a usable spaCy model"):
        spacy_vectors(["x"], tmp_path / "nothing")
    spacy.blank("en").to_disk(tmp_path / "without")
    with pytest.raises(DataError, match="gives vectors of 0 floats"):
        spacy_vectors(["a question"], tmp_path / "without")
    (blank_model / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json does not name the model's version"):
        vectors._model_name(blank_model)


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


def test_real_vectors_are_those_of_genuine_spacy(real_questions: Path) -> None:
    questions = load_questions("trec", root=real_questions)
    assert questions.vectors == "en_core_web_sm 3.6.0"
    # The vectors of nlp(text), the whole pipeline one text at a time: batches and tok2vec alone must give the same.
    published = np.load(real_questions / "trec" / "check_vectors_en_core_web_sm-3.6.0.npz", allow_pickle=False)
    for name, found in (("train_1000", questions.x_train), ("TREC_10", questions.x_test)):
        # float32 sums of some hundred terms of order one, in another order
        np.testing.assert_allclose(found.squeeze(1).numpy(), published[name], rtol=0, atol=2e-6)
    assert logistic_share(questions) == pytest.approx(0.72, abs=0.01)
