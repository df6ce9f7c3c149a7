"""A simulated schedule as SVG: a row for each device, a bar for each execution, coloured by stage."""

from __future__ import annotations

from html import escape

from distort.scheduler.device import format_us
from distort.scheduler.simulate import Execution, Simulation

#: px
_WIDTH, _ROW, _BAR, _LABEL = 900.0, 30.0, 22.0, 90.0
#: of a letter in a bar
_LETTER = 7.0
#: degrees between the hues of neighbouring stages
GOLDEN_ANGLE = 137.5


def hue(stage: int) -> str:
    """A style that gives neighbouring numbers colours far apart."""
    return f"--hue:{stage * GOLDEN_ANGLE % 360:.0f}"


def draw_schedule(simulation: Simulation) -> str:
    """The schedule; nothing where nothing was executed."""
    devices = list(simulation.peak_nbytes)
    if not simulation.executions or simulation.makespan_us <= 0:
        return ""
    width, height = _LABEL + _WIDTH + 10, _ROW * len(devices) + 34
    row = {device: position * _ROW + 4 for position, device in enumerate(devices)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-size="12" role="img" aria-label="simulated schedule">'
    ]
    for device in devices:
        parts.append(f'<text x="{_LABEL / 2:.0f}" y="{row[device] + _BAR / 2:.1f}">{escape(device)}</text>')
    scale = _WIDTH / simulation.makespan_us
    parts += [_bar(execution, row[execution.device], scale) for execution in simulation.executions]
    bottom = _ROW * len(devices) + 16
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LABEL + part * _WIDTH - (25 if part == 1.0 else 0)
        parts.append(f'<text x="{x:.0f}" y="{bottom:.0f}">{escape(format_us(part * simulation.makespan_us))}</text>')
    return "\n".join([*parts, "</svg>"])


def _bar(execution: Execution, y: float, scale: float) -> str:
    x = _LABEL + execution.begin_us * scale
    width = max(1.0, (execution.end_us - execution.begin_us) * scale)
    about = (
        f"{execution.action} on {execution.device}: {format_us(execution.begin_us)} to {format_us(execution.end_us)}"
    )
    text = ""
    if width >= _LETTER * len(execution.action):
        text = f'<text x="{x + width / 2:.1f}" y="{y + _BAR / 2:.1f}">{execution.action}</text>'
    return (
        f'<g class="stage" style="{hue(execution.stage)}"><title>{escape(about)}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR:.0f}" rx="2"/>{text}</g>'
    )
