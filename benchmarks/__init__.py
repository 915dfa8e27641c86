"""Timed code, and the frozen plain PyTorch that it is measured against."""
