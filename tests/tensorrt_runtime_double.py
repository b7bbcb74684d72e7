"""What TensorRT's runtime does in the double: see tensorrt_double.py. It computes with ONNX Runtime, on host memory."""

import ctypes
import hashlib
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.tensorrt_builder_double import PLAN, tensor
from tests.tensorrt_signatures import Doubled


class IHostMemory(Doubled):
    @property
    def nbytes(self) -> int:
        return ctypes.sizeof(self)  # type: ignore[arg-type]

    def _unsupported(self, *_: Any) -> Any:
        raise TypeError("tensorrt.IHostMemory is a buffer and no sequence: wrap it in bytes() or memoryview()")

    __len__ = __getitem__ = __setitem__ = __iter__ = _unsupported


class Runtime(Doubled):
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        plan = bytes(serialized_engine)
        digest, content = plan[len(PLAN) : len(PLAN) + 32], plan[len(PLAN) + 32 :]
        if self._fails(self._trt.double.deserialize, self._logger):
            return None
        if not plan.startswith(PLAN) or hashlib.sha256(content).digest() != digest:
            self._logger.log(self._trt.ILogger.ERROR, "Serialization assertion magicTag failed: the plan is corrupt")
            return None
        header, _, graph = content.partition(b"\n")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        model = onnx.load_model_from_string(graph).graph
        inputs = {value.name: tensor(self, value) for value in model.input}
        outputs = {value.name: tensor(self, value) for value in model.output}
        return self._make(
            "ICudaEngine", _logger=self._logger, _header=json.loads(header), _session=session, _inputs=inputs,
            _outputs=outputs, _tensors=inputs | outputs,
        )  # fmt: skip


class ICudaEngine(Doubled):
    num_io_tensors = property(lambda self: len(self._tensors))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = "INPUT" if name in self._inputs else "OUTPUT" if name in self._outputs else "NONE"
        return getattr(self._trt.TensorIOMode, mode)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name]._dtype

    def get_tensor_shape(self, name: str) -> Any:
        return self._trt.Dims(self._tensors[name]._shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        return [self._trt.Dims(shape) for shape in self._ranges(profile_index)[name]]

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        if self._fails(self._trt.double.context, self._logger):
            return None
        return self._make("IExecutionContext", _engine=self, _shapes={}, _addresses={})

    def create_engine_inspector(self) -> Any:
        return self._make("EngineInspector", _engine=self)

    def _ranges(self, profile: int) -> dict[str, list[list[int]]]:
        fixed = {name: [tensor._shape] * 3 for name, tensor in self._inputs.items() if -1 not in tensor._shape}
        return fixed | (self._header["profiles"][profile] if self._header["profiles"] else {})


class IExecutionContext(Doubled):
    def set_input_shape(self, name: str, shape: Any) -> bool:
        ranges = self._engine._ranges(0)
        given = list(shape)
        if name in ranges and len(given) == len(ranges[name][0]):
            low, _, high = ranges[name]
            if all(a <= size <= b for a, size, b in zip(low, given, high, strict=True)):
                self._shapes[name] = given
                return True
        return self._complain(f"IExecutionContext::setInputShape: {name} {given} is not within its profile")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            return self._complain(f"IExecutionContext::setTensorAddress: no tensor {name}")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_shape(self, name: str) -> Any:
        return self._trt.Dims(self._resolved(name))

    def infer_shapes(self) -> list[str]:
        return self._unset()

    def _unset(self) -> list[str]:
        return [
            name for name, tensor in self._engine._inputs.items() if -1 in tensor._shape and name not in self._shapes
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        double, logger = self._trt.double, self._engine._logger
        if self._fails(double.execute, logger):
            return False
        missing = self._unset() or [name for name in self._engine._tensors if not self._addresses.get(name)]
        if missing:
            return self._complain(f"IExecutionContext::enqueueV3: no shape or address: {missing}")
        views = {name: self._view(name) for name in self._engine._tensors}

        def work() -> None:
            inputs = {name: views[name] for name in self._engine._inputs}
            for name, result in zip(self._engine._outputs, self._engine._session.run(None, inputs), strict=True):
                views[name][...] = result

        double.enqueue(int(stream_handle), work)
        return True

    def _resolved(self, name: str) -> list[int]:
        symbols = {
            symbol: size
            for key, shape in self._shapes.items()
            for symbol, size in zip(self._engine._inputs[key]._symbols, shape, strict=True)
        }
        tensor = self._engine._tensors[name]
        return [
            symbols.get(symbol, size) if size < 0 else size
            for symbol, size in zip(tensor._symbols, tensor._shape, strict=True)
        ]

    def _view(self, name: str) -> np.ndarray:
        shape, dtype = self._resolved(name), np.dtype(self._trt.nptype(self._engine._tensors[name]._dtype))
        memory = (ctypes.c_ubyte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    def _complain(self, message: str) -> bool:
        self._engine._logger.log(self._trt.ILogger.ERROR, message)
        return False


class EngineInspector(Doubled):
    def get_engine_information(self, format: Any) -> str:
        header = self._engine._header
        detailed = [{"Name": name, "LayerType": kind.title().replace("_", "")} for name, kind in header["layers"]]
        layers = detailed if header["detailed"] else [name for name, _ in header["layers"]]
        if format == self._trt.LayerInformationFormat.ONELINE:
            return "\n".join(map(str, layers))
        return json.dumps({"Layers": layers, "Bindings": list(self._engine._tensors)})


CLASSES = (IHostMemory, Runtime, ICudaEngine, IExecutionContext, EngineInspector)
