"""Runs, inside Slicer, the module's own test and those beside this file; Slicer then exits with 0 or 1.

    Slicer --no-splash --testing --additional-module-paths HCCNet --python-script Testing/slicer/run_in_slicer.py

``make test-slicer`` starts it. Slicer's own runner calls no tests at all, or only skipped ones, a success; this one does not.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import unittest
from collections.abc import Iterable
from pathlib import Path


class CountingResult(unittest.TextTestResult):
    """Counts what passed: whether a skipped test is one that was run differs between Pythons."""

    passed = 0

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().addSuccess(test)
        self.passed += 1


def judge(result: CountingResult) -> tuple[int, str]:
    """The exit status, and why, of what a test run gave."""
    skipped, bad = len(result.skipped), len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    told = f"{result.passed} passed, {skipped} skipped, {bad} failed"
    if bad or not result.wasSuccessful():
        return 1, f"FAILED: {told}"
    if not result.passed:
        return 1, f"FAILED: {told}; where nothing was tested nothing is known to work"
    return 0, f"OK: {told}"


def load(names: Iterable[str], loader: unittest.TestLoader) -> unittest.TestSuite:
    """The tests of some modules; each must be there and have some."""
    suite = unittest.TestSuite()
    for name in names:
        module = importlib.import_module(name)
        # Imported base classes are left out: one of Slicer's has a `runTest` that tests nothing and would count.
        classes = [cls for cls in vars(module).values() if _is_test(cls) and cls.__module__ == module.__name__]
        tests = [loader.loadTestsFromTestCase(cls) for cls in classes if loader.getTestCaseNames(cls)]
        if not tests:
            raise LookupError(f"{name} holds no test")
        suite.addTests(tests)
    return suite


def _is_test(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, unittest.TestCase)


def run(names: Iterable[str]) -> tuple[int, str]:
    """Runs the tests of some modules; exit status, and why."""
    try:
        suite = load(names, unittest.TestLoader())
    except Exception as error:  # noqa: BLE001 - whatever keeps tests from being loaded is a failure
        traceback.print_exc()
        return 1, f"FAILED: tests can't be loaded: {error}"
    result = unittest.TextTestRunner(verbosity=2, resultclass=CountingResult).run(suite)
    assert isinstance(result, CountingResult)
    return judge(result)


def main() -> None:
    """Runs all tests and ends Slicer."""
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    # Of the module itself: the class HCCNetTest, where Slicer loaded the module from.
    status, told = run(["HCCNet", *sorted(file.stem for file in here.glob("test_*.py"))])
    print(f"HCCNet in Slicer: {told}")

    import slicer.util

    slicer.util.exit(status)  # the one that `--testing` does not overrule


if __name__ == "__main__":
    main()
