# The scenario tls of `make bench`: its client is a program of its own, and the floor speaks TLS as well, with OpenSSL.
$(B)/bench/tls_client $(B)/bench/floor: $(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(OPTIMISE) -g $(WARN) -o $@ $< -lssl -lcrypto

bench: $(B)/bench/tls_client
