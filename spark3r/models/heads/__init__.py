"""Heads: what is read from the trunk's tokens."""
