# Kills at every system call: tests/test_crash.py runs a short version in `make check`, `make crash` all of it.

CRASH = $(B)/crash/journal_crash $(B)/crash/killer
crash-tools: $(CRASH)

$(B)/crash/journal_crash: $(B)/obj/tests/crash/journal_crash.o $(B)/obj/spoold/journal.o
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lsodium -lxxhash
$(B)/crash/killer: $(B)/obj/tests/crash/killer.o
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^

crash: all units crash-tools
	@d=$$(mktemp -d) && $(B)/crash/journal_crash -a $$d; s=$$?; rm -rf $$d; exit $$s
	JOURNAL_LONG=1 $(B)/unit/journal
	MAILDIR_LONG=1 $(B)/unit/maildir_power
	CRASH_ALL=1 POSTERN_BUILD=$(B) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -p no:cacheprovider tests/test_crash.py

.PHONY: crash crash-tools
