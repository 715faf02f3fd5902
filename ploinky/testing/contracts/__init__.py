"""Tests that any implementation of an interface must pass; pytest collects their subclasses."""
