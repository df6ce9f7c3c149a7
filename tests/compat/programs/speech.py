"""Silero VAD finds where a synthesized voice speaks: vowels from 1.0 s to 2.5 s and from 3.5 s to 4.5 s of 6 s."""

import json

import numpy as np
import torch
from silero_vad import get_speech_timestamps, load_silero_vad

RATE = 16000
FORMANTS_HZ = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240), "e": (530, 1840, 2480)}
BANDWIDTH_HZ = 80


def voice(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Glottal pulses with a moving pitch through the formants of changing vowels, in syllables."""
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    pitch_hz = 120 + 15 * np.sin(2 * np.pi * 2.5 * t) + rng.normal(0, 1, n).cumsum() * 0.01
    phase = np.cumsum(pitch_hz) / RATE
    source = np.diff(np.floor(phase), prepend=0) + rng.normal(0, 0.003, n)
    out = np.zeros(n)
    length = int(0.22 * RATE)  # of a syllable
    for i, start in enumerate(range(0, n, length)):
        part = source[start : start + length].copy()
        for formant_hz in FORMANTS_HZ["aiue"[i % 4]]:
            radius = np.exp(-np.pi * BANDWIDTH_HZ / RATE)
            a1, a2 = 2 * radius * np.cos(2 * np.pi * formant_hz / RATE), -(radius**2)
            y1 = y2 = 0.0
            for k, value in enumerate(part):
                y1, y2 = value + a1 * y1 + a2 * y2, y1
                part[k] = y1
        part *= np.hanning(len(part)) ** 0.5
        out[start : start + length] = part / (np.abs(part).max() + 1e-9)
    return out


rng = np.random.default_rng(0)
sound = rng.normal(0, 1e-4, 6 * RATE)
for start_s, end_s in ((1.0, 2.5), (3.5, 4.5)):
    sound[int(start_s * RATE) : int(end_s * RATE)] += 0.3 * voice(end_s - start_s, rng)
model = load_silero_vad(onnx=True)
found = get_speech_timestamps(torch.from_numpy(sound.astype(np.float32)), model, return_seconds=True)
print(json.dumps([[part["start"], part["end"]] for part in found]))
