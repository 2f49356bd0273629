"""What callers catch. Every error has a stable `code`, an HTTP `status_code` and, once known, a `request_id`.

The gateway turns these into OpenAI's envelope; the recorder stores `code`; metrics count `status_code`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from engine.core.messages import Account


class SwitchgearError(Exception):
    """The base of everything that Switchgear raises on purpose.

    Args:
        message: What happened, to which thing, and what to do.
        request_id: The id under which the record explains it.
        retry_after: Seconds after which trying again makes sense, where that is known.
        param: The field of the request that is wrong, where it is one.
    """

    code: ClassVar[str] = "internal"
    status_code: ClassVar[int] = 500
    kind: ClassVar[str] = "api_error"

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        self.param = param
        self.account: Account | None = None


class ConfigurationError(SwitchgearError):
    """The configuration cannot work; the message names key, place and remedy."""

    code = "configuration"


class InternalError(SwitchgearError):
    """A mistake of ours."""


class InvalidRequest(SwitchgearError):
    """The request is wrong and no model would take it."""

    code = "invalid_request"
    status_code = 400
    kind = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """The prompt fits none of the models."""

    code = "context_length_exceeded"


class ContentFiltered(InvalidRequest):
    """The provider refused the prompt by its safety rules."""

    code = "content_filter"


class NoCapableModel(InvalidRequest):
    """No model of the manager can do what the request needs; the message names what is missing."""

    code = "no_capable_model"


class Unauthorized(SwitchgearError):
    """The caller's key is missing or unknown."""

    code = "unauthorized"
    status_code = 401
    kind = "authentication_error"


class UnknownManager(SwitchgearError):
    """`model` names no manager of this configuration."""

    code = "unknown_manager"
    status_code = 404
    kind = "invalid_request_error"


class Conflict(SwitchgearError):
    """The act was decided on an epoch that has moved."""

    code = "conflict"
    status_code = 409
    kind = "invalid_request_error"


class BodyTooLarge(SwitchgearError):
    """The body is larger than `server.max_body`."""

    code = "body_too_large"
    status_code = 413
    kind = "invalid_request_error"


class RateLimited(SwitchgearError):
    """The provider's limit is reached; `retry_after` is true."""

    code = "rate_limited"
    status_code = 429
    kind = "rate_limit_error"


class Cancelled(SwitchgearError):
    """The caller went away; recorded, never sent."""

    code = "client_cancelled"
    status_code = 499


class ProviderAuthError(SwitchgearError):
    """The provider refused our credentials."""

    code = "provider_auth"
    status_code = 502


class ProviderError(SwitchgearError):
    """The provider failed and nothing was left to try."""

    code = "provider_error"
    status_code = 502


class SemanticFailure(SwitchgearError):
    """An answer was rejected: raised by validators, and to callers when no model gave an acceptable one."""

    code = "semantic_failure"
    status_code = 502


class StreamBroken(SwitchgearError):
    """A stream ended before its answer did; what was delivered is not the whole answer."""

    code = "stream_broken"
    status_code = 502


class Overloaded(SwitchgearError):
    """Both breakers are open, or our own queue is full; `retry_after` is true."""

    code = "overloaded"
    status_code = 503
    kind = "overloaded_error"


class StoreUnavailable(SwitchgearError):
    """Durability is `commit` and the store cannot take the record."""

    code = "store_unavailable"
    status_code = 503


class DeadlineExceeded(SwitchgearError):
    """The request's total deadline passed, or both models timed out."""

    code = "deadline_exceeded"
    status_code = 504
    kind = "timeout_error"
