# Everything runs from the checkout in an environment of its own (.venv); nothing needs to be activated.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# stages of a recipe that run at the same time
JOBS ?= 2
NOW := $(shell date +%Y-%m-%d_%H-%M-%S)
RUN_DIR := runs/demo/$(NOW)
PAGES_DIR := runs/pages/$(NOW)
# the packages of this project may be imported from its root only
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: distributed help install demo emotion-transfer attention-rnn ucm-distillation smoke test test-slow pages coverage faults faults-long jobs lint types format bench gpu-report notebook docs clean python-is-usable

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

python-is-usable:
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no '$(PYTHON)': install Python 3.11 or newer, or pass make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) -V) is too old: Python 3.11 or newer is needed, pass make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv module: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }

# byte code at install time: without it every start of the program takes seconds longer
$(VENV)/.installed: pyproject.toml | python-is-usable
	@echo "setting up $(VENV) (about 2 minutes, 6 GB)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --progress-bar on --compile -e ".[dev]"
	@touch $@

install: $(VENV)/.installed ## create the environment and install

demo: $(VENV)/.installed ## train a captioner on synthetic scenes, test it, show captions (under 10 minutes)
	@echo "training in $(RUN_DIR)"
	@$(PY) cli.py fit --config experiments/offline/dual_transfer.yaml --run_dir $(RUN_DIR)
	@$(PY) cli.py test --ckpt_path $(RUN_DIR)
	@echo
	@echo "run folder: $(RUN_DIR)"
	@echo "caption a picture: $(PY) cli.py caption --ckpt $(RUN_DIR) docs/scene.png"

emotion-transfer: $(VENV)/.installed ## emotion transfer on synthetic scenes, three seeds (about 20 minutes)
	@$(PY) cli.py recipe experiments/recipes/offline/emotion_transfer.yaml --seed 1,2,3

attention-rnn: $(VENV)/.installed ## attention RNN on UCM-Captions ($CAPTION_DATA/ucm), three seeds (about 2 hours)
	@$(PY) cli.py recipe experiments/recipes/ucm_attention_rnn.yaml --seed 1,2,3 --jobs $(JOBS)

ucm-distillation: $(VENV)/.installed ## distillation on UCM-Captions ($CAPTION_DATA/ucm), three seeds (about 90 minutes)
	@$(PY) cli.py recipe experiments/recipes/ucm_distillation.yaml --seed 1,2,3 --jobs $(JOBS)

smoke: $(VENV)/.installed ## run every offline experiment for a batch or two (under 90 seconds)
	@$(PY) -m scripts.smoke

test: $(VENV)/.installed ## run the tests (about 9 minutes on 2 cores, no network, no GPU)
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -n auto --dist loadscope

test-slow: $(VENV)/.installed ## the proofs that take long
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -m slow --timeout 3600

distributed: $(VENV)/.installed ## two processes of every method against one, and resumed after the death of either (about 20 minutes)
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -m slow --timeout 3600 -q tests/test_distributed.py tests/test_ddp.py tests/test_launchers.py tests/faults/test_ranks.py

pages: $(VENV)/.installed ## open the pages of tiny runs of every method in Chromium (about 5 minutes)
	@HF_HUB_OFFLINE=1 CAPTION_PAGES=$(PAGES_DIR) $(PY) -m pytest -m slow -q -rs tests/test_pages.py
	@test ! -d $(PAGES_DIR) || echo "pages, and how they look: $(PAGES_DIR)"

coverage: $(VENV)/.installed ## the tests, with the lines of the packages that none of them reaches; fails below 90 %
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -n auto --timeout 900 --cov

# of all faults; 'make faults SEED=2' draws others
SEED ?= 1

faults: $(VENV)/.installed ## seeded deaths, signals and failing writes against runs left alone (under 10 minutes)
	@$(PY) -m tests.faults --seed $(SEED) --faults 200 --minutes 9

jobs: $(VENV)/.installed ## a job over 20,000 pictures killed 20 times against one left alone (about 15 minutes)
	@$(PY) -m tests.commands.jobs --seed $(SEED)

faults-long: $(VENV)/.installed ## 1,000 of them (about an hour on a core)
	@$(PY) -m tests.faults --seed $(SEED) --faults 1000

lint: $(VENV)/.installed ## ruff, formatting, layers, spelling, workflows, issue forms
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache
	@$(VENV)/bin/codespell
	@$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	@$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

types: $(VENV)/.installed ## mypy --strict
	@$(PY) -m mypy

format: $(VENV)/.installed ## let ruff mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

gpu-report: $(VENV)/.installed ## measure a GPU and check what is promised of it (under 30 minutes)
	@$(PY) -m scripts.gpu_report

bench: $(VENV)/.installed ## speed of training against goals, baselines and the machine's limits (under 30 minutes)
	@$(PY) benchmarks/training.py

notebook: $(VENV)/.installed ## run docs/quickstart.ipynb from top to bottom (about 2 minutes)
	@$(PY) -c 'import ipykernel, nbclient' 2>/dev/null || $(PY) -m pip install --progress-bar on --compile -e ".[notebook]"
	@$(PY) -m scripts.notebook

docs: $(VENV)/.installed ## build the documentation with its API reference into docs/_build/html
	@$(PY) -c 'import furo, myst_nb, sphinx' 2>/dev/null || $(PY) -m pip install --progress-bar on --compile -e ".[docs]"
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove the environment and caches, not the runs
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info docs/_build docs/api
