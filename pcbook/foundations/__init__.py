"""Backprop, predictive coding, and predictive coding on any program."""
