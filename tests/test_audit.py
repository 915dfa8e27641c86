"""The audit: the notebook's ways are wrong in the way they are said to be, and in no other."""

import functools
import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hw4.audit import audit_run, largest_pixels, notebook_layers, notebook_standardise, notebook_texts, plain_pass
from hw4.data.images import LARGEST_STANDARDISED, Data, load_images
from hw4.experiments import BATCHES, build_convnet, seeded, train_convnet
from hw4.machine import ONE_THREAD
from hw4.models import ConvNet
from hw4.records import AuditRecord, ConvNetRecord, Layers, PassTime, TimedIteration, read_record
from hw4.report import audit
from hw4.specs import DEFAULT_SUBSET, ConvNetSpec, sweep_specs
from hw4.training import train_pass
from hw4.variants import Downsample
from tests.factory import Command

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"


def small() -> tuple[ConvNetSpec, Data]:
    spec = ConvNetSpec.build(data="digits", subset=0.1, norm="batch", passes=2, directions=1)
    return spec, load_images("digits", subset=0.1)


def trained_on(images: Data, model: ConvNet, spec: ConvNetSpec, batches: torch.Generator) -> None:
    how: dict[str, Any] = {"learning_rate": spec.learning_rate, "batch_size": spec.batch_size, "generator": batches}
    train_pass(model, images.x_train, images.y_train, **how)


def notebook_smoothness(spec: ConvNetSpec, images: Data) -> list[float]:
    """The notebook's whole computation once more, plainly."""
    model, batches, found = build_convnet(spec), seeded(spec.seed, BATCHES), []

    def state(net: ConvNet) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(net.eval()(images.x_train), images.y_train)
        first = torch.autograd.grad(loss, list(net.parameters()))[0]
        return first.flatten(), torch.cat([p.detach().flatten() for p in net.parameters()])

    before, start = state(model)
    for _ in range(spec.passes):
        trained_on(images, model, spec, batches)
        after, end = state(model)
        found.append(float((after - before).norm() / (-spec.learning_rate * (end - start)).norm()))
        before, start = after, end
    return found


@functools.cache
def trained() -> tuple[ConvNetRecord, ConvNetRecord, list[float]]:
    """What the audited ways are held against: hw4's run, the same in evaluation mode, and the notebook's numbers."""
    spec, images = small()
    running = train_convnet(spec.model_copy(update={"norm_mode": "running"}), images)
    return train_convnet(spec, images), running, notebook_smoothness(spec, images)


def test_each_flaw_is_what_it_says() -> None:
    found = audit_run(*small())
    run, running, notebook = trained()
    # The order of sums differs (chunks, layouts): float32 in gradients of some 30,000 numbers.
    close = 1e-3
    assert found.smoothness["right"] == pytest.approx([row.smoothness for row in run.rows[1:]], rel=close)
    assert found.smoothness["notebook"] == pytest.approx(notebook, rel=close)
    assert found.smoothness["divided twice"] == pytest.approx([s / 0.04 for s in found.smoothness["right"]])
    assert found.smoothness["evaluation mode"] == pytest.approx([row.smoothness for row in running.rows[1:]], rel=close)
    for part, whole in zip(found.smoothness["first parameter"], found.smoothness["right"], strict=True):
        assert part < whole
    assert found.train_loss == [row.train_loss for row in run.rows]
    assert all(math.isfinite(value) and value > 0 for value in found.smoothness["whole pass"])


def test_the_notebooks_parser_cuts_and_prints() -> None:
    contents = "HUM:ind Who 's it : he or she ?\nLOC:city Where is K\xf6ln ?\n".encode("latin-1")
    assert notebook_texts(contents) == ["Who 's it ", r"Where is K\xf6ln ?"]
    assert notebook_texts(contents + b'DESC:def What is " ?\n')[0] == r"Who \'s it ", "with both quotes in the file"


def test_the_notebooks_pixels_explode() -> None:
    train = torch.zeros(10, 4)
    test = torch.full((2, 4), 255.0)
    assert notebook_standardise(train, test)[1].min() > 1e8


def test_the_subsets_whose_pixels_explode_are_those_that_the_loader_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw4.audit.SUBSETS", 3)
    drawn = [load_images("digits", subset=0.1, rule=notebook_standardise, seed=seed) for seed in range(3)]
    # Sums over images may go in another order where the images lie otherwise in memory: float32, and a std near 0.
    assert largest_pixels("digits") == pytest.approx([float(each.x_test.abs().max()) for each in drawn], rel=1e-4)


@pytest.mark.parametrize("downsample", ["pool", "stride"])
def test_a_pass_in_plain_pytorch_is_the_pass_of_hw4(downsample: Downsample) -> None:
    """The same weights after it, so that its seconds are those of the same work."""
    spec = ConvNetSpec.build(data="digits", subset=0.1, downsample=downsample)
    images, ours, plain = load_images("digits", subset=0.1), build_convnet(spec), notebook_layers(downsample)
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    trained_on(images, ours, spec, seeded(spec.seed, BATCHES))
    plain_pass(plain, spec, images)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)  # of steps near 1e-2, added up otherwise


def test_subsets_and_plain_pytorch_are_on_the_page_where_they_were_measured(tmp_path: Path) -> None:
    """A record from before they were is read as it was, and says nothing of them."""
    contents = json.loads((REFERENCE / "audit" / "audit.json").read_text())
    old = tmp_path / "audit.json"
    old.write_text(json.dumps({name: value for name, value in contents.items() if name not in {"drawn", "passes"}}))
    record = read_record(old, AuditRecord)
    assert (record.drawn, record.passes) == ([], [])
    silent = [*audit.answers(record), *(row[0] for row in audit.rows(record))]
    assert not re.search("subset|plain PyTorch", " ".join(silent))

    seconds = {("the notebook's", "pool"): 3.0, ("the notebook's", "stride"): 0.9, ("hw4's", "pool"): 2.0}
    timed = [
        TimedIteration(
            layers=layers,
            variant=variant,
            times=[
                PassTime(wall_seconds=9.0, cpu_seconds=seconds.get((layers, variant), 0.8) * slow) for slow in (1, 2)
            ],
        )
        for layers in get_args(Layers)
        for variant in ("pool", "stride")
    ]
    new = record.model_copy(update={"drawn": [300.0, 4e6, 278.4, 700.0], "passes": timed})
    said = " ".join(audit.answers(new))
    assert "from 278 to 4,000,000 over 4 random subsets, above 100,000 in 1 of them" in said
    assert re.search(
        r"takes 0\.30 \(all \d alike\) times the processor time of the pooled one's in plain PyTorch", said
    )
    assert re.search(
        r"and 0\.40 .* hw4's networks; with pooling plain PyTorch takes 1\.50 .* with stride 1\.1[23] ", said
    )
    assert "(2 rounds in turn on one machine" in said
    (row,) = (row for row in audit.rows(new) if "4 subsets" in row[0])
    assert row[1:3] == ("500, 278 to 4,000,000", f"at most {LARGEST_STANDARDISED:.0f}, by its rule")
    assert row[3].startswith("1 of 4 have one above 100,000")
    added = [row for row in audit.rows(new) if row not in audit.rows(record)]
    assert added == [row]


def test_the_command_writes_record_figure_page_and_table(
    hw4: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DEFAULT_SUBSET, "digits", 0.1)  # few images and short sweeps: the command is what is tested
    monkeypatch.setattr("hw4.audit.sweep_specs", partial(sweep_specs, trials=2, epochs=1))
    for variable in ONE_THREAD:
        monkeypatch.setenv(variable, "1")
    out = hw4("audit", "--data", "embedded", "--seeds", "2", "--passes", "1", "--processes", "1").out
    assert "  exploding pixels\n" in out, "a line of progress where there is no terminal"
    folder = tmp_path / "reports" / "embedded"
    record = read_record(folder / "audit" / "audit.json", AuditRecord)
    assert {run.seed for run in record.runs} == {0, 1}
    assert len(record.drawn) == 20
    assert [(each.layers, each.variant, len(each.times)) for each in record.passes] == [
        (layers, variant, 5) for layers in ("the notebook's", "hw4's") for variant in ("pool", "stride")
    ]
    assert record.questions is None, "the embedded questions have no colon to cut at"
    for row in audit.rows(record):
        assert len(row) == len(audit.HEADER)
        assert row[0] in out
    text = (folder / "index.html").read_text()
    assert "all four, as in the notebook" in text
    (folder / "index.html").unlink()
    hw4("report", "--out", str(folder))
    assert (folder / "index.html").read_text() == text
