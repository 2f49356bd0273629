"""Providers: one module each for a way to reach a model, all behind the protocol of `base`."""
