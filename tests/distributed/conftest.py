"""The nursery, shared by all tests of ranks."""

from collections.abc import Iterator

import pytest

from tests.distributed.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()
