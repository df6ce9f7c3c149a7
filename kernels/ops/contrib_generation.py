"""onnxruntime's searches for text: GreedySearch, BeamSearch, with a decoder like GPT-2's as a body.

B: batch, W: beams, S: positions so far, V: vocabulary. The decoder takes input_ids, position_ids, attention_mask and a
past [2, B * W, heads, S, size] a layer, and gives logits [B * W, S, V] and the presents.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from distort.graph.types import DTYPE_OF, TensorType
from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.ops.contrib_basics import ngram_repeat_block
from distort.kernels.program import Body
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"


def _number(value: Any, default: Any, name: str) -> Any:
    if value is None:
        return default
    flat = np.asarray(value).reshape(-1)
    if flat.size != 1:
        raise InvalidInput(f"{name} must have one element, it has shape {list(np.shape(value))}")
    return flat[0].item()


class Rules:
    """What changes the scores of next tokens [rows, V] before one is chosen."""

    def __init__(
        self,
        eos: int,
        min_length: int,
        repetition_penalty: float,
        no_repeat_ngram_size: int,
        vocab_mask: Any,
        prefix_vocab_mask: Any,
    ) -> None:
        if repetition_penalty <= 0:
            raise InvalidInput(f"'repetition_penalty' shall be greater than 0, got {repetition_penalty}")
        self._eos, self._min_length, self._penalty = eos, min_length, repetition_penalty
        self._ngram, self._mask, self._prefix = no_repeat_ngram_size, vocab_mask, prefix_vocab_mask

    def __call__(self, scores: Array, sequences: Array, first: bool) -> Array:
        scores = np.array(scores, np.float32)
        lowest = np.finfo(np.float32).min
        if self._penalty != 1.0:
            had = np.take_along_axis(scores, sequences, axis=1)
            np.put_along_axis(scores, sequences, np.where(had < 0, had * self._penalty, had / self._penalty), axis=1)
        if self._ngram > 0:
            blocked = ngram_repeat_block(np, sequences, scores, ngram_size=self._ngram)
            scores = np.where(np.isneginf(blocked), lowest, blocked)
        for mask in (self._mask, self._prefix if first else None):
            if mask is not None:
                allowed = np.asarray(mask)
                if allowed.shape[-1] != scores.shape[1]:
                    raise InvalidInput(f"a vocabulary mask of shape {list(allowed.shape)} for {scores.shape[1]} words")
                if allowed.ndim == 2:
                    allowed = np.repeat(allowed, len(scores) // len(allowed), axis=0)
                scores = np.where(allowed == 0, lowest, scores)
        if sequences.shape[1] < self._min_length:
            scores[:, self._eos] = lowest
        return scores


class Decoder:
    """A decoder with its past, one step at a time."""

    def __init__(self, first: Body, later: Body, rows: int) -> None:
        names = [name for name, _ in later.inputs]
        if len(names) < 4 or "input_ids" not in names[0] or later.n_outputs != len(names) - 2:
            raise InvalidInput(
                f"the decoder takes input_ids, position_ids, attention_mask and a past a layer, this one {names}"
            )
        self._bodies, self._steps = (first, later), 0
        self._dtype = np.int32
        self._past = [self._empty(type_, rows, name) for name, type_ in later.inputs[3:]]

    @staticmethod
    def _empty(known: Any, rows: int, name: str) -> Array:
        shape = known.shape if isinstance(known, TensorType) else None
        if shape is None or len(shape) != 5 or not isinstance(shape[2], int) or not isinstance(shape[4], int):
            raise InvalidInput(f"decoder input {name} must have shape (2, batch, heads, positions, head size)")
        return np.zeros((2, rows, shape[2], 0, shape[4]), DTYPE_OF[known.element])

    def __call__(self, ids: Array, positions: Array, mask: Array) -> Array:
        """Logits of the last position, [rows, V] in float32."""
        body = self._bodies[min(self._steps, 1)]
        self._steps += 1
        values = (np.ascontiguousarray(value, dtype=self._dtype) for value in (ids, positions, mask))
        logits, *self._past = body(*values, *self._past)
        if logits.ndim != 3 or logits.shape[0] != len(ids):
            raise InvalidInput(f"the decoder gave logits of shape {list(logits.shape)} for {len(ids)} sequences")
        return logits[:, -1].astype(np.float32)

    def reorder(self, rows: Array) -> None:
        """Each row goes on from the past of another."""
        self._past = [past[:, rows] for past in self._past]


def _start(input_ids: Any, attention_mask: Any, pad: int, beams: int) -> tuple[Array, Array, Array]:
    """(sequences, position_ids, mask), each [B * W, S]; padding stands before a prompt."""
    ids = np.asarray(input_ids)
    if ids.ndim != 2 or not ids.size:
        raise InvalidInput(f"Input 'input_ids' is expected to have 2 dimensions, got shape {list(ids.shape)}")
    if attention_mask is not None and np.shape(attention_mask) != ids.shape:
        raise InvalidInput(f"attention_mask of shape {list(np.shape(attention_mask))} for {list(ids.shape)}")
    mask = (ids != pad).astype(np.int32) if attention_mask is None else np.asarray(attention_mask).astype(np.int32)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0) * mask
    return tuple(np.repeat(value, beams, axis=0) for value in (ids, positions, mask))  # type: ignore[return-value]


def _lengths(input_ids: Any, max_length: Any, min_length: Any) -> tuple[int, int]:
    most, least = _number(max_length, 0, "max_length"), _number(min_length, 0, "min_length")
    steps = np.shape(input_ids)[-1] if np.ndim(input_ids) else 0
    if most <= steps:
        raise InvalidInput(f"max_length ({most}) shall be greater than input sequence length ({steps})")
    return int(most), int(least)


def _decoder_only(model_type: int, encoder: Body | None) -> None:
    if model_type != 0 or encoder is not None:
        raise MissingKernel("searches with an encoder (model_type other than 0) have no kernel; decoders alone have")


@kernel("GreedySearch", domain=_MS, device="cpu")
def greedy_search(
    xp: ModuleType,
    input_ids: Array,
    max_length: Array,
    min_length: Array | None = None,
    repetition_penalty: Array | None = None,
    vocab_mask: Array | None = None,
    prefix_vocab_mask: Array | None = None,
    attention_mask: Array | None = None,
    *,
    decoder: Body,
    decoder_start_token_id: int = -1,
    encoder: Body | None = None,
    eos_token_id: int,
    init_decoder: Body | None = None,
    model_type: int = 0,
    no_repeat_ngram_size: int = 0,
    pad_token_id: int,
    vocab_size: int = -1,
) -> Array:
    """The most likely next token, again and again: [B, max_length], filled up with the padding token."""
    _decoder_only(model_type, encoder)
    most, least = _lengths(input_ids, max_length, min_length)
    penalty = _number(repetition_penalty, 1.0, "repetition_penalty")
    rules = Rules(eos_token_id, least, penalty, no_repeat_ngram_size, vocab_mask, prefix_vocab_mask)
    sequences, positions, mask = _start(input_ids, attention_mask, pad_token_id, 1)
    run = Decoder(init_decoder or decoder, decoder, len(sequences))
    ids, done, first = sequences, np.zeros(len(sequences), bool), True
    while sequences.shape[1] < most and not done.all():
        scores = rules(run(ids, positions, mask), sequences, first)
        words = scores.argmax(axis=1)
        done |= words == eos_token_id
        words[done] = pad_token_id  # the end itself is not written
        sequences, ids, positions, mask = _longer(sequences, words, mask)
        first = False
    rest = np.full((len(sequences), most - sequences.shape[1]), pad_token_id, sequences.dtype)
    return np.concatenate([sequences, rest], axis=1)


def _longer(sequences: Array, words: Array, mask: Array) -> tuple[Array, Array, Array, Array]:
    """(sequences with the new words, these as next inputs, their positions, the mask)"""
    words = words.astype(sequences.dtype)[:, None]
    positions = mask.sum(axis=1, keepdims=True)
    return (
        np.concatenate([sequences, words], axis=1),
        words,
        positions,
        np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1),
    )


class Hypotheses:
    """The best finished sequences of one entry of the batch."""

    def __init__(self, beams: int, length_penalty: float, early_stopping: bool) -> None:
        self._beams, self._penalty, self._early = beams, length_penalty, early_stopping
        self.found: list[tuple[float, Array]] = []  # best first
        self.done = False

    def add(self, sequence: Array, log_probability: float) -> None:
        score = log_probability / len(sequence) ** self._penalty
        if len(self.found) < self._beams or score > self.found[-1][0]:
            self.found.append((score, sequence))
            self.found.sort(key=lambda item: -item[0])
            del self.found[self._beams :]

    def can_stop(self, best: float, length: int) -> bool:
        """Whether no beam can still get better than the worst that was found."""
        if len(self.found) < self._beams:
            return False
        return self._early or self.found[-1][0] >= best / length**self._penalty


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@kernel("BeamSearch", domain=_MS, device="cpu")
def beam_search(
    xp: ModuleType,
    input_ids: Array,
    max_length: Array,
    min_length: Array | None,
    num_beams: Array,
    num_return_sequences: Array,
    length_penalty: Array | None = None,
    repetition_penalty: Array | None = None,
    vocab_mask: Array | None = None,
    prefix_vocab_mask: Array | None = None,
    attention_mask: Array | None = None,
    decoder_input_ids: Array | None = None,
    logits_processor: Array | None = None,
    *,
    decoder: Body,
    decoder_start_token_id: int = -1,
    early_stopping: int = 0,
    encoder: Body | None = None,
    eos_token_id: int,
    init_decoder: Body | None = None,
    model_type: int = 0,
    no_repeat_ngram_size: int = 0,
    pad_token_id: int,
    vocab_size: int = -1,
) -> tuple[Array, Array, Array]:
    """Outputs: sequences [B, returned, max_length], their scores [B, returned], scores of all words at each step."""
    _decoder_only(model_type, encoder)
    most, least = _lengths(input_ids, max_length, min_length)
    beams, returned = _number(num_beams, 1, "num_beams"), _number(num_return_sequences, 1, "num_return_sequences")
    if not 1 <= returned <= beams:
        raise InvalidInput(f"'num_return_sequences' {returned} must be from 1 to num_beams {beams}")
    penalty = _number(repetition_penalty, 1.0, "repetition_penalty")
    rules = Rules(eos_token_id, least, penalty, no_repeat_ngram_size, vocab_mask, prefix_vocab_mask)
    sequences, positions, mask = _start(input_ids, attention_mask, pad_token_id, beams)
    rows = len(sequences)
    batch, steps = rows // beams, sequences.shape[1]
    run = Decoder(init_decoder or decoder, decoder, rows)
    exponent = _number(length_penalty, 1.0, "length_penalty")
    kept = [Hypotheses(beams, exponent, bool(early_stopping)) for _ in range(batch)]
    totals = np.full((batch, beams), -1e9, np.float32)
    totals[:, 0] = 0  # at first all beams are one
    ids = sequences
    shown: list[Array] = []
    while sequences.shape[1] < most and not all(entry.done for entry in kept):
        scores = rules(_log_softmax(run(ids, positions, mask)), sequences, not shown)
        scores = scores + totals.reshape(-1, 1)
        words_all = scores.shape[1]
        shown.append(scores.reshape(batch, beams, words_all))
        flat = scores.reshape(batch, -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, : 2 * beams]
        words, beam = best % words_all, best // words_all
        top = np.take_along_axis(flat, best, axis=1)
        chosen = np.zeros((batch, beams), np.int64)  # which row each new beam goes on from
        next_words = np.full((batch, beams), pad_token_id)
        for entry, hypotheses in enumerate(kept):
            chosen[entry] = entry * beams + np.arange(beams)
            if hypotheses.done:
                totals[entry] = 0
                continue
            _advance(
                hypotheses, words[entry], entry * beams + beam[entry], top[entry], sequences, eos_token_id,
                chosen[entry], next_words[entry], totals[entry],
            )  # fmt: skip
            hypotheses.done = hypotheses.can_stop(float(top[entry].max()), sequences.shape[1])
        rows_from = chosen.reshape(-1)
        run.reorder(rows_from)
        sequences, ids, positions, mask = _longer(sequences[rows_from], next_words.reshape(-1), mask[rows_from])
    for entry, hypotheses in enumerate(kept):
        if not hypotheses.done:
            for row, total in enumerate(totals[entry]):
                hypotheses.add(sequences[entry * beams + row], float(total))
    result = np.full((batch, returned, most), pad_token_id, sequences.dtype)
    final = np.zeros((batch, returned), np.float32)
    for entry, hypotheses in enumerate(kept):
        for place, (score, sequence) in enumerate(hypotheses.found[:returned]):
            result[entry, place, : len(sequence)] = sequence
            final[entry, place] = score
    every = np.zeros((most - steps, batch, beams, shown[0].shape[2]), np.float32)
    every[: len(shown)] = shown
    return result, final, every


def _advance(
    hypotheses: Hypotheses,
    words: Array,
    rows: Array,
    scores: Array,
    sequences: Array,
    eos: int,
    chosen: Array,
    next_words: Array,
    totals: Array,
) -> None:
    """Of the best 2 * W continuations, those that end are put aside, W others go on."""
    place, beams = 0, len(chosen)
    for rank, (word, row, score) in enumerate(zip(words, rows, scores, strict=True)):
        if word == eos:
            if rank < beams:
                hypotheses.add(sequences[row], float(score))
            continue
        chosen[place], next_words[place], totals[place] = row, word, score
        place += 1
        if place == beams:
            return
