"""The packages that prediction needs: which are there, and how missing ones come, asked once and without touching Slicer's own."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"

# With another version of one of these Slicer itself, or another extension, may no longer start.
PROTECTED = ("numpy", "SimpleITK", "scipy", "vtk", "torch")

# A version that pip can't read (a development build's) would make it refuse the whole file of constraints.
_READABLE_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?", re.IGNORECASE)


class DependencyError(Exception):
    """Something that prediction needs is missing, in sentences that the user can act on."""


class Source(Enum):
    """Where a package comes from."""

    PYTORCH_EXTENSION = "Slicer's extension PyTorch"
    PIP = "pip"
    SLICER = "Slicer itself"


# Ranges as in pyproject.toml; those of pip's part stand in requirements.txt.
_TORCH_FOR_NUMPY_1 = "2.2"
_OF_SLICER = (("numpy", "1.26"), ("scipy", "1.11"), ("pydicom", "3.0"))
# Slicer 5.10 has pydicom 2.4. Exams come from the scene; only the library's reader of DICOM folders wants more.
_OPTIONAL = "pydicom"


@dataclass(frozen=True)
class Package:
    """What is needed of a package and what is there; ``problem``: why that won't do, or None.

    Prediction starts without an ``optional`` one.
    """

    name: str
    minimum: str
    source: Source
    installed: str | None
    problem: str | None
    optional: bool = False

    @property
    def ok(self) -> bool:
        """Whether prediction can use it as it is."""
        return self.problem is None

    @property
    def requirement(self) -> str:
        """As pip writes it."""
        return f"{self.name}>={self.minimum}"

    @property
    def installable(self) -> bool:
        """Whether `ensure` may install it. A torch that is there belongs to other extensions too and may be loaded."""
        if self.ok:
            return False
        if self.source is Source.PYTORCH_EXTENSION:
            return self.installed is None and not _is_intel_mac()
        return self.source is Source.PIP


@dataclass(frozen=True)
class Setup:
    """All packages that prediction needs."""

    packages: tuple[Package, ...]

    @property
    def ok(self) -> bool:
        """Whether prediction has all it needs."""
        return not self.find_problems()

    def find_problems(self) -> list[str]:
        """A sentence for every needed package that is missing or won't do."""
        return [p.problem for p in self.packages if p.problem is not None and not p.optional]

    def find_obstacles(self) -> list[str]:
        """The problems that only the user can solve, with what to do."""
        stuck = [p for p in self.packages if not (p.ok or p.optional or p.installable)]
        return [f"{p.problem} {_advise(p)}" for p in stuck]

    def to_install(self, source: Source) -> tuple[Package, ...]:
        """What `ensure` will install from there."""
        return tuple(p for p in self.packages if p.installable and p.source is source)

    def what_will_be_asked(self) -> list[str]:
        """What the user is told before anything is installed; nothing where nothing will be."""
        sentences = []
        for torch in self.to_install(Source.PYTORCH_EXTENSION):
            sentences.append(
                f"PyTorch ({torch.requirement}) will be downloaded and installed by Slicer's extension PyTorch: some "
                "hundred megabytes, with an NVIDIA GPU several gigabytes. This takes minutes."
            )
        small = _join(p.requirement for p in self.to_install(Source.PIP))
        if small:
            sentences.append(f"{small} will be downloaded and installed by pip: a few megabytes.")
        if sentences:
            sentences.append(
                "They go into Slicer's Python. What Slicer itself needs (numpy, SimpleITK) is not changed, and nothing "
                "about your patients is sent. Slicer may not answer until it is done; its Python console shows the progress."
            )
        return sentences


def _advise(package: Package) -> str:
    if package.source is Source.SLICER:
        return "It comes with Slicer: install Slicer 5.10 or newer."
    if _is_intel_mac():
        return (
            "For Macs with Intel processors, and for Slicer's Intel version on other Macs, there is no PyTorch that works "
            "with Slicer's numpy: predict on another computer."
        )
    return (
        "In Slicer's module PyTorch Utils uninstall PyTorch, restart Slicer and predict again: the newest PyTorch for this "
        "computer will be offered."
    )


def check() -> Setup:
    """Looks at the versions that are installed, without importing any package."""
    from HCCNetLib.compatibility import TORCH_FOR_NUMPY_2, find_torch_problem, installed_version, version_numbers

    def package(name: str, minimum: str, source: Source) -> Package:
        installed = installed_version(name)
        problem = find_torch_problem(installed, numpy) if name == "torch" else None
        if installed is None:
            problem = f"{name} is not installed."
        elif problem is None and version_numbers(installed) < version_numbers(minimum):
            problem = f"{name} {installed} is too old: {minimum} or newer is needed."
        return Package(name, minimum, source, installed, problem, optional=name == _OPTIONAL)

    numpy = installed_version("numpy")
    torch_minimum = ".".join(map(str, TORCH_FOR_NUMPY_2)) if version_numbers(numpy) >= (2, 0) else _TORCH_FOR_NUMPY_1
    return Setup(
        (
            package("torch", torch_minimum, Source.PYTORCH_EXTENSION),
            *(package(*row, Source.PIP) for row in _read_requirements()),
            *(package(*row, Source.SLICER) for row in _OF_SLICER),
        )
    )


def ensure(ask: Callable[[str], bool] | None = None) -> Setup:
    """Installs what is missing, after asking once; to be called when the user predicts, not before.

    Args:
        ask: shows the user what will be installed and tells whether they agree; Slicer's own window if None.

    Raises:
        DependencyError: the user declined, or what is needed is not there in the end.
    """
    setup = check()
    if setup.ok:
        return setup
    if obstacles := setup.find_obstacles():
        raise DependencyError(" ".join(["Prediction can't start.", *obstacles]))
    if _in_testing_mode():
        raise DependencyError(" ".join([*setup.find_problems(), "While Slicer runs tests nothing is installed."]))
    pytorch = _open_pytorch_extension() if setup.to_install(Source.PYTORCH_EXTENSION) else None
    if not (ask or _ask_in_slicer)("\n\n".join([*setup.what_will_be_asked(), "Install now?"])):
        problems = " ".join(setup.find_problems())
        raise DependencyError(
            f"Nothing was installed, so prediction can't start. {problems} Predict again to be asked again."
        )
    before = _protected_versions()
    failure = _install(setup, pytorch)
    importlib.invalidate_caches()
    complaints = _find_changes(before) + ([failure] if failure else check().find_problems())
    if complaints:
        raise DependencyError("\n\n".join(complaints))
    return check()


def offline_instructions() -> str:
    """How the packages come to a computer without network, with this Python's version and platform filled in."""
    names = " ".join(name for name, _ in _read_requirements())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheels = f"--only-binary=:all: --python-version {python} {_platform_options()}"
    slicer_python = shutil.which("PythonSlicer") or "PythonSlicer"
    return "\n".join(
        [
            "Behind a proxy: set the environment variable HTTPS_PROXY (for example to http://proxy.example.org:8080), and "
            "PIP_CERT to the proxy's certificate if it has its own, before you start Slicer; then predict again.",
            "",
            "Without network:",
            f"1. On a computer with network and Python (best {python}, as here), run",
            f"   python -m pip download --dest hccnet-packages {wheels} {names}",
            "   and, if PyTorch is missing here,",
            f"   python -m pip download --dest hccnet-packages {wheels} --index-url https://download.pytorch.org/whl/cpu torch",
            "   (for an NVIDIA GPU replace cpu as https://pytorch.org/get-started/locally says, for example by cu126).",
            "2. Carry the folder hccnet-packages to this computer.",
            "3. In a terminal on this computer, where that folder is, with Slicer closed, run",
            f'   "{slicer_python}" -m pip install --no-index --find-links hccnet-packages {names}',
            "   adding the word torch at the end if you downloaded it. numpy is not changed by this.",
            "4. Start Slicer and predict again.",
        ]
    )


def _read_requirements() -> list[tuple[str, str]]:
    lines = (line.strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    rows = (line.split(">=") for line in lines if line and not line.startswith("#"))
    return [(name, minimum) for name, minimum in rows]


def _install(setup: Setup, pytorch: Any) -> str | None:
    """Installs what can be, torch by the extension's logic; returns why it failed, with what to do, or None."""
    step = "PyTorch"
    try:
        for torch in setup.to_install(Source.PYTORCH_EXTENSION):
            _install_torch(pytorch, torch.minimum)
        step = _join(p.name for p in setup.to_install(Source.PIP))
        if step:
            _install_by_pip([p.requirement for p in setup.to_install(Source.PIP)])
    except (CalledProcessError, RuntimeError, ImportError, OSError) as error:
        return (
            f"{step} could not be installed ({error}). Slicer's Python console shows what pip said. If the network is the "
            f"reason:\n\n{offline_instructions()}"
        )
    return None


def _install_torch(pytorch: Any, minimum: str) -> None:
    with _constraints() as file, _constraints_for_every_pip(file):
        # The user has agreed already. In testing mode this would not ask at all: `ensure` does not come here then.
        pytorch.installTorch(askConfirmation=False, torchVersionRequirement=f">={minimum}")


def _install_by_pip(requirements: list[str]) -> None:
    import slicer.util

    with _constraints() as file:
        try:
            import slicer.packaging
        except ImportError:  # Slicer 5.10
            slicer.util.pip_install([*requirements, "--constraint", str(file)])
            return
        # It leaves out what is there. The user has agreed already, to all packages at once.
        needed = slicer.packaging.load_requirements(REQUIREMENTS)
        slicer.packaging.pip_ensure(needed, constraints=file, prompt_install=False, requester="HCCNet")


def _protected_versions() -> dict[str, str]:
    from HCCNetLib.compatibility import installed_version

    versions = {name: installed_version(name) for name in PROTECTED}
    return {name: version for name, version in versions.items() if version is not None}


@contextlib.contextmanager
def _constraints() -> Iterator[Path]:
    """A file with which pip keeps the protected packages exactly as they are."""
    pins = [f"{n}=={v}\n" for n, v in _protected_versions().items() if _READABLE_VERSION.fullmatch(v)]
    with tempfile.TemporaryDirectory(prefix="hccnet-") as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("".join(pins), encoding="utf-8")
        yield file


@contextlib.contextmanager
def _constraints_for_every_pip(file: Path) -> Iterator[None]:
    """The extension PyTorch runs pip without letting us say how; pip also listens to this variable."""
    before = os.environ.get("PIP_CONSTRAINT")
    # pip splits the variable at spaces, which an address, unlike a path, never has.
    os.environ["PIP_CONSTRAINT"] = " ".join(filter(None, [before, file.as_uri()]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PIP_CONSTRAINT"]
        else:
            os.environ["PIP_CONSTRAINT"] = before


def _find_changes(before: dict[str, str]) -> list[str]:
    after = _protected_versions()
    return [
        f"The installation changed {name} from {old} to {after.get(name, 'nothing')}, although it was told not to; Slicer "
        f'and other extensions may not work with that. Close Slicer, run "{shutil.which("PythonSlicer") or "PythonSlicer"}" '
        f"-m pip install {name}=={old} in a terminal and start Slicer again; if Slicer does not start, install it anew."
        for name, old in before.items()
        if after.get(name) != old
    ]


def _open_pytorch_extension() -> Any:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise DependencyError(
            "torch is not installed, and neither is the extension PyTorch, through which Slicer installs it. In Slicer's "
            "menu View open the Extensions Manager, install PyTorch, restart Slicer and predict again. Nothing was "
            f"installed.\n\n{offline_instructions()}"
        ) from error
    return PyTorchUtils.PyTorchUtilsLogic()


def _in_testing_mode() -> bool:
    import slicer

    application = getattr(slicer, "app", None)
    return application is not None and bool(application.testingEnabled())


def _ask_in_slicer(question: str) -> bool:
    import slicer.util

    return bool(slicer.util.confirmOkCancelDisplay(question, "HCCNet: install Python packages"))


def _platform_options() -> str:
    machine = platform.machine().lower()
    if sys.platform == "win32":
        return "--platform win_amd64" if machine == "amd64" else f"--platform win_{machine}"
    if sys.platform == "darwin":
        return f"--platform macosx_{platform.mac_ver()[0].split('.')[0]}_0_{machine}"
    return f"--platform manylinux_2_28_{machine} --platform manylinux2014_{machine}"


def _is_intel_mac() -> bool:
    return sys.platform == "darwin" and platform.machine() == "x86_64"


def _join(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last
