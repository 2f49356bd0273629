"""A local server that speaks Gemini's REST interface and OpenAI's chat completions, and fails on request.

In a test:

    with Upstream() as upstream:                       # a thread, a free port
        upstream.set("gemini-2.5-pro", Fault(error="unavailable"))
        ...                                            # base_url: upstream.gemini_url or upstream.openai_url
        assert len(upstream.seen("gemini-2.5-pro")) == 1

As a process: `python -m tests.upstream --port 9000`, then `POST /_faults`, `DELETE /_faults`, `GET /_requests`,
`DELETE /_requests`.
"""

from tests.upstream.faults import ERRORS, HEALTHY, HTML, Fault, Script
from tests.upstream.server import Seen, Upstream

__all__ = ["ERRORS", "HEALTHY", "HTML", "Fault", "Script", "Seen", "Upstream"]
