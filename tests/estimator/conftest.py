"""A log, and an estimator that was fitted on it."""

import pytest

from tests.event_frames import events

from .quick import quick


@pytest.fixture(scope="module")
def frame():
    return events(3000)


@pytest.fixture(scope="module")
def fitted(frame):
    return quick(time="ts", group="user_id").fit(frame)
