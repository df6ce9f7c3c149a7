"""The demo's data and drawing; the demo itself is in tests/local."""

from __future__ import annotations

import numpy as np
import pytest

import distort
from distort.cli import demo, digits


def test_the_network_reads_what_training_did_not_see() -> None:
    data = digits.held_out()
    session = distort.InferenceSession(digits.model())
    (probabilities,) = session.run(None, {"image": data.images})
    accuracy = (probabilities.argmax(axis=1) == data.labels).mean()
    assert len(data.labels) == 450 and sorted(set(data.labels)) == list(range(10))
    assert accuracy >= 0.97
    recorded = session.get_modelmeta().custom_metadata_map["held_out_accuracy"]
    assert accuracy == pytest.approx(float(recorded), abs=1 / 450)


def test_drawing() -> None:
    image = np.zeros((8, 8), np.float32)
    image[0, 0], image[7, 7] = 16, 8
    lines = digits.draw([image, image, image], ["1", "2", "3"], width=40, ascii_only=True)
    assert lines[0] == "@@" + " " * 16 + "@@"
    assert lines[7] == " " * 14 + "++  " + " " * 14 + "++"
    assert [line.split() for line in lines if line.strip() in ("3", "1                 2")] == [["1", "2"], ["3"]]
    assert len(lines) == 2 * 9 + 1
    assert "█" in digits.draw([image], ["1"], 40, ascii_only=False)[0]


def test_examples_are_one_of_each_and_a_mistake() -> None:
    labels = np.array([1, 0, 2, 1, 2])
    read = np.array([1, 0, 2, 2, 1])
    assert digits.examples(read, labels, 8) == [1, 0, 2, 3]
    assert digits.examples(read, labels, 3) == [1, 0, 3]
    assert digits.examples(labels, labels, 8) == [1, 0, 2]


def test_agreement_is_to_the_bit_or_by_how_much() -> None:
    one = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    near = np.nextafter(one, np.float32(1))
    assert demo.compare(one, one.copy()).text == "Both ways agree to the last bit."
    differs = demo.compare(one, near)
    assert differs.good and not differs.identical and "5.96e-08 at most" in differs.text
    assert not demo.compare(one, one[:, ::-1]).good
