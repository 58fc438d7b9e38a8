import os

import pytest


@pytest.fixture(scope="session")
def cpp_program():
    """The server, which `make ctest` has built and names."""
    if (program := os.environ.get("DCRNN_FAST_SERVER_PROGRAM")) is None:
        pytest.skip(
            "needs the server in C++: make ctest builds it and runs these tests; by hand, name the program in DCRNN_FAST_SERVER_PROGRAM"
        )
    return program
