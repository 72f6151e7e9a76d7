# The instrument: this server beside others from Debian's packages, on this machine, in one run.
#
#	make bench				all scenarios, some minutes; needs root (sudo) for accounts in namespaces of its own
#	make bench BENCH=poll			one scenario, or several: BENCH="poll retr"
#	make bench BENCH=poll BENCH_FLAGS=--short	a quick look
#	make bench-install			what is missing of the others, unpacked into build/bench/peers; bench does it, too
#	tests/bench/bench.py --help		what there is

BENCH ?=
BENCH_FLAGS ?=

$(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(OPTIMISE) -g $(WARN) -o $@ $<

bench: all $(B)/bench/client $(B)/bench/floor
	/usr/bin/python3 tests/bench/bench.py --build $(B) $(BENCH_FLAGS) $(BENCH)

bench-install: all
	/usr/bin/python3 tests/bench/bench.py --build $(B) --fetch

.PHONY: bench bench-install
