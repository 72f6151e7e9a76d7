/* The counters of spoold's parent. */
#include "figures.h"

#include <time.h>

struct body_spool_figures figures;

void
figures_start(void)
{
	figures.started = (int64_t)time(NULL);
}

void
figures_measured(const struct body_measured *m)
{
	switch (m->what) {
	case MEASURED_OPEN:
		figures.opened[m->result]++;
		if (m->result == OPENED_READY)
			histogram_add(&figures.open, m->milliseconds);
		break;
	case MEASURED_UPDATE:
		figures.updated[m->result]++;
		figures.messages_removed += m->count;
		histogram_add(&figures.update, m->milliseconds);
		break;
	case MEASURED_LOCK:
		figures.locked[m->result]++;
		histogram_add(&figures.lock, m->milliseconds);
		break;
	case MEASURED_SPENT:
		figures.octets_sent += m->count;
		figures.messages_sent += m->more;
		break;
	default:
		break;
	}
}

void
figures_ended(int64_t milliseconds)
{
	figures.sessions_ended++;
	histogram_add(&figures.session, milliseconds > 0 ? (uint64_t)milliseconds : 0);
}

void
figures_privileged(bool *found, uint32_t what, bool done)
{
	if (what == PRIVILEGED_JOURNAL_FIND)
		*found = done;
	else if (*found && done && (what == PRIVILEGED_JOURNAL_DROP || what == PRIVILEGED_JOURNAL_SET_ASIDE || what == PRIVILEGED_COUNT)) {
		figures.recovered[what == PRIVILEGED_JOURNAL_DROP ? RECOVERED_FINISHED :
		    what == PRIVILEGED_COUNT ? RECOVERED_UNFINISHED : RECOVERED_ASIDE]++;
		*found = false;
	}
}
