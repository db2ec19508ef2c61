# Sets up what it needs in .venv by itself; needs only make and a Python from 3.10 to 3.13.
# Another Python: make demo PYTHON=python3.12      Arguments for pytest: make test ARGS="-k catalog"

PYTHON ?= python3
ARGS ?=
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.core  ## Ingest the demo tracks, degrade a clip, identify it
	@echo "Running the demo ..."
	@$(VENV)/bin/earmark demo

test: $(VENV)/.test  ## Run the tests
	@echo "Running the tests ..."
	@$(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

check: $(VENV)/.check  ## Lint, formatting and types
	@echo "Checking lint, formatting and types ..."
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: $(VENV)/.check  ## Apply the formatting and the safe lint fixes
	@echo "Formatting ..."
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

clean:  ## Remove .venv, caches and build products
	@echo "Removing .venv, caches and build products ..."
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say which extras .venv holds; an install with more extras serves those with fewer.
$(VENV)/.core: pyproject.toml | $(VENV)/.created
	@echo "Installing Earmark into $(VENV) (once, about a minute) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.check: pyproject.toml | $(VENV)/.created
	@echo "Installing Earmark and the test tools into $(VENV) (once, about a minute) ..."
	@$(PIP) install -e ".[test]"
	@touch $(VENV)/.core $@

$(VENV)/.test: pyproject.toml | $(VENV)/.created
	@echo "Installing Earmark, the test tools and TensorFlow into $(VENV) (once, a few minutes) ..."
	@$(PIP) install -e ".[train,test]"
	@touch $(VENV)/.core $(VENV)/.check $@

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { \
		echo "Earmark needs Python 3.10 to 3.13, and there is no '$(PYTHON)' here." \
			"Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "Earmark needs Python 3.10 to 3.13, and '$(PYTHON)' is" \
			"$$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." \
			"Install it (Debian, Ubuntu: python3-venv), or name another Python:" \
			"make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
