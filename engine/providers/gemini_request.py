"""OpenAI's request as Gemini's REST body; shared by both Gemini providers.

System and developer messages become `systemInstruction`; consecutive messages of one role are merged, as Gemini wants
turns; images given as data URLs travel inline; tools, tool results, response schema, limits and sampling settings keep
their meaning. What has no counterpart is left out.

Sources: ai.google.dev/api/generate-content (v1beta), ai.google.dev/gemini-api/docs/openai.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.core.messages import JSON, Call, Request
from engine.core.outcomes import Category, ProviderFailure

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[^,;]+)*;base64,(?P<data>.*)", re.DOTALL)

_SETTINGS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_THINKING = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens to think for, by `reasoning_effort`, as Gemini's own compatible endpoint translates it."""


def request_body(call: Call, *, json_schema: bool) -> dict[str, Any]:
    """The REST body of a call.

    Args:
        call: What is wanted.
        json_schema: The library takes JSON Schema as it is (`responseJsonSchema`); otherwise schemas are rewritten
            in Gemini's older subset of OpenAPI (`responseSchema`).

    Raises:
        ProviderFailure: A field of the caller's has a shape that cannot be said to Gemini.
    """
    try:
        body = _body(call, json_schema=json_schema)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # What is translated here is nothing but the caller's JSON, of which OpenAI's endpoints would check every part.
        detail = f"a message, tool or option has a shape that Gemini does not know ({type(error).__name__})"
        raise ProviderFailure(Category.INVALID_REQUEST, 400, detail=detail, code="invalid_argument") from error
    if not body["contents"]:
        detail = "no message has content that Gemini knows"
        raise ProviderFailure(Category.INVALID_REQUEST, 400, detail=detail, code="invalid_argument")
    return body


def _body(call: Call, *, json_schema: bool) -> dict[str, Any]:
    request = call.request
    body: dict[str, Any] = {"contents": list(_contents(request.messages, call.prefill))}
    system = [part for message in request.messages if _is_system(message) for part in _parts(message.get("content"))]
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": list(_declarations(request.tools, json_schema=json_schema))}]
        config = _calling(request.tool_choice)
        if config:
            body["toolConfig"] = {"functionCallingConfig": config}
    settings = _generation(request, json_schema=json_schema)
    if settings:
        body["generationConfig"] = settings
    return body


def _is_system(message: JSON) -> bool:
    return message.get("role") in ("system", "developer")


def _contents(messages: Sequence[JSON], prefill: str) -> Iterator[dict[str, Any]]:
    """Turns in order, neighbours of one role merged."""
    names = {
        str(call.get("id")): str(call.get("function", {}).get("name", ""))
        for message in messages
        for call in message.get("tool_calls") or ()
    }
    turns = [_turn(message, names) for message in messages if not _is_system(message)]
    if prefill:
        turns.append(("model", [{"text": prefill}]))
    current: dict[str, Any] | None = None
    for role, parts in turns:
        if current is not None and current["role"] == role:
            current["parts"] += parts
        elif parts:
            if current is not None:
                yield current
            current = {"role": role, "parts": list(parts)}
    if current is not None:
        yield current


def _turn(message: JSON, names: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
    role = message.get("role")
    if role in ("tool", "function"):
        name = names.get(str(message.get("tool_call_id")), str(message.get("name") or ""))
        return "user", [{"functionResponse": {"name": name, "response": _result(message.get("content"))}}]
    parts = list(_parts(message.get("content")))
    if role == "assistant":
        return "model", parts + [_function_call(call) for call in message.get("tool_calls") or ()]
    return "user", parts


def _function_call(call: JSON) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = {"arguments": function.get("arguments")}
    part: dict[str, Any] = {"functionCall": {"name": function.get("name", ""), "args": arguments}}
    signature = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
    return {**part, "thoughtSignature": signature} if signature else part


def _result(content: Any) -> dict[str, Any]:
    text = "".join(part.get("text", "") for part in _parts(content))
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"result": value}


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    """The parts of a message's content."""
    if isinstance(content, str):
        if content:
            yield {"text": content}
        return
    for part in content or ():
        kind = part.get("type")
        if kind == "text" and part.get("text"):
            yield {"text": part["text"]}
        elif kind == "image_url":
            url = part["image_url"]
            yield _media(url["url"] if isinstance(url, Mapping) else url, "image/jpeg")
        elif kind == "input_audio":
            audio = part["input_audio"]
            yield {"inlineData": {"mimeType": f"audio/{audio.get('format', 'wav')}", "data": audio["data"]}}
        elif kind == "file" and (part.get("file") or {}).get("file_data"):
            yield _media(part["file"]["file_data"], "application/pdf")


def _media(url: str, assumed: str) -> dict[str, Any]:
    match = _DATA_URL.fullmatch(url)
    if match:
        return {"inlineData": {"mimeType": match["type"], "data": match["data"]}}
    return {"fileData": {"mimeType": mimetypes.guess_type(url)[0] or assumed, "fileUri": url}}


def _declarations(tools: Iterable[JSON], *, json_schema: bool) -> Iterator[dict[str, Any]]:
    for tool in tools:
        function = tool.get("function") or {}
        declared = {"name": function["name"]}
        if function.get("description"):
            declared["description"] = function["description"]
        parameters = function.get("parameters")
        if parameters and json_schema:
            declared["parametersJsonSchema"] = parameters
        elif parameters and parameters.get("properties"):
            declared["parameters"] = openapi_schema(parameters)
        yield declared


def _calling(choice: Any) -> dict[str, Any]:
    if isinstance(choice, Mapping):
        return {"mode": "ANY", "allowedFunctionNames": [str((choice.get("function") or {}).get("name", ""))]}
    mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}.get(choice) if isinstance(choice, str) else None
    return {"mode": mode} if mode else {}


def _generation(request: Request, *, json_schema: bool) -> dict[str, Any]:
    options = request.options
    settings = {ours: options[name] for name, ours in _SETTINGS.items() if options.get(name) is not None}
    if request.longest_answer is not None:
        settings["maxOutputTokens"] = request.longest_answer
    stop = options.get("stop")
    if stop:
        settings["stopSequences"] = [stop] if isinstance(stop, str) else list(stop)
    if options.get("reasoning_effort") in _THINKING:
        settings["thinkingConfig"] = {"thinkingBudget": _THINKING[options["reasoning_effort"]]}
    if request.wants_json:
        settings["responseMimeType"] = "application/json"
    schema = request.json_schema
    if schema is not None and json_schema:
        settings["responseJsonSchema"] = schema
    elif schema is not None:
        settings["responseSchema"] = openapi_schema(schema)
    return settings


def openapi_schema(schema: JSON) -> dict[str, Any]:
    """Rewrite a JSON schema in Gemini's subset of OpenAPI 3.0.

    References are written out (a recursive one becomes a plain object at its second appearance), `const` becomes an
    `enum` of one, `["string", "null"]` becomes `nullable`; keywords outside the subset are left out.
    """
    return _openapi(schema, schema, ())


_KEPT = ("title", "description", "format", "nullable", "required", "minItems", "maxItems", "minimum", "maximum")


def _openapi(schema: JSON, root: JSON, seen: tuple[str, ...]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in seen:
            return {"type": "OBJECT"}
        target: Any = root
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step, {}) if isinstance(target, Mapping) else {}
        return _openapi(target, root, (*seen, reference))
    made: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if "null" in kinds and len(kinds) > 1:
        made["nullable"] = True
    kind = next((one for one in kinds if one != "null"), "object" if "properties" in schema else None)
    if kind:
        made["type"] = kind.upper()
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices and all(isinstance(choice, str) for choice in choices):
        made["enum"], made["type"] = list(choices), "STRING"
    if isinstance(schema.get("properties"), Mapping):
        made["properties"] = {name: _openapi(part, root, seen) for name, part in schema["properties"].items()}
    if isinstance(schema.get("items"), Mapping):
        made["items"] = _openapi(schema["items"], root, seen)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        made["anyOf"] = [_openapi(option, root, seen) for option in options if option.get("type") != "null"]
        if len(made["anyOf"]) < len(options):
            made["nullable"] = True
    return made
