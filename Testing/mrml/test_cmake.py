"""What CMake is told of the module is what there is: a file that is not listed is missing from Slicer's extension."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HCCNet"


def commands(file: Path) -> list[tuple[str, list[str]]]:
    """The simple commands of a CMake file with their arguments, in order."""
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
    found = re.findall(r"(\w+)\s*\(([^()]*)\)", text)
    return [(name, re.findall(r'"[^"]*"|\S+', arguments)) for name, arguments in found]


def variable(name: str) -> list[str]:
    """What `set` gives a variable in the module's CMake file."""
    values = [
        arguments[1:]
        for command, arguments in commands(MODULE / "CMakeLists.txt")
        if command == "set" and arguments[0] == name
    ]
    assert len(values) == 1, name
    return [v.replace("${MODULE_NAME}", "HCCNet") for v in values[0]]


def files_below(folder: Path, pattern: str) -> set[str]:
    found = {f.relative_to(MODULE).as_posix() for f in folder.rglob(pattern) if f.is_file()}
    return {f for f in found if not f.startswith("Testing/") and "__pycache__" not in f}


def test_every_script_of_the_module_is_listed_once_and_exists() -> None:
    listed = variable("MODULE_PYTHON_SCRIPTS")
    assert len(listed) == len(set(listed))
    assert set(listed) == files_below(MODULE, "*.py")


def test_every_resource_of_the_module_is_listed_once_and_exists() -> None:
    listed = variable("MODULE_PYTHON_RESOURCES")
    assert len(listed) == len(set(listed))
    assert set(listed) == files_below(MODULE / "Resources", "*")


def test_scripts_and_resources_are_given_to_slicer_with_its_generic_tests() -> None:
    arguments = dict(commands(MODULE / "CMakeLists.txt"))["slicerMacroBuildScriptedModule"]
    assert arguments == [
        *("NAME", "${MODULE_NAME}", "SCRIPTS", "${MODULE_PYTHON_SCRIPTS}"),
        *("RESOURCES", "${MODULE_PYTHON_RESOURCES}", "WITH_GENERIC_TESTS"),
    ]


def test_slicer_runs_the_modules_own_test_where_tests_are_built() -> None:
    told = commands(MODULE / "CMakeLists.txt")
    own_test = told.index(("slicer_add_python_unittest", ["SCRIPT", "${MODULE_NAME}.py"]))
    assert told.index(("if", ["BUILD_TESTING"])) < own_test < told.index(("endif", []))


def test_the_whole_library_is_installed_beside_the_module_without_compiled_files() -> None:
    arguments = dict(commands(ROOT / "CMakeLists.txt"))["install"]
    assert arguments == [
        *("DIRECTORY", "HCCNetLib", "DESTINATION", "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"),
        *("COMPONENT", "RuntimeLibraries"),
        *("PATTERN", '"__pycache__"', "EXCLUDE", "PATTERN", '"*.py[co]"', "EXCLUDE"),
    ]


def test_the_library_is_copied_into_the_build_tree_with_every_build() -> None:
    told = commands(ROOT / "CMakeLists.txt")
    assert ("add_custom_target", ["CopyHCCNetLib", "ALL", "DEPENDS", '"${library_copied}"']) in told
    (depends,) = [arguments for command, arguments in told if command == "add_custom_command"]
    assert "${library_files}" in depends
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "file(COPY [==[${CMAKE_CURRENT_SOURCE_DIR}/HCCNetLib]==] DESTINATION [==[${modules_dir}]==]" in text


def test_the_extension_is_named_after_the_module_and_asks_for_pytorch() -> None:
    told = commands(ROOT / "CMakeLists.txt")
    assert ("project", ["HCCNet"]) in told
    assert ("set", ["EXTENSION_DEPENDS", '"PyTorch"']) in told
    assert ("add_subdirectory", ["HCCNet"]) in told
