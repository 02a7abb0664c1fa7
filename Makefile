# make demo          the whole way on synthetic chests (DATA=folder: on that folder's real CT), 2 cores, no GPU
# make test          lint, types and the whole suite but tests/cluster
# make test-cluster  tests/cluster on a whole Slurm on this machine; skips without root and Debian's packages
# make install       a virtual environment with everything
#   CUDA=12|13|cpu     what torch and DALI are built for (default: what is installed already, else what the
#                      driver here takes, else cpu). On a login node without a GPU say what the nodes have.
#   TORCH_INDEX=URL    a further package index, for a build of torch that the default one has not
#   WHEELHOUSE=folder  install from `make wheelhouse`'s folder, without a network
# make wheelhouse    all that `make install` with the same CUDA takes, as wheels in wheelhouse/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Words of a command line alone: modules of clusters set a variable CUDA to a folder.
INSTALLED := $(shell cat '$(STAMP)' 2>/dev/null)
DRIVER := $(if $(INSTALLED),,$(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Za-z ]* Version: *\([0-9]*\).*/\1/p' | awk '{print ($$1 > 13) ? 13 : $$1}'))
ifneq ($(origin CUDA),command line)
CUDA := $(or $(INSTALLED),$(DRIVER),cpu)
endif
ifeq ($(filter cpu 12 13,$(CUDA)),)
$(error CUDA=$(CUDA): expected 12, 13 or cpu)
endif
CONSTRAINTS := constraints/$(if $(filter cpu,$(CUDA)),cpu,cuda$(CUDA)).txt
# DALI has no build without CUDA; that for CUDA 13 runs on a CPU too.
EXTRAS ?= train,fetch,$(if $(filter 12,$(CUDA)),cuda12,cuda13),test
FROM := $(if $(WHEELHOUSE),--no-index --find-links '$(WHEELHOUSE)') $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)')
# Builds for another CUDA leave files behind that a new one would find.
OTHER := $(filter-out $(CUDA),$(INSTALLED))

.PHONY: install wheelhouse demo test test-cluster lint clean FORCE

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt $(CONSTRAINTS) $(if $(OTHER),FORCE)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(if $(OTHER),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet $(FROM) --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet $(FROM) --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	$(BIN)/python -m xr2ct.builds $(CUDA)
	echo $(CUDA) >$@

wheelhouse:
	$(PYTHON) -m venv build/wheelhouse
	build/wheelhouse/bin/python -m pip install --quiet $(FROM) --upgrade pip
	build/wheelhouse/bin/python -m pip wheel --quiet $(FROM) --constraint $(CONSTRAINTS) --wheel-dir wheelhouse \
		'.[$(EXTRAS)]' pip setuptools wheel
	@echo "wheelhouse/: take it with the clone to a machine with the same Python, and there"
	@echo "    make install CUDA=$(CUDA) WHEELHOUSE=wheelhouse"

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash launch/demo.sh $(if $(DATA),--data '$(DATA)') $(if $(SPLITS),--splits '$(SPLITS)')

lint: $(STAMP)
	$(BIN)/ruff check xr2ct launch slurm tests
	$(BIN)/ruff format --check xr2ct launch slurm tests
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15 --ignore tests/cluster

test-cluster: $(STAMP)
	$(BIN)/python -m pytest tests/cluster --durations 15

clean:
	rm -rf $(VENV) build wheelhouse *.egg-info
