/*
 * The user store: records and what is refused of them, changes and their crash safety, accounts, app passwords and secrets.
 * links: authd/store.c authd/store_edit.c authd/token.c authd/hash.c lib/accounts.c lib/print.c lib/conf.c lib/system.c lib/log.c
 * libs: -ldb -lcrypt
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <sodium.h>

#include "../../authd/hash.h"
#include "../../authd/store.h"
#include "../../authd/token.h"

static char directory[64], users[96], maildrops[96];

static int
setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/postern-store-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(users, sizeof users, "%s/users.db", directory);
	snprintf(maildrops, sizeof maildrops, "%s/maildrops.db", directory);
	return 0;
}

static int
teardown(void **state)
{
	static const char *const names[] = { "users.db", "users.db.new", "users.db.lock", "users.db.key", "maildrops.db", "maildrops.db.new" };
	char path[160];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(directory), 0);
	return 0;
}

static struct store_user
full_user(void)
{
	struct store_user u;

	memset(&u, 0, sizeof u);
	u.locked = true;
	strcpy(u.hash, "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaA");
	u.scram = (struct store_scram){ .iterations = 4096, .salt_length = STORE_SALT_MAX };
	memset(u.scram.salt, 1, sizeof u.scram.salt);
	memset(u.scram.stored_key, 2, sizeof u.scram.stored_key);
	memset(u.scram.server_key, 3, sizeof u.scram.server_key);
	u.secret_length = sizeof u.secret;
	memset(u.secret, 4, sizeof u.secret);
	u.apps = STORE_APPS;
	for (uint32_t i = 0; i < STORE_APPS; i++) {
		memset(u.app[i].name, 'n', sizeof u.app[i].name - 1);
		memset(u.app[i].from, 'f', sizeof u.app[i].from - 1);
		memset(u.app[i].hash, (int)i, sizeof u.app[i].hash);
		u.app[i].created = INT64_MAX;
		u.app[i].expires = INT64_MIN;
		u.app[i].no_delete = i % 2 == 0;
	}
	u.certificates = STORE_CERTIFICATES;
	for (uint32_t i = 0; i < STORE_CERTIFICATES; i++)
		memset(u.certificate[i], 0x80 + (int)i, sizeof u.certificate[i]);
	return u;
}

static void
assert_same(const struct store_user *a, const struct store_user *b)
{
	assert_int_equal(a->locked, b->locked);
	assert_string_equal(a->hash, b->hash);
	assert_memory_equal(&a->scram, &b->scram, sizeof a->scram);
	assert_int_equal(a->secret_length, b->secret_length);
	assert_memory_equal(a->secret, b->secret, sizeof a->secret);
	assert_int_equal(a->apps, b->apps);
	for (uint32_t i = 0; i < a->apps; i++) {
		assert_string_equal(a->app[i].name, b->app[i].name);
		assert_string_equal(a->app[i].from, b->app[i].from);
		assert_memory_equal(a->app[i].hash, b->app[i].hash, 32);
		assert_int_equal(a->app[i].created, b->app[i].created);
		assert_int_equal(a->app[i].expires, b->app[i].expires);
		assert_int_equal(a->app[i].no_delete, b->app[i].no_delete);
	}
	assert_int_equal(a->certificates, b->certificates);
	assert_memory_equal(a->certificate, b->certificate, sizeof a->certificate);
}

static void
test_record_keeps_everything(void **state)
{
	struct store_user empty, full = full_user(), back;
	size_t length;

	(void)state;
	memset(&empty, 0, sizeof empty);
	uint8_t *record = store_encode(&full, &length);
	assert_non_null(record);
	assert_true(length < sizeof full + 128);
	assert_int_equal(store_decode(&back, record, length), 0);
	assert_same(&full, &back);
	free(record);
	record = store_encode(&empty, &length);
	assert_int_equal(store_decode(&back, record, length), 0);
	assert_same(&empty, &back);
	free(record);
}

/* Whatever octet is cut off or changed, the answer is a record or EPROTO; cut ones are never a whole record but at a field's end. */
static void
test_record_survives_damage(void **state)
{
	struct store_user full = full_user(), back;
	size_t length;
	uint8_t *record = store_encode(&full, &length);

	(void)state;
	for (size_t n = 0; n < length; n++) {
		uint8_t *cut = malloc(n + 1);	/* its own, so that a read past it is seen */
		memcpy(cut, record, n);
		if (store_decode(&back, cut, n) == -1)
			assert_int_equal(errno, EPROTO);
		free(cut);
	}
	for (size_t i = 0; i < length; i++) {
		record[i] ^= 0xff;
		if (store_decode(&back, record, length) == -1)
			assert_int_equal(errno, EPROTO);
		record[i] ^= 0xff;
	}
	record[3] = 2;			/* the next version */
	assert_int_equal(store_decode(&back, record, length), -1);
	free(record);
}

static void
test_names(void **state)
{
	static const char *const good[] = { "a", "alice", "alice@example.org", "a.b-c_d+e", "m\xc3\xbcller", "0",
		"\xe2\x82\xac", "\xf0\x9f\x93\xac" };
	static const char *const bad[] = { "", ".", "..", ".a", "-a", "a b", "a/b", "a:b", "a\n", "a\tb", "a\x7f",
		"\xff", "a\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xf8\x88\x80\x80\x80" };
	char large[USER_SIZE + 1];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_null(store_name_check(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_non_null(store_name_check(bad[i]));
	memset(large, 'a', sizeof large);
	large[USER_SIZE] = '\0';
	assert_non_null(store_name_check(large));
	large[USER_SIZE - 1] = '\0';
	assert_null(store_name_check(large));
}

static void
add(const char *name, const struct store_user *u, const struct account *a)
{
	struct store_edit e;

	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	assert_int_equal(edit_put(&e, name, u, a), 0);
	assert_int_equal(edit_commit(&e, EDIT_ADDS), 0);
}

static void
test_reader_sees_each_change(void **state)
{
	struct store_user u = full_user(), found;
	struct account a = { .has_uid = true, .uid = 5000, .kind = STORE_MAILDIR, .path = "/srv/mail/alice" }, where;
	struct store_file s;
	struct store_edit e;
	uint8_t digest[STORE_DIGEST_SIZE];

	(void)state;
	store_start(&s, users);
	assert_int_equal(store_find(&s, "alice", &found), 0);
	assert_int_equal(account_find(users, "alice", &where), 0);
	add("alice", &u, &a);
	assert_int_equal(store_find(&s, "alice", &found), 1);
	assert_same(&u, &found);
	memcpy(digest, found.digest, sizeof digest);
	assert_int_equal(account_find(users, "alice", &where), 1);
	assert_true(where.has_uid);
	assert_int_equal(where.uid, 5000);
	assert_int_equal(where.kind, STORE_MAILDIR);
	assert_string_equal(where.path, "/srv/mail/alice");
	assert_int_equal(store_find(&s, "ALICE", &found), 0);
	assert_int_equal(store_find(&s, "alic", &found), 0);
	u.locked = false;
	add("alice", &u, &a);
	assert_int_equal(store_find(&s, "alice", &found), 1);
	assert_false(found.locked);
	assert_memory_not_equal(found.digest, digest, sizeof digest);
	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	assert_int_equal(edit_remove(&e, "alice"), 0);
	assert_int_equal(edit_commit(&e, EDIT_REMOVES), 0);
	assert_int_equal(store_find(&s, "alice", &found), 0);
	assert_int_equal(account_find(users, "alice", &where), 0);
	store_end(&s);
}

/* A certificate leads to its user for as long as that user is there; users are listed without the index. */
static int
count_one(const char *name, const struct store_user *u, const struct account *a, void *arg)
{
	(void)u;
	assert_non_null(a);
	assert_string_equal(name, "alice");
	++*(int *)arg;
	return 0;
}

static void
test_certificates(void **state)
{
	struct store_user u = full_user();
	struct account a = { .kind = STORE_AUTO };
	struct store_edit e;
	struct store_file s;
	char owner[USER_SIZE];
	int users_listed = 0;

	(void)state;
	store_start(&s, users);
	assert_int_equal(store_find_certificate(&s, u.certificate[0], owner), 0);
	add("alice", &u, &a);
	assert_int_equal(store_find_certificate(&s, u.certificate[0], owner), 0);
	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	for (uint32_t i = 0; i < u.certificates; i++)
		assert_int_equal(edit_put_certificate(&e, u.certificate[i], "alice"), 0);
	assert_int_equal(edit_remove_certificate(&e, u.certificate[1]), 0);
	assert_int_equal(edit_commit(&e, EDIT_ADDS), 0);
	assert_int_equal(store_find_certificate(&s, u.certificate[0], owner), 1);
	assert_string_equal(owner, "alice");
	assert_int_equal(store_find_certificate(&s, u.certificate[1], owner), 0);
	assert_int_equal(store_each(users, count_one, &users_listed), 0);
	assert_int_equal(users_listed, 1);
	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	assert_int_equal(edit_remove(&e, "alice"), 0);
	assert_int_equal(edit_commit(&e, EDIT_REMOVES), 0);
	assert_int_equal(store_find_certificate(&s, u.certificate[0], owner), 0);
	store_end(&s);
}

static void
test_abandoned_change_is_none(void **state)
{
	struct store_user u = full_user(), found;
	struct account a = { .kind = STORE_AUTO };
	struct store_edit e;
	struct store_file s;

	(void)state;
	add("alice", &u, &a);
	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	assert_int_equal(edit_put(&e, "bob", &u, &a), 0);
	edit_abandon(&e);
	store_start(&s, users);
	assert_int_equal(store_find(&s, "bob", &found), 0);
	assert_int_equal(store_find(&s, "alice", &found), 1);
	store_end(&s);
}

/* A writer that dies leaves its lock to the next, who starts afresh. */
static void
test_dead_writer_is_nobody(void **state)
{
	struct store_user u = full_user(), found;
	struct account a = { .kind = STORE_AUTO };
	struct store_edit e;
	struct store_file s;

	(void)state;
	add("alice", &u, &a);
	pid_t pid = fork();
	if (pid == 0) {
		if (edit_begin(&e, users, (gid_t)-1, EDIT_CACHE) == -1 || edit_put(&e, "bob", &u, &a) == -1)
			_exit(1);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	add("carol", &u, &a);
	store_start(&s, users);
	assert_int_equal(store_find(&s, "alice", &found), 1);
	assert_int_equal(store_find(&s, "bob", &found), 0);
	assert_int_equal(store_find(&s, "carol", &found), 1);
	store_end(&s);
}

static void
test_files_are_private(void **state)
{
	struct store_user u = full_user();
	struct account a = { .kind = STORE_AUTO };
	uint8_t key[STORE_KEY_SIZE], again[STORE_KEY_SIZE];
	char path[160];
	struct stat st;

	(void)state;
	add("alice", &u, &a);
	assert_int_equal(stat(users, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(maildrops, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(store_key(users, (gid_t)-1, false, key), 0);
	assert_int_equal(store_key(users, (gid_t)-1, true, key), 1);
	assert_int_equal(store_key(users, (gid_t)-1, true, again), 1);
	assert_memory_equal(key, again, sizeof key);
	snprintf(path, sizeof path, "%s.key", users);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void
test_damaged_file_is_an_error(void **state)
{
	struct store_user found;
	struct account where;
	struct store_file s;
	FILE *f = fopen(users, "w");

	(void)state;
	assert_non_null(f);
	for (int i = 0; i < 4096; i++)
		fputc('x', f);
	fclose(f);
	assert_int_equal(rename(users, maildrops), 0);
	assert_int_equal(account_find(users, "alice", &where), -1);
	assert_int_equal(rename(maildrops, users), 0);
	store_start(&s, users);
	assert_int_equal(store_find(&s, "alice", &found), -1);
	store_end(&s);
}

static void
test_account_words(void **state)
{
	static const char *const bad[] = { "", "mh", "mbox:", "mbox:rel", "maildir:~/x", "Mbox:/x", "mboxx:/x", ":/x" };
	struct account a = { .has_uid = false }, back;
	uint8_t record[ACCOUNT_RECORD_MAX];
	char text[PATH_SIZE + 16];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_non_null(account_parse(&a, bad[i]));
	assert_null(account_parse(&a, "mbox"));
	assert_null(account_parse(&a, "auto"));
	assert_null(account_parse(&a, "mbox:/var/mail/a:b"));
	account_print(&a, text, sizeof text);
	assert_string_equal(text, "mbox:/var/mail/a:b");
	size_t n = account_encode(&a, record);
	assert_int_equal(account_decode(&back, record, n), 0);
	assert_string_equal(back.path, "/var/mail/a:b");
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(account_decode(&back, record, i), -1);
	record[15] = 9;			/* no such kind */
	assert_int_equal(account_decode(&back, record, n), -1);
}

/* Records as the first version wrote them are read, and written so for whom that is enough. */
static void
test_account_versions(void **state)
{
	static const uint8_t first[] = { 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x13, 0x88, 0, 0, 0, 2, '/', 'm' };
	struct account a;
	uint8_t record[ACCOUNT_RECORD_MAX];

	(void)state;
	assert_int_equal(account_decode(&a, first, sizeof first), 0);
	assert_true(a.has_uid && a.uid == 5000 && a.kind == STORE_MAILDIR && !a.has_copy && !a.policy_only);
	assert_string_equal(a.path, "/m");
	assert_int_equal(account_encode(&a, record), sizeof first);
	assert_memory_equal(record, first, sizeof first);
	a.has_copy = true;
	a.server_copy = COPY_ARCHIVE;
	size_t n = account_encode(&a, record);
	assert_int_equal(record[3], 2);
	assert_int_equal(account_decode(&a, record, n), 0);
	assert_true(a.has_uid && a.uid == 5000 && a.has_copy && a.server_copy == COPY_ARCHIVE);
	assert_string_equal(a.path, "/m");
	for (size_t i = 0; i < 20; i++)
		assert_int_equal(account_decode(&a, record, i), -1);
	record[19] = COPY_COUNT;
	assert_int_equal(account_decode(&a, record, n), -1);
	record[19] = COPY_KEEP;
	record[3] = 3;
	assert_int_equal(account_decode(&a, record, n), -1);
}

static void
test_tokens(void **state)
{
	uint8_t key[STORE_KEY_SIZE] = { 1 }, other[STORE_KEY_SIZE] = { 2 }, hash[32], again[32];
	char text[TOKEN_TEXT], plain[TOKEN_PLAIN], typed[64];
	struct store_user u;

	(void)state;
	token_make(text);
	assert_int_equal(strlen(text), TOKEN_TEXT - 1);
	assert_true(token_read(plain, text));
	snprintf(typed, sizeof typed, " %c%s ", text[0] - ('a' - 'A') * (text[0] >= 'a'), text + 1);
	token_hash(hash, key, "alice", plain);
	assert_true(token_read(plain, typed));
	token_hash(again, key, "alice", plain);
	assert_memory_equal(hash, again, sizeof hash);
	token_hash(again, key, "bob", plain);
	assert_memory_not_equal(hash, again, sizeof hash);
	token_hash(again, other, "alice", plain);
	assert_memory_not_equal(hash, again, sizeof hash);
	assert_false(token_read(plain, ""));
	assert_false(token_read(plain, "abcd-efgh"));
	snprintf(typed, sizeof typed, "%sa", text);
	assert_false(token_read(plain, typed));
	memset(&u, 0, sizeof u);
	secret_seal(&u, key, "alice", text);
	assert_int_equal(secret_open(&u, key, "alice", typed), 0);
	assert_string_equal(typed, text);
	assert_int_equal(secret_open(&u, key, "bob", typed), -1);
	assert_int_equal(secret_open(&u, other, "alice", typed), -1);
	u.secret[30] ^= 1;
	assert_int_equal(secret_open(&u, key, "alice", typed), -1);
}

static void
test_hashes(void **state)
{
	static const char sha512[] = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";
	struct hash_cost cheap = { 1, HASH_MEMORY_MIN }, cost;
	char hash[STORE_HASH_SIZE];

	(void)state;
	assert_int_equal(hash_make(hash, sizeof hash, "pass word", &cheap), 0);
	assert_int_equal(hash_fits(hash, "pass word"), 1);
	assert_int_equal(hash_fits(hash, "pass wor"), 0);
	assert_int_equal(hash_cost_of(hash, &cost), 0);
	assert_int_equal(cost.memory, HASH_MEMORY_MIN);
	assert_int_equal(cost.operations, 1);
	assert_false(hash_is_foreign(hash));
	assert_true(hash_is_foreign(sha512));
	assert_true(hash_known(sha512));
	assert_int_equal(hash_fits(sha512, "password"), 1);
	assert_int_equal(hash_fits(sha512, "Password"), 0);
	assert_int_equal(hash_cost_of(sha512, &cost), -1);
	assert_false(hash_known("*"));
	assert_false(hash_known("{SSHA}abc"));
	assert_int_equal(hash_fits("*0", "x"), 0);
	assert_int_equal(hash_fits("", ""), 0);
}

/* Cut off in making the file, which Berkeley DB takes for somebody who is still at it. */
static void
test_unfinished_file_is_nobody(void **state)
{
	static const char *const left[] = { "__db.users.db.new", "__db.maildrops.db.new" };
	struct store_edit e;
	char path[160];

	(void)state;
	for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, left[i]);
		FILE *f = fopen(path, "w");
		assert_non_null(f);
		fclose(f);
	}
	alarm(20);
	assert_int_equal(edit_begin(&e, users, (gid_t)-1, EDIT_CACHE), 0);
	edit_abandon(&e);
	alarm(0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_keeps_everything),
		cmocka_unit_test(test_record_survives_damage),
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_reader_sees_each_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_certificates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abandoned_change_is_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dead_writer_is_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unfinished_file_is_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files_are_private, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_file_is_an_error, setup, teardown),
		cmocka_unit_test(test_account_words),
		cmocka_unit_test(test_account_versions),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_hashes),
	};

	if (sodium_init() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
