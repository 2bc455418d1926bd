"""Packages come only when asked for, only those missing, and numpy stays as it is; Slicer and pip are small fakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import slicer
import slicer.util

from HCCNetSlicer import dependencies
from HCCNetSlicer.dependencies import DependencyError, check, ensure, offline_instructions

ROOT = Path(__file__).resolve().parents[2]

COMPLETE = {
    "torch": "2.13.0+cpu",
    "nibabel": "5.3.2",
    "safetensors": "0.5.3",
    "numpy": "2.4.6",
    "scipy": "1.17.1",
    "pydicom": "3.0.2",
    "SimpleITK": "2.5.3",
    "vtk": "9.6.0",
}


class World:
    """Slicer's Python: what is installed, what was asked and what was run."""

    def __init__(self) -> None:
        self.installed = dict(COMPLETE)
        self.questions: list[str] = []
        self.agrees = True
        self.pip_installs = {"nibabel": "5.4.2", "safetensors": "0.8.0"}
        self.pip_calls: list[dict[str, Any]] = []
        self.torch_calls: list[dict[str, Any]] = []
        self.constraints: list[str] = []
        self.failure: Exception | None = None
        self.testing = False

    def ask(self, question: str, title: str = "") -> bool:
        self.questions.append(question)
        return self.agrees

    def install(self, names: list[str], constraints: str | Path) -> None:
        self.constraints.append(Path(constraints).read_text())
        if self.failure:
            raise self.failure
        self.installed.update({n: v for n, v in self.pip_installs.items() if n in names or n in self.installed})

    def pip_ensure(self, requirements: list[str], **options: Any) -> None:
        self.pip_calls.append(options)
        self.install([r.split(">=")[0] for r in requirements], options["constraints"])

    def pip_install(self, arguments: list[str]) -> None:
        self.pip_calls.append({"arguments": arguments})
        self.install([a.split(">=")[0] for a in arguments], arguments[-1])

    def install_torch(self, **options: Any) -> None:
        self.torch_calls.append(options)
        *_, ours = os.environ["PIP_CONSTRAINT"].split()
        self.install([], unquote(urlparse(ours).path))
        self.installed["torch"] = "2.13.0+cpu"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Slicer 5.12 with the extension PyTorch and everything installed; a test takes away what it is about."""
    world = World()
    packaging = ModuleType("slicer.packaging")
    packaging.load_requirements = lambda path: [n for n in Path(path).read_text().splitlines() if n[0] != "#"]
    packaging.pip_ensure = world.pip_ensure
    pytorch = ModuleType("PyTorchUtils")
    pytorch.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=world.install_torch)
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", pytorch)
    monkeypatch.setattr(slicer, "packaging", packaging, raising=False)
    monkeypatch.setattr(slicer, "app", SimpleNamespace(testingEnabled=lambda: world.testing), raising=False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", world.ask)
    monkeypatch.setattr(slicer.util, "pip_install", world.pip_install)
    monkeypatch.setattr("HCCNetLib.compatibility.installed_version", world.installed.get)
    monkeypatch.setattr(dependencies, "_is_intel_mac", lambda: False)
    monkeypatch.setattr(dependencies.shutil, "which", lambda name: f"/Slicer/bin/{name}")
    return world


def without_packaging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slicer 5.10."""
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.delattr(slicer, "packaging")


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(DependencyError) as caught:
        act()
    return str(caught.value)


def test_where_everything_is_there_nothing_is_asked_or_installed(world: World) -> None:
    assert check().ok
    assert check().what_will_be_asked() == []
    assert ensure() == check()
    assert (world.questions, world.pip_calls, world.torch_calls) == ([], [], [])


def test_the_check_tells_of_every_package_what_is_needed_there_and_wrong(world: World) -> None:
    world.installed |= {"nibabel": "4.0.2"}
    del world.installed["safetensors"]
    told = {p.name: (p.requirement, p.installed, p.source.value, p.problem) for p in check().packages}
    assert list(told) == ["torch", "nibabel", "safetensors", "numpy", "scipy", "pydicom"]
    assert told["torch"] == ("torch>=2.3", "2.13.0+cpu", "Slicer's extension PyTorch", None)
    assert told["nibabel"] == ("nibabel>=5.2", "4.0.2", "pip", "nibabel 4.0.2 is too old: 5.2 or newer is needed.")
    assert told["safetensors"] == ("safetensors>=0.4", None, "pip", "safetensors is not installed.")
    assert told["numpy"] == ("numpy>=1.26", "2.4.6", "Slicer itself", None)


def test_only_the_package_that_is_missing_is_asked_for_and_once(world: World) -> None:
    del world.installed["nibabel"]
    assert ensure().ok
    assert world.questions == [
        "nibabel>=5.2 will be downloaded and installed by pip: a few megabytes.\n\n"
        "They go into Slicer's Python. What Slicer itself needs (numpy, SimpleITK) is not changed, and nothing about your "
        "patients is sent. Slicer may not answer until it is done; its Python console shows the progress.\n\n"
        "Install now?"
    ]
    (call,) = world.pip_calls
    assert call["requester"] == "HCCNet"
    assert call["prompt_install"] is False  # asked once is enough
    assert world.torch_calls == []


def test_a_question_of_ones_own_takes_the_place_of_slicers_window(world: World) -> None:
    del world.installed["safetensors"]
    asked: list[str] = []
    assert ensure(lambda question: not asked.append(question)).ok
    assert len(asked) == 1
    assert world.questions == []


def test_a_missing_torch_comes_through_the_pytorch_extension_fit_for_slicers_numpy(world: World) -> None:
    del world.installed["torch"], world.installed["nibabel"], world.installed["safetensors"]
    assert check().what_will_be_asked()[:2] == [
        "PyTorch (torch>=2.3) will be downloaded and installed by Slicer's extension PyTorch: some hundred megabytes, with "
        "an NVIDIA GPU several gigabytes. This takes minutes.",
        "nibabel>=5.2 and safetensors>=0.4 will be downloaded and installed by pip: a few megabytes.",
    ]
    assert ensure().ok
    assert len(world.questions) == 1
    assert world.torch_calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.3"}]


def test_without_the_pytorch_extension_the_user_reads_how_to_install_it_and_nothing_is_installed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world.installed["torch"], world.installed["nibabel"]
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    assert refused(ensure).startswith(
        "torch is not installed, and neither is the extension PyTorch, through which Slicer installs it. In Slicer's menu "
        "View open the Extensions Manager, install PyTorch, restart Slicer and predict again. Nothing was installed."
    )
    assert (world.questions, world.pip_calls) == ([], [])


def test_a_torch_that_does_not_fit_numpy_is_left_to_the_user(world: World) -> None:
    world.installed["torch"] = "2.2.2"
    assert refused(ensure) == (
        "Prediction can't start. torch 2.2.2 was built for numpy 1 and can't exchange arrays with numpy 2.4.6. Update torch "
        "to 2.3 or newer; in Slicer leave numpy as it is. In Slicer's module PyTorch Utils uninstall PyTorch, restart "
        "Slicer and predict again: the newest PyTorch for this computer will be offered."
    )
    assert (world.questions, world.torch_calls) == ([], [])


def test_on_intel_macs_the_user_reads_that_there_is_no_torch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "_is_intel_mac", lambda: True)
    del world.installed["torch"]
    assert refused(ensure) == (
        "Prediction can't start. torch is not installed. For Macs with Intel processors, and for Slicer's Intel version on "
        "other Macs, there is no PyTorch that works with Slicer's numpy: predict on another computer."
    )
    assert world.torch_calls == []


def test_what_comes_with_slicer_is_never_installed(world: World) -> None:
    del world.installed["scipy"]
    assert refused(ensure) == (
        "Prediction can't start. scipy is not installed. It comes with Slicer: install Slicer 5.10 or newer."
    )
    assert (world.questions, world.pip_calls) == ([], [])


def test_the_older_pydicom_of_slicer_5_10_is_told_but_does_not_stop_prediction(world: World) -> None:
    world.installed["pydicom"] = "2.4.4"
    assert not check().packages[-1].ok
    assert check().ok
    assert ensure().ok


def test_a_user_who_declines_reads_what_is_missing(world: World) -> None:
    del world.installed["nibabel"]
    world.agrees = False
    assert refused(ensure) == (
        "Nothing was installed, so prediction can't start. nibabel is not installed. Predict again to be asked again."
    )
    assert world.pip_calls == []


@pytest.mark.parametrize("missing", ["nibabel", "torch"])
def test_a_failed_download_ends_in_instructions_for_a_computer_without_network(world: World, missing: str) -> None:
    del world.installed[missing]
    world.failure = subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "pip", "install"])
    said = refused(ensure)
    assert f"{'PyTorch' if missing == 'torch' else 'nibabel'} could not be installed (Command " in said
    assert (
        "returned non-zero exit status 1.). Slicer's Python console shows what pip said. If the network is the" in said
    )
    assert said.endswith(offline_instructions())


def test_slicer_5_10_is_asked_and_installs_by_its_own_pip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_packaging(monkeypatch)
    del world.installed["safetensors"]
    assert ensure().ok
    assert len(world.questions) == 1
    (call,) = world.pip_calls
    assert call["arguments"][:2] == ["safetensors>=0.4", "--constraint"]
    assert "numpy==2.4.6\n" in world.constraints[0]


def test_pip_is_held_to_the_versions_that_are_there(world: World) -> None:
    del world.installed["torch"], world.installed["nibabel"]
    ensure()
    for_torch, for_the_rest = world.constraints
    assert for_torch == "numpy==2.4.6\nSimpleITK==2.5.3\nscipy==1.17.1\nvtk==9.6.0\n"
    assert for_the_rest == for_torch + "torch==2.13.0+cpu\n"


def test_a_version_that_pip_cannot_read_is_left_out_of_its_constraints(world: World) -> None:
    world.installed["SimpleITK"] = "2.5.0-g1a2b3c4"
    del world.installed["nibabel"]
    ensure()
    assert world.constraints == ["numpy==2.4.6\nscipy==1.17.1\nvtk==9.6.0\ntorch==2.13.0+cpu\n"]


@pytest.mark.parametrize("set_before", [None, "/etc/hospital.txt"])
def test_the_environment_is_afterwards_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch, set_before: str | None
) -> None:
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    if set_before:
        monkeypatch.setenv("PIP_CONSTRAINT", set_before)
    seen: list[str] = []
    world.install_torch = lambda **_: seen.append(os.environ["PIP_CONSTRAINT"])  # type: ignore[method-assign]
    monkeypatch.setattr(
        sys.modules["PyTorchUtils"], "PyTorchUtilsLogic", lambda: SimpleNamespace(installTorch=world.install_torch)
    )
    del world.installed["torch"]
    assert refused(ensure) == "torch is not installed."
    assert os.environ.get("PIP_CONSTRAINT") == set_before
    *before, ours = seen[0].split()
    assert before == ([set_before] if set_before else [])
    assert ours.startswith("file:///")


def test_an_installation_that_changes_numpy_is_reported(world: World) -> None:
    del world.installed["nibabel"]
    world.pip_installs["numpy"] = "1.26.4"
    assert refused(ensure) == (
        "The installation changed numpy from 2.4.6 to 1.26.4, although it was told not to; Slicer and other extensions may "
        'not work with that. Close Slicer, run "/Slicer/bin/PythonSlicer" -m pip install numpy==2.4.6 in a terminal and '
        "start Slicer again; if Slicer does not start, install it anew."
    )


def test_what_is_still_missing_after_an_installation_is_said(world: World) -> None:
    del world.installed["nibabel"], world.installed["safetensors"]
    del world.pip_installs["safetensors"]
    assert refused(ensure) == "safetensors is not installed."


def test_while_slicer_tests_nothing_is_asked_or_installed(world: World) -> None:
    world.testing = True
    del world.installed["torch"], world.installed["nibabel"]
    assert refused(ensure) == (
        "torch is not installed. nibabel is not installed. While Slicer runs tests nothing is installed."
    )
    assert (world.questions, world.pip_calls, world.torch_calls) == ([], [], [])


@pytest.mark.parametrize(
    ("system", "machine", "option"),
    [
        ("win32", "AMD64", "--platform win_amd64"),
        ("linux", "x86_64", "--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64"),
        ("darwin", "arm64", "--platform macosx_14_0_arm64"),
    ],
)
def test_the_instructions_name_this_python_and_platform(
    world: World, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, option: str
) -> None:
    monkeypatch.setattr(dependencies.sys, "platform", system)
    monkeypatch.setattr(dependencies.platform, "machine", lambda: machine)
    monkeypatch.setattr(dependencies.platform, "mac_ver", lambda: ("14.5", ("", "", ""), machine))
    said = offline_instructions()
    wheels = f"--only-binary=:all: --python-version {sys.version_info.major}.{sys.version_info.minor} {option}"
    assert f"python -m pip download --dest hccnet-packages {wheels} nibabel safetensors\n" in said
    assert f"{wheels} --index-url https://download.pytorch.org/whl/cpu torch\n" in said
    installs = '"/Slicer/bin/PythonSlicer" -m pip install --no-index --find-links hccnet-packages nibabel safetensors'
    assert installs in said
    assert "Behind a proxy: set the environment variable HTTPS_PROXY" in said


def test_the_file_of_requirements_has_ranges_and_nothing_that_slicer_is_built_on() -> None:
    lines = dependencies.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    assert requirements == ["nibabel>=5.2", "safetensors>=0.4"]


def test_the_ranges_are_those_of_the_library(world: World) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    world.installed["numpy"] = "1.26.4"  # numpy 2 wants a newer torch
    needed = {p.requirement for p in check().packages}
    # The decoders of compressed DICOM are the command's: Slicer has its own.
    pydicom = [r for r in project["optional-dependencies"]["dicom"] if r.startswith("pydicom")]
    assert needed == {*project["dependencies"], *pydicom}


def test_the_module_is_imported_at_once_and_brings_no_torch_and_no_slicer() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); from HCCNetSlicer import dependencies; took = time.perf_counter() - start;"
        "dependencies.check();"
        "print(took, *({'torch', 'slicer', 'numpy', 'scipy', 'nibabel', 'vtk', 'qt'} & {*sys.modules}))"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "HCCNet")])
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(said) == 1, said[1:]
    assert float(said[0]) < 0.5


def test_versions_are_compared_by_numbers_whatever_stands_behind_them() -> None:
    from HCCNetLib.compatibility import version_numbers

    versions = ["2.13.0+cpu", "2.0rc1", "2", "10.1.dev3", None]
    assert [version_numbers(v) for v in versions] == [(2, 13), (2, 0), (2, 0), (10, 1), (0, 0)]


def test_versions_as_slicer_has_them_can_be_pinned() -> None:
    versions = ["2.4.6", "2.13.0+cpu", "2.3.0rc2.dev117+g3640b", "9.6.0"]
    assert all(re.fullmatch(dependencies._READABLE_VERSION, v) for v in versions)
