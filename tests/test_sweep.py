"""The sweep: trials together are trials alone, groups are a partition, and nothing finished is ever lost."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks import conftest as benchmark_rules
from hw4.data.images import Data
from hw4.data.vectors import load_questions
from hw4.errors import SpecError
from hw4.experiments import BATCHES, INITIAL_WEIGHTS, seeded
from hw4.models import TextCNN
from hw4.records import Store, TextCNNRecord
from hw4.runs import make_all
from hw4.specs import TextCNNSpec, sweep_specs
from hw4.studies import RESCUE_RATES, Study, sweep
from hw4.sweep import as_seen, identity, train_trials
from tests.factory import Command, python
from tests.test_strides import summaries


@pytest.fixture(scope="module")
def questions() -> Data:
    return load_questions("grammar")


@pytest.mark.parametrize("stride", [1, 5, 500])
def test_trials_trained_together_are_trials_trained_by_torch(questions: Data, stride: int) -> None:
    specs = sweep_specs("grammar", strides=[stride], trials=2, epochs=2, learning_rate=0.01)
    x, y = questions.x_train, questions.y_train
    for record in train_trials(specs, questions, identity(questions)):
        with torch.random.fork_rng():
            torch.manual_seed(seeded(record.trial, INITIAL_WEIGHTS).initial_seed())
            model = TextCNN(stride)
        optimizer, order = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.8), seeded(record.trial, BATCHES)
        for _ in range(2):
            for batch in torch.split(torch.randperm(len(x), generator=order), 32):
                optimizer.zero_grad()
                F.nll_loss(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        with torch.no_grad():
            # float32 rounding through 58 updates; a wrong batch or step would show in the second digit
            assert record.train_loss == pytest.approx(F.nll_loss(model(x), y).item(), rel=1e-3)
            right = model(questions.x_test).argmax(1) == questions.y_test
        assert record.correct is not None
        assert (torch.tensor(record.correct) != right).sum() <= 2, "but for a tie or two the answers agree"


def test_strides_100_and_500_give_the_same_answers(questions: Data) -> None:
    hundred, five_hundred = (
        train_trials(sweep_specs("grammar", strides=[stride], trials=3, epochs=5), questions, identity(questions))
        for stride in (100, 500)
    )
    assert [record.correct for record in hundred] == [record.correct for record in five_hundred]
    assert len({tuple(record.correct or ()) for record in hundred}) > 1, "trials do not differ"


def test_a_diverged_trial_has_no_accuracy(questions: Data) -> None:
    (record,) = train_trials(
        sweep_specs("grammar", strides=[5], trials=1, learning_rate=1e9), questions, identity(questions)
    )
    assert record.diverged
    assert record.test_accuracy is None
    assert record.correct is None


def test_what_is_held_out_is_every_fifth_training_question_and_no_test_question(questions: Data) -> None:
    (spec,) = sweep_specs("grammar", strides=[5], trials=1, epochs=3, held_out=True)
    kept = [index for index in range(len(questions.x_train)) if index % 5]
    x_test, y_test = questions.x_train[::5], questions.y_train[::5]
    x_train, y_train = questions.x_train[kept], questions.y_train[kept]
    by_index = replace(questions, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    seen = as_seen(questions, spec)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(seen, name), getattr(by_index, name)), name
    (record,) = train_trials([spec], questions, identity(questions))
    plain = spec.model_copy(update={"held_out": False})
    data = identity(questions).model_copy(update={"n_train": len(kept), "n_test": len(x_test)})
    (by_hand,) = train_trials([plain], by_index, data)
    assert (record.correct, record.train_loss) == (by_hand.correct, by_hand.train_loss)
    assert record.data == identity(questions), "they are a run of the whole set"
    assert as_seen(questions, plain) is questions


def test_a_permutation_is_one_order_for_all_questions_trials_and_strides(questions: Data) -> None:
    (spec,) = sweep_specs("grammar", strides=[1], trials=1, epochs=1, learning_rate=0.01, permutation=3)
    positions = torch.arange(96.0).expand(2, 1, 96)
    counted = replace(questions, x_train=positions, x_test=positions)
    (order,) = as_seen(counted, spec).x_train[0].long()
    assert order.sort().values.tolist() == list(range(96))
    assert (order == torch.arange(96)).sum() < 10, "next to nothing stays where it was"
    for other in ({"stride": 5}, {"trial": 4}):
        seen = as_seen(counted, spec.model_copy(update=other))
        assert all((part == order).all() for part in (seen.x_train, seen.x_test))
    assert not (as_seen(counted, spec.model_copy(update={"permutation": 4})).x_train == order).all()
    by_hand = replace(questions, x_train=questions.x_train[..., order], x_test=questions.x_test[..., order])
    (record,), (expected,) = (
        train_trials([each], which, identity(questions))
        for each, which in ((spec, questions), (spec.model_copy(update={"permutation": None}), by_hand))
    )
    assert (record.correct, record.train_loss) == (expected.correct, expected.train_loss)


def in_folder(folder: Path, specs: Sequence[TextCNNSpec]) -> list[tuple[Path, Study]]:
    return [(folder, sweep(specs))]


def test_a_stride_that_diverges_is_shown_at_a_rate_that_trains(tmp_path: Path) -> None:
    specs = sweep_specs("grammar", strides=[1, 5], trials=2, epochs=3, learning_rate=5.0)
    wanted = in_folder(tmp_path, specs)
    records = [record for record in make_all(wanted) if isinstance(record, TextCNNRecord)]
    assert [record.spec for record in records[:4]] == list(specs)
    assert all(record.diverged for record in records[:2])
    tried = [record for record in records[4:] if record.stride == 1]
    assert not any(record.diverged for record in tried[-2:])
    assert [record.spec.learning_rate for record in tried[::2]] == list(RESCUE_RATES[: len(tried) // 2])
    assert "all train, to a test accuracy of" in " ".join(summaries(records)[0].answer)
    found = list[bool]()
    assert make_all(wanted, on_record=lambda _, on_disk: found.append(on_disk)) == records
    assert all(found)


def test_specs_that_do_not_belong_together_are_refused(questions: Data) -> None:
    data = identity(questions)
    with pytest.raises(SpecError, match="differ in the trial only"):
        train_trials(sweep_specs("grammar", strides=[5, 10], trials=1), questions, data)
    with pytest.raises(SpecError, match="about trec, but the data given is grammar"):
        train_trials(sweep_specs("trec", strides=[5], trials=1), questions, data)


LONG_SWEEP = ["sweep", "--data", "embedded", "--stride", "1", "--trials", "8", "--epochs", "10"]
LONG_SWEEP += ["--learning-rate", "0.01", "--out", "out"]


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Look again and again until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker processes through Linux's /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_kill_loses_nothing_finished(
    victim: str, hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, records = [sys.executable, "-m", "hw4", *LONG_SWEEP, "--processes", "2"], tmp_path / "out" / "records"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        wait_for(lambda: list(records.glob("*.json")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(int(workers[0]) if victim == "worker" else process.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    if victim == "worker":
        assert process.returncode == 1
        assert re.fullmatch(
            r"hw4: a worker process died; .* and the same command, without --fresh, goes on from there\n", err
        )
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    kept = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert 1 <= len(kept) < 8
    monkeypatch.chdir(tmp_path)
    assert f"Found on disk: {len(kept)} of 8." in hw4(*LONG_SWEEP, "--processes", "1").out
    assert all((records / name).read_bytes() == contents for name, contents in kept.items())
    assert len(Store(records, TextCNNRecord).load_all()) == 8


NO_SWEEP = {"--sweep-out": Path("out"), "--sweep-data": "embedded", "--sweep-epochs": 1, "--sweep-trials": 2}
NO_SWEEP |= {"--sweep-learning-rate": 0.1, "--sweep-momentum": 0.8, "--sweep-stride": [5]}


class Asked:
    """As much of pytest's configuration as ``benchmarks/sweep.py`` is begun by."""

    args, option, pluginmanager = ["sweep.py"], SimpleNamespace(), SimpleNamespace(hasplugin=lambda _: False)

    def __init__(self, **changes: object) -> None:
        self.options = NO_SWEEP | {f"--sweep-{name.replace('_', '-')}": value for name, value in changes.items()}

    def getoption(self, name: str) -> object:
        return self.options[name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "the number of trials must be at least 1 and at most 100,000, got 0"),
        ({"learning_rate": -1.0}, r"learning_rate is -1\.0"),
        ({"data": "real"}, "run 'hw4 fetch' or set HW4_DATA"),
    ],
)
def test_a_sweep_of_test_items_that_cannot_be_is_refused(
    options: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HW4_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("hw4.data.locate.cache_root", lambda: tmp_path / "none")
    config: Any = Asked(**options)
    with pytest.raises(pytest.UsageError, match=said):
        benchmark_rules.pytest_configure(config)


def test_a_sweep_that_no_chart_could_hold_is_a_usage_error(tmp_path: Path) -> None:
    make_all(in_folder(tmp_path / "records", sweep_specs("grammar", strides=[5], trials=2, epochs=1)))
    items = str(Path(__file__).parents[1] / "benchmarks" / "sweep.py")
    command = ["-m", "pytest", items, "--sweep-data", "embedded", "--sweep-epochs", "1", "-p", "no:cacheprovider"]
    command += ["--sweep-out", str(tmp_path), "--sweep-stride", "7", "--sweep-trials", "1"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # half the time
    done = python(*command, cwd=tmp_path, env=environment)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "stride 7 would have 1 trial beside 2 of stride 5" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.usefixtures("real_questions")
def test_the_sweep_on_real_questions(tmp_path: Path) -> None:
    made = make_all(in_folder(tmp_path, sweep_specs("trec")))
    (summary,) = summaries([record for record in made if isinstance(record, TextCNNRecord)])
    means = {bar.stride: bar.mean.estimate for bar in summary.sweep.bars if bar.mean is not None}
    # Seen before with the same vectors; twice the standard error that 500 shared test questions add is 0.044.
    for stride, seen in {5: 0.562, 10: 0.418, 30: 0.457, 100: 0.264, 500: 0.264}.items():
        assert means[stride] == pytest.approx(seen, abs=0.044)
    assert next(bar.diverged for bar in summary.sweep.bars if bar.stride == 1) > 5, "most trials diverge at 0.1"
    answer = " ".join(summary.answer)
    for decided in ("5 above 10", "5 above 30", "5 above 100", "10 above 100", "30 above 100"):
        assert decided in answer
    assert "10 above 30" not in answer, "they read the same number of inputs"
    assert "stride 1, of which" in summary.answer[0], "the headline says at which rate it trains"
    assert "includes zero; at equal seeds their answers are the same" in answer
