# The races of tests/test_delivery.py with thousands of messages an agent and a store: `make races`, some minutes.
RACES ?= 3000

races: all
	@RACES=$(RACES) POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider -rs tests/test_delivery.py

.PHONY: races
