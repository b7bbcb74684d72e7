"""Two of our packages, `export` and `trt_plugins`, have names that others may use, too."""

from importlib.util import find_spec
from pathlib import Path

from jokr_rt.errors import ForeignPackageError

_BESIDE = Path(__file__).resolve().parent.parent  # in the repository and where pip installs them


def require_ours(package: str) -> None:
    """Refuse what `import package` would run, unless it is ours or nothing. Runs none of it.

    Raises ForeignPackageError.
    """
    spec = find_spec(package)
    if spec is None:
        return
    ours = _BESIDE / package / "__init__.py"
    if spec.origin and Path(spec.origin).resolve() == ours:
        return
    found = spec.origin or ", ".join(spec.submodule_search_locations or ())
    raise ForeignPackageError(
        f"{found}: Python finds this in place of JOKR-RT's own package {package} ({ours.parent}); "
        "rename it, or take its folder off PYTHONPATH"
    )
