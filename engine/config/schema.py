"""The JSON Schema of the configuration file, for editors: `data/switchgear.schema.json`.

Written anew by `make schema`; a test fails when it is not current.
"""

from __future__ import annotations

import json
from typing import Any

from engine.config.sections import Settings
from engine.shipped import shipped

NAME = "switchgear.schema.json"


def schema() -> dict[str, Any]:
    """The schema as JSON Schema draft 2020-12."""
    body = Settings.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": "Switchgear"}


def text() -> str:
    """The schema as it is shipped."""
    return json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (shipped("switchgear.toml").parent / NAME).write_text(text(), encoding="utf-8")
