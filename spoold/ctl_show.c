/* spoolctl show: one user's maildrop as it is now. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spoolctl.h"

#define LOCKS_MOST 16

struct view {
	const struct conf *conf;
	struct body_shown shown;
	struct body_spool_session session;
	bool in_session;
	size_t locks;
	struct held lock[LOCKS_MOST];
	char dotlock_command[32];
};

static void
view_fill(struct view *v, const char *user)
{
	size_t count = 0;

	if (look_at(v->conf, user, &v->shown) == -1) {
		if (errno == EIO)
			die("the maildrop of %s: spoold could not look; its log says why", user);
		die("cannot reach spoold at %s/spoold.ctl: %s", v->conf->run_dir, strerror(errno));
	}
	struct body_spool_session *list = talk_sessions(v->conf, &count);
	for (size_t i = 0; i < count && !v->in_session; i++)
		if (list[i].path[0] != '\0' && strcmp(list[i].path, v->shown.path) == 0) {
			v->session = list[i];
			v->in_session = true;
		}
	free(list);
	if ((v->shown.flags & SHOWN_MISSING) == 0 && v->shown.inode != 0)
		v->locks = locks_of(v->shown.device, v->shown.inode, v->lock, LOCKS_MOST);
	process_command(v->shown.dotlock_pid, v->dotlock_command, sizeof v->dotlock_command);
}

static void
field(const char *name)
{
	printf("%-10s  ", name);
}

static void
print_maildrop(const struct body_shown *s)
{
	char when[TIME_SIZE];

	field("maildrop");
	print_safe(stdout, s->path);
	printf(" (%s", s->kind == MAILDROP_MBOX ? "mbox" : "maildir");
	if (s->flags & SHOWN_MISSING)
		printf(", not there: an empty one is served");
	else if (s->changed != 0)
		printf(", changed %s", print_time(s->changed, when, sizeof when));
	if (s->flags & SHOWN_READONLY)
		printf(", not writable");
	printf(")\n");
	field("messages");
	if (s->failure != FAILURE_COUNT)
		printf("not known: %s (spoold's log says more)\n", failure_text(s->failure));
	else if ((s->flags & (SHOWN_COUNTED | SHOWN_MISSING)) == 0)
		printf("not known: it changed while it was counted\n");
	else {
		printf("%u (%llu octets", (unsigned)s->messages, (unsigned long long)s->octets);
		if (s->kind == MAILDROP_MAILDIR)
			printf(", %u new", (unsigned)s->fresh);
		printf(")\n");
	}
}

static void
print_file(const char *name, bool there, uint64_t size, int64_t changed)
{
	char when[TIME_SIZE];

	field(name);
	if (there)
		printf("%llu octets, written %s\n", (unsigned long long)size, print_time(changed, when, sizeof when));
	else
		printf("none\n");
}

static void
print_locks(const struct view *v)
{
	const struct body_spool_session *s = &v->session;
	char when[TIME_SIZE];

	field("session");
	if (v->in_session)
		printf("%s, client %s, process %u, since %s\n", s->session, s->client[0] != '\0' ? s->client : "-", (unsigned)s->pid,
		    print_time(s->since, when, sizeof when));
	else
		printf("none\n");
	field("locks");
	if (v->locks == 0 && (v->shown.flags & SHOWN_DOTLOCK) == 0)
		printf("none");
	for (size_t i = 0; i < v->locks; i++) {
		printf("%s%s %s", i > 0 ? ", " : "", v->lock[i].kind, v->lock[i].access);
		if (v->lock[i].pid != 0)
			printf(" by process %u", (unsigned)v->lock[i].pid);
		if (v->lock[i].command[0] != '\0') {
			printf(" (");
			print_safe(stdout, v->lock[i].command);
			putchar(')');
		}
	}
	if (v->shown.flags & SHOWN_DOTLOCK) {
		printf("%sdotlock since %s", v->locks > 0 ? ", " : "", print_time(v->shown.dotlock_since, when, sizeof when));
		if (v->shown.dotlock_pid != 0)
			printf(" by process %u (%s)", (unsigned)v->shown.dotlock_pid,
			    v->dotlock_command[0] != '\0' ? v->dotlock_command : "not alive");
	}
	putchar('\n');
}

static void
print_view(const struct view *v)
{
	const struct body_shown *s = &v->shown;

	field("user");
	print_safe(stdout, s->user);
	printf(" (store %s, uid %u)\n", store_name(s->store), (unsigned)s->uid);
	print_maildrop(s);
	print_file("cache", (s->flags & SHOWN_CACHE) != 0, s->cache_size, s->cache_changed);
	print_file("journal", (s->flags & SHOWN_JOURNAL) != 0, s->journal_size, s->journal_changed);
	print_locks(v);
	field("policy");
	printf("server-copy = %s, takeover = %s, uidl-format = ", server_copy_name((int)s->server_copy), v->conf->takeover ? "yes" : "no");
	print_safe(stdout, v->conf->uidl_format);
	printf(", expire = %llu\n", (unsigned long long)v->conf->expire);
}

static void
json_file(struct json *j, const char *key, bool there, uint64_t size, int64_t changed)
{
	if (!there) {
		json_null(j, key);
		return;
	}
	json_open(j, key, '{');
	json_number(j, "size", (int64_t)size);
	json_time(j, "changed", changed);
	json_close(j, '}');
}

static void
json_locks(struct json *j, const struct view *v)
{
	const struct body_shown *s = &v->shown;

	if (v->in_session)
		json_session(j, "session", &v->session);
	else
		json_null(j, "session");
	json_open(j, "locks", '[');
	for (size_t i = 0; i < v->locks; i++) {
		json_open(j, NULL, '{');
		json_string(j, "kind", v->lock[i].kind);
		json_string(j, "access", v->lock[i].access);
		json_number(j, "pid", v->lock[i].pid);
		json_string(j, "command", v->lock[i].command);
		json_close(j, '}');
	}
	json_close(j, ']');
	if ((s->flags & SHOWN_DOTLOCK) == 0) {
		json_null(j, "dotlock");
		return;
	}
	json_open(j, "dotlock", '{');
	json_time(j, "since", s->dotlock_since);
	json_number(j, "pid", s->dotlock_pid);
	json_string(j, "command", v->dotlock_command);
	json_close(j, '}');
}

static void
json_view(const struct view *v)
{
	const struct body_shown *s = &v->shown;
	struct json j = { .file = stdout };
	bool counted = (s->flags & (SHOWN_COUNTED | SHOWN_MISSING)) != 0 && s->failure == FAILURE_COUNT;

	json_open(&j, NULL, '{');
	json_string(&j, "user", s->user);
	json_string(&j, "store", store_name(s->store));
	json_number(&j, "uid", s->uid);
	json_string(&j, "maildrop", s->path);
	json_string(&j, "kind", s->kind == MAILDROP_MBOX ? "mbox" : "maildir");
	json_bool(&j, "exists", (s->flags & SHOWN_MISSING) == 0);
	json_bool(&j, "writable", (s->flags & (SHOWN_READONLY | SHOWN_MISSING)) == 0);
	json_time(&j, "changed", s->changed);
	json_string(&j, "failure", s->failure == FAILURE_COUNT ? NULL : failure_text(s->failure));
	if (counted) {
		json_number(&j, "messages", s->messages);
		json_number(&j, "octets", (int64_t)s->octets);
		json_number(&j, "new", s->fresh);
	} else {
		json_null(&j, "messages");
		json_null(&j, "octets");
		json_null(&j, "new");
	}
	json_file(&j, "cache", (s->flags & SHOWN_CACHE) != 0, s->cache_size, s->cache_changed);
	json_file(&j, "journal", (s->flags & SHOWN_JOURNAL) != 0, s->journal_size, s->journal_changed);
	json_locks(&j, v);
	json_open(&j, "policy", '{');
	json_string(&j, "server-copy", server_copy_name((int)s->server_copy));
	json_bool(&j, "takeover", v->conf->takeover != 0);
	json_string(&j, "uidl-format", v->conf->uidl_format);
	json_number(&j, "expire", (int64_t)v->conf->expire);
	json_close(&j, '}');
	json_close(&j, '}');
	json_end(&j);
}

int
command_show(const struct conf *c, const struct arguments *a)
{
	static struct view v;

	v.conf = c;
	view_fill(&v, a->word[0]);
	if (v.shown.store == STORE_COUNT)
		return complain("%s: %s (spoold's log says more)", a->word[0], failure_text(v.shown.failure));
	if (a->json)
		json_view(&v);
	else
		print_view(&v);
	return v.shown.failure == FAILURE_COUNT ? 0 : 1;
}
