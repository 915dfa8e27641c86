"""Data sets as tensors: where they lie, whether they are intact, and what standardised form models see."""

from hw4 import progress as progress  # before pooch imports tqdm: quietly, also in a notebook
