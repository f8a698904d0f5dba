"""Makes ``import bluefog`` and its modules find ifog's, in this process only."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["MODULES", "VERSION", "install"]

VERSION = "0.3.0"
MODULES = {
    "bluefog": "",  # "": a package that only holds others
    "bluefog.common": "",
    "bluefog.common.basics": "ifog.bluefog.basics",
    "bluefog.common.topology_util": "ifog.bluefog.topology_util",
    "bluefog.common.util": "ifog.bluefog.environment",
    "bluefog.run": "ifog.bluefog.run",
    "bluefog.run.interactive_run": "ifog.bluefog.run.interactive_run",
    "bluefog.torch": "ifog.bluefog",
    "bluefog.torch.mpi_ops": "ifog.bluefog.mpi_ops",
    "bluefog.torch.optimizers": "ifog.bluefog.optimizers",
    "bluefog.torch.topology_util": "ifog.bluefog.topology_util",
    "bluefog.torch.utility": "ifog.bluefog.utility",
}
_ROOT = "bluefog"
_OURS = Path(__file__).resolve().parent


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] != _ROOT:
            return None
        if fullname not in MODULES:
            # Left to the next finder, bluefog.torch.x would become a second copy of ifog.bluefog.x.
            raise ModuleNotFoundError(
                f"there is no module {fullname!r}: ifog stands in for BlueFog in this process, "
                f"with {', '.join(name for name in MODULES if MODULES[name])}",
                name=fullname,
            )
        return ModuleSpec(fullname, self, is_package=not MODULES[fullname])

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if MODULES[name]:
            # What sys.modules holds after loading is what the import gives.
            sys.modules[name] = importlib.import_module(MODULES[name])
        elif name == _ROOT:
            module.__dict__["__version__"] = VERSION


def install() -> None:
    """Make ``import bluefog.torch`` and the like give ifog's modules in this process.

    Calling it again changes nothing. A BlueFog that is installed as well is hidden, with a
    ``RuntimeWarning``; what has been imported from it before stays what it was.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    hidden = _another()
    for name in [name for name in sys.modules if name.partition(".")[0] == _ROOT]:
        del sys.modules[name]
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    # Put in place by hand: install() may run while a package called bluefog is being imported.
    spec = finder.find_spec(_ROOT, None)
    assert spec is not None
    root = importlib.util.module_from_spec(spec)
    finder.exec_module(root)
    sys.modules[_ROOT] = root
    if hidden:
        warnings.warn(
            f"import bluefog now means ifog's stand-in in this process, not {hidden}; "
            "do not call ifog.bluefog.install() where that one is wanted",
            RuntimeWarning,
            stacklevel=2,
        )


def _another() -> str:
    """Where a package called bluefog that is not ours lies, or ""."""
    try:
        spec = importlib.util.find_spec(_ROOT)
    except ValueError:  # a module without a spec, made by hand
        return "the module in sys.modules"
    if spec is None or spec.origin is None or _OURS in Path(spec.origin).resolve().parents:
        return ""
    return spec.origin
