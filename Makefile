# make demo   predicts two generated patients and the bundled sample patient and writes reports
# make test   runs formatter, linter, type check and tests
# make slow   runs the tests that take minutes
# These set up a virtual environment in .venv first. PYTHON=python3.12 chooses the interpreter (3.11 or newer).
# make test-slicer SLICER_EXECUTABLE=/where/Slicer-5.12/Slicer   runs the tests that need a whole Slicer
# make screenshots SLICER_EXECUTABLE=…   takes pictures of every step in Slicer into screenshots/, and checks them
# make timing SLICER_EXECUTABLE=…        prints where the seconds of a prediction in Slicer go

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# torch: where there is no GPU, Linux takes a processor-only build; its default wheel carries gigabytes of CUDA. A wheel
# that pip is configured to find locally comes first, then PyTorch's own index, else whatever the default index has.
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Two patients whom the demonstration networks have not seen; one of them is diagnosed within the year.
DEMO_SEED := 18

# Seconds after which a Slicer that hangs is ended, where the system has `timeout`.
SLICER_TIMEOUT := 1800
RUN_SLICER = "$$SLICER_EXECUTABLE" --no-splash $(SLICER_FLAGS) --additional-module-paths "$(CURDIR)/HCCNet" \
  --python-script "$(CURDIR)/Testing/slicer/$(SLICER_SCRIPT)"

.PHONY: demo test lint slow test-slicer screenshots timing clean

demo: $(STAMP)
	$(BIN)/hccnet synthesize --disease growth --out demo-output/phantom --patients 2 --seed $(DEMO_SEED)
	$(BIN)/hccnet predict demo-output/phantom --out demo-output/results
	$(BIN)/hccnet predict HCCNetLib/samples --out demo-output/results

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-slicer: SLICER_FLAGS = --testing
test-slicer: SLICER_SCRIPT = run_in_slicer.py
screenshots: SLICER_SCRIPT = screenshots.py
timing: SLICER_SCRIPT = timing.py

# Slicer draws: without a display on Linux it gets a virtual one.
test-slicer screenshots timing:
	@[ -n "$$SLICER_EXECUTABLE" ] \
	  || { echo "Say where Slicer is: make $@ SLICER_EXECUTABLE=/where/Slicer-5.12/Slicer"; exit 1; }
	@[ -f "$$SLICER_EXECUTABLE" ] && [ -x "$$SLICER_EXECUTABLE" ] \
	  || { echo "SLICER_EXECUTABLE is no program: $$SLICER_EXECUTABLE"; exit 1; }
	@limit=; set --; \
	if [ "$$(uname -s)" = Linux ] && [ -z "$$DISPLAY" ]; then \
	  command -v xvfb-run >/dev/null \
	  || { echo "There is no display, and no xvfb-run to make one: install xvfb (apt-get install xvfb)."; exit 1; }; \
	  set -- xvfb-run -a -s "-screen 0 1920x1200x24"; \
	fi; \
	if command -v timeout >/dev/null; then limit="timeout -k 30 $(SLICER_TIMEOUT)"; fi; \
	"$$@" $$limit $(RUN_SLICER); status=$$?; \
	if [ $$status = 124 ] || [ $$status = 137 ]; then echo "Slicer was ended: it ran for more than $(SLICER_TIMEOUT) seconds."; fi; \
	exit $$status

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "HCCNet needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  echo "No GPU: installing a processor-only torch."; \
	  $(BIN)/python -m pip install --quiet --no-deps --no-index torch 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --no-deps --retries 1 --index-url $(CPU_INDEX) torch \
	  || echo "No processor-only build was found; taking the default one."; \
	fi
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) demo-output
