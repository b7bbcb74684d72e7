"""What a TensorRT plan depends on besides its graph and its options: the machine. Importing this needs no TensorRT."""

import importlib

from jokr_rt.engines.cuda import Device
from jokr_rt.engines.tensorrt_cache import Key
from jokr_rt.errors import EngineError, EngineMissingError
from jokr_rt.ours import require_ours

OLDEST, NEWEST = (10, 9), 11
_HOW_TO_GET = "pip install 'jokr-rt[tensorrt]'"


def machine_key(device: Device) -> Key:
    """The parts of a plan's key that this machine decides. The kernel's hash and the compute capability decide its PTX.

    Raises EngineError, and ForeignPackageError where another's `trt_plugins` hides ours.
    """
    return {"TensorRT": _tensorrt_version(), "kernel": _kernel_hash()} | _device_key(device)


def known_machine_key() -> tuple[Key, tuple[str, ...]]:
    """`machine_key` with None for what cannot be known here, and why it cannot, in words."""
    key: Key = dict.fromkeys(("TensorRT", "kernel", "compute capability", "GPU", "driver")) | {"kernel": _kernel_hash()}
    missing = []
    try:
        key["TensorRT"] = _tensorrt_version()
    except EngineError as error:
        missing.append(str(error))
    try:
        with Device() as device:
            key |= _device_key(device)
    except EngineError as error:
        missing.append(str(error))
    return key, tuple(missing)


def _kernel_hash() -> str:
    require_ours("trt_plugins")
    from trt_plugins.kernel import source_hash

    return source_hash()


def _tensorrt_version() -> str:
    try:
        version = str(importlib.import_module("tensorrt").__version__)
    except ImportError as error:
        raise EngineMissingError(f"the package tensorrt cannot be imported ({error}): {_HOW_TO_GET}") from None
    major, minor = map(int, version.split(".")[:2])
    if (major, minor) < OLDEST or major > NEWEST:
        raise EngineError(f"TensorRT {version} is not one of {'.'.join(map(str, OLDEST))} to {NEWEST}.x: {_HOW_TO_GET}")
    return version


def _device_key(device: Device) -> Key:
    major, minor = device.compute_capability
    return {"compute capability": f"{major}.{minor}", "GPU": device.name, "driver": f"CUDA {device.driver_version}"}
