"""Exercises of the part emergence."""
