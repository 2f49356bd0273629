"""A deterministic world: the real plan and the real agreement on a virtual clock, with faults, under a seed."""
