# Postern. `make` builds into build/; see README.md. Each program's folder says in its sources.mk what it is made of.

VERSION = 0.1.0
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
B ?= build

CC ?= gcc
.DEFAULT_GOAL = all
OPTIMISE ?= -O2
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wformat=2 -Wvla -Wpointer-arith \
	-Wwrite-strings -Wundef -Wno-format-nonliteral
HARDEN ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Ilib $(OPTIMISE) -g $(WARN) $(HARDEN) -fPIE -ffunction-sections -MMD -MP $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed,--gc-sections $(LDFLAGS)

LIB_SOURCES = lib/catalogue.c lib/chains.c lib/advice.c lib/conf.c lib/histogram.c lib/language.c lib/log.c lib/messages.c lib/print.c lib/privilege.c lib/sandbox.c lib/system.c lib/wire.c
LIB_LIBS = -linih -lsodium -lseccomp

include pop3d/sources.mk authd/sources.mk spoold/sources.mk

PROGRAMS = pop3d authd spoold authctl spoolctl
BINARIES = $(addprefix $(B)/,$(PROGRAMS))
MANUALS = $(wildcard pop3d/*.[578] authd/*.[578] spoold/*.[578] lib/*.[578])

all: $(BINARIES)

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIB_OBJECTS = $(call objects,$(LIB_SOURCES))

# it never changes its user
$(B)/pop3d: $(call objects,$(POP3D_SOURCES)) $(filter-out %/privilege.o,$(LIB_OBJECTS))
	$(CC) $(ALL_CFLAGS) $(POP3D_LDFLAGS) -o $@ $(filter-out %.ld,$^) $(POP3D_LIBS) $(LIB_LIBS)
$(B)/authd: $(call objects,$(AUTHD_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(AUTHD_LIBS) $(LIB_LIBS)
$(B)/authctl: $(call objects,$(AUTHCTL_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(AUTHCTL_LIBS) $(LIB_LIBS)
$(B)/spoold: $(call objects,$(SPOOLD_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(SPOOLD_LIBS) $(LIB_LIBS)
$(B)/spoolctl: $(call objects,$(SPOOLCTL_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(SPOOLCTL_LIBS) $(LIB_LIBS)

# The French texts, from their catalogue.
$(B)/texts/texts_fr.h: po/fr.po po/texts.awk
	@mkdir -p $(@D)
	awk -f po/texts.awk po/fr.po > $@.new && test -s $@.new && mv $@.new $@
$(B)/obj/lib/language.o: $(B)/texts/texts_fr.h
$(B)/obj/lib/language.o: ALL_CFLAGS += -I$(B)/texts

# The counting and the sending of octets are worth vectors.
$(B)/obj/lib/wire.o $(B)/obj/lib/catalogue.o: OPTIMISE = -O3

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Units: tests/unit/NAME.c with the real files it says it links ("links:" in its first lines).
UNITS = $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))
unit_links = $(shell sed -n 's/.*links: *//p' tests/unit/$(1).c)
unit_libs = $(shell sed -n 's/.*libs: *//p' tests/unit/$(1).c)
units: $(addprefix $(B)/unit/,$(UNITS))
define UNIT_RULE
$(B)/unit/$(1): $(B)/obj/tests/unit/$(1).o $(call objects,$(call unit_links,$(1)))
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$^ $(call unit_libs,$(1)) -lcmocka $$(LIB_LIBS)
endef
$(foreach u,$(UNITS),$(eval $(call UNIT_RULE,$(u))))

include $(wildcard tests/*.mk tests/*/*.mk)

# Installation. Configuration that is there already is never overwritten.
LIBEXECDIR = $(PREFIX)/libexec/postern
SBINDIR = $(PREFIX)/sbin
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/postern
UNITDIR = $(PREFIX)/lib/systemd/system
SYSUSERSDIR = $(PREFIX)/lib/sysusers.d
TMPFILESDIR = $(PREFIX)/lib/tmpfiles.d
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
EXAMPLES = $(PREFIX)/share/postern

UNITS_SYSTEMD = $(notdir $(wildcard etc/systemd/*.socket etc/systemd/*.service etc/systemd/*.timer))
DOCUMENTS = README.md NEWS INSTALL LICENSE $(wildcard README.fr.md INSTALL.fr docs/MIGRATION.md)
COMPLETED = authctl spoolctl pop3d authd spoold
# What a program or its folder is called in the files that are installed beside it: they are written for PREFIX=/usr/local.
PLACES = sed 's,@LIBEXECDIR@,$(LIBEXECDIR),g; s,@SYSCONFDIR@,$(SYSCONFDIR),g; s,@SBINDIR@,$(SBINDIR),g; \
	s,/usr/local/libexec/postern,$(LIBEXECDIR),g; s,/usr/local/sbin/,$(SBINDIR)/,g; s,/etc/postern/,$(SYSCONFDIR)/postern/,g'
# $(call placed,FILE,TO): a text with its places put in; keep: unless there is one already.
placed = $(PLACES) $(1) > $(DESTDIR)$(2) && chmod $$(test -x $(1) && echo 755 || echo 644) $(DESTDIR)$(2)
keep = test -e $(DESTDIR)$(2) || { $(call placed,$(1),$(2)); }

install: all
	install -d $(addprefix $(DESTDIR),$(LIBEXECDIR) $(SBINDIR) $(EXAMPLES) $(DOCDIR) $(UNITDIR) $(SYSUSERSDIR) $(TMPFILESDIR) $(BASHDIR) $(ZSHDIR) \
		$(addprefix $(SYSCONFDIR)/,postern pam.d fail2ban/filter.d fail2ban/jail.d apparmor.d))
	install -m 755 $(B)/pop3d $(B)/authd $(B)/spoold $(DESTDIR)$(LIBEXECDIR)/
	install -m 755 $(B)/authctl $(B)/spoolctl $(DESTDIR)$(SBINDIR)/
	for m in $(MANUALS); do install -d $(DESTDIR)$(MANDIR)/man$${m##*.} && install -m 644 $$m $(DESTDIR)$(MANDIR)/man$${m##*.}/ || exit 1; done
	install -m 644 $(DOCUMENTS) $(DESTDIR)$(DOCDIR)/
	$(call placed,etc/sysusers.d/postern.conf,$(SYSUSERSDIR)/postern.conf)
	$(call placed,etc/tmpfiles.d/postern.conf,$(TMPFILESDIR)/postern.conf)
	for u in $(UNITS_SYSTEMD); do $(call placed,etc/systemd/$$u,$(UNITDIR)/$$u) || exit 1; done
	for c in $(COMPLETED); do install -m 644 etc/completion/postern.bash $(DESTDIR)$(BASHDIR)/$$c || exit 1; done
	install -m 644 etc/completion/_postern $(DESTDIR)$(ZSHDIR)/_postern
	$(call placed,etc/postern.conf,$(EXAMPLES)/postern.conf)
	cd etc && find $(EXAMPLE_FOLDERS) -type f | while read -r f; do f=$${f#examples/}; from=$$f; test -e $$from || from=examples/$$f; \
		mkdir -p "$(DESTDIR)$(EXAMPLES)/$$(dirname $$f)" && $(call placed,$$from,$(EXAMPLES)/$$f) || exit 1; done
	$(call keep,etc/postern.conf,$(SYSCONFDIR)/postern/postern.conf)
	$(call keep,etc/pam/postern,$(SYSCONFDIR)/pam.d/postern)
	$(call keep,etc/fail2ban/filter.conf,$(SYSCONFDIR)/fail2ban/filter.d/postern.conf)
	$(call keep,etc/fail2ban/jail.conf,$(SYSCONFDIR)/fail2ban/jail.d/postern.conf)
	$(call keep,etc/apparmor/postern,$(SYSCONFDIR)/apparmor.d/postern)

# Of etc/, what an administrator copies from; whoever needs it finds it in EXAMPLES.
EXAMPLE_FOLDERS = examples inetd s6 runit openrc $(filter-out examples inetd s6 runit openrc systemd sysusers.d tmpfiles.d fail2ban apparmor pam \
	completion,$(notdir $(patsubst %/,%,$(wildcard etc/*/))))

# What was asked for at the installation stays: configuration, users, what the daemons remember.
uninstall:
	rm -rf $(addprefix $(DESTDIR),$(LIBEXECDIR) $(EXAMPLES) $(DOCDIR))
	rm -f $(addprefix $(DESTDIR),$(SBINDIR)/authctl $(SBINDIR)/spoolctl $(SYSUSERSDIR)/postern.conf $(TMPFILESDIR)/postern.conf \
		$(addprefix $(BASHDIR)/,$(COMPLETED)) $(ZSHDIR)/_postern $(addprefix $(UNITDIR)/,$(UNITS_SYSTEMD)))
	for m in $(notdir $(MANUALS)); do rm -f $(DESTDIR)$(MANDIR)/man$${m##*.}/$$m; done
	@echo "Left in place: $(SYSCONFDIR)/postern, postern in $(SYSCONFDIR)/pam.d, apparmor.d, fail2ban, and the state directory /var/lib/postern."

# A Debian package, into the folder above this one; its changelog must name VERSION.
deb:
	dpkg-buildpackage --no-sign -b

# What was changed since SINCE is put into the form of .clang-format; lines that nobody touched stay as they are.
SINCE ?= HEAD
format:
	git clang-format --extensions c,h $(SINCE)

# What each program may import is part of the design: pop3d can neither become somebody, nor run anything, nor read a store.
# What is linked statically is not imported: then it must not be in it (but for dlopen, which libc's stdio has by itself).
FORBIDDEN_pop3d = execv|execl|posix_spawn|system$$|popen|setuid|setgid|setres|setgroups|db_create|pam_|crypt$$|crypt_r|ptrace|dlopen
FORBIDDEN_spoold = execv|execl|posix_spawn|system$$|popen|crypto_pwhash|pam_|crypt$$|crypt_r|gnutls_|ptrace|dlopen
imports: $(B)/pop3d $(B)/spoold
	@for p in pop3d spoold; do \
		case $$p in pop3d) bad='$(FORBIDDEN_pop3d)';; spoold) bad='$(FORBIDDEN_spoold)';; esac; \
		{ nm $(B)/$$p | awk '$$2 ~ /[TWi]/ && $$3 != "dlopen" {print $$3}'; \
		nm -D -u $(B)/$$p | awk '{sub(/@.*/, "", $$2); print $$2}'; } | grep -E "^($$bad)" && \
			{ echo "$$p must not import these"; exit 1; }; done; true

# clang-tidy, as .clang-tidy has it, of what has changed since it was last found clean.
TIDY = $(patsubst %.c,$(B)/tidy/%.ok,$(wildcard lib/*.c pop3d/*.c authd/*.c spoold/*.c))
tidy: $(TIDY)
$(B)/tidy/%.ok: %.c .clang-tidy $(wildcard lib/*.h pop3d/*.h authd/*.h spoold/*.h) | $(B)/texts/texts_fr.h
	@mkdir -p $(@D)
	@clang-tidy --quiet $< -- -std=gnu17 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Ilib -I$(B)/texts 2>/dev/null && touch $@

lint: imports
	$(MAKE) --no-print-directory B=$(B)/analyzer OPTIMISE='-O1 -fanalyzer -Wno-analyzer-fd-leak -Werror' all
	$(MAKE) --no-print-directory B=$(B)/clang CC=clang HARDEN=-fstack-protector-strong WARN='$(WARN) -Wno-missing-field-initializers -Werror' all
	$(MAKE) --no-print-directory tidy
	cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -D_GNU_SOURCE -D__x86_64__ -Ilib lib pop3d authd spoold
	test -z "$(MANUALS)" || mandoc -Tlint -Wwarning $(MANUALS)

# The same programs, with a memory error or undefined behaviour ending them at once; sandbox = off in their configuration.
ASAN_FLAGS = -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
asan:
	$(MAKE) --no-print-directory B=$(B)/asan HARDEN= OPTIMISE='$(ASAN_FLAGS)' all units

clean:
	rm -rf $(B)

-include $(shell find $(B)/obj -name '*.d' -type f 2>/dev/null)

.PHONY: all clean units install uninstall deb format imports lint tidy asan
