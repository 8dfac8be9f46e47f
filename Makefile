# Each target installs what it needs into .venv; with a virtual environment of your own: make test PYTHON=python INSTALLED=
VENV := .venv
PYTHON := $(VENV)/bin/python
BIN := $(dir $(PYTHON))
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint docs bench

demo: $(INSTALLED)  ## train all five stages on the demo images
	$(BIN)fastrecipes run recipes/car_brand_5stage.py --set arch=tf_efficientnet_lite0 --set size=128 --set bs=32 --scale 0.2

test: $(INSTALLED)  ## every test, no network needed
	$(PYTHON) -m pytest -q -n auto --dist worksteal

lint: $(INSTALLED)  ## style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright
	$(PYTHON) -m cogapp --check README.md

docs: $(INSTALLED)  ## write the output of commands into the README again
	$(PYTHON) -m cogapp -r README.md

bench: $(INSTALLED)  ## accuracy and seconds beside fastai's fine_tune; give DATA=folder
	$(PYTHON) benchmarks/against_fine_tune.py --data $(DATA)

$(VENV)/.installed: pyproject.toml
	test -x $(VENV)/bin/python || python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	$(VENV)/bin/python -m pip install -q -e '.[offline]' --group test --group lint
	touch $@
