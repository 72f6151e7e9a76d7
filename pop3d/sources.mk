POP3D_SOURCES = pop3d/main.c pop3d/listener.c pop3d/crowd.c pop3d/session.c pop3d/authorization.c pop3d/transaction.c pop3d/retrieve.c \
	pop3d/ask.c pop3d/line.c pop3d/output.c pop3d/stream.c pop3d/tls.c pop3d/credentials.c pop3d/proxy.c pop3d/language.c

# Each connection is a fork of it, and what a process has mapped is most of what a fork and its end cost. So it is linked statically wherever all of
# its libraries are there as archives (STATIC=auto), and no sanitizer is at work, which wants shared ones. STATIC=no: with shared libraries.
STATIC ?= auto
POP3D_ARCHIVES = gnutls hogweed nettle gmp tasn1 idn2 unistring
POP3D_STATIC := $(if $(filter no,$(STATIC))$(findstring -fsanitize,$(OPTIMISE) $(CFLAGS)),,$(shell \
	for a in inih sodium seccomp $(POP3D_ARCHIVES) c; do test -e "$$($(CC) -print-file-name=lib$$a.a)" || exit; done; echo yes))
ifeq ($(POP3D_STATIC),yes)
POP3D_SOURCES += pop3d/static.c
POP3D_LDFLAGS = $(patsubst -pie,-static-pie,$(ALL_LDFLAGS))
# inih first: GnuTLS's archive has a copy of it
POP3D_LIBS = -linih $(addprefix -l,$(POP3D_ARCHIVES))
else
POP3D_LDFLAGS = $(ALL_LDFLAGS)
POP3D_LIBS = -lgnutls
endif
