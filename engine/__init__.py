"""Switchgear's engine: two models behind one call, failing over for reasons that are on record."""

from __future__ import annotations

from engine.async_manager import AsyncDualModelManager
from engine.config import Config, load
from engine.core.errors import (
    Cancelled,
    ConfigurationError,
    Conflict,
    ContentFiltered,
    ContextLengthExceeded,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NoCapableModel,
    Overloaded,
    ProviderAuthError,
    ProviderError,
    RateLimited,
    SemanticFailure,
    StoreUnavailable,
    StreamBroken,
    SwitchgearError,
    Unauthorized,
    UnknownManager,
)
from engine.core.messages import Call, Chunk, Completion, Delta, FinishReason, Reply, Request, Role, Usage
from engine.core.outcomes import Category, Cause, ProviderFailure
from engine.instance import Instance
from engine.manager import DualModelManager
from engine.version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncDualModelManager",
    "Call",
    "Cancelled",
    "Category",
    "Cause",
    "Chunk",
    "Completion",
    "Config",
    "ConfigurationError",
    "Conflict",
    "ContentFiltered",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "Delta",
    "DualModelManager",
    "FinishReason",
    "Instance",
    "InternalError",
    "InvalidRequest",
    "NoCapableModel",
    "Overloaded",
    "ProviderAuthError",
    "ProviderError",
    "ProviderFailure",
    "RateLimited",
    "Reply",
    "Request",
    "Role",
    "SemanticFailure",
    "StoreUnavailable",
    "StreamBroken",
    "SwitchgearError",
    "Unauthorized",
    "UnknownManager",
    "Usage",
    "__version__",
    "load",
]
