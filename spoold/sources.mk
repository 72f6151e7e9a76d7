SPOOLD_SOURCES = spoold/main.c spoold/check.c spoold/front.c spoold/grant.c spoold/sessions.c spoold/figures.c spoold/worker.c spoold/look.c spoold/ask.c spoold/maildrop.c spoold/view.c spoold/expire.c spoold/age.c spoold/lock.c spoold/locked.c spoold/flag.c spoold/locker.c spoold/path.c \
	spoold/archive.c spoold/mbox.c spoold/mbox_look.c spoold/mbox_update.c spoold/scan.c spoold/maildir.c spoold/maildir_scan.c spoold/maildir_update.c spoold/listing.c spoold/intent.c \
	spoold/journal.c spoold/cache.c spoold/inventory.c spoold/uidl.c spoold/content.c spoold/oldids.c lib/accounts.c lib/advice_accounts.c

# Every session that no worker lingers for is a fork of it: its libraries are linked in as archives where they are there (STATIC, as pop3d's), but for
# libc, whose name service is made of shared ones, and xxhash, whose archive has not the code for wide registers.
SPOOLD_ARCHIVES = db-5.3 nettle inih sodium seccomp
SPOOLD_STATIC := $(if $(filter no,$(STATIC))$(findstring -fsanitize,$(OPTIMISE) $(CFLAGS)),,$(shell \
	for a in $(SPOOLD_ARCHIVES); do test -e "$$($(CC) -print-file-name=lib$$a.a)" || exit; done; echo yes))
ifeq ($(SPOOLD_STATIC),yes)
SPOOLD_LIBS = -Wl,-Bstatic $(addprefix -l,$(SPOOLD_ARCHIVES)) -Wl,-Bdynamic -lxxhash
else
SPOOLD_LIBS = -ldb-5.3 -lnettle -lxxhash
endif
SPOOLCTL_SOURCES = lib/prompt.c lib/advice_accounts.c spoold/spoolctl.c spoold/ctl_talk.c spoold/ctl_print.c spoold/ctl_who.c spoold/ctl_look.c spoold/ctl_show.c spoold/ctl_maildrop.c \
	spoold/ctl_metrics.c spoold/ctl_certificate.c spoold/doctor.c spoold/doctor_host.c spoold/doctor_conf.c \
	spoold/doctor_tls.c spoold/doctor_mail.c spoold/doctor_login.c
SPOOLCTL_LIBS = -lgnutls

# Looking for line starts in every octet of an mbox is worth vectors.
$(B)/obj/spoold/scan.o: OPTIMISE = -O3
