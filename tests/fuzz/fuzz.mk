# Fuzzers: tests/fuzz/NAME.c with the real files it says it links, its corpus in tests/fuzz/corpus/NAME.
FUZZERS = $(filter-out replay,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
FUZZ_SECONDS ?= 60
FUZZ_FLAGS = -ffunction-sections -Wl,--gc-sections -DFUZZING -std=gnu17 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Ilib -I$(B)/texts -g -O1 -fno-omit-frame-pointer
fuzz_links = $(shell sed -n 's/.*links: *//p' tests/fuzz/$(1).c)
fuzz_libs = $(shell sed -n 's/.*libs: *//p' tests/fuzz/$(1).c)

define FUZZ_RULE
$(B)/fuzz/$(1): tests/fuzz/$(1).c $(call fuzz_links,$(1)) $(wildcard lib/*.h pop3d/*.h spoold/*.h authd/*.h) | $(B)/texts/texts_fr.h
	@mkdir -p $$(@D)
	clang $$(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $$@ $$(filter %.c,$$^) $(call fuzz_libs,$(1)) $$(LIB_LIBS)
$(B)/replay/$(1): tests/fuzz/$(1).c tests/fuzz/replay.c $(call fuzz_links,$(1)) $(wildcard lib/*.h pop3d/*.h spoold/*.h authd/*.h) | $(B)/texts/texts_fr.h
	@mkdir -p $$(@D)
	$$(CC) $$(FUZZ_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -o $$@ $$(filter %.c,$$^) $(call fuzz_libs,$(1)) $$(LIB_LIBS)
endef
$(foreach f,$(FUZZERS),$(eval $(call FUZZ_RULE,$(f))))

replays: $(addprefix $(B)/replay/,$(FUZZERS))

# FUZZ_SECONDS each; new inputs go to build/fuzz/found, what breaks is kept there too.
fuzz: $(addprefix $(B)/fuzz/,$(FUZZERS))
	@for f in $(FUZZERS); do mkdir -p $(B)/fuzz/found/$$f && echo "fuzz: $$f, $(FUZZ_SECONDS) s" && \
		$(B)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=20000 -print_final_stats=1 \
		-artifact_prefix=$(B)/fuzz/found/ $(B)/fuzz/found/$$f tests/fuzz/corpus/$$f 2>$(B)/fuzz/$$f.log || \
		{ tail -40 $(B)/fuzz/$$f.log; exit 1; }; grep -E 'cov:|number_of_executed' $(B)/fuzz/$$f.log | tail -2; done

.PHONY: fuzz replays
