"""Exercise 2's models as named test items, for the workers of pytest-xdist: what ``tox -e sweep`` runs.

Each item is one trial. The first item of a group trains the whole group, for that is several times faster than one by
one, and saves a record per trial; the group's other items find theirs on disk. When all items have ended the
controlling process draws the chart from the records, and refuses when any is absent. See ``pytest_addoption`` in
``benchmarks/conftest.py`` for the options.
"""

import pytest
import torch
from filelock import FileLock

from benchmarks.conftest import sweep_data, sweep_store, wanted_specs
from hw4.data.vectors import load_questions
from hw4.runs import make_all
from hw4.specs import TextCNNSpec, groups
from hw4.studies import grid


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each trial: first one of every group, costliest group first, then those that will find theirs."""
    ranked = [(rank, spec) for group in groups(wanted_specs(metafunc.config)) for rank, spec in enumerate(group)]
    ordered = [spec for _, spec in sorted(ranked, key=lambda pair: pair[0] > 0)]
    metafunc.parametrize("spec", ordered, ids=[spec.key for spec in ordered])


@pytest.fixture(scope="session")
def vectors(request: pytest.FixtureRequest) -> None:
    """The questions' vectors, made by the first worker and in the cache for the others."""
    torch.set_num_threads(1)
    folder = sweep_store(request.config).folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".vectors.lock"):
        load_questions(sweep_data(request.config))


@pytest.mark.usefixtures("vectors")
def test_trial(spec: TextCNNSpec, request: pytest.FixtureRequest) -> None:
    store = sweep_store(request.config)
    (group,) = [group for group in groups(wanted_specs(request.config)) if spec in group]
    with FileLock(store.folder / f".{group[0].key}.lock"):
        make_all([(store.folder, grid(group))])
    record = store.load(spec.key)
    assert record is not None
    assert record.diverged or record.test_accuracy is not None
