/* What a configuration says of accounts. Apart from the rest, since a program that is linked statically has no name service. */
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "advice.h"

/* Made by the installation: a check before that is no mistake. */
static bool
is_installed(const char *name)
{
	return strcmp(name, "_postern") == 0 || strcmp(name, "_postern-auth") == 0;
}

/* A daemon that is not root runs as what it is, and these names mean nothing to it. */
static void
advise_account(const struct advice *a, const char *section, const char *name)
{
	const struct passwd *pw = getpwnam(name);

	if (pw == NULL && !is_installed(name))
		advice_wrong(a, section, "user", "there is no account %s; accepted: the name of an account that is not root", name);
	if (pw != NULL && (pw->pw_uid == 0 || pw->pw_gid == 0))
		advice_wrong(a, section, "user", "%s is root, or of its group; accepted: the name of an account that is not root", name);
}

void
advice_accounts(const struct advice *a)
{
	if (geteuid() == 0) {
		advise_account(a, "pop3d", a->conf->pop3d_user);
		advise_account(a, "authd", a->conf->authd_user);
	}
	advice_virtual_user(a);
}

static void
advise_installed(const struct advice *a, const char *section, const char *name)
{
	if (is_installed(name) && getpwnam(name) == NULL)
		advice_warn(a, section, "user", "there is no account %s, and authd does not start without it; do: systemd-sysusers, or useradd --system "
		    "--no-create-home --shell /usr/sbin/nologin %s", name, name);
}

void
advice_installed(const struct advice *a)
{
	if (geteuid() != 0)
		return;
	advise_installed(a, "pop3d", a->conf->pop3d_user);
	advise_installed(a, "authd", a->conf->authd_user);
}

void
advice_virtual_user(const struct advice *a)
{
	const struct conf *c = a->conf;
	const struct passwd *pw;

	if (c->virtual_user[0] == '\0')
		return;
	if ((pw = getpwnam(c->virtual_user)) == NULL)
		advice_warn(a, "spoold", "virtual-user", "there is no account %s: its users are refused", c->virtual_user);
	else if (pw->pw_uid == 0 || pw->pw_gid == 0)
		advice_warn(a, "spoold", "virtual-user", "%s is root, or of its group: spoold opens no maildrop for it, and its users are refused",
		    c->virtual_user);
	else if (pw->pw_uid < c->min_uid)
		advice_warn(a, "spoold", "virtual-user", "%s has the uid %u, below min-uid: its users are refused", c->virtual_user, (unsigned)pw->pw_uid);
	else if (strcmp(c->virtual_user, c->authd_user) == 0 || strcmp(c->virtual_user, c->pop3d_user) == 0)
		advice_warn(a, "spoold", "virtual-user", "%s also runs a daemon: mail is better owned by an account of its own", c->virtual_user);
}
