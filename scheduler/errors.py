"""What the planner refuses."""

from __future__ import annotations


class PlanError(ValueError):
    """No plan meets what was asked; the message names the stage, the device and the remedy."""
