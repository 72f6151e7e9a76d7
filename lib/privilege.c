/* Giving up root, and making sure by trying to get it back. */
#include "privilege.h"

#include <errno.h>
#include <string.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <unistd.h>

#include "log.h"

bool
privilege_is_root(void)
{
	return geteuid() == 0;
}

/* Every way back must fail. */
static bool
can_return(void)
{
	return setuid(0) == 0 || seteuid(0) == 0 || setresuid(0, 0, 0) == 0 || setgid(0) == 0 || setegid(0) == 0 ||
	    setgroups(0, NULL) == 0;
}

int
privilege_drop(uid_t uid, gid_t gid)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	if (uid == 0 || gid == 0) {
		errno = EINVAL;
		return -1;
	}
	if (privilege_is_root()) {
		gid_t groups[2];
		if (setgroups(1, &gid) == -1 || setresgid(gid, gid, gid) == -1 || setresuid(uid, uid, uid) == -1)
			return -1;
		if (getgroups(2, groups) != 1 || groups[0] != gid) {
			errno = EPERM;
			return -1;
		}
	}
	if (getresuid(&r, &e, &s) == -1 || getresgid(&rg, &eg, &sg) == -1)
		return -1;
	if (r != uid || e != uid || s != uid || rg != gid || eg != gid || sg != gid || can_return()) {
		errno = EPERM;
		return -1;
	}
	return 0;
}

int
privilege_drop_to(const char *user)
{
	const struct passwd *pw;

	errno = 0;
	pw = getpwnam(user);
	if (pw == NULL) {
		log_text(LOG_ERR, "there is no account %s on this host: create it, or name another", user);
		return -1;
	}
	if (privilege_drop(pw->pw_uid, pw->pw_gid) == -1) {
		log_text(LOG_ERR, "cannot become %s (uid %u, gid %u) for good: %s", user, (unsigned)pw->pw_uid,
		    (unsigned)pw->pw_gid, strerror(errno));
		return -1;
	}
	return 0;
}
