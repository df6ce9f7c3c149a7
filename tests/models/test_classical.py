"""What skl2onnx and onnxmltools emit: labels agree with the trained estimator, scores to 1e-3."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import distort

pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

from skl2onnx._supported_operators import sklearn_operator_name_map  # noqa: E402
from sklearn.base import is_classifier, is_outlier_detector, is_regressor  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    IsolationForest,
    RandomForestClassifier,
    RandomTreesEmbedding,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer  # noqa: E402
from sklearn.gaussian_process import GaussianProcessClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors, RadiusNeighborsClassifier, RadiusNeighborsRegressor  # noqa: E402
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import (  # noqa: E402
    KBinsDiscretizer,
    LabelEncoder,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection  # noqa: E402
from sklearn.svm import SVC, LinearSVC  # noqa: E402
from sklearn.tree import DecisionTreeRegressor  # noqa: E402
from sklearn.utils import all_estimators  # noqa: E402

_random = np.random.default_rng(0)
_X = _random.normal(size=(80, 6)).astype(np.float32)
_NEW = _random.normal(size=(25, 6)).astype(np.float32)
_TOLD = _X[:, 2] + _X[:, 4]  # the first feature alone would make skl2onnx's selectors invalid
_CLASSES = (_TOLD > 0.4).astype(int) + (_TOLD > -0.4).astype(int)
_VALUES = (_X @ _random.normal(size=6) + 0.1 * _random.normal(size=80)).astype(np.float32)
_POSITIVE = {"MultinomialNB", "ComplementNB", "PoissonRegressor", "GammaRegressor", "TweedieRegressor"}
_TWO_TARGETS = {"MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"}
_OPSETS = {"": 21, "ai.onnx.ml": 3}

#: built by hand: they need parts, other data, or settings that convert
_BY_HAND = {
    "VotingClassifier": VotingClassifier(
        [("a", LogisticRegression()), ("b", GaussianNB())], voting="soft", flatten_transform=False
    ),
    "GaussianRandomProjection": GaussianRandomProjection(3),
    "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
    "NearestNeighbors": NearestNeighbors(n_neighbors=3, radius=None),
    "KBinsDiscretizer": KBinsDiscretizer(encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "RandomTreesEmbedding": RandomTreesEmbedding(n_estimators=4, sparse_output=False),
    "VotingRegressor": VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))]),
    "StackingClassifier": StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
    "StackingRegressor": StackingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))], cv=2),
    "GridSearchCV": GridSearchCV(LogisticRegression(), {"C": [0.5, 1.0]}, cv=2),
    "Pipeline": Pipeline([("scale", StandardScaler()), ("tell", LogisticRegression())]),
    "FeatureUnion": FeatureUnion([("scale", StandardScaler()), ("same", "passthrough")]),
    "ColumnTransformer": ColumnTransformer([("scale", StandardScaler(), [0, 1]), ("same", "passthrough", [2, 3])]),
    "QuantileTransformer": QuantileTransformer(n_quantiles=12),  # by default skl2onnx takes seconds for these two
    "IsolationForest": IsolationForest(n_estimators=8),
    "LinearSVC": LinearSVC(),
    "SVC": SVC(probability=True, random_state=0),
    "GaussianProcessClassifier": GaussianProcessClassifier(),
    "RadiusNeighborsClassifier": RadiusNeighborsClassifier(radius=3.0, outlier_label=0),
    "RadiusNeighborsRegressor": RadiusNeighborsRegressor(radius=3.0),
}  # fmt: skip
#: not for rows of numbers, or checked below
_ELSEWHERE = {
    "CountVectorizer", "TfidfVectorizer", "DictVectorizer", "LabelEncoder", "OneHotEncoder", "OrdinalEncoder",
    "LabelBinarizer", "FeatureHasher",
}  # fmt: skip
#: nothing is selected in this data: skl2onnx writes a model that is invalid, onnxruntime refuses it too
_NOTHING_LEFT = {
    "GenericUnivariateSelect",
    "SelectFdr",
    "SelectFpr",
    "SelectFromModel",
    "SelectFwe",
    "SelectPercentile",
}


def _estimators() -> list[Any]:
    known = {kind.__name__ for kind in sklearn_operator_name_map}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            pytest.param(name, kind, id=name)
            for name, kind in all_estimators()
            if name in known and name not in _ELSEWHERE
        ]


def _converted(estimator: Any, sample: Any, **options: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"target_opset": _OPSETS, **options}
        if is_classifier(estimator):
            try:
                settings = {id(estimator): {"zipmap": False}}
                return bytes(skl2onnx.to_onnx(estimator, sample, options=settings, **options).SerializeToString())
            except NameError:  # no such option
                pass
        return bytes(skl2onnx.to_onnx(estimator, sample, **options).SerializeToString())


def _same(got: Any, want: Any) -> None:
    want = np.asarray(want.toarray() if hasattr(want, "toarray") else want)
    got = np.asarray(got).reshape(want.shape)
    if want.dtype.kind in "OUS":
        assert got.tolist() == want.tolist()
    else:
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-3, atol=1e-3)


def _answers(model: bytes, rows: Any) -> list[Any]:
    session = distort.InferenceSession(model)
    return list(session.run(None, {session.get_inputs()[0].name: rows}))


def _check(estimator: Any, model: bytes, rows: Any) -> None:
    results = _answers(model, rows)
    if hasattr(estimator, "support_") and hasattr(estimator, "ranking_"):  # selects features, whatever it wraps
        _same(results[0], estimator.transform(rows))
    elif is_classifier(estimator):
        _same(results[0], estimator.predict(rows))
        if hasattr(estimator, "predict_proba"):
            _same(results[1], estimator.predict_proba(rows))
    elif is_regressor(estimator) or is_outlier_detector(estimator) or not hasattr(estimator, "transform"):
        _same(results[0], estimator.predict(rows))
    elif hasattr(estimator, "predict"):  # clusters: labels, then distances
        _same(results[0], estimator.predict(rows))
        _same(results[1], estimator.transform(rows))
    else:
        _same(results[0], estimator.transform(rows))


@pytest.mark.parametrize(("name", "kind"), _estimators())
@pytest.mark.filterwarnings("ignore")
def test_estimator(name: str, kind: Any) -> None:
    estimator = _BY_HAND.get(name)
    if estimator is None:
        try:
            estimator = kind()
        except TypeError:
            base = LogisticRegression() if "Classifier" in name or "Chain" in name else Ridge()
            base = LogisticRegression() if name in ("RFE", "RFECV", "SelectFromModel") else base
            estimator = kind(base)
    if hasattr(estimator, "random_state"):
        estimator.random_state = 0
    x, new = (np.abs(v) if name in _POSITIVE else v for v in (_X, _NEW))
    if name == "CategoricalNB":
        x, new = (np.clip(np.floor(np.abs(v) * 2), 0, 2) for v in (_X, _NEW))
    target: Any = _CLASSES
    if name == "KernelCenterer":
        x, new = x @ x.T, new @ x.T
    if is_regressor(estimator):
        target = np.abs(_VALUES) + 0.1 if name in _POSITIVE else _VALUES
    if name in ("GaussianProcessClassifier", "TunedThresholdClassifierCV", "TargetEncoder"):
        target = np.minimum(_CLASSES, 1)
    if name in _TWO_TARGETS or name in ("MultiOutputRegressor", "RegressorChain"):
        target = np.stack([_VALUES, _VALUES * 2 + 1], 1)
    if name in ("MultiOutputClassifier", "ClassifierChain"):
        target = np.stack([np.minimum(_CLASSES, 1), _CLASSES // 2], 1)
    try:
        estimator.fit(x, target)
        model = _converted(estimator, x[:1])
    except Exception as error:  # noqa: BLE001  # of many libraries
        pytest.skip(f"does not train on this data, or does not convert: {error!r}"[:200])
    if name in ("MultiOutputClassifier",):
        labels, *scores = _answers(model, new)
        _same(labels, estimator.predict(new))
        _same(np.asarray(scores[0]), np.stack(estimator.predict_proba(new)))
        return
    if name == "GaussianProcessClassifier":  # its converter writes an operator that onnxruntime has not either
        with pytest.raises(distort.capi.onnxruntime_pybind11_state.Fail, match=r"com\.microsoft:Solve"):
            _answers(model, new)
        return
    if name == "NearestNeighbors":
        distances, indices = estimator.kneighbors(new)
        got = _answers(model, new)
        _same(got[0], indices)
        _same(got[1], distances)
        return
    _check(estimator, model, new)


_TEXTS = np.array([["a small cat"], ["a dog, small"], ["the dog and the cat"], ["nothing here"]], object)


@pytest.mark.parametrize("kind", [CountVectorizer, TfidfVectorizer])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2), (2, 3)])
def test_texts(kind: Any, ngrams: tuple[int, int]) -> None:
    vectorizer = kind(ngram_range=ngrams, token_pattern="[a-z]+").fit(_TEXTS.ravel())
    types = [("text", skl2onnx.common.data_types.StringTensorType([None, 1]))]
    settings = {id(vectorizer): {"tokenexp": "[a-z]+"}}
    model = skl2onnx.to_onnx(vectorizer, initial_types=types, options=settings, target_opset=_OPSETS)
    _same(_answers(model.SerializeToString(), _TEXTS)[0], vectorizer.transform(_TEXTS.ravel()))


def test_dictionaries() -> None:
    rows = [{"a": 1.0, "b": 2.0}, {"b": 0.5, "c": -1.0}]
    vectorizer = DictVectorizer(sparse=False).fit(rows)
    kinds = skl2onnx.common.data_types
    types = [("x", kinds.DictionaryType(kinds.StringTensorType([1]), kinds.FloatTensorType([])))]
    model = skl2onnx.to_onnx(vectorizer, initial_types=types, target_opset=_OPSETS).SerializeToString()
    for row in rows:
        _same(_answers(model, row)[0], vectorizer.transform([row]))


def test_categories() -> None:
    words = np.array([["x", "u"], ["y", "v"], ["x", "w"]], object)
    types = [("x", skl2onnx.common.data_types.StringTensorType([None, 2]))]
    for encoder in (OneHotEncoder(sparse_output=False), OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()):
        encoder.fit(words)
        model = skl2onnx.to_onnx(encoder, initial_types=types, target_opset=_OPSETS)
        _same(_answers(model.SerializeToString(), words)[0], encoder.transform(words))
    labels = LabelEncoder().fit(words[:, 0])
    types = [("x", skl2onnx.common.data_types.StringTensorType([None, 1]))]
    model = skl2onnx.to_onnx(labels, initial_types=types, target_opset=_OPSETS)
    _same(_answers(model.SerializeToString(), words[:, :1])[0], labels.transform(words[:, 0]))


def test_a_pipeline_of_everything() -> None:
    chain = make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), [0, 1, 2]), ("same", "passthrough", [3])]),
        RandomForestClassifier(n_estimators=20, random_state=0),
    ).fit(_X, np.array(["no", "perhaps", "yes"])[_CLASSES])
    _check(chain, _converted(chain, _X[:1]), _NEW)


def test_maps_of_scores() -> None:
    """ZipMap, skl2onnx's default: a list of dictionaries."""
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(_X, _CLASSES)
    model = skl2onnx.to_onnx(forest, _X[:1], target_opset=_OPSETS)
    _, maps = _answers(model.SerializeToString(), _NEW)
    assert [sorted(row) for row in maps] == [[0, 1, 2]] * len(_NEW)
    _same([[row[key] for key in (0, 1, 2)] for row in maps], forest.predict_proba(_NEW))


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
@pytest.mark.parametrize("task", ["binary", "classes", "values", "missing"])
@pytest.mark.filterwarnings("ignore")
def test_boosted_trees(library: str, task: str) -> None:
    boost = pytest.importorskip(library)
    tools = pytest.importorskip("onnxmltools")
    x, new = _X, _NEW
    if task == "missing":
        x, new = (np.where(_random.random(v.shape) < 0.1, np.nan, v).astype(np.float32) for v in (_X, _NEW))
    quiet = {"verbose": -1, "min_child_samples": 5} if library == "lightgbm" else {}
    prefix = "LGBM" if library == "lightgbm" else "XGB"
    regression = task in ("values", "missing")
    kind = getattr(boost, prefix + ("Regressor" if regression else "Classifier"))
    target = _VALUES if regression else np.minimum(_CLASSES, 1) if task == "binary" else _CLASSES
    estimator = kind(n_estimators=15, max_depth=4, **quiet).fit(x, target)
    convert = tools.convert_lightgbm if library == "lightgbm" else tools.convert_xgboost
    types = [("x", tools.convert.common.data_types.FloatTensorType([None, 6]))]
    settings = {"zipmap": False} if library == "lightgbm" else {}
    try:
        model = convert(estimator, initial_types=types, target_opset=15, **settings)
    except Exception as error:  # noqa: BLE001  # of many libraries
        pytest.skip(f"does not convert: {error!r}"[:200])
    results = _answers(model.SerializeToString(), new)
    _same(results[0], estimator.predict(new))
    if not regression:
        _same(results[1], estimator.predict_proba(new))
