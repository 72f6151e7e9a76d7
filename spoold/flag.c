/*
 * The flag of an mbox: NAME INODE HOST. A copy of the file may have it, too, but not the inode. A NAME lies under state-dir, and whole hosts are
 * copied with theirs: so the host counts as well.
 */
#include "flag.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "system.h"

#define ATTRIBUTE	"user.postern-update"
#define NAME_SIZE	33
#define FLAG_SIZE	(NAME_SIZE + 24 + HOST_NAME_MAX + 1)

static char ours[NAME_SIZE], here[HOST_NAME_MAX + 1];

void
flag_name(const char *name)
{
	string_copy(ours, sizeof ours, name);
	if (gethostname(here, sizeof here - 1) == -1 || here[0] == '\0')
		string_copy(here, sizeof here, "?");
}

/* All of this but room on the disk is the same every time; and if there is none, the UPDATE may still make some. */
void
flag_set(int mbox)
{
	char flag[FLAG_SIZE];
	struct stat st;

	if (ours[0] == '\0' || fstat(mbox, &st) == -1)
		return;
	int n = snprintf(flag, sizeof flag, "%s %llu %s", ours, (unsigned long long)st.st_ino, here);
	(void)fsetxattr(mbox, ATTRIBUTE, flag, (size_t)n, 0);
}

void
flag_clear(int mbox)
{
	(void)fremovexattr(mbox, ATTRIBUTE);
}

enum flagged
flag_look(int mbox, char host[static HOST_NAME_MAX + 1])
{
	char flag[FLAG_SIZE], name[NAME_SIZE];
	unsigned long long inode;
	struct stat st;
	int at = 0;
	ssize_t n = fgetxattr(mbox, ATTRIBUTE, flag, sizeof flag - 1);

	if (n <= 0)
		return FLAGGED_NOT;
	flag[n] = '\0';
	if (sscanf(flag, "%32s %llu %n", name, &inode, &at) != 2 || at == 0 || fstat(mbox, &st) == -1 || inode != st.st_ino)
		return FLAGGED_NOT;
	string_copy(host, HOST_NAME_MAX + 1, flag + at);
	return strcmp(name, ours) == 0 && strcmp(host, here) == 0 ? FLAGGED_OURS : FLAGGED_OTHERS;
}
