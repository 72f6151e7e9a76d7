/*
 * Runs a program on a kernel that lacks what the sandbox needs: "without landlock PROGRAM..." or "without seccomp PROGRAM...". The calls say ENOSYS, as
 * they do there.
 */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	static const char *const calls[] = { "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self" };
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

	if (argc < 3 || ctx == NULL)
		return 2;
	int landlock = strcmp(argv[1], "landlock") == 0;
	for (int i = landlock ? 1 : 0; i < (landlock ? 4 : 1); i++)
		if (seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), seccomp_syscall_resolve_name(calls[i]), 0) != 0)
			return 2;
	if (seccomp_load(ctx) != 0)
		return 2;
	execv(argv[2], argv + 2);
	perror(argv[2]);
	return 2;
}
