# Fuzzers: tests/fuzz/NAME.c with the real files it says it links, its corpus in tests/fuzz/corpus/NAME. receipt.c is one for every side that receives:
# receipt-SIDE.
RECEIPTS = listener pop3d authd verifier hasher keeper pam spoold worker tool
FUZZERS = $(filter-out replay receipt,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
FUZZ_SECONDS ?= 60
FUZZ_FLAGS = -ffunction-sections -Wl,--gc-sections -DFUZZING -std=gnu17 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Ilib -I$(B)/texts -g -O1 -fno-omit-frame-pointer
fuzz_links = $(call with_advice,$(shell sed -n 's/.*links: *//p' tests/fuzz/$(1).c))
# lib/system.c says with -t what is unwise
with_advice = $(1) $(if $(filter lib/system.c,$(1)),$(filter-out $(1),lib/advice.c lib/conf.c lib/log.c lib/messages.c))
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

receiver = -DRECEIVER=SIDE_$(shell echo $(1) | tr a-z A-Z)
define RECEIPT_RULE
$(B)/fuzz/receipt-$(1): tests/fuzz/receipt.c lib/messages.c lib/messages.h
	@mkdir -p $$(@D)
	clang $$(FUZZ_FLAGS) $(call receiver,$(1)) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $$@ $$(filter %.c,$$^) $$(LIB_LIBS)
$(B)/replay/receipt-$(1): tests/fuzz/receipt.c tests/fuzz/replay.c lib/messages.c lib/messages.h
	@mkdir -p $$(@D)
	$$(CC) $$(FUZZ_FLAGS) $(call receiver,$(1)) -fsanitize=address,undefined -fno-sanitize-recover=all -o $$@ $$(filter %.c,$$^) $$(LIB_LIBS)
endef
$(foreach s,$(RECEIPTS),$(eval $(call RECEIPT_RULE,$(s))))
FUZZERS += $(addprefix receipt-,$(RECEIPTS))

replays: $(addprefix $(B)/replay/,$(FUZZERS))

# FUZZ_SECONDS each; new inputs go to build/fuzz/found, what breaks is kept there too.
fuzz: $(addprefix $(B)/fuzz/,$(FUZZERS))
	@for f in $(FUZZERS); do mkdir -p $(B)/fuzz/found/$$f && echo "fuzz: $$f, $(FUZZ_SECONDS) s" && \
		$(B)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=20000 -print_final_stats=1 \
		-artifact_prefix=$(B)/fuzz/found/ $(B)/fuzz/found/$$f tests/fuzz/corpus/$$f 2>$(B)/fuzz/$$f.log || \
		{ tail -40 $(B)/fuzz/$$f.log; exit 1; }; grep -E 'cov:|number_of_executed' $(B)/fuzz/$$f.log | tail -2; done

.PHONY: fuzz replays
