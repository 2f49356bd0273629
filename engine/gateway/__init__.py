"""The OpenAI-compatible gateway: `/v1`, metrics, health and the control API over one process's managers."""
