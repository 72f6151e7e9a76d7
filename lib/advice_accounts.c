/* What a configuration says of accounts. Apart from the rest, since a program that is linked statically has no name service. */
#include <pwd.h>
#include <string.h>

#include "advice.h"

void
advice_accounts(const struct advice *a)
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
