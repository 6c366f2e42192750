"""Exercises of the part inference."""
