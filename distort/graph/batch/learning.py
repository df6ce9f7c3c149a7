"""Operators of ai.onnx.ml: a row of the input is a sample."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import EVERY, ML, Site, rule
from .values import Tensor, Value


def _rows(site: Site, position: int = 0) -> Tensor:
    value = site.tensor(position)
    if value.axis is not None and (value.axis != 0 or value.rank != 2):
        site.refuse("its input isn't a matrix with a sample in each row")
    return value


@rule("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier", domain=ML)
def classifier(site: Site) -> Sequence[Value]:
    value = _rows(site)
    if value.axis is None:
        return [Tensor() for _ in site.node.outputs]
    return [Tensor((value.rows,), 0), Tensor((value.rows, None), 0)][: len(site.node.outputs)]


@rule("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor", "TreeEnsemble", domain=ML)
def regressor(site: Site) -> Value:
    value = _rows(site)
    return Tensor((value.rows, None), 0) if value.axis is not None else Tensor()


@rule("Scaler", "Imputer", "Normalizer", domain=ML)
def by_row(site: Site) -> Value:
    value = _rows(site)
    return Tensor(value.dims, value.axis)


@rule("FeatureVectorizer", domain=ML, samples=EVERY)
def feature_vectorizer(site: Site) -> Value:
    values = [_rows(site, i) for i in range(len(site.inputs))]
    if len({(value.axis, value.dims[0]) for value in values}) > 1:
        site.refuse("its inputs are not made of the same samples")
    return Tensor((values[0].dims[0], None), values[0].axis)


@rule("OneHotEncoder", domain=ML)
def one_hot_encoder(site: Site) -> Value:
    value = site.tensor()
    return Tensor((*value.dims, None), value.axis)


@rule("ArrayFeatureExtractor", domain=ML)
def feature_extractor(site: Site) -> Value:
    value = site.tensor()
    if value.axis == value.rank - 1:
        site.refuse("it picks from the samples by their number")
    picked = site.tensor(1)
    count = None
    if picked.shape is not None and all(dim is not None for dim in picked.shape):
        count = 1
        for dim in picked.shape:
            count *= dim or 0
    if value.rank == 1:
        return Tensor((1, count))
    return Tensor((*value.dims[:-1], count), value.axis)


@rule("ZipMap", domain=ML)
def zip_map(site: Site) -> Value:
    # a list with a map for each row
    value = _rows(site)
    return Tensor((value.rows,), 0) if value.axis is not None else Tensor()
