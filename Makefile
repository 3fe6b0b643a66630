# The README's two commands: `make run` and `make test`. Each is enough on a fresh Debian or Ubuntu
# with Python >= 3.11, pip and make.

VENV ?= .venv
# The first that is new enough; name another with make PYTHON=/path/to/python3.11.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: run test soak system-packages test-packages clean

run: system-packages $(VENV)/.installed
	$(VENV)/bin/kandev-host up $(ARGS)

test: test-packages $(VENV)/.tox-installed
	$(VENV)/bin/tox run $(ARGS)

# For the night: KANDEV_SOAK_S is how long, in seconds.
soak: test-packages $(VENV)/.tox-installed
	$(VENV)/bin/tox run -e soak $(ARGS)

$(VENV)/bin/pip:
	@sh .ci/venv "$(PYTHON)" "$(VENV)"

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing kandev-host into $(VENV)."
	@$(PIP) install -e '.[standard]'
	@touch $@

$(VENV)/.tox-installed: tox.ini | $(VENV)/bin/pip
	@echo "Installing tox into $(VENV)."
	@$(PIP) install 'tox>=4.25' 'tox-uv>=1.23'
	@touch $@

# bubblewrap also comes as a Python package (extra `sandbox`), so running needs only git.
system-packages:
	@sh .ci/need git

test-packages:
	@sh .ci/need bwrap=bubblewrap catatonit cc=gcc chromium curl dockerd=docker.io git newuidmap=uidmap node=nodejs npm \
	  nsenter=util-linux openssl podman prometheus promtool=prometheus python3 rootlesskit sshd=openssh-server \
	  systemd-analyze=systemd

clean:
	rm -rf $(VENV) .tox dist docs/_build
