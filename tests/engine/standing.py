"""An application of its own process that asks eight times at once: `python -m tests.engine.standing DRIVER CONFIG`.

It says `ready` before, and afterwards which role answered each and at which attempt.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

from engine import AsyncDualModelManager, DualModelManager
from engine.core.messages import Chunk

EACH = 4
"""Whole answers, and as many streams."""


def told(chunks: list[Chunk]) -> str:
    """Who answered a stream."""
    account = chunks[0].account
    assert account is not None
    return f"{account.role} {account.attempts}"


def threads(config: str) -> list[str]:
    with DualModelManager.from_config(config, "chat") as manager, ThreadPoolExecutor(2 * EACH) as pool:

        def whole() -> str:
            reply = manager.generate("Why?")
            return f"{reply.role} {reply.attempts}"

        def stream() -> str:
            return told(list(manager.stream("Why?")))

        manager.generate("warm up")
        print("ready", flush=True)
        asking = [pool.submit(one) for one in (whole, stream) for _ in range(EACH)]
        return [one.result() for one in asking]


async def coroutines(config: str) -> list[str]:
    async with AsyncDualModelManager.from_config(config, "chat") as manager:

        async def whole() -> str:
            reply = await manager.generate("Why?")
            return f"{reply.role} {reply.attempts}"

        async def stream() -> str:
            return told([chunk async for chunk in manager.stream("Why?")])

        await manager.generate("warm up")
        print("ready", flush=True)
        return await asyncio.gather(*(one() for one in (whole, stream) for _ in range(EACH)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    driver, config_file = sys.argv[1:]
    answers = threads(config_file) if driver == "threads" else asyncio.run(coroutines(config_file))
    print("\n".join(answers))
