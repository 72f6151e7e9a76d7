# The long runs of who may log in; tests/test_flood.py and tests/test_login.py run short versions in `make check`.
#
#	make flood		10,000 wrong logins from 200 addresses, 50 right ones among them: some minutes
#	make crash-store	authctl killed at every system call while it changes the store
FLOOD ?= 10000

flood: all
	@FLOOD=$(FLOOD) POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -s -p no:cacheprovider -rs tests/test_flood.py

crash-store: all
	@CRASH_ALL=1 POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider -rs tests/test_login.py::test_authctl_killed_at_any_moment
crash: crash-store

.PHONY: flood crash-store
