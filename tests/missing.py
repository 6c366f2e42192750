"""A loud word about what could not be tested."""

import os

import pytest

IN_CI = os.environ.get("CI") == "true"


def missing(what: str, remedy: str):
    """In CI a failure; elsewhere a skip, repeated at the end of the run."""
    message = f"NOT TESTED, for want of {what}: {remedy}"
    pytest.fail(message) if IN_CI else pytest.skip(message)
