"""OrtDevice and OrtValue: what they are made from, what they tell, whose memory they are."""

from __future__ import annotations

import pickle
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from .table import Env, Fails, Section, f32

D = Section("OrtDevice")


def device(ort: Any, name: str, number: int = 0) -> tuple[int, ...]:
    made = ort.OrtDevice.make(name, number)
    return made.device_type(), made.device_id(), made.device_vendor_id(), made.device_mem_type()


for _name, _expected in (
    ("cpu", (0, 0, 0, 0)),
    ("cuda", (1, 0, 4318, 0)),
    ("gpu", (1, 0, 0, 0)),
    ("npu", (3, 0, 0, 0)),
    ("dml", (1, 0, 5140, 0)),
    ("cann", (3, 0, 6629, 0)),
    ("webgpu", (1, 0, 0, 0)),
    ("tpu", Fails("Exception", "Unsupported device type: tpu")),
    ("CPU", Fails("Exception", "Unsupported device type: CPU")),
):
    D.row(
        f"OrtDevice.make('{_name}',0) → type,id,vendor,mem", lambda ort, env, name=_name: device(ort, name), _expected
    )
D.row("OrtDevice.make('cpu',3).device_id()", lambda ort, env: ort.OrtDevice.make("cpu", 3).device_id(), 3)
D.row(
    "OrtDevice('cpu')",
    lambda ort, env: ort.OrtDevice("cpu"),
    Fails("ValueError", "`Provided object` needs to be of type `…OrtDevice`"),
)
D.row("OrtDeviceVendorId.NVIDIA", lambda ort, env: ort.OrtDeviceVendorId.NVIDIA, "<OrtDeviceVendorId.NVIDIA: 4318>")
D.row(
    "C.OrtDevice str/eq",
    lambda ort, env: (str(env.c.OrtDevice(0, 0, 0)), env.c.OrtDevice(0, 0, 0) == env.c.OrtDevice(0, 0, 0)),
    ("<C.OrtDevice object>", False),
)


@D.probe(
    "OrtMemoryInfo('Cpu',ORT_DEVICE_ALLOCATOR,0,DEFAULT) fields",
    ("Cpu", 0, "<OrtMemType.DEFAULT: 0>", "<OrtAllocatorType.ORT_DEVICE_ALLOCATOR: 0>"),
)
def _(ort: Any, env: Env) -> object:
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    return info.name, info.device_id, info.mem_type, info.allocator_type


V = Section("OrtValue")
NO_STRINGS = Fails("RuntimeError", "Creation of OrtValues is currently only supported from non-string numpy arrays")
NO_DEVICE = Fails("RuntimeError", "Can't allocate memory on the device using this package of OnnxRuntime…")
X = f32([[1, 2], [3, 4], [5, 6]])


@V.probe(
    "ortvalue_from_numpy(x): device_name, shape, data_type, element_type, is_tensor, is_sparse_tensor, "
    "is_tensor_sequence, has_value, size",
    ("cpu", [3, 2], "tensor(float)", 1, True, False, False, True, 24),
)
def _(ort: Any, env: Env) -> object:
    value = env.value(env.x)
    return (
        *(value.device_name(), value.shape(), value.data_type(), value.element_type(), value.is_tensor()),
        *(value.is_sparse_tensor(), value.is_tensor_sequence(), value.has_value(), value.tensor_size_in_bytes()),
    )


V.row("shape() type", lambda ort, env: type(env.value(env.x).shape()), "<class list>")


@V.probe("ortvalue_from_numpy shares memory with source (cpu)", True)
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    return env.value(x).data_ptr() == x.ctypes.data


@V.probe("mutating the source is visible", np.float32(77))
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    value = env.value(x)
    x[0, 0] = 77
    return value.numpy()[0, 0]


@V.probe("numpy() shares memory? / new object each call", (True, True))
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    value = env.value(x)
    first, second = value.numpy(), value.numpy()
    return np.shares_memory(first, x), first is not second


@V.probe("np.asarray(ov) shares?", True)
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    value = env.value(x)
    return np.shares_memory(np.asarray(value), x)


V.row("np.array(ov,dtype=float64)", lambda ort, env: np.array(env.value(env.x), dtype=np.float64).dtype.name, "float64")
V.row(
    "ortvalue_from_numpy(non-contiguous)",
    lambda ort, env: env.value(env.x[:, ::-1]).numpy().copy(),
    f32([[2, 1], [4, 3], [6, 5]]),
)
V.row(
    "ortvalue_from_numpy(fortran) (data, shape)", lambda ort, env: env.value(np.asfortranarray(env.x)).numpy().copy(), X
)
for _call, _given, _expected in (
    ("list", [1.0], NO_STRINGS),
    ("np.float32(1)", np.float32(1), NO_STRINGS),
    ("<U array", np.array(["a"]), NO_STRINGS),
    ("complex64", np.zeros(1, np.complex64), Fails("RuntimeError", "Numpy_type 14 can't be converted to MLDataType.")),
):
    V.row(f"ortvalue_from_numpy({_call})", lambda ort, env, given=_given: env.value(given), _expected)
V.row("ortvalue_from_numpy(0-d)", lambda ort, env: env.value(f32(1)).shape(), [])
V.row("ortvalue_from_numpy(zero-size)", lambda ort, env: env.value(np.zeros((0, 2), np.float32)).shape(), [0, 2])
V.row("string OrtValue data_ptr()", lambda ort, env: env.value(np.array(["a"])).data_ptr(), NO_STRINGS)
V.row(
    "string OrtValue tensor_size_in_bytes()",
    lambda ort, env: env.value(np.array(["a"])).tensor_size_in_bytes(),
    NO_STRINGS,
)
V.row(
    "ortvalue_from_numpy(ml_dtypes.bfloat16)",
    lambda ort, env: env.value(np.ones(2, ml_dtypes.bfloat16)).data_type(),
    NO_STRINGS,
    ours="tensor(bfloat16)",
    why="ml_dtypes arrays are taken as they are",
)
V.row("ortvalue_from_numpy(x,'cuda',0)", lambda ort, env: ort.OrtValue.ortvalue_from_numpy(env.x, "cuda", 0), NO_DEVICE)
V.row("ortvalue_from_numpy(x,'dml',0)", lambda ort, env: ort.OrtValue.ortvalue_from_numpy(env.x, "dml", 0), NO_DEVICE)
V.row(
    "ortvalue_from_numpy(x,'foo',0)",
    lambda ort, env: ort.OrtValue.ortvalue_from_numpy(env.x, "foo", 0),
    Fails("Exception", "Unsupported device type: foo"),
)
V.row(
    "ortvalue_from_numpy(x,'cpu',1)",
    lambda ort, env: ort.OrtValue.ortvalue_from_numpy(env.x, "cpu", 1).device_name(),
    "cpu",
)
V.row(
    "ortvalue_from_numpy(numpy_obj=x) keyword",
    lambda ort, env: ort.OrtValue.ortvalue_from_numpy(numpy_obj=env.x),
    Fails("TypeError", "OrtValue.ortvalue_from_numpy() got some positional-only arguments passed as keyword…"),
)


def empty(ort: Any, shape: Any, element: Any, *place: Any) -> Any:
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, element, *place)


@V.probe("ortvalue_from_shape_and_type([3,2],np.float32)", ([3, 2], "tensor(float)", "cpu"))
def _(ort: Any, env: Env) -> object:
    value = empty(ort, [3, 2], np.float32)
    return value.shape(), value.data_type(), value.device_name()


V.row(
    "… ((3,2) tuple, np.float32, 'cpu', 0)", lambda ort, env: empty(ort, (3, 2), np.float32, "cpu", 0).shape(), [3, 2]
)
for _call, _element, _expected in (
    ("np.dtype('float32')", np.dtype("float32"), "tensor(float)"),
    ("'float32' str", "float32", "tensor(float)"),
    ("TensorProto.BFLOAT16", TensorProto.BFLOAT16, "tensor(bfloat16)"),
    ("float (python)", float, "tensor(double)"),
    ("np.str_ / object", object, NO_STRINGS),
):
    V.row(f"… element_type {_call}", lambda ort, env, kind=_element: empty(ort, [1], kind).data_type(), _expected)
V.row(
    "… negative dim",
    lambda ort, env: empty(ort, [-1], np.float32),
    Fails("RuntimeError", "…Tensor shape.Size() must be >= 0…"),
)
V.row("… zero dim", lambda ort, env: empty(ort, [0, 2], np.float32).shape(), [0, 2])
V.row("… onnx type 99", lambda ort, env: empty(ort, [1], 99), Fails("RuntimeError", "tensor type 99 is not supported"))


def as_type(ort: Any, array: Any, element: int) -> Any:
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element)


V.row(
    "ortvalue_from_numpy_with_onnx_type(uint16→BFLOAT16)",
    lambda ort, env: as_type(ort, np.zeros(2, np.uint16), TensorProto.BFLOAT16).data_type(),
    "tensor(bfloat16)",
)
V.row(
    "… size mismatch (float32→BFLOAT16)",
    lambda ort, env: as_type(ort, env.x, TensorProto.BFLOAT16),
    Fails("RuntimeError", "…Items size in the incoming array: 4 specified by onnxtype: 2…"),
)


@V.probe(
    "… uint8→FLOAT8E4M3FN .numpy()",
    ("tensor(float8e4m3fn)", np.array([56], np.uint8)),
    ours=("tensor(float8e4m3fn)", np.array([1], ml_dtypes.float8_e4m3fn)),
    why="ml_dtypes arrays are handed out",
)
def _(ort: Any, env: Env) -> object:
    source = np.array([56], np.uint8)
    value = as_type(ort, source, TensorProto.FLOAT8E4M3FN)
    return value.data_type(), value.numpy().copy()


def updated(env: Env, target: Any, data: Any) -> object:
    value = env.value(target)
    value.update_inplace(data)
    return value.numpy().copy()


V.row("update_inplace(same shape)", lambda ort, env: updated(env, f32([1, 2]), f32([2, 4])), f32([2, 4]))
V.row(
    "update_inplace other shape same size",
    lambda ort, env: updated(env, env.x.copy(), np.ones((2, 3), np.float32)).shape,
    (3, 2),
)
V.row(
    "update_inplace other size",
    lambda ort, env: updated(env, f32([1, 2]), f32([1])),
    Fails("RuntimeError", "The input size of numpy arrays does not match the size of the OrtValue."),
)
V.row(
    "update_inplace other dtype",
    lambda ort, env: updated(env, f32([1, 2]), np.array([1, 2], np.int32)).shape,
    (2,),
    ours=Fails("RuntimeError", "The input data type of numpy arrays does not match the type of the OrtValue."),
    why="onnxruntime copies the bytes of other numbers",
)
V.row(
    "update_inplace(list)",
    lambda ort, env: updated(env, f32([1, 2]), [1, 2]),
    Fails("TypeError", "data must be a numpy.ndarray or an OrtValue."),
)
V.row("update_inplace(OrtValue)", lambda ort, env: updated(env, f32([0, 0]), env.value(f32([1, 2]))), f32([1, 2]))
V.row(
    "update_inplace on string tensor",
    lambda ort, env: updated(env, np.array(["a"]), np.array(["b"])),
    NO_STRINGS,
)


@V.probe("update_inplace writes through to the numpy source", np.float32(3))
def _(ort: Any, env: Env) -> object:
    source = f32([1, 2])
    env.value(source).update_inplace(f32([3, 4]))
    return source[0]


V.row(
    "OrtValue(np)",
    lambda ort, env: ort.OrtValue(env.x),
    Fails("ValueError", "`Provided ortvalue` needs to be of type `…OrtValue`"),
)


def copied(ort: Any, sources: list[Any], targets: list[Any]) -> object:
    values = [[ort.OrtValue.ortvalue_from_numpy(array) for array in arrays] for arrays in (sources, targets)]
    ort.copy_tensors(*values)
    return targets[0]


NO_TRANSFER = Fails("RuntimeError", "Data transfer implementation between source and destination device was not found.")
V.row(
    "copy_tensors([a],[b])",
    lambda ort, env: copied(ort, [f32([1, 2])], [f32([0, 0])]),
    NO_TRANSFER,
    ours=f32([1, 2]),
    why="values of this process are copied too",
)
V.row(
    "copy_tensors length mismatch",
    lambda ort, env: copied(ort, [f32([1, 2])], []),
    Fails("RuntimeError", "Invalid arguments provided to CopyTensors."),
)
V.row(
    "copy_tensors shape mismatch",
    lambda ort, env: copied(ort, [f32([1, 2])], [f32([0])]),
    NO_TRANSFER,
    ours=Fails(
        "RuntimeError", "copy_tensors: tensor 0 is tensor(float) [2], and is to be copied into tensor(float) [1]."
    ),
    why="values of this process are copied too",
)
V.row(
    "pickle OrtValue",
    lambda ort, env: pickle.loads(pickle.dumps(env.value(env.x))).numpy().copy(),
    Fails("TypeError", "cannot pickle '…OrtValue' object"),
    ours=X,
    why="a value of this process is copied",
)
V.row("__dlpack_device__", lambda ort, env: tuple(map(int, env.value(env.x).__dlpack_device__())), (1, 0))
V.row("np.from_dlpack(ov)", lambda ort, env: np.from_dlpack(env.value(env.x)), X)


@V.probe("OrtValue.from_dlpack(ndarray) shares memory", True)
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    return ort.OrtValue.from_dlpack(x).data_ptr() == x.ctypes.data


V.row("from_dlpack(bool ndarray)", lambda ort, env: ort.OrtValue.from_dlpack(env.x > 1).data_type(), "tensor(bool)")


@V.probe("from_dlpack(readonly)", Fails("BufferError", "Cannot export readonly array…"))
def _(ort: Any, env: Env) -> object:
    x = env.x.copy()
    x.flags.writeable = False
    return ort.OrtValue.from_dlpack(x)


V.row(
    "from_dlpack(list)",
    lambda ort, env: ort.OrtValue.from_dlpack([1]),
    Fails("TypeError", "from_dlpack expected a valid DLPack capsule named 'dltensor'"),
)
V.row("dlpack of string tensor", lambda ort, env: env.value(np.array(["a"])).__dlpack__(), NO_STRINGS)
V.row(
    "dlpack of bfloat16",
    lambda ort, env: str(as_type(ort, np.zeros(2, np.uint16), TensorProto.BFLOAT16).__dlpack__())[:20],
    '<capsule object "dlt',
)
V.row(
    "from_dlpack strided",
    lambda ort, env: ort.OrtValue.from_dlpack(env.x[:, ::-1]),
    Fails("RuntimeError", "…ORT only supports contiguous tensor for now.…"),
)
METHODS = (
    "as_sparse_tensor data_ptr data_type device_name element_type from_dlpack has_value is_sparse_tensor is_tensor "
    "is_tensor_sequence numpy ort_value_from_sparse_tensor ortvalue_from_numpy ortvalue_from_numpy_with_onnx_type "
    "ortvalue_from_shape_and_onnx_type ortvalue_from_shape_and_onnx_type_for_memory_info ortvalue_from_shape_and_type "
    "ortvalue_from_shape_and_type_for_memory_info shape tensor_size_in_bytes to_dlpack update_inplace"
)
V.row(
    "C.OrtValue extra methods",
    lambda ort, env: sorted(set(METHODS.split()) & set(dir(env.c.OrtValue))),
    METHODS.split(),
)
VECTOR = "dlpack_at element_type_at push_back push_back_batch reserve shrink_to_fit to_dlpacks"
V.row(
    "C.OrtValueVector methods",
    lambda ort, env: [name for name in dir(env.c.OrtValueVector) if not name.startswith("_")],
    VECTOR.split(),
)
