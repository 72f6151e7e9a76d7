# The tests once more, where a mistake with memory is seen: `make asan-check` all of them under AddressSanitizer and UndefinedBehaviorSanitizer,
# `make valgrind-check` most of those that start daemons, with all processes under valgrind. Neither is part of `make check`: they take half an hour each.
# No sandbox, which would keep both from their work. Left out is what is about it: test_sandbox, and those of the other tests that ask the kernel for a
# process's filter and limits (as_root, two_accounts, confined_and_empty, no_hash_is_larger), or are told that it is off (good_certificate_checks). And
# test_demo, which writes a configuration of its own, with it; test_fuzz, which builds with sanitizers by itself; and memory_of_pop3d, which looks for
# secrets in all of the memory of a process: that of these has shadows without end.

SANITIZE_LEAVE_OUT = --ignore=tests/test_sandbox.py --ignore=tests/test_fuzz.py --ignore=tests/test_demo.py \
	-k 'not memory_of_pop3d and not (test_tls and as_root) and not two_accounts and not confined_and_empty and not no_hash_is_larger and not good_certificate_checks'

# (what a test builds is built as the rest)
asan-check: asan
	HARDEN= OPTIMISE='$(ASAN_FLAGS)' POSTERN_SANDBOX=off ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1 UBSAN_OPTIONS=print_stacktrace=1 \
		$(PYTHON) tests/check.py $(B)/asan $(SANITIZE_LEAVE_OUT) $(TESTS)

# What it finds is in build/valgrind, a file a process (where lines begin with --, valgrind speaks of itself).
VALGRIND = valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite --num-callers=30 \
	--child-silent-after-fork=no --suppressions=$(abspath tests/valgrind.supp) --log-file=$(abspath $(B))/valgrind/%p
VALGRIND_TESTS ?= $(patsubst %,tests/test_%.py,session commands shapes linger policy proxy limits language hostile login server_copy login_tls tls \
	locks paths)
# (with shared libraries, in which valgrind follows allocations; and without FORTIFY, whose memmove it takes for memcpy)
valgrind-check:
	$(MAKE) --no-print-directory STATIC=no HARDEN= B=$(B)/shared all
	@rm -rf $(B)/valgrind && mkdir -p $(B)/valgrind && chmod 1777 $(B)/valgrind
	POSTERN_SANDBOX=off POSTERN_WRAP='$(VALGRIND)' POSTERN_BUILD=$(B)/shared PYTHONDONTWRITEBYTECODE=1 \
		POSTERN_HOSTILE=300 $(PYTHON) -m pytest -q -p no:cacheprovider -n 2 --dist=loadfile $(SANITIZE_LEAVE_OUT) $(VALGRIND_TESTS)
	@test -n "$$(ls $(B)/valgrind)" || { echo 'valgrind-check: nothing ran under valgrind'; exit 1; }
	@! grep -rh '^==' $(B)/valgrind

.PHONY: asan-check valgrind-check
