"""Alerts that can be trusted: rules, their evaluator, the outbox and its channels."""
