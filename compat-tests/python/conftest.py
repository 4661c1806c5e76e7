"""Every test runs on both servers, each time on a fresh one."""

import pytest

from server import KINDS, Server


@pytest.fixture(params=KINDS)
def server(request):
    """A running server of each kind."""
    running = Server(request.param)
    yield running
    running.close()
