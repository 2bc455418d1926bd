# make demo   predicts two generated patients and the bundled sample patient and writes reports
# make test   runs formatter, linter, type check and tests
# make slow   runs the tests that take minutes
# All set up a virtual environment in .venv first. PYTHON=python3.12 chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# torch: where there is no GPU, Linux takes a processor-only build; its default wheel carries gigabytes of CUDA. A wheel
# that pip is configured to find locally comes first, then PyTorch's own index, else whatever the default index has.
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Two patients whom the demonstration networks have not seen; one of them is diagnosed within the year.
DEMO_SEED := 18

.PHONY: demo test lint slow clean

demo: $(STAMP)
	$(BIN)/hccnet synthesize --out demo-output/phantom --patients 2 --seed $(DEMO_SEED)
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
