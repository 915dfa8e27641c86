"""Questions as vectors of 96 floats: spaCy's token vectors averaged, or TF-IDF reduced by a truncated SVD."""

import contextlib
import hashlib
import importlib.metadata
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from hw4.data.images import Data
from hw4.data.locate import MODEL, damage, data_roots, find_model, model_name
from hw4.data.questions import CLASSES, Questions, embedded_questions, find_trec, load_trec
from hw4.errors import DataError, first_line
from hw4.files import write_atomically
from hw4.specs import QuestionSet

WIDTH = 96


def load_questions(name: QuestionSet, *, root: Path | None = None) -> Data:
    """Load a question set and turn it into vectors, from the cache when the same was asked before.

    ``root`` is the data root of TREC (default: the first found). Raises DataError for unusable files or models.
    """
    if name not in (known := get_args(QuestionSet)):
        raise DataError(f"there are no questions {name!r}; expected one of {', '.join(map(repr, known))}")
    if name == "grammar":
        train, test = embedded_questions()
        vectors, (x_train, x_test) = "TF-IDF and truncated SVD to 96", _tf_idf(train, test)
        title = "embedded questions"
    else:
        root = root or find_trec()
        if root is None:
            raise DataError("the TREC questions were not found; run 'hw4 fetch' or set HW4_DATA to their folder")
        train, test = load_trec(root)
        vectors, (x_train, x_test) = _spacy(train, test)
        title = "TREC questions"
    seen = b"".join(part.tobytes() for part in (x_train, train.labels, x_test, test.labels))
    return Data(
        name=name,
        title=title,
        vectors=vectors,
        checksum=hashlib.sha256(seen).hexdigest(),
        x_train=torch.from_numpy(x_train).unsqueeze(1),
        y_train=torch.from_numpy(train.labels),
        x_test=torch.from_numpy(x_test).unsqueeze(1),
        y_test=torch.from_numpy(test.labels),
    )


def majority_share(questions: Data) -> float:
    """Test accuracy of always answering the most frequent training class."""
    majority = torch.bincount(questions.y_train, minlength=len(CLASSES)).argmax()
    return float((questions.y_test == majority).double().mean())


def logistic_share(questions: Data) -> float:
    """Test accuracy of a logistic regression on the same vectors, standardised with the training statistics."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    model.fit(questions.x_train.squeeze(1).numpy(), questions.y_train.numpy())
    return float(model.score(questions.x_test.squeeze(1).numpy(), questions.y_test.numpy()))


def _tf_idf(train: Questions, test: Questions) -> tuple[np.ndarray, np.ndarray]:
    """TF-IDF of words, reduced to 96 floats; fitted on the training questions only, scaled to unit mean square."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer()
    svd = TruncatedSVD(WIDTH, algorithm="arpack", random_state=0)
    fitted = svd.fit_transform(words.fit_transform(train.texts))
    scale = np.sqrt(np.mean(fitted**2))
    held_out = svd.transform(words.transform(test.texts))
    return (fitted / scale).astype(np.float32), (held_out / scale).astype(np.float32)


def _spacy(train: Questions, test: Questions) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    """Vectors of both sets by spaCy and the name of what made them, through the cache."""
    model = find_spacy_model()
    digest = hashlib.sha256(f"spacy {importlib.metadata.version('spacy')}".encode())
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(model).as_posix()}\0".encode() + path.read_bytes())
    for text in (*train.texts, *test.texts):
        digest.update(b"\0" + text.encode())
    cached = data_roots()[-1] / "vectors" / f"{digest.hexdigest()[:32]}.npy"
    vectors = _read_cached(cached, len(train.texts) + len(test.texts))
    if vectors is None:
        vectors = spacy_vectors([*train.texts, *test.texts], model)
        _write_cached(cached, vectors)
    return model_name(model), (vectors[: len(train.texts)], vectors[len(train.texts) :])


def find_spacy_model() -> Path:
    """The folder of the spaCy model to use, found intact; raises DataError for a missing or damaged one."""
    model = find_model()
    if model is None:
        searched = " and ".join(map(str, data_roots()))
        raise DataError(f"{MODEL.title} is neither in {searched} nor installed; run 'hw4 fetch' to bring it")
    if problems := damage(MODEL, model):
        raise DataError(f"{problems[0]}; fetch the model again with 'hw4 fetch'")
    return model


def spacy_vectors(texts: Sequence[str], model: Path) -> np.ndarray:
    """``nlp(text).vector`` of every text, float32 (n, 96), in batches and by the parts of the model that they need.

    Raises DataError for a model that cannot be loaded, has no vectors, or has vectors of another width.
    """
    with warnings.catch_warnings():
        # Nothing that a user can act on: records name the versions, and unusable vectors are refused below.
        warnings.simplefilter("ignore")
        import spacy

        try:
            pipeline = spacy.util.load_config(model / "config.cfg")["nlp"]["pipeline"]
            nlp = spacy.load(model, exclude=[name for name in pipeline if name not in {"tok2vec", "transformer"}])
            vectors = [doc.vector for doc in nlp.pipe(texts)]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{model} is not a usable spaCy model: {first_line(error)}") from error
    found = {vector.shape for vector in vectors}
    if found != {(WIDTH,)} or not any(vector.any() for vector in vectors):
        widths = ", ".join(sorted({str(shape[0]) for shape in found}))
        raise DataError(f"{model} gives vectors of {widths} floats, all zero or of another width than {WIDTH}")
    return np.stack([np.asarray(vector, dtype=np.float32) for vector in vectors])


def _read_cached(path: Path, n: int) -> np.ndarray | None:
    """Vectors from the cache, or None when there are none of this shape (nothing is ever unpickled)."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == (n, WIDTH) and vectors.dtype == np.float32 else None


def _write_cached(path: Path, vectors: np.ndarray) -> None:
    """Keep vectors for the next run; a cache that cannot be written costs seconds, not results."""
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
