# The races of tests/test_delivery.py with thousands of messages an agent and a store: `make races`, an hour on a quiet machine of two
# cores. What came of each is in build/races.txt, a row as soon as it ends. RACES_SECONDS=120: what comes in within that time.
# RACE='mbox postfix': those whose names have that (root mbox exim, reader mutt exim, killed maildir); RACE='(alone|reader) mutt postfix': and beside it
# the same without a session, to see whose fault something is. RACES_AT_ONCE=2: so many at a time.
RACES ?= 3000

races: all
	@RACES=$(RACES) POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider -rsx tests/test_delivery.py; \
		status=$$?; cat $(B)/races.txt; exit $$status

.PHONY: races
