"""Plugins, found and verified."""
