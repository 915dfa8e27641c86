"""A bar of progress for whoever waits, in a terminal or a notebook."""

import sys
import warnings
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # that a notebook without ipywidgets gets a line of text
    from tqdm.auto import tqdm


def progress_bar(**how: Any) -> "tqdm[Any]":
    """A tqdm bar: a widget in a notebook that can show one, else a line of text; none where nobody looks."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):  # a notebook's streams are no terminals, and yet somebody looks at them
        how = {"disable": False, "file": sys.stdout, **how}
    return tqdm(**{"disable": None, "dynamic_ncols": True, **how})
