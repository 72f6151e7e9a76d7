/* spoolctl doctor: what its files share. */
#ifndef POSTERN_SPOOLD_DOCTOR_H
#define POSTERN_SPOOLD_DOCTOR_H

#include "spoolctl.h"

enum finding { FINDING_OK, FINDING_WARNING, FINDING_FAILED, FINDING_COUNT };

struct doctor {
	const struct conf *conf;
	bool root;
	bool started;			/* something was printed */
	struct json *json;		/* NULL: for people */
	const char *user;		/* NULL: none was named */
	const char *connect;		/* ADDRESS:PORT; NULL: not said */
	unsigned count[FINDING_COUNT];
};

/* One step and what came of it. `remedy` is NULL with FINDING_OK. */
void found(struct doctor *d, enum finding f, const char *step, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* doctor_host.c */
void doctor_sandbox(struct doctor *d);
void doctor_clock(struct doctor *d);
void doctor_log(struct doctor *d);
void doctor_fail2ban(struct doctor *d);
/* doctor_conf.c */
void doctor_configuration(struct doctor *d);
void doctor_accounts(struct doctor *d);
void doctor_directories(struct doctor *d);
void doctor_daemons(struct doctor *d);
void doctor_users(struct doctor *d);
void doctor_pam(struct doctor *d);
/* doctor_tls.c */
void doctor_certificates(struct doctor *d);
/* doctor_mail.c */
void doctor_spool(struct doctor *d);
void doctor_journals(struct doctor *d);
void doctor_maildrop(struct doctor *d);
/* doctor_login.c */
void doctor_wire(struct doctor *d);

#endif
