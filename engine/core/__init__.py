"""The pure core: every decision, and no clock, socket or random number of its own."""
