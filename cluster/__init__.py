"""Stages on Ray actors."""
