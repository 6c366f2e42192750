"""Exercises of the part foundations."""
