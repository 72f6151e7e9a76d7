# The tests: `make check` for all of it, `make check TESTS=tests/test_x.py` for a part, `make check-corpus CORPUS=DIR` for real mail, `make check-tls`
# for TLS at length.

PYTHON ?= /usr/bin/python3
TESTS ?= tests
CORPUS ?=

check: all units
	@CORPUS='$(CORPUS)' $(PYTHON) tests/check.py $(B) $(TESTS)

check-corpus: all
	@if [ -d '$(CORPUS)' ]; then \
		CORPUS='$(CORPUS)' POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider tests/test_corpus.py; \
	else \
		echo 'check-corpus: skipped: no folder of real mail; name one with CORPUS=DIR'; \
	fi

# All that the judges of TLS know, and the long flood: some minutes.
check-tls: all
	@TLS_ALL=1 POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -rP -p no:cacheprovider --durations=10 \
		tests/test_tls.py tests/test_tls_clients.py tests/test_login_tls.py

.PHONY: check check-corpus check-tls
