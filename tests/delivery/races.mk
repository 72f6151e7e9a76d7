# The races of tests/test_delivery.py with thousands of messages an agent and a store: `make races`, an hour on a quiet machine of two
# cores. What came of each is in build/races.txt, a row as soon as it ends. RACES_SECONDS=120: what comes in within that time.
RACES ?= 3000

races: all
	@RACES=$(RACES) POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider -rsx tests/test_delivery.py; \
		status=$$?; cat $(B)/races.txt; exit $$status

.PHONY: races
