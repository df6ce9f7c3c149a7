"""Layers of a small convolutional network: forward, backward and Adam, in plain numpy.

Arrays are [N, C, H, W] or [N, F], in the dtype of the weights. ``forward`` keeps what ``backward`` needs;
``backward`` takes the gradient of the loss by the layer's output, stores those of its weights and returns that of its
input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Parameter:
    """A weight, its gradient, and Adam's two moments."""

    def __init__(self, value: Array) -> None:
        self.value = value
        self.gradient = np.zeros_like(value)
        self.mean = np.zeros_like(value)
        self.square = np.zeros_like(value)


class Layer(Protocol):
    def forward(self, x: Array) -> Array: ...

    def backward(self, gradient: Array) -> Array: ...

    def parameters(self) -> list[Parameter]: ...


class Conv:
    """A convolution of odd ``size`` with stride 1 that keeps height and width."""

    def __init__(self, rng: np.random.Generator, channels_in: int, channels_out: int, size: int = 3) -> None:
        fan_in = channels_in * size * size
        scale = np.sqrt(2.0 / fan_in)
        self.weight = Parameter(
            (rng.standard_normal((channels_out, channels_in, size, size)) * scale).astype(np.float32)
        )
        self.bias = Parameter(np.zeros(channels_out, np.float32))
        self.size = size

    def _columns(self, x: Array) -> Array:
        pad = self.size // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.size, self.size), axis=(2, 3))
        n, channels, height, width = x.shape
        # [N, C, H, W, k, k] -> [N·H·W, C·k·k]
        return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, channels * self.size * self.size)

    def _correlate(self, x: Array, weight: Array) -> tuple[Array, Array]:
        n, _, height, width = x.shape
        columns = self._columns(x)
        y = columns @ weight.reshape(len(weight), -1).T
        return y.reshape(n, height, width, len(weight)).transpose(0, 3, 1, 2), columns

    def forward(self, x: Array) -> Array:
        y, self._saved = self._correlate(x, self.weight.value)
        return y + self.bias.value[None, :, None, None]

    def backward(self, gradient: Array) -> Array:
        flat = gradient.transpose(0, 2, 3, 1).reshape(-1, gradient.shape[1])  # [N·H·W, M]
        self.weight.gradient = (flat.T @ self._saved).reshape(self.weight.value.shape)
        self.bias.gradient = flat.sum(axis=0)
        # the gradient by x is the correlation with the kernel turned by 180° and channels swapped
        turned = np.ascontiguousarray(self.weight.value[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        return self._correlate(gradient, turned)[0]

    def parameters(self) -> list[Parameter]:
        return [self.weight, self.bias]


class Dense:
    def __init__(self, rng: np.random.Generator, features_in: int, features_out: int) -> None:
        scale = np.sqrt(2.0 / features_in)
        self.weight = Parameter((rng.standard_normal((features_in, features_out)) * scale).astype(np.float32))
        self.bias = Parameter(np.zeros(features_out, np.float32))

    def forward(self, x: Array) -> Array:
        self._saved = x
        return x @ self.weight.value + self.bias.value

    def backward(self, gradient: Array) -> Array:
        self.weight.gradient = self._saved.T @ gradient
        self.bias.gradient = gradient.sum(axis=0)
        return gradient @ self.weight.value.T

    def parameters(self) -> list[Parameter]:
        return [self.weight, self.bias]


class Relu:
    def forward(self, x: Array) -> Array:
        self._saved = x > 0
        return np.where(self._saved, x, x.dtype.type(0))

    def backward(self, gradient: Array) -> Array:
        return np.where(self._saved, gradient, gradient.dtype.type(0))

    def parameters(self) -> list[Parameter]:
        return []


class MaxPool:
    """Maximum over 2×2 windows that don't overlap; height and width are even."""

    def forward(self, x: Array) -> Array:
        n, channels, height, width = x.shape
        windows = x.reshape(n, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        flat = windows.reshape(n, channels, height // 2, width // 2, 4)
        self._saved = flat.argmax(axis=-1)[..., None]  # of equal maxima, the first gets the gradient
        return np.take_along_axis(flat, self._saved, axis=-1)[..., 0]

    def backward(self, gradient: Array) -> Array:
        n, channels, height, width = gradient.shape
        flat = np.zeros((n, channels, height, width, 4), gradient.dtype)
        np.put_along_axis(flat, self._saved, gradient[..., None], axis=-1)
        windows = flat.reshape(n, channels, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
        return windows.reshape(n, channels, height * 2, width * 2)

    def parameters(self) -> list[Parameter]:
        return []


class Flatten:
    def forward(self, x: Array) -> Array:
        self._saved = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        return gradient.reshape(self._saved)

    def parameters(self) -> list[Parameter]:
        return []


class Residual:
    """``x + inner(x)``."""

    def __init__(self, *inner: Layer) -> None:
        self.inner = Chain(inner)

    def forward(self, x: Array) -> Array:
        return x + self.inner.forward(x)

    def backward(self, gradient: Array) -> Array:
        return gradient + self.inner.backward(gradient)

    def parameters(self) -> list[Parameter]:
        return self.inner.parameters()


class Chain:
    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, gradient: Array) -> Array:
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient

    def parameters(self) -> list[Parameter]:
        return [parameter for layer in self.layers for parameter in layer.parameters()]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean loss over the batch, and its gradient by ``logits`` [N, classes]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_probability)
    gradient[rows, labels] -= 1
    return float(-log_probability[rows, labels].mean()), gradient / len(labels)


@dataclass
class Adam:
    """Adam (Kingma and Ba, 2015), weight decay kept apart from the gradient (AdamW, Loshchilov and Hutter, 2019)."""

    parameters: list[Parameter]
    decay: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    steps: int = field(default=0, init=False)

    def step(self, learning_rate: float) -> None:
        self.steps += 1
        correction1 = 1 - self.beta1**self.steps
        correction2 = 1 - self.beta2**self.steps
        for p in self.parameters:
            p.mean = self.beta1 * p.mean + (1 - self.beta1) * p.gradient
            p.square = self.beta2 * p.square + (1 - self.beta2) * p.gradient**2
            update = (p.mean / correction1) / (np.sqrt(p.square / correction2) + self.epsilon)
            decay = self.decay if p.value.ndim > 1 else 0.0
            p.value = p.value - learning_rate * (update + decay * p.value)
