"""Exercises of the part mortal."""
