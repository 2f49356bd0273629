from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.providers.contract import HTTP_KINDS, Asked, asked
from tests.upstream import Upstream


@pytest.fixture(scope="session")
def server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.heal()
    server.forget()
    return server


@pytest.fixture(params=HTTP_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(kind: str, upstream: Upstream) -> Iterator[Asked]:
    made = asked(kind, upstream)
    yield made
    made.close()
