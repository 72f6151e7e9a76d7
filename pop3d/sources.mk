POP3D_SOURCES = pop3d/main.c pop3d/listener.c pop3d/crowd.c pop3d/session.c pop3d/authorization.c pop3d/transaction.c pop3d/retrieve.c \
	pop3d/place.c pop3d/window.c pop3d/ask.c pop3d/line.c pop3d/output.c pop3d/stream.c pop3d/tls.c pop3d/credentials.c pop3d/proxy.c pop3d/language.c

# Each connection is a fork of it, and what a process has mapped is most of what a fork and its end cost. So it is linked statically wherever all of
# its libraries are there as archives (STATIC=auto), and no sanitizer is at work, which wants shared ones. STATIC=no: with shared libraries.
STATIC ?= auto
POP3D_ARCHIVES = gnutls hogweed nettle gmp tasn1 idn2 unistring
POP3D_STATIC := $(if $(filter no,$(STATIC))$(findstring -fsanitize,$(OPTIMISE) $(CFLAGS)),,$(shell \
	for a in inih sodium seccomp $(POP3D_ARCHIVES) c; do test -e "$$($(CC) -print-file-name=lib$$a.a)" || exit; done; echo yes))
ifeq ($(POP3D_STATIC),yes)
POP3D_SOURCES += pop3d/static.c
# What a session touches lies together (layout.ld), from where the kernel begins to map 64 KiB at once.
POP3D_LAYOUT = pop3d/layout.ld
POP3D_LDFLAGS = $(patsubst -pie,-static-pie,$(ALL_LDFLAGS)) -Wl,-T,$(POP3D_LAYOUT) -Wl,-z,max-page-size=65536
$(B)/pop3d: $(POP3D_LAYOUT)
# inih first: GnuTLS's archive has a copy of it
POP3D_LIBS = -linih $(addprefix -l,$(POP3D_ARCHIVES))
else
POP3D_LDFLAGS = $(ALL_LDFLAGS)
POP3D_LIBS = -lgnutls
endif
