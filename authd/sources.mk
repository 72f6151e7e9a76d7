AUTHD_STORE = authd/store.c authd/store_edit.c lib/accounts.c lib/advice_accounts.c

AUTHD_SOURCES = authd/main.c authd/verifier.c authd/peer.c authd/login.c authd/vouch.c authd/sasl.c authd/bound.c authd/scram.c authd/apop.c authd/token.c authd/memory.c authd/grant.c authd/workers.c authd/loop.c authd/figures.c authd/renewal.c authd/keeper.c authd/keys.c authd/sign.c \
	authd/cache.c authd/throttle.c authd/shared.c authd/hash.c authd/pam.c authd/password.c authd/wipe.c $(AUTHD_STORE)
AUTHD_LIBS = -lgnutls -lcrypto -lgsasl -lnettle -lpam -lcrypt -ldb
AUTHCTL_SOURCES = lib/prompt.c authd/authctl.c authd/command_client.c authd/command_user.c authd/command_test.c authd/command_app.c authd/command_cert.c authd/command_import.c authd/command_print.c authd/password_read.c authd/scram.c authd/token.c authd/memory.c authd/hash.c authd/pam.c authd/password.c authd/wipe.c $(AUTHD_STORE)
AUTHCTL_LIBS = -lgnutls -lgsasl -lnettle -lpam -lcrypt -ldb
