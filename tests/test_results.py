"""The tidy table: every run and pass once, in documented columns, as numbers that a reader can compute with."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from hw4 import as_table, load_results
from hw4.errors import RecordError
from hw4.files import AUDIT, RECORDS, SWEEP_CONTROLS
from hw4.records import ConvNetRecord, Store, TextCNNRecord
from hw4.report import exercises, strides
from hw4.results import COLUMNS
from hw4.specs import exercise_specs, sweep_specs
from hw4.studies import SETTLED_PASS
from tests.factory import make_record, make_row
from tests.test_reference import REFERENCE
from tests.test_strides import make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks of one pass each, and three trials of which one diverged."""
    nets, texts = Store(tmp_path / RECORDS, ConvNetRecord), Store(tmp_path / RECORDS, TextCNNRecord)
    nets.prepare()
    for spec in exercise_specs(["smoothness"], seeds=1, data="digits", passes=1):
        nets.save(make_record(spec, [make_row(0, smoothness=None), make_row(1, loss=0.5, smoothness=4.0)], seconds=2.0))
    for trial, share in zip(sweep_specs("grammar", strides=[5], trials=3), (0.5, None, 0.6), strict=True):
        texts.save(make(trial, share))
    return tmp_path


def test_each_run_and_pass_is_a_row_of_documented_columns(folder: Path) -> None:
    table = load_results(folder)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 2 * 2 + 3
    last = table[table.completed == 1].set_index("network")
    assert last.train_loss.tolist() == [0.5, 0.5]
    assert last.passes.tolist() == [1, 1]
    assert last.subset.tolist() == [1.0, 1.0]
    assert last.smoothness.tolist() == pytest.approx([4.0, 4.0])
    assert last.cpu_seconds.tolist() == [2.0, 2.0]
    assert (last.norm_mode.tolist(), last.chunk_size.tolist()) == (["batch"] * 2, [100] * 2)
    start = table[table.completed == 0]
    assert start.smoothness.isna().all()
    assert start.cpu_seconds.isna().all()


def test_a_lost_trial_has_a_row_and_no_accuracy(folder: Path) -> None:
    trials = load_results(folder).query("network == 'TextCNN'")
    assert trials.diverged.tolist() == [False, True, False]
    assert trials.test_accuracy.isna().tolist() == [False, True, False]
    assert trials.stride.tolist() == [5, 5, 5]


def test_controls_are_told_from_the_sweep(folder: Path) -> None:
    store = Store(folder / SWEEP_CONTROLS, TextCNNRecord)
    store.prepare()
    for setting in ({"held_out": True}, {"permutation": 3}):
        (spec,) = sweep_specs("grammar", strides=[5], trials=1, **setting)
        store.save(make(spec, 0.5))
    trials = load_results(folder).query("network == 'TextCNN'")
    assert trials.folder.tolist() == ["records"] * 3 + ["controls"] * 2
    shutil.copytree(folder / RECORDS, folder / AUDIT / "sweep")
    assert load_results(folder).folder.tolist()[-3:] == ["audit/sweep"] * 3
    shutil.rmtree(folder / AUDIT)
    assert trials.held_out.tolist() == [False] * 3 + [True, False]
    whole = load_results(folder)
    assert whole[whole.held_out.fillna(False)].key.tolist() == [trials.key.tolist()[3]]
    assert trials.permutation.isna().tolist() == [True] * 4 + [False]
    assert trials.permutation.tolist()[-1] == 3


def test_some_runs_alone_make_the_same_rows(folder: Path) -> None:
    nets = Store(folder / RECORDS, ConvNetRecord).load_all("*_convnet-*.json")
    table = as_table(nets)
    assert table.pop("folder").isna().all()
    assert table.kink_share.dtype == table.sharpness.dtype == float, "None, of which pandas takes no mean"
    same = ["key", "completed", "train_loss", "smoothness"]
    pd.testing.assert_frame_equal(table[same], load_results(folder)[same][: len(table)])


def test_the_table_survives_csv(folder: Path) -> None:
    table = load_results(folder)
    table.to_csv(folder / "results.csv", index=False)
    again = pd.read_csv(folder / "results.csv").astype(table.dtypes)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there are no records in"):
        load_results(tmp_path)


def test_the_pages_numbers_follow_from_the_table_alone() -> None:
    """Everybody can compute them: means over seeds of what the columns say, of runs that did not diverge."""
    table = load_results(REFERENCE)
    sound = table[(table.folder == "records") & ~table.diverged]
    last = sound[sound.completed == sound.passes]
    for section in exercises.sections(Store(REFERENCE / RECORDS, ConvNetRecord).load_all("*_convnet-*.json")):
        header, rows = exercises.table(section)
        of = [sound[sound.passes == section.setting.passes], last[last.passes == section.setting.passes]]
        settled = of[0][of[0].completed >= SETTLED_PASS]
        where = {"smoothness": settled, "seconds per pass": of[0], "processor seconds per pass": of[0]}
        columns = {"seconds per pass": "wall_seconds", "processor seconds per pass": "cpu_seconds"}
        for network, *cells, _ in rows:
            for name, cell in zip(header[1:-1], cells, strict=True):
                measure = name.partition(" over passes")[0]
                runs = where.get(measure, of[1])
                runs = runs[(runs.network == network) & (runs.learning_rate == section.setting.learning_rate)]
                means = runs.groupby("seed")[columns.get(measure, measure.replace(" ", "_"))].mean()
                digits = len(cell.split(" ")[0].partition(".")[2])
                assert cell.split(" ")[0] == f"{means.mean():.{digits}f}", (network, name)
    (sweep,) = strides.sweeps(Store(REFERENCE / RECORDS, TextCNNRecord).load_all("*_textcnn-*.json"))
    texts = sound[(sound.network == "TextCNN") & (sound.learning_rate == 0.1)].groupby("stride").test_accuracy
    for bar in sweep.bars:
        assert bar.mean is not None
        assert bar.mean.n == texts.count()[bar.stride]
        assert bar.mean.estimate == pytest.approx(texts.mean()[bar.stride], rel=1e-12)
