"""Every known mistake of such measurements as a planted fault, and the test that must fail because of it.

Sources: public code that draws the smoothness plot, the homework's solved notebook, and ways in which gates, parsers
and records have failed. A fault is planted by monkeypatching, for as long as its test runs; no file is edited.
"""

import contextlib
import functools
import gzip
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hw4.borrowed
import hw4.curvature
import hw4.data.vectors
import hw4.examples
import hw4.experiments
import hw4.memory
import hw4.models
import hw4.objective
import hw4.records
import hw4.smoothness
import hw4.stats
import hw4.studies
import hw4.sweep
import hw4.training
from hw4 import gate
from hw4.data import locate
from hw4.data.images import load_images
from hw4.data.vectors import load_questions
from hw4.objective import Objective, flatten
from hw4.readings import SmoothnessReading
from hw4.records import PassRow
from hw4.report import strides
from tests import (
    test_audit,
    test_claim,
    test_contract,
    test_curvature,
    test_entries,
    test_experiments,
    test_gate,
    test_images,
    test_locate,
    test_models,
    test_questions,
    test_records,
    test_report,
    test_smoothness,
    test_stats,
    test_strides,
    test_studies,
    test_sweep,
    test_training,
    test_vectors,
)

Patch = pytest.MonkeyPatch
Source = Literal["public code", "notebook", "statistics", "gate", "parser", "model"]


@dataclass(frozen=True)
class Mutation:
    """A fault: where it was seen, how to plant it, and a call of the test that must fail because of it."""

    name: str
    source: Source
    plant: Callable[[Patch], None]
    killer: Callable[[], object]


MUTATIONS: list[Mutation] = []


def fault(
    source: Source, killer: Callable[..., object], *arguments: Any
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Enter a function that plants a fault into the table, named after it."""

    def enter(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        name = plant.__name__.strip("_").replace("_", " ")
        MUTATIONS.append(Mutation(name, source, plant, lambda: killer(*arguments)))
        return plant

    return enter


def in_folder(test: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    """A test that takes a temporary folder last."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            test(*arguments, Path(folder))

    return call


def around(module: Any, name: str, patch: Patch, change: Callable[..., Any]) -> None:
    """Replace a function by one that is given the original first."""
    original = getattr(module, name)
    patch.setattr(module, name, lambda *arguments, **settings: change(original, *arguments, **settings))


def changing(module: Any, name: str, *others: Any) -> Callable[[Callable[..., Any]], Callable[[Patch], None]]:
    """Make a plant of what takes the place of a function there, and in other modules that have imported it."""

    def made(change: Callable[..., Any]) -> Callable[[Patch], None]:
        @functools.wraps(change)
        def plant(patch: Patch) -> None:
            for each in (module, *others):
                around(each, name, patch, change)

        return plant

    return made


def example(test: Any, *given: Any) -> Callable[[], object]:
    """One example of a test of properties: of the failure that is looked for here nobody needs the smallest one."""
    return lambda: test.hypothesis.inner_test(*given)


grammar = functools.cache(lambda: load_questions("grammar"))
definition = test_smoothness.test_it_is_the_definition


# --- public code that draws the smoothness plot ------------------------------------------------------------------


@fault("public code", definition, False, "batch")
def gradients_accumulate_between_the_two_evaluations(patch: Patch) -> None:
    total: dict[str, Tensor] = {}

    def accumulating(original: Any, self: Objective, **settings: Any) -> tuple[float, Tensor]:
        value, gradient = original(self, **settings)
        total["sum"] = total.get("sum", 0) + gradient
        return value, total["sum"].clone()

    around(Objective, "loss_and_gradient_here", patch, accumulating)


def only(kept: slice) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        def part(original: Any, self: Objective, **settings: Any) -> tuple[float, Tensor]:
            value, gradient = original(self, **settings)
            parts = list(self.split(gradient))
            keep = parts[kept]
            return value, torch.cat([g if any(g is k for k in keep) else torch.zeros_like(g) for g in parts])

        around(Objective, "loss_and_gradient_here", patch, part)

    return plant


@fault("public code", definition, False, "batch")
def only_the_last_layers_gradient(patch: Patch) -> None:
    only(slice(-2, None))(patch)


@fault("notebook", definition, False, "batch")
def only_the_first_parameters_gradient(patch: Patch) -> None:
    only(slice(0, 1))(patch)


def with_smoothness(change: Callable[[SmoothnessReading], float]) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        def changed(original: Any, *arguments: Any, **settings: Any) -> list[SmoothnessReading]:
            return [replace(each, smoothness=change(each)) for each in original(*arguments, **settings)]

        around(hw4.smoothness, "measure_directions", patch, changed)

    return plant


@fault("public code", definition, False, "batch")
def mean_of_per_layer_ratios(patch: Patch) -> None:
    def mean(reading: SmoothnessReading) -> float:
        return sum(b.gradient_change_norm / b.update_norm for b in reading.blocks) / len(reading.blocks)

    with_smoothness(mean)(patch)


@fault("public code", definition, False, "batch")
def the_two_gradients_on_different_minibatches(patch: Patch) -> None:
    generator = torch.Generator().manual_seed(0)

    def sampled(original: Any, self: Objective, **settings: Any) -> tuple[float, Tensor]:
        value, _ = original(self, **settings)
        return value, self.minibatch_gradient(self.here, 8, generator)

    around(Objective, "loss_and_gradient_here", patch, sampled)


@fault("public code", example(test_smoothness.test_exact_on_quadratics, 3, 0))
@changing(hw4.smoothness, "_secant")
def a_factor_of_two(original: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
    step, change = original(*arguments)
    return step, 2 * change


@fault("public code", test_smoothness.test_the_model_is_left_bit_for_bit, None, 0, "batch")
def parameters_are_moved_and_moved_back(patch: Patch) -> None:
    class InPlace(Objective):
        def __init__(self, model: nn.Module, *arguments: Any, **settings: Any) -> None:
            super().__init__(model, *arguments, **settings)
            self.parameters = [p for p in model.parameters() if p.requires_grad]
            self.model = model.train()

    patch.setattr(hw4.smoothness, "Objective", InPlace)


@fault("public code", example(test_smoothness.test_chunks_change_rounding_only_without_batch_statistics, 10))
def equal_weights_for_ragged_batches(patch: Patch) -> None:
    def unweighted(self: Objective, value: Tensor, weight: float | None, count: int) -> Tensor:
        del weight, count
        return value / len(self._examples.plan)

    patch.setattr(Objective, "_share", unweighted)


@fault("public code", test_smoothness.test_a_data_loader_gives_what_its_tensors_give)
def the_loader_is_shuffled_between_the_evaluations(patch: Patch) -> None:
    generator = torch.Generator().manual_seed(0)

    def shuffled(self: Any, *, reordered: bool = False) -> Iterator[Any]:
        del reordered
        for indices in torch.split(torch.randperm(self.n, generator=generator), self.chunk_size):
            yield self.take(indices.tolist()), len(indices)

    patch.setattr(hw4.examples.Examples, "pieces", shuffled)


@fault("public code", example(test_smoothness.test_exact_on_quadratics, 3, 0))
def divided_by_another_steps_norm(patch: Patch) -> None:
    previous = [torch.ones(1)]

    def late(original: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        step, change = original(*arguments)
        divisor, previous[0] = previous[0], step
        return divisor, change

    around(hw4.smoothness, "_secant", patch, late)


@fault("notebook", definition, False, "batch")
@changing(Objective, "minibatch_gradient")
def displacement_over_a_whole_pass(
    original: Any, self: Objective, w: Any, batch_size: int, generator: torch.Generator
) -> Tensor:
    w = start = self.w
    gradients: list[Tensor] = []
    for _ in range(round(self.n / batch_size)):
        gradients.append(original(self, w, batch_size, generator))
        w = start - 0.1 * torch.stack(gradients).sum(0)
    return torch.stack(gradients).sum(0)


@fault("notebook", definition, False, "batch")
def divided_by_the_learning_rate_once_more(patch: Patch) -> None:
    with_smoothness(lambda reading: reading.smoothness / (reading.learning_rate or 1))(patch)


@fault("public code", test_smoothness.test_the_model_is_left_bit_for_bit, None, 0, "batch")
@changing(hw4.borrowed, "_own")
def running_statistics_are_left_changed(original: Any, tensor: Tensor, dtype: Any) -> Tensor:
    return original(tensor, dtype) if isinstance(tensor, nn.Parameter) else tensor


def always(mode: bool) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        def built(original: Any, self: Objective, *arguments: Any, **settings: Any) -> None:
            original(self, *arguments, **settings)
            for _, attributes in self._borrowed._inner:
                attributes["training"] = mode

        around(Objective, "__init__", patch, built)

    return plant


@fault("notebook", definition, True, "batch")
def evaluation_mode_goes_unnoticed(patch: Patch) -> None:
    always(False)(patch)


@fault("public code", definition, True, "running")
def training_mode_goes_unnoticed(patch: Patch) -> None:
    always(True)(patch)


@fault("public code", test_smoothness.test_a_step_lost_to_rounding_is_measured_as_taken)
@changing(hw4.smoothness, "_secant")
def the_step_asked_for_instead_of_the_step_taken(
    original: Any, gradient: Any, w: Tensor, u: Tensor
) -> tuple[Tensor, Tensor]:
    return u, original(gradient, w, u)[1]


@fault("public code", test_smoothness.test_several_directions_share_the_point_and_are_single_readings)
@changing(Objective, "minibatch_gradient")
def later_directions_start_from_the_moved_point(
    original: Any, self: Objective, w: Any, batch_size: int, generator: torch.Generator
) -> Tensor:
    del w
    found: Tensor = original(self, self.here, batch_size, generator)
    return found


@fault(
    "public code",
    test_smoothness.test_the_noise_floor_is_the_error_that_float64_reveals,
    1e-8,
    False,
    True,
    "reordered",
)
@changing(Objective, "reordered_gradient")
def rounding_goes_unnoticed(original: Any, self: Objective, loss: float) -> Tensor:
    del original, loss
    return self.loss_and_gradient_here()[1]


@fault("public code", test_curvature.test_the_largest_eigenvalue_may_be_negative_and_the_largest_in_size_is_another)
def the_largest_eigenvalue_in_size(patch: Patch) -> None:
    around(hw4.curvature, "eigsh", patch, lambda original, *a, **s: original(*a, **{**s, "which": "LM"}))


@fault("public code", test_curvature.test_the_largest_eigenvalue_may_be_negative_and_the_largest_in_size_is_another)
@changing(hw4.curvature, "eigsh")
def one_step_of_power_iteration(
    original: Any, operator: Any, *, v0: np.ndarray, **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    del original, settings
    v = operator.matvec(v0)
    v /= np.linalg.norm(v)
    return np.array([v @ operator.matvec(v)]), v[:, None]


@fault("public code", test_curvature.test_on_smooth_twins_hessians_account_for_all_of_the_change, False)
@changing(Objective, "hessian_product")
def curvature_of_the_first_chunk_alone(original: Any, self: Objective, w: Tensor, v: Tensor) -> Tensor:
    everything = self._examples
    one = SimpleNamespace(plan=everything.plan[:1], pieces=lambda **_: [next(everything.pieces())])
    self._examples = one  # type: ignore[assignment]
    found: Tensor = original(self, w, v)
    self._examples = everything
    return found


@fault("public code", test_curvature.test_on_smooth_twins_hessians_account_for_all_of_the_change, False)
def the_hessian_at_the_start_instead_of_its_integral(patch: Patch) -> None:
    around(Objective, "hessian_product", patch, lambda original, self, _w, v: original(self, self.w, v))


# --- other people's models ---------------------------------------------------------------------------------------


def case(name: str) -> Callable[[], None]:
    """The contract's case of this name."""
    return lambda: test_contract.test_right_or_refused(test_contract.named_case(name))


def unchecked(owner: Any, name: str) -> Callable[[Patch], None]:
    """Plant: a check that is not made."""
    return lambda patch: patch.setattr(owner, name, lambda *_, **__: None)


@fault("public code", case("shuffled"))
def a_shuffling_loader_is_accepted(patch: Patch) -> None:
    patch.setattr(hw4.examples, "_plan", lambda loader: [list(batch) for batch in loader.batch_sampler])


@fault("public code", case("dropout"))
def dropout_goes_unnoticed(patch: Patch) -> None:
    patch.setattr(hw4.borrowed, "_refuse", lambda *_: None)
    patch.setattr(Objective, "_check_mean", lambda _: {})
    patch.setattr(Objective, "_require_fixed", lambda *_: None)
    patch.setattr(Objective, "confirm", lambda *_, **__: None)


@fault("public code", case("targets in a dict"))
@changing(hw4.examples.Examples, "pieces")
def examples_counted_by_the_length_of_their_targets(original: Any, self: Any, **settings: Any) -> Iterator[Any]:
    return ((batch, len(batch[1])) for batch, _ in original(self, **settings))


@fault("public code", case("class weights, ordered by class"))
def a_loss_that_is_no_mean_is_accepted(patch: Patch) -> None:
    unchecked(Objective, "_require_additive")(patch)
    unchecked(Objective, "_check_parts")(patch)
    patch.setattr(Objective, "_slopes_left", lambda *_, **__: (0.0, 1.0))


@fault("public code", case("a trained tensor outside the model"))
def tensors_outside_the_model_go_unnoticed(patch: Patch) -> None:
    unchecked(Objective, "_require_owned")(patch)


@fault("public code", case("rare events"))
def random_numbers_go_unnoticed(patch: Patch) -> None:
    unchecked(Objective, "_require_fixed")(patch)


@fault("public code", case("a weight in a state_dict"))
def aliases_of_weights_go_unnoticed(patch: Patch) -> None:
    patch.setattr(hw4.memory, "extent", lambda _tensor: None)


@fault("public code", case("weights clamped in forward"))
def changed_weights_go_unnoticed(patch: Patch) -> None:
    patch.setattr(hw4.objective, "fingerprint", lambda _tensor: 0)


@fault("public code", case("confident examples alone"))
def weights_by_the_outputs_go_unnoticed(patch: Patch) -> None:
    unchecked(Objective, "_require_weight")(patch)


@fault("public code", case("a warm-up"))
def a_layer_that_remembers_goes_unnoticed(patch: Patch) -> None:
    unchecked(Objective, "confirm")(patch)
    unchecked(Objective, "_require_no_memory")(patch)
    unchecked(Objective, "_check_outliers")(patch)


@fault("public code", case("frozen BatchNorm, mode overwritten"))
def modes_are_overwritten(patch: Patch) -> None:
    unchecked(hw4.borrowed, "_refuse_modes")(patch)


@fault("public code", test_contract.test_the_step_is_the_one_that_mixed_precision_took)
def the_step_before_its_rounding(patch: Patch) -> None:
    def unrounded(original: Any, self: Objective, update: Any) -> None:
        original(self, update)
        patch.setattr(self, "step", lambda: flatten(self.parts(update)))

    around(Objective, "move_by", patch, unrounded)


@fault("public code", case("inputs changed in place"))
def the_users_inputs_are_handed_to_the_model(patch: Patch) -> None:
    patch.setattr(hw4.examples, "placed", lambda batch, *_: batch)


@fault("public code", case("a mask by id"))
def parameters_told_apart_go_unnoticed(patch: Patch) -> None:
    unchecked(Objective, "_require_no_identities")(patch)


@fault("public code", case("a loss with a memory in a partial"))
def modules_inside_a_loss_are_left_changed(patch: Patch) -> None:
    patch.setattr(hw4.objective, "reachable", lambda _: [])


kept = test_contract.test_what_is_kept_beside_a_lock_and_by_a_sampler_is_left_as_it_was


@fault("public code", kept)
def a_samplers_epochs_are_left_counted(patch: Patch) -> None:
    patch.setattr(hw4.examples, "lent", lambda *_: contextlib.nullcontext())


@fault("public code", kept)
def what_stands_beside_a_lock_is_shared(patch: Patch) -> None:
    patch.setattr(hw4.borrowed, "_runs", lambda _: False)
    patch.setattr(hw4.borrowed, "_copied_in_parts", lambda value, _: value)


@fault("model", test_smoothness.test_memory_is_what_the_docstring_says, None, 3, [400] * 21)
def every_gradient_is_there_at_once(patch: Patch) -> None:
    def together(self: Objective, total: Any, objective: Tensor, factor: float = 1.0) -> None:
        for part, found in zip(total, torch.autograd.grad(objective, self.parameters), strict=True):
            part.add_(found, alpha=factor)

    patch.setattr(Objective, "_add_gradients", together)


# --- the notebook ------------------------------------------------------------------------------------------------


@fault("notebook", test_experiments.test_a_row_is_the_state_after_its_pass, {})
def curves_logged_at_the_start_of_a_pass(patch: Patch) -> None:
    waiting: list[Callable[[], float]] = []

    def late(original: Any, *arguments: Any, **settings: Any) -> float:
        while waiting:
            waiting.pop()()
        waiting.append(lambda: original(*arguments, **settings))
        return 0.0

    around(hw4.experiments, "train_pass", patch, late)


@fault("notebook", lambda: test_sweep.test_a_diverged_trial_has_no_accuracy(grammar()))
def a_lost_run_keeps_the_share_of_class_zero(patch: Patch) -> None:
    class Math:
        isfinite = staticmethod(lambda _: True)

    def calm(original: Any, *arguments: Any) -> Any:
        losses, correct = original(*arguments)
        return [loss if math.isfinite(loss) else 1.0 for loss in losses], correct

    around(hw4.sweep, "_evaluate", patch, calm)


@fault(
    "notebook", in_folder(test_experiments.test_a_diverged_run_is_a_recorded_result, load_images("digits", subset=0.1))
)
def a_lost_convnet_keeps_its_accuracy(patch: Patch) -> None:
    patch.setattr(
        hw4.experiments, "_scores", lambda found: (1.0 if math.isnan(found.loss) else found.loss, found.accuracy)
    )


@fault("notebook", test_strides.test_a_diverged_trial_is_counted_and_in_no_mean_of_the_converged)
def lost_runs_are_averaged_in(patch: Patch) -> None:
    patch.setattr(
        strides.Bar,
        "mean",
        property(lambda bar: hw4.stats.mean_interval([r.test_accuracy or 0.018 for r in bar.records])),
    )


@fault("notebook", test_strides.test_the_control_pairs_no_seed_with_itself)
def the_control_compares_a_function_with_itself(patch: Patch) -> None:
    around(strides, "_matrices", patch, lambda original, a, b, **_: original(a, b))
    patch.setattr(test_strides, "_matrices", strides._matrices)


@fault("notebook", test_models.test_how_little_large_strides_read)
def the_pools_stride_is_forgotten(patch: Patch) -> None:
    patch.setattr(test_models, "input_coverage", lambda stride, **_: [x for x in range(96) if x % stride <= 1])


@fault("notebook", test_models.test_the_fast_network_is_the_plain_one, None, "pool")
def the_relu_is_discarded(patch: Patch) -> None:
    patch.setattr(F, "relu_", lambda x: x)


@fault("notebook", test_questions.test_a_question_keeps_every_character)
@changing(test_questions, "parse_questions")
def questions_are_cut_at_their_first_colon(original: Any, contents: bytes, source: str) -> Any:
    found = original(contents, source)
    return replace(found, texts=tuple(text.split(":")[0] for text in found.texts))


@fault("notebook", test_questions.test_a_question_keeps_every_character)
@changing(test_questions, "parse_questions")
def bytes_are_printed_as_text(original: Any, contents: bytes, source: str) -> Any:
    found = original(contents, source)
    return replace(found, texts=tuple(str(text.encode("latin-1"))[2:-1] for text in found.texts))


@fault("notebook", example(test_images.test_standardised_pixels_are_bounded_whatever_the_images, 10, 0))
@changing(test_images, "standardise")
def constant_pixels_explode(_: Any, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(train, dim=0)
    return (train - mean) / (std + 1e-6), (test - mean) / (std + 1e-6)


@fault("notebook", test_images.test_statistics_come_from_the_training_images_alone)
def test_images_are_standardised_by_themselves(patch: Patch) -> None:
    around(
        test_images,
        "standardise",
        patch,
        lambda original, train, test: (original(train, train)[0], original(test, test)[0]),
    )


@fault("notebook", test_stats.test_three_outcomes)
def one_seed_decides(patch: Patch) -> None:
    around(test_stats, "mean_interval", patch, lambda _, values: hw4.stats.Interval(values[0], values[0], values[0], 1))


@fault("notebook", test_training.test_an_evaluation_looks_at_every_example_once)
@changing(test_training, "evaluate")
def every_metric_has_its_own_forward_pass(original: Any, *arguments: Any, **settings: Any) -> Any:
    original(*arguments, **settings)
    return original(*arguments, **settings)


@fault("notebook", test_training.test_evaluation_uses_running_statistics_and_leaves_every_mode_and_buffer)
def evaluation_by_batch_statistics(patch: Patch) -> None:
    patch.setattr(nn.Module, "eval", lambda self: self)


# --- statistics and words ----------------------------------------------------------------------------------------


@fault("statistics", test_stats.test_paired_differences_and_ratios_are_paired)
@changing(test_stats, "paired_difference")
def seeds_are_not_paired(_: Any, pairs: Any) -> hw4.stats.Interval:
    first, second = zip(*pairs, strict=True)
    a, b = hw4.stats.mean_interval(first), hw4.stats.mean_interval(second)
    half = math.hypot(a.high - a.estimate, b.high - b.estimate)
    return hw4.stats.Interval(
        a.estimate - b.estimate, a.estimate - b.estimate - half, a.estimate - b.estimate + half, 3
    )


@fault("statistics", test_stats.test_95_percent_intervals_cover_95_percent_of_the_time)
def normal_quantiles_for_five_seeds(patch: Patch) -> None:
    patch.setattr(hw4.stats, "stdtrit", lambda _freedom, _share: 1.96)


@fault("statistics", test_strides.test_crossed_comparisons_seldom_err_and_find_what_is_there)
@changing(test_strides, "compare_crossed")
def the_test_sets_own_noise_is_forgotten(_: Any, first: np.ndarray, second: np.ndarray) -> Any:
    pairs = [(float(a.mean()), float(b.mean())) for a, b in zip(first, second, strict=True)]
    found = hw4.stats.paired_difference(pairs)
    return found, 0.0 if found.compared_with(0) != "not decided" else 1.0


@fault(
    "statistics",
    test_entries.test_the_words_follow_the_side_on_which_the_interval_lies,
    *("pool-batchnorm", test_entries.SCATTERED, test_entries.PLAIN, (0, 1, 2)),
    ("not decided by these runs",),
)
def the_report_always_agrees_with_the_homework(patch: Patch) -> None:
    patch.setattr(hw4.stats.Interval, "compared_with", lambda _self, _value: "below")


@fault("statistics", test_report.test_an_unusable_reading_is_not_plotted)
def readings_at_the_noise_floor_are_plotted(patch: Patch) -> None:
    patch.setattr(
        PassRow,
        "smoothness",
        property(lambda row: row.readings and sum(r.smoothness for r in row.readings) / len(row.readings)),
    )


@fault("statistics", test_claim.test_a_criterion_counts_what_it_says)
def a_dead_network_counts_as_stable(patch: Patch) -> None:
    patch.setattr("hw4.records.STUCK", math.inf)


@fault("statistics", test_audit.test_each_flaw_is_what_it_says)
@changing(test_audit, "audit_run")
def the_audit_repeats_the_right_way(original: Any, *arguments: Any) -> Any:
    found = original(*arguments)
    return found.model_copy(update={"smoothness": dict.fromkeys(found.smoothness, found.smoothness["right"])})


@fault(
    "statistics",
    lambda: test_sweep.test_what_is_held_out_is_every_fifth_training_question_and_no_test_question(grammar()),
)
@changing(hw4.sweep, "as_seen", test_sweep)
def what_is_held_out_is_trained_on(original: Any, questions: Any, spec: Any) -> Any:
    return replace(original(questions, spec), x_train=questions.x_train, y_train=questions.y_train)


@fault("statistics", lambda: test_sweep.test_a_permutation_is_one_order_for_all_questions_trials_and_strides(grammar()))
@changing(hw4.sweep, "as_seen", test_sweep)
def the_tests_questions_keep_their_order(original: Any, questions: Any, spec: Any) -> Any:
    return replace(original(questions, spec), x_test=questions.x_test)


@fault("statistics", test_studies.test_a_strides_own_rate_is_chosen_by_other_trials_on_held_out_questions)
@changing(hw4.studies, "_own_rate")
def the_rate_is_chosen_on_the_test_questions(original: Any, trials: Any, made: Any) -> Any:
    return [spec.model_copy(update={"held_out": False}) for spec in original(trials, made)]


@fault("statistics", test_studies.test_the_best_rate_is_the_smaller_of_equals_at_which_every_trial_trains)
@changing(hw4.studies, "best_rate", test_studies)
def the_best_rate_may_lose_trials(original: Any, tried: Any) -> Any:
    return original([run for run in tried if run.correct is not None])


# --- the gate ----------------------------------------------------------------------------------------------------


@fault("gate", test_gate.test_the_same_code_that_differs_is_caught)
def the_gate_trusts_its_own_arms(patch: Patch) -> None:
    patch.setattr(gate.Sample, "self_check", property(lambda _: ""))


@fault(
    "gate",
    test_gate.test_a_measurement_that_fails_its_own_check_says_nothing,
    test_gate.Machine(0, loud=True, luck=0.02),
    "planted slowdown",
)
def the_planted_slowdown_may_be_of_any_size(patch: Patch) -> None:
    patch.setattr(gate, "SIZE_CONFIDENCE", 1 - 1e-16)


@fault("gate", test_gate.test_the_interval_is_students, 12)
def a_dozen_visits_are_as_good_as_infinitely_many(patch: Patch) -> None:
    patch.setattr(gate.Estimate, "quantile", lambda _, confidence: float(scipy.stats.norm.ppf(confidence)))


@fault("gate", test_gate.test_what_is_not_finite_says_nothing, math.nan)
def what_is_no_number_passes(patch: Patch) -> None:
    patch.setattr(math, "isfinite", lambda _: True)


def one_verdict(found: list[tuple[gate.Part, gate.Verdict]]) -> Callable[[], object]:
    """The test of overall verdicts, where nothing can be said."""
    return lambda: test_gate.test_one_verdict_over_all(found, "UNMEASURABLE", 3)


@fault("gate", one_verdict([("timing", "PASS"), ("timing", "UNMEASURABLE")]))
def what_cannot_be_measured_passes(patch: Patch) -> None:
    kept = gate.overall

    def open_(found: Any) -> Any:
        verdict = kept(found)
        return "PASS" if verdict == "UNMEASURABLE" else verdict

    patch.setattr(test_gate, "overall", open_)


@fault("gate", one_verdict([]))
def no_benchmarks_at_all_pass(patch: Patch) -> None:
    kept = gate.overall
    patch.setattr(test_gate, "overall", lambda found: kept(found) if found else "PASS")


@fault("gate", test_gate.test_unchanged_code_passes_and_slower_code_does_not)
def the_gate_sleeps(patch: Patch) -> None:
    patch.setattr(gate, "MARGIN", 1.2)


@fault("gate", test_gate.test_unchanged_code_passes_and_slower_code_does_not)
def the_gate_cries_wolf(patch: Patch) -> None:
    patch.setattr(gate, "MARGIN", 1.0)
    patch.setattr(gate, "CONFIDENCE", 0.7)


@fault("gate", test_gate.test_rounding_alone_hardly_ever_alarms)
def many_tests_without_a_correction(patch: Patch) -> None:
    patch.setattr(gate, "ACCURACY_MARGIN", 0.0)
    patch.setattr(gate, "LEVEL", 0.5)


@fault(
    "gate",
    test_gate.test_outcomes_are_judged,
    test_gate.outcomes([0.94, 0.95, 0.97, 0.95, 0.96, 0.97], digest="other"),
    False,
    "SUSPICIOUS",
)
def too_good_results_pass(patch: Patch) -> None:
    kept = gate.Shift.p_value
    patch.setattr(gate.Shift, "p_value", lambda self, sign, planted=0.0: kept(self, sign, planted) if sign > 0 else 1.0)


@fault("gate", test_gate.test_outcomes_are_judged, test_gate.outcomes([None] * 6, digest="other"), False, "REGRESSION")
def lost_runs_are_dropped(patch: Patch) -> None:
    around(test_gate, "Rules", patch, lambda original, **settings: original(**{**settings, "diverged": 100}))


@fault("gate", test_gate.test_outcomes_are_judged, test_gate.outcomes(test_gate.GOOD, digest="other"), True, "CHANGED")
def other_bits_are_no_change(patch: Patch) -> None:
    around(test_gate, "Rules", patch, lambda original, **settings: original(**{**settings, "exact": False}))


@fault(
    "gate",
    test_gate.test_absence_of_evidence_is_never_a_pass,
    test_gate.outcomes([0.955] * 3),
    test_gate.outcomes([0.6] * 3, digest="other"),
    "3 seeds",
)
def any_number_of_seeds_will_do(patch: Patch) -> None:
    patch.setattr(gate, "LEAST_SEEDS", 1)


@fault(
    "gate",
    test_gate.test_absence_of_evidence_is_never_a_pass,
    test_gate.outcomes(test_gate.GOOD),
    test_gate.outcomes([0.99, 0.82, 0.99, 0.82, 0.99, 0.85], digest="other"),
    "the least change of accuracy",
)
def blind_tests_pass(patch: Patch) -> None:
    patch.setattr(gate, "_blind", lambda *_: "")


# --- parsers and records -----------------------------------------------------------------------------------------


@fault("parser", test_questions.test_a_malformed_line_is_named, "PERSON:ind who ?", "the class 'PERSON'")
@changing(test_questions, "parse_questions")
def unknown_classes_are_skipped(original: Any, contents: bytes, source: str) -> Any:
    lines = [line for line in contents.splitlines(keepends=True) if not line.startswith(b"PERSON")]
    return original(b"".join(lines), source)


@fault("parser", test_questions.test_a_question_keeps_every_character)
@changing(test_questions, "parse_questions")
def questions_are_read_as_utf_8(original: Any, contents: bytes, source: str) -> Any:
    return original(contents.decode("utf-8", errors="replace").encode("latin-1", errors="replace"), source)


def a_file_of_other_contents(folder: Path) -> None:
    """The test of damaged files, on an intact archive of something else."""
    packed = folder / f"{test_locate.NAME}.gz"
    packed.write_bytes(test_locate.GOOD)
    test_locate.test_damage_is_named(folder, gzip.compress(b"something else", mtime=0), "SHA-256")


@fault("parser", in_folder(a_file_of_other_contents))
def checksums_are_not_compared(patch: Patch) -> None:
    class Trusting:
        @staticmethod
        def sha256(_: bytes) -> SimpleNamespace:
            return SimpleNamespace(hexdigest=lambda: locate.IMAGES.sha256[test_locate.NAME])

    patch.setattr(locate, "hashlib", Trusting)


@fault("parser", in_folder(test_records.test_a_record_under_another_name_is_refused))
@changing(hw4.records, "read_record", test_records)
def a_records_name_is_not_compared(original: Any, path: Path, kind: Any) -> Any:
    del original
    return kind.model_validate_json(path.read_text())


@fault(
    "parser",
    in_folder(
        lambda folder: test_records.test_other_documents_are_refused_by_name(
            folder, test_records.changed(lambda r: r.update(schema_version=3)), "schema version 3"
        )
    ),
)
@changing(test_records, "read_record")
def records_of_another_version_are_read(original: Any, path: Path, kind: Any) -> Any:
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2'))
    return original(path, kind)


@fault("parser", lambda: with_patch(test_vectors.test_the_embedded_vectors_are_fitted_on_training_questions_only))
@changing(hw4.data.vectors, "_tf_idf")
def vectors_are_fitted_on_test_questions(original: Any, train: Any, test: Any) -> Any:
    n = len(train.texts)
    whole, _ = original(replace(train, texts=train.texts + test.texts), test)
    return whole[:n], whole[n:]


# --- models ------------------------------------------------------------------------------------------------------


@fault("model", example(test_models.test_input_coverage_is_what_gradients_reach, 5, 96))
def the_text_cnn_has_no_padding(patch: Patch) -> None:
    patch.setattr(hw4.models, "TEXT_PADDING", 0)


@fault("model", test_models.test_the_ensembles_gradients_are_those_of_autograd, 5, 7)
@changing(hw4.models.TextCNNEnsemble, "loss_gradients")
def the_ensemble_forgets_a_bias(original: Any, self: Any, fields: Tensor, y: Tensor) -> Any:
    conv, weight, bias = original(self, fields, y)
    return conv, weight, torch.zeros_like(bias)


@fault("model", test_training.test_a_pass_is_the_plain_pass, "batch", "pool")
def batchnorm_is_left_in_evaluation_mode(patch: Patch) -> None:
    around(hw4.models.ConvNet, "train", patch, lambda original, self, _mode=True: original(self, False))


def with_patch(test: Callable[..., object], *arguments: Any) -> None:
    """Call a test that takes pytest's monkeypatch last."""
    with pytest.MonkeyPatch.context() as patch:
        test(*arguments, patch)
