"""Mutated inputs: how they are made, what reads them, and how a reader that dies is survived."""
