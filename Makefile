# make demo    the whole way on synthetic chests (DATA=folder: on that folder's real CT), 2 cores, no GPU
# make test    lint, types and the whole suite
# make install a virtual environment with everything
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= train,fetch,cuda13,test
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash launch/demo.sh $(if $(DATA),--data '$(DATA)') $(if $(SPLITS),--splits '$(SPLITS)')

lint: $(STAMP)
	$(BIN)/ruff check xr2ct launch tests
	$(BIN)/ruff format --check xr2ct launch tests
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15

clean:
	rm -rf $(VENV) build *.egg-info
