"""Data sets as tensors: where they lie, whether they are intact, and what standardised form models see."""
