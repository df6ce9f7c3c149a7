"""The first example of sklearn-onnx's documentation: train, convert, predict with onnxruntime."""

import json

import numpy as np
import onnxruntime as rt
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

iris = load_iris()
X, y = iris.data, iris.target
X = X.astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
clr = RandomForestClassifier(random_state=0)
clr.fit(X_train, y_train)

onx = to_onnx(clr, X[:1])
sess = rt.InferenceSession(onx.SerializeToString(), providers=["CPUExecutionProvider"])
input_name = sess.get_inputs()[0].name
label_name = sess.get_outputs()[0].name
pred_onx = sess.run([label_name], {input_name: X_test.astype(np.float32)})[0]
print(json.dumps({"agree": bool((pred_onx == clr.predict(X_test)).all()), "module": rt.InferenceSession.__module__}))
