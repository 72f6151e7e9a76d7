POP3D_SOURCES = pop3d/main.c pop3d/listener.c pop3d/session.c pop3d/authorization.c pop3d/transaction.c pop3d/retrieve.c \
	pop3d/ask.c pop3d/line.c pop3d/output.c pop3d/stream.c pop3d/tls.c pop3d/credentials.c pop3d/proxy.c
POP3D_LIBS = -lgnutls
