"""What runs the tests inside Slicer says yes only where something was tested and is right; and `make test-slicer` starts it."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "Testing" / "slicer" / "run_in_slicer.py"

FAKE_SLICER = """
import types, sys
slicer, util = types.ModuleType("slicer"), types.ModuleType("slicer.util")
slicer.util, util.exit = util, lambda status: print(f"exit {status}")
sys.modules.update({"slicer": slicer, "slicer.util": util})
"""

PASSES = "def test_it(self): pass"
FAILS = "def test_it(self): self.fail('for a reason')"
BREAKS = "def test_it(self): raise ValueError('for a reason')"
SKIPPED = "@unittest.skip('no')\n    def test_it(self): pass"
NO_TEST = "def other(self): pass"
RUN_TEST_OF_SLICER = "def runTest(self): pass"
NOT_PREPARED = "@classmethod\n    def setUpClass(cls): raise ValueError('for a reason')\n    def test_it(self): pass"
SKIPPED_CLASS = "@classmethod\n    def setUpClass(cls): raise unittest.SkipTest('no')\n    def test_it(self): pass"
UNEXPECTED = "@unittest.expectedFailure\n    def test_it(self): pass"


def run_runner(folder: Path, own: str, beside: str | None = PASSES) -> tuple[str, str]:
    """Runs it as Slicer does: a copy of it, beside tests, in the main module's names."""
    head = "import unittest\nclass Some(unittest.TestCase):\n    "
    (folder / "HCCNet").mkdir()
    (folder / "HCCNet" / "HCCNet.py").write_text(head + own, encoding="utf-8")
    (folder / "slicer-tests").mkdir()
    script = shutil.copy(RUNNER, folder / "slicer-tests")
    if beside is not None:
        (folder / "slicer-tests" / "test_beside.py").write_text(head + beside, encoding="utf-8")
    code = f"{FAKE_SLICER}\n__file__ = {str(script)!r}\nexec(open(__file__).read(), globals())"
    environment = {**os.environ, "PYTHONPATH": str(folder / "HCCNet")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    *_, verdict, end = run.stdout.splitlines()
    assert end.startswith("exit ")
    return end, verdict + run.stderr


def test_tests_that_pass_are_a_success_and_each_is_told(tmp_path: Path) -> None:
    end, told = run_runner(tmp_path, PASSES)
    assert end == "exit 0"
    assert "HCCNet in Slicer: OK: 2 passed, 0 skipped, 0 failed" in told
    assert told.count("test_it (") == 2


@pytest.mark.parametrize("beside", [FAILS, BREAKS, NOT_PREPARED, UNEXPECTED])
def test_one_failure_or_error_among_tests_that_pass_is_a_failure(tmp_path: Path, beside: str) -> None:
    end, told = run_runner(tmp_path, PASSES, beside)
    assert end == "exit 1"
    assert "HCCNet in Slicer: FAILED: " in told
    assert "1 failed" in told
    assert "for a reason" in told or beside == UNEXPECTED


@pytest.mark.parametrize("own", [NO_TEST, RUN_TEST_OF_SLICER, "x = 1", "nonsense!", "import that_is_nowhere"])
def test_a_file_without_tests_or_that_can_t_be_loaded_is_a_failure(tmp_path: Path, own: str) -> None:
    end, told = run_runner(tmp_path, own)
    assert end == "exit 1"
    assert "FAILED: tests can't be loaded" in told


def judge(*cases: str) -> tuple[int, str]:
    """The verdict on classes with these bodies."""
    space: dict[str, Any] = {"unittest": unittest}
    runner = types.ModuleType("runner")
    exec(RUNNER.read_text(encoding="utf-8"), runner.__dict__)
    suite = unittest.TestSuite()
    for number, body in enumerate(cases):
        exec(f"class Case{number}(unittest.TestCase):\n    {body}", space)
        suite.addTests(unittest.TestLoader().loadTestsFromTestCase(space[f"Case{number}"]))
    result = unittest.TextTestRunner(io.StringIO(), resultclass=runner.CountingResult).run(suite)
    verdict: tuple[int, str] = runner.judge(result)
    return verdict


@pytest.mark.parametrize("cases", [(), (SKIPPED,), (SKIPPED, SKIPPED), (SKIPPED_CLASS,), (SKIPPED, SKIPPED_CLASS)])
def test_no_test_and_only_skipped_tests_are_a_failure(cases: tuple[str, ...]) -> None:
    status, told = judge(*cases)
    assert status == 1
    assert "nothing was tested" in told


def test_a_skipped_test_among_others_is_none() -> None:
    assert judge(PASSES, SKIPPED) == (0, "OK: 1 passed, 1 skipped, 0 failed")


def test_pytest_leaves_the_tests_in_slicer_alone() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(RUNNER.parent)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 5, run.stdout  # pytest's status for no tests
    assert list(RUNNER.parent.glob("test_*.py"))


def test_cmake_runs_it_where_tests_are_built() -> None:
    text = (ROOT / "HCCNet" / "CMakeLists.txt").read_text(encoding="utf-8")
    (script,) = re.findall(r"slicer_add_python_test\(SCRIPT \$\{CMAKE_CURRENT_SOURCE_DIR\}/(\S+)\)", text)
    assert (ROOT / "HCCNet" / script).resolve() == RUNNER
    assert text.index("if(BUILD_TESTING)") < text.index("slicer_add_python_test")


# ------------------------------------------------------------ make test-slicer


@pytest.fixture
def fake_slicer(tmp_path: Path) -> Path:
    """A program that tells its arguments and display, and ends with the status that it is asked for."""
    program = tmp_path / "with space" / "Slicer"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nfor a in "$@"; do echo "<$a>"; done\necho "display $DISPLAY"\n${HANG:+sleep 60}\nexit ${STATUS:-0}\n',
        encoding="ascii",
    )
    program.chmod(0o755)
    return program


def make(
    tmp_path: Path, *arguments: str, target: str = "test-slicer", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs make with few programs on its path."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "uname", "timeout", "sleep"):
        place = shutil.which(name)
        if place is not None:
            (tools / name).symlink_to(place)
    program = shutil.which("make")
    assert program is not None
    return subprocess.run(
        [program, "--no-print-directory", target, *arguments],
        cwd=ROOT,
        env={"PATH": str(tools), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_make_asks_for_slicer_where_it_is_not_told(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert run.returncode != 0
    assert "Say where Slicer is: make test-slicer SLICER_EXECUTABLE=" in run.stdout


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_make_refuses_what_is_no_program(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "Slicer"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("", encoding="ascii")
    run = make(tmp_path, SLICER_EXECUTABLE=str(path))
    assert run.returncode != 0
    assert f"SLICER_EXECUTABLE is no program: {path}" in run.stdout


@pytest.mark.parametrize("as_argument", [True, False])
def test_make_starts_slicer_with_the_module_and_the_runner(
    tmp_path: Path, fake_slicer: Path, as_argument: bool
) -> None:
    told = {"SLICER_EXECUTABLE": str(fake_slicer)}
    run = (
        make(tmp_path, f"SLICER_EXECUTABLE={fake_slicer}", DISPLAY=":7")
        if as_argument
        else make(tmp_path, DISPLAY=":7", **told)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines() == [
        *("<--no-splash>", "<--testing>", "<--additional-module-paths>", f"<{ROOT / 'HCCNet'}>"),
        *("<--python-script>", f"<{RUNNER}>", "display :7"),
    ]


@pytest.mark.parametrize("target", ["screenshots", "timing"])
def test_make_starts_the_other_scripts_in_slicer(tmp_path: Path, fake_slicer: Path, target: str) -> None:
    run = make(tmp_path, target=target, SLICER_EXECUTABLE=str(fake_slicer), DISPLAY=":7")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines() == [
        *("<--no-splash>", "<--additional-module-paths>", f"<{ROOT / 'HCCNet'}>", "<--python-script>"),
        *(f"<{RUNNER.with_name(f'{target}.py')}>", "display :7"),
    ]


def test_make_fails_where_the_tests_in_slicer_fail(tmp_path: Path, fake_slicer: Path) -> None:
    run = make(tmp_path, SLICER_EXECUTABLE=str(fake_slicer), DISPLAY=":7", STATUS="1")
    assert run.returncode != 0


@pytest.mark.skipif(shutil.which("timeout") is None, reason="this system has no timeout")
def test_make_ends_a_slicer_that_hangs(tmp_path: Path, fake_slicer: Path) -> None:
    run = make(tmp_path, "SLICER_TIMEOUT=1", SLICER_EXECUTABLE=str(fake_slicer), DISPLAY=":7", HANG="1")
    assert run.returncode != 0
    assert "it ran for more than 1 seconds" in run.stdout


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display or none can be made")


@linux_only
def test_make_says_what_is_missing_where_there_is_no_display(tmp_path: Path, fake_slicer: Path) -> None:
    run = make(tmp_path, SLICER_EXECUTABLE=str(fake_slicer))
    assert run.returncode != 0
    assert "no xvfb-run to make one: install xvfb" in run.stdout
    assert "--testing" not in run.stdout


@linux_only
@pytest.mark.parametrize("status", ["0", "1"])
def test_make_makes_a_display_where_there_is_none(tmp_path: Path, fake_slicer: Path, status: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    xvfb = tools / "xvfb-run"
    xvfb.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "-a -s -screen 0 1920x1200x24" ] || exit 9\nshift 3\nDISPLAY=:99 "$@"\n',
        encoding="ascii",
    )
    xvfb.chmod(0o755)
    run = make(tmp_path, SLICER_EXECUTABLE=str(fake_slicer), STATUS=status)
    assert (run.returncode == 0) == (status == "0")
    assert "display :99" in run.stdout
