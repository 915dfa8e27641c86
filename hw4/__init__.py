"""hw4: does BatchNorm smooth the loss, what does a stride cost, did the last commit make training slower or worse?

The names below load on first use, so that importing the package costs nothing and leaves thread counts to be set.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hw4.geometry import conv_output_length, stride_for
    from hw4.models import ConvNet, TextCNN, TextCNNEnsemble
    from hw4.readings import SmoothnessReading
    from hw4.results import as_table, load_results
    from hw4.runs import run
    from hw4.smoothness import effective_smoothness, full_gradient, measure_smoothness
    from hw4.weights import load_model

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("ConvNet", "TextCNN", "TextCNNEnsemble"), "models"),
    **dict.fromkeys(("conv_output_length", "stride_for"), "geometry"),
    **dict.fromkeys(("as_table", "load_results"), "results"),
    **dict.fromkeys(("effective_smoothness", "full_gradient", "measure_smoothness"), "smoothness"),
    **{"SmoothnessReading": "readings", "load_model": "weights", "run": "runs"},
}

__all__ = ["ConvNet", "SmoothnessReading", "TextCNN", "TextCNNEnsemble", "as_table", "conv_output_length"]
__all__ += ["effective_smoothness", "full_gradient", "load_model", "load_results", "measure_smoothness"]
__all__ += ["run", "stride_for"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"hw4.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hw4' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a shell or a notebook completes: the names that load on first use among them."""
    return sorted({*globals(), *__all__})
