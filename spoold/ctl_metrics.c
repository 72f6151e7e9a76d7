/* spoolctl metrics: what the daemons have counted, as OpenMetrics text. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "privilege.h"
#include "spoolctl.h"
#include "system.h"

#define REQUEST_MAX	8192
#define REQUEST_MS	5000
#define ANSWER_MS	5000
#define CERTIFICATES	CONF_PAIRS

static const char *const modes[] = { [SANDBOX_REQUIRED] = "required", [SANDBOX_BEST_EFFORT] = "best-effort", [SANDBOX_OFF] = "off" };

/* What the two daemons say; `up` is whether they did. */
struct picture {
	bool spoold_up, authd_up;
	struct body_spool_figures spoold;
	struct body_auth_figures authd;
	int certificates;
	struct certificate certificate[CERTIFICATES];
};

static void
family(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# TYPE postern_%s %s\n# HELP postern_%s %s\n", name, type, name, help);
}

static void
counter(FILE *f, const char *name, const char *help, uint64_t value)
{
	family(f, name, "counter", help);
	fprintf(f, "postern_%s_total %llu\n", name, (unsigned long long)value);
}

static void
gauge(FILE *f, const char *name, const char *help, uint64_t value)
{
	family(f, name, "gauge", help);
	fprintf(f, "postern_%s %llu\n", name, (unsigned long long)value);
}

/* A counter with one label. */
static void
counters(FILE *f, const char *name, const char *help, const char *label, const char *const *values, const uint64_t *counts, size_t n)
{
	family(f, name, "counter", help);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "postern_%s_total{%s=\"%s\"} %llu\n", name, label, values[i], (unsigned long long)counts[i]);
}

static void
seconds(FILE *f, uint64_t milliseconds)
{
	fprintf(f, "%llu.%03u", (unsigned long long)(milliseconds / 1000), (unsigned)(milliseconds % 1000));
}

static void
histogram(FILE *f, const char *name, const char *help, const struct histogram *h)
{
	uint64_t sum = 0;

	fprintf(f, "# TYPE postern_%s histogram\n# UNIT postern_%s seconds\n# HELP postern_%s %s\n", name, name, name, help);
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		sum += h->bucket[i];
		fprintf(f, "postern_%s_bucket{le=\"", name);
		if (i < HISTOGRAM_BUCKETS - 1)
			seconds(f, histogram_bounds[i]);
		else
			fputs("+Inf", f);
		fprintf(f, "\"} %llu\n", (unsigned long long)sum);
	}
	fprintf(f, "postern_%s_count %llu\npostern_%s_sum ", name, (unsigned long long)sum, name);
	seconds(f, h->milliseconds);
	fputc('\n', f);
}

/* As a label's value is quoted. */
static void
label_text(FILE *f, const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == '"' || *text == '\\')
			fprintf(f, "\\%c", *text);
		else
			fputc(*text >= 0x20 && *text < 0x7f ? *text : '?', f);
}

static void
print_programs(FILE *f, const struct picture *p)
{
	const struct { const char *name; bool up; int64_t started; struct confinement confinement; } programs[] = {
		{ "spoold", p->spoold_up, p->spoold.started, p->spoold.confinement },
		{ "authd", p->authd_up, p->authd.started, p->authd.confinement },
	};

	/* no "info": node_exporter's collector reads the older text format, too, which does not know it */
	family(f, "build_info", "gauge", "The version of spoolctl.");
	fprintf(f, "postern_build_info{version=\"" VERSION "\"} 1\n");
	family(f, "up", "gauge", "Whether the daemon answers on its control socket.");
	for (size_t i = 0; i < 2; i++)
		fprintf(f, "postern_up{program=\"%s\"} %d\n", programs[i].name, programs[i].up);
	family(f, "start_time_seconds", "gauge", "When the daemon started, in seconds since the epoch.");
	for (size_t i = 0; i < 2; i++)
		if (programs[i].up)
			fprintf(f, "postern_start_time_seconds{program=\"%s\"} %lld\n", programs[i].name, (long long)programs[i].started);
	family(f, "sandbox", "gauge", "Whether the daemon's processes are confined, and by all that sandbox = required asks for.");
	for (size_t i = 0; i < 2; i++)
		if (programs[i].up)
			fprintf(f, "postern_sandbox{program=\"%s\",mode=\"%s\"} %u\n", programs[i].name,
			    programs[i].confinement.mode <= SANDBOX_OFF ? modes[programs[i].confinement.mode] : "?",
			    (unsigned)programs[i].confinement.whole);
}

static void
print_spoold(FILE *f, const struct body_spool_figures *s)
{
	static const char *const opened[] = { "ready", "busy", "failed" }, *const updated[] = { "ok", "failed" },
	    *const locked[] = { "had", "timeout" }, *const recovered[] = { "finished", "set-aside", "unfinished" };

	gauge(f, "sessions", "Sessions that run now.", s->sessions);
	gauge(f, "recoveries_running", "Unfinished updates that are being finished now.", s->recoveries_running);
	counter(f, "sessions_ended", "Sessions that are over.", s->sessions_ended);
	counter(f, "sessions_refused", "Sessions for which no worker could be started.", s->refused);
	counter(f, "workers_died", "Workers that a signal ended.", s->workers_died);
	counter(f, "takeovers", "Sessions that a newer login of the same maildrop ended.", s->takeovers);
	counters(f, "opens", "Maildrops opened, by result.", "result", opened, s->opened, OPENED_COUNT);
	counters(f, "updates", "Updates at QUIT, by result.", "result", updated, s->updated, 2);
	counters(f, "lock_waits", "Delivery locks that had to be waited for, by result.", "result", locked, s->locked, 2);
	counters(f, "recoveries", "Journals of updates that were cut off, by what became of them.", "result", recovered, s->recovered,
	    RECOVERED_COUNT);
	counter(f, "messages_sent", "Messages retrieved.", s->messages_sent);
	counter(f, "messages_removed", "Messages removed at QUIT.", s->messages_removed);
	fprintf(f, "# TYPE postern_sent_bytes counter\n# UNIT postern_sent_bytes bytes\n"
	    "# HELP postern_sent_bytes Octets sent to clients that logged in.\n"
	    "postern_sent_bytes_total %llu\n", (unsigned long long)s->octets_sent);
	histogram(f, "session_duration_seconds", "From the login to the end of the session.", &s->session);
	histogram(f, "open_duration_seconds", "From the login to the maildrop being open.", &s->open);
	histogram(f, "update_duration_seconds", "The update at QUIT.", &s->update);
	histogram(f, "lock_wait_seconds", "How long delivery locks were waited for that were not free.", &s->lock);
}

static void
print_authd(FILE *f, const struct body_auth_figures *a)
{
	static const char *const tried[] = { "none", "failed" }, *const results[DENIED_COUNT + 1] = {
		[DENIED_CREDENTIALS] = "credentials", [DENIED_DELAY] = "delay", [DENIED_TEMPORARY] = "temporary",
		[DENIED_PERMANENT] = "permanent", [DENIED_MECHANISM] = "mechanism", [DENIED_PROTOCOL] = "protocol", [DENIED_COUNT] = "ok",
	};

	gauge(f, "connections_waiting", "Connections that are not logged in now.", a->waiting);
	counter(f, "connections", "Connections that could have logged in.", a->connections);
	counters(f, "connections_unused", "Connections that ended without a login, by what was tried.", "tried", tried, a->unused, 2);
	family(f, "logins", "counter", "Attempts to log in, by mechanism and result.");
	for (uint32_t m = 0; m < MECHANISM_COUNT; m++)
		for (uint32_t r = 0; r <= DENIED_COUNT; r++)
			fprintf(f, "postern_logins_total{mechanism=\"%s\",result=\"%s\"} %llu\n", mechanism_name(m), results[r],
			    (unsigned long long)a->logins[m][r]);
	counter(f, "logins_throttled", "Attempts that were not tried, for the failures before them.", a->throttled);
	histogram(f, "login_duration_seconds", "From the attempt to its answer, the client's part of the exchange included.", &a->login);
}

static void
print_certificates(FILE *f, const struct picture *p)
{
	int64_t now = (int64_t)time(NULL);

	if (p->certificates <= 0)
		return;
	family(f, "certificate_days_left", "gauge", "Days for which a certificate that is served is still valid.");
	for (int i = 0; i < p->certificates; i++) {
		const struct certificate *c = &p->certificate[i];
		fprintf(f, "postern_certificate_days_left{names=\"");
		label_text(f, c->names);
		fprintf(f, "\",serial=\"%s\"} %.2f\n", c->serial, (double)(c->expires - now) / 86400);
	}
	family(f, "certificate_not_after_seconds", "gauge", "When that certificate expires, in seconds since the epoch.");
	for (int i = 0; i < p->certificates; i++) {
		fprintf(f, "postern_certificate_not_after_seconds{names=\"");
		label_text(f, p->certificate[i].names);
		fprintf(f, "\",serial=\"%s\"} %lld\n", p->certificate[i].serial, (long long)p->certificate[i].expires);
	}
}

static bool
ask_spoold(const struct conf *c, struct body_spool_figures *figures)
{
	int fd = talk_try(c, SPOOL_FIGURES, "");
	struct message m;
	bool got;

	if (fd == -1)
		return false;
	got = message_wait(fd, ANSWER_MS) == 1 && message_receive(fd, &m, SIDE_SPOOLD, SIDE_TOOL) == 1 &&
	    m.header.type == MESSAGE_SPOOL_FIGURES;
	if (got)
		*figures = m.body.spool_figures;
	close(fd);
	return got;
}

static bool
ask_authd(const struct conf *c, struct body_auth_figures *figures)
{
	int fd = talk_connect(c, "authd.ctl");
	struct message m;
	bool got;

	if (fd == -1)
		return false;
	message_start(&m, MESSAGE_AUTH_COMMAND);
	got = message_send(fd, &m) == 0 && message_wait(fd, ANSWER_MS) == 1 &&
	    message_receive(fd, &m, SIDE_VERIFIER, SIDE_TOOL) == 1 && m.header.type == MESSAGE_AUTH_FIGURES;
	if (got)
		*figures = m.body.auth_figures;
	close(fd);
	return got;
}

/* All of the text, the caller's to free. */
static char *
metrics_text(const struct conf *c, size_t *size)
{
	static struct picture p;
	char *text = NULL;
	FILE *f = open_memstream(&text, size);

	if (f == NULL)
		die("out of memory");
	p.spoold_up = ask_spoold(c, &p.spoold);
	p.authd_up = ask_authd(c, &p.authd);
	p.certificates = c->certificate.count > 0 ? certificates_served(c, p.certificate, CERTIFICATES) : 0;
	print_programs(f, &p);
	if (p.spoold_up)
		print_spoold(f, &p.spoold);
	if (p.authd_up)
		print_authd(f, &p.authd);
	print_certificates(f, &p);
	fputs("# EOF\n", f);
	if (fclose(f) == EOF)
		die("out of memory");
	certificates_free(p.certificate, p.certificates > 0 ? (size_t)p.certificates : 0);
	return text;
}

static int
write_all(int fd, const char *text, size_t size)
{
	for (ssize_t n; size > 0; text += n, size -= (size_t)n)
		if ((n = write(fd, text, size)) == -1)
			return -1;
	return 0;
}

/* Whole or not at all: a collector may read it at any moment. */
static int
write_file(const char *path, const char *text, size_t size)
{
	char temporary[PATH_SIZE];

	if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary)
		return complain("%s: too long a name", path);
	int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd == -1)
		return complain("%s: %s", temporary, strerror(errno));
	if (write_all(fd, text, size) == 0 && fchmod(fd, 0644) == 0 && close(fd) == 0 && rename(temporary, path) == 0)
		return 0;
	int saved = errno;
	unlink(temporary);
	return complain("%s: %s", path, strerror(saved));
}

/* The head of an HTTP request, of which only its first line is of use. False if none came. */
static bool
request_read(char *request, size_t size)
{
	int64_t until = clock_ms() + REQUEST_MS, left;
	size_t used = 0;

	while (used < size - 1 && (left = until - clock_ms()) > 0) {
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
		ssize_t n = poll(&p, 1, (int)left) == 1 ? read(STDIN_FILENO, request + used, size - 1 - used) : 0;
		if (n <= 0)
			return false;
		used += (size_t)n;
		request[used] = '\0';
		if (strstr(request, "\r\n\r\n") != NULL || strstr(request, "\n\n") != NULL)
			return true;
	}
	return false;
}

/* One request of a scraper's, on a socket that a service manager has accepted. Root is given up before its first octet is read. */
static int
answer_http(const char *text, size_t size)
{
	static char request[REQUEST_MAX];
	const char *status = "200 OK";
	char head[256];

	if (privilege_is_root() && privilege_drop_to("nobody") == -1)
		return complain("cannot become nobody");
	if (!request_read(request, sizeof request))
		return complain("no HTTP request came");
	if (strncmp(request, "GET ", 4) != 0)
		status = "405 Method Not Allowed";
	else if (strncmp(request + 4, "/metrics", 8) != 0 || strchr(" ?", request[12]) == NULL)
		status = "404 Not Found";
	if (status[0] != '2') {
		text = "only GET /metrics\n";
		size = strlen(text);
	}
	snprintf(head, sizeof head, "HTTP/1.0 %s\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status,
	    status[0] == '2' ? "application/openmetrics-text; version=1.0.0" : "text/plain", size);
	if (write_all(STDOUT_FILENO, head, strlen(head)) == 0 && write_all(STDOUT_FILENO, text, size) == 0)
		return 0;
	return complain("cannot answer: %s", strerror(errno));
}

int
command_metrics(const struct conf *c, const struct arguments *a)
{
	size_t size;
	char *text = metrics_text(c, &size);
	int result;

	if (a->output != NULL)
		result = write_file(a->output, text, size);
	else if (a->http)
		result = answer_http(text, size);
	else
		result = write_all(STDOUT_FILENO, text, size) == 0 ? 0 : complain("cannot write: %s", strerror(errno));
	free(text);
	return result;
}
