# The tests once more, where a mistake with memory is seen: `make asan-check` all of them under AddressSanitizer and UndefinedBehaviorSanitizer,
# `make valgrind-check` whole sessions with the lasting processes under valgrind. Neither is part of `make check`: they take an hour and some minutes.
# No sandbox, which would keep both from their work; so what is about it is left out, as is what looks into the memory of a process.

SANITIZE_LEAVE_OUT = --ignore=tests/test_sandbox.py --ignore=tests/test_fuzz.py --ignore=tests/test_demo.py --ignore=tests/test_crash.py \
	-k 'not memory_of_pop3d and not as_root and not two_accounts'

# (what a test builds is built as the rest)
asan-check: asan
	HARDEN= OPTIMISE='$(ASAN_FLAGS)' POSTERN_SANDBOX=off ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1 UBSAN_OPTIONS=print_stacktrace=1 \
		$(PYTHON) tests/check.py $(B)/asan $(SANITIZE_LEAVE_OUT) $(TESTS)

# What it finds is in build/valgrind, a file a process.
VALGRIND = valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite --num-callers=30 \
	--child-silent-after-fork=no --log-file=$(abspath $(B))/valgrind/%p
VALGRIND_TESTS ?= tests/test_session.py tests/test_commands.py tests/test_shapes.py
# (with shared libraries, in which valgrind follows allocations)
valgrind-check:
	$(MAKE) --no-print-directory STATIC=no B=$(B)/shared all
	@rm -rf $(B)/valgrind && mkdir -p $(B)/valgrind && chmod 1777 $(B)/valgrind
	POSTERN_SANDBOX=off POSTERN_WRAP='$(VALGRIND)' POSTERN_BUILD=$(B)/shared PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON) -m pytest -q -p no:cacheprovider $(VALGRIND_TESTS)
	@find $(B)/valgrind -type f -size +0 | sort | xargs -r cat; test -z "$$(find $(B)/valgrind -type f -size +0)"

.PHONY: asan-check valgrind-check
