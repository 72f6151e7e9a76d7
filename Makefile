# Postern. `make` builds into build/; see README.md. Each program's folder says in its sources.mk what it is made of.

VERSION = 0.1.0
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
B ?= build

CC ?= gcc
OPTIMISE ?= -O2
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wformat=2 -Wvla -Wpointer-arith \
	-Wwrite-strings -Wundef -Wno-format-nonliteral
HARDEN ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -Ilib $(OPTIMISE) -g $(WARN) $(HARDEN) -fPIE -MMD -MP $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)

LIB_SOURCES = lib/catalogue.c lib/conf.c lib/log.c lib/messages.c lib/privilege.c lib/sandbox.c lib/system.c lib/wire.c
LIB_LIBS = -linih -lsodium -lseccomp

include pop3d/sources.mk authd/sources.mk spoold/sources.mk

PROGRAMS = pop3d authd spoold authctl spoolctl
BINARIES = $(addprefix $(B)/,$(PROGRAMS))
MANUALS = $(wildcard pop3d/*.[578] authd/*.[578] spoold/*.[578] lib/*.[578])

all: $(BINARIES)

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIB_OBJECTS = $(call objects,$(LIB_SOURCES))

$(B)/pop3d: $(call objects,$(POP3D_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(POP3D_LIBS) $(LIB_LIBS)
$(B)/authd: $(call objects,$(AUTHD_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(AUTHD_LIBS) $(LIB_LIBS)
$(B)/authctl: $(call objects,$(AUTHCTL_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(AUTHCTL_LIBS) $(LIB_LIBS)
$(B)/spoold: $(call objects,$(SPOOLD_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(SPOOLD_LIBS) $(LIB_LIBS)
$(B)/spoolctl: $(call objects,$(SPOOLCTL_SOURCES)) $(LIB_OBJECTS)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(SPOOLCTL_LIBS) $(LIB_LIBS)

# The counting and the sending of octets are worth vectors.
$(B)/obj/lib/wire.o: OPTIMISE = -O3

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

clean:
	rm -rf $(B)

-include $(shell find $(B) -name '*.d' 2>/dev/null)

.PHONY: all clean units
