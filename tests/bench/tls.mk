# The scenario tls of `make bench`: its client is a program of its own, with OpenSSL.
$(B)/bench/tls_client: tests/bench/tls_client.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(OPTIMISE) -g $(WARN) -o $@ $< -lssl -lcrypto

bench: $(B)/bench/tls_client
