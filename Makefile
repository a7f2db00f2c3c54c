# make demo    install, then the whole path on real photographs (about 5 minutes)
# make test    install, then all tests but those marked `everything`
# make quick   the tests that take seconds
# make everything   all tests: hundreds of kills, every network in every way (hours)
# make lint    ruff and the type checker
# make docs    the documentation site, built strictly into build/docs
# make browser Debian's Chromium and its driver, for the tests of pages
# make oldest  the quick tests on the lowest versions that setup.cfg allows

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
export TF_CPP_MIN_LOG_LEVEL ?= 2
TEST_EXTRAS = elpv,jax,test
# Two processes, a test file in one: most of a test is building and tracing, which one core does.
TWO = -n 2 --dist loadfile

.PHONY: demo test quick everything lint docs oldest browser clean

demo: .venv/elpv,serving.installed
	.venv/bin/python apps/demo.py

# Each of the two processes on its own core: the nets of the tests are too small to gain by threads.
test quick: export TF_NUM_INTRAOP_THREADS = 1
test quick: export OMP_NUM_THREADS = 1

test: .venv/$(TEST_EXTRAS).installed
	.venv/bin/python -m pytest $(TWO) -m "not everything" --durations=15

quick: .venv/$(TEST_EXTRAS).installed
	.venv/bin/python -m pytest $(TWO) -m "not everything and not slow"

everything: .venv/$(TEST_EXTRAS).installed
	.venv/bin/python -m pytest --durations=15

lint: .venv/lint.installed
	.venv/bin/ruff check kresnets apps tests kresnets_command.py
	.venv/bin/ruff format --check --quiet kresnets apps tests kresnets_command.py
	.venv/bin/mypy

docs: .venv/docs.installed
	.venv/bin/mkdocs build --strict

oldest: .oldest/$(TEST_EXTRAS).installed
	.oldest/bin/python -m pytest -m "not everything and not slow"

# A stamp is written only when an installation is whole, so an interrupted one is simply done again.
%.installed: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "kresnets needs Python 3.11, 3.12 or 3.13: install one, or say make PYTHON=/its/path"; exit 1; }
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(@D)
	@echo "Installing into $(@D), which takes some minutes ..."
	$(@D)/bin/python -m pip install --quiet $(if $(filter .oldest,$(@D)),--constraint .oldest/lowest.txt) --editable ".[$(*F)]"
	@touch $@

.oldest/$(TEST_EXTRAS).installed: .oldest/lowest.txt

.oldest/lowest.txt: setup.cfg
	@test -n "$(PYTHON)" || { echo "kresnets needs Python 3.11, 3.12 or 3.13: install one, or say make PYTHON=/its/path"; exit 1; }
	@$(PYTHON) -m venv --clear .oldest
	sed -n 's/^ *\([A-Za-z][A-Za-z0-9_-]*\) *>= *\([0-9][0-9a-z.]*\)\(,.*\)\{0,1\}$$/\1==\2/p' setup.cfg > $@

browser:
	$(if $(filter 0,$(shell id -u)),,sudo )apt-get update -qq
	$(if $(filter 0,$(shell id -u)),,sudo )apt-get install -y chromium chromium-driver

clean:
	rm -rf .venv .oldest build *.egg-info
