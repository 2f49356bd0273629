"""The OpenAPI document of the control API, written out once and held to the routes by a test."""

from __future__ import annotations

from functools import cache
from typing import Any

from engine.version import VERSION

_MANAGER = {"name": "manager", "in": "path", "required": True, "schema": {"type": "string"}}
_ROLE = {"type": "string", "enum": ["primary", "secondary"]}
_REASON = {"type": "string", "minLength": 1, "description": "Why; the audit log keeps it."}
_TTL = {
    "oneOf": [{"type": "number"}, {"type": "string"}],
    "description": 'Seconds, or "30m"; an hour when left out.',
}
_EPOCH = {"type": "integer", "description": "The epoch the act was decided on; 409 `conflict` when it has moved."}
_ERRORS = {
    "400": {"$ref": "#/components/responses/Error"},
    "401": {"$ref": "#/components/responses/Error"},
    "404": {"$ref": "#/components/responses/Error"},
    "409": {"$ref": "#/components/responses/Error"},
}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _answers(what: str) -> dict[str, Any]:
    return {"200": {"description": what, "content": {"application/json": {"schema": {"type": "object"}}}}, **_ERRORS}


def _query(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": "string"},
    }


@cache
def document() -> dict[str, Any]:
    """The document; the same object every time."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Switchgear control API", "version": VERSION},
        "security": [{"key": []}],
        "paths": {
            "/api/v1/status": {
                "get": {"summary": "What is active, since when and why", "responses": _answers("The state.")}
            },
            "/api/v1/timeline": {
                "get": {
                    "summary": "The merged event log, newest first",
                    "parameters": [
                        _query("manager", "Only of this manager."),
                        _query("from", "Milliseconds since 1970 or ISO 8601; a day before `to` by default."),
                        _query("to", "The same; now by default."),
                        _query("kind", "Only of this kind; may be repeated."),
                    ],
                    "responses": _answers("Events."),
                }
            },
            "/api/v1/managers/{manager}/override": {
                "parameters": [_MANAGER],
                "post": {
                    "summary": "Pin a model",
                    "requestBody": _object(
                        {"role": _ROLE, "reason": _REASON, "ttl": _TTL, "strict": {"type": "boolean"}, "epoch": _EPOCH},
                        ["role", "reason"],
                    ),
                    "responses": _answers("The agreement that holds the pin."),
                },
                "delete": {
                    "summary": "Return to automatic",
                    "parameters": [_query("reason", "Why.", required=True), _query("epoch", "As for setting.")],
                    "responses": _answers("The agreement without the pin."),
                },
            },
            "/api/v1/managers/{manager}/breakers/{role}": {
                "parameters": [_MANAGER, {"name": "role", "in": "path", "required": True, "schema": _ROLE}],
                "post": {
                    "summary": "Force a breaker, or let it decide again",
                    "requestBody": _object(
                        {
                            "state": {"type": "string", "enum": ["forced_open", "forced_closed", "auto"]},
                            "reason": _REASON,
                            "ttl": _TTL,
                            "epoch": _EPOCH,
                        },
                        ["state", "reason"],
                    ),
                    "responses": _answers("The agreement that holds the force."),
                },
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": {
                    "description": "What went wrong, in OpenAI's envelope.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {
                                    "error": {
                                        "type": "object",
                                        "properties": {
                                            "message": {"type": "string"},
                                            "type": {"type": "string"},
                                            "code": {"type": "string"},
                                            "param": {"type": ["string", "null"]},
                                        },
                                    }
                                },
                            }
                        }
                    },
                }
            },
        },
    }
