# The tests once more, where a mistake with memory is seen: `make asan-check` all of them under AddressSanitizer and UndefinedBehaviorSanitizer,
# `make valgrind-check` with all daemons under valgrind (VALGRIND_TESTS for a part). Neither is part of `make check`: on two
# cores the first takes half an hour (less if they do nothing else); the second some 7 s of a core for a test that starts daemons, and so more than an
# hour.
# No sandbox, which would keep both from their work. What cannot be tested so says by itself why (the markers confined, native and unwrapped, see
# tests/conftest.py), and is counted as skipped.

# (what a test builds is built as the rest)
asan-check: asan
	HARDEN= OPTIMISE='$(ASAN_FLAGS)' POSTERN_SANDBOX=off ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1 UBSAN_OPTIONS=print_stacktrace=1 \
		$(PYTHON) tests/check.py $(B)/asan $(TESTS)

# What it finds is in build/valgrind, a file a process (where lines begin with --, valgrind speaks of itself).
VALGRIND = valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite --num-callers=30 \
	--read-inline-info=no --soname-synonyms=somalloc=nouserintercepts --child-silent-after-fork=no \
	--suppressions=$(abspath tests/valgrind.supp) --log-file=$(abspath $(B))/valgrind/%p
VALGRIND_TESTS ?= $(TESTS)
# (authd's free() stays in place, which wipes: memory that was freed valgrind gives to nobody for a long time)
# (with shared libraries, in which valgrind follows allocations; and without FORTIFY, whose memmove it takes for memcpy)
valgrind-check:
	$(MAKE) --no-print-directory STATIC=no HARDEN= B=$(B)/shared all units
	@rm -rf $(B)/valgrind && mkdir -p $(B)/valgrind && chmod 1777 $(B)/valgrind
	@POSTERN_SANDBOX=off POSTERN_WRAP='$(VALGRIND)' POSTERN_HOSTILE=300 $(PYTHON) tests/check.py $(B)/shared $(VALGRIND_TESTS); status=$$?; \
		bad=$$(grep -rl '^==' $(B)/valgrind | wc -l); grep -rh '^==' $(B)/valgrind; \
		echo "valgrind-check: $$(ls $(B)/valgrind | wc -l) processes of daemons were under valgrind; $$bad of them with an error or a leak"; \
		test $$status = 0 && test $$bad = 0 && test -n "$$(ls $(B)/valgrind)"

.PHONY: asan-check valgrind-check
