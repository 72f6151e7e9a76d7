# The tests: `make check` for all of it, `make check-corpus CORPUS=DIR` for real mail, `make check TESTS=tests/test_x.py` for a part.

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

.PHONY: check check-corpus
