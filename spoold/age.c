/* Dates of From_ lines. No function of the C library's that would look for time zones. */
#include "age.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define WORDS_MAX	64
#define DAY		86400
#define WESTERNMOST	(12 * 3600)

struct word {
	const char *at;
	size_t length;
};

/* The last words of the line: a date is at its end. */
static size_t
split(const char *line, size_t length, struct word words[static WORDS_MAX])
{
	size_t count = 0, end = length;

	while (end > 0 && count < WORDS_MAX) {
		while (end > 0 && strchr(" \t\r\n,", line[end - 1]) != NULL && line[end - 1] != '\0')
			end--;
		size_t start = end;
		while (start > 0 && (strchr(" \t\r\n,", line[start - 1]) == NULL || line[start - 1] == '\0'))
			start--;
		if (end > start)
			words[count++] = (struct word){ line + start, end - start };
		end = start;
	}
	return count;
}

/* A number of at least `least` and at most `most` digits; -1 if it is not one. */
static int
number(const char *at, size_t length, size_t least, size_t most)
{
	int value = 0;

	if (length < least || length > most)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (at[i] < '0' || at[i] > '9')
			return -1;
		value = 10 * value + (at[i] - '0');
	}
	return value;
}

/* From 1; 0 if it is none. */
static int
month_of(const struct word *w)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; w->length == 3 && i < 12; i++)
		if (strncasecmp(w->at, names + (size_t)(3 * i), 3) == 0)
			return i + 1;
	return 0;
}

/* "01:05" or "01:05:34" as seconds of the day; -1. */
static int
clock_of(const struct word *w)
{
	int second = 0;

	if ((w->length != 5 && w->length != 8) || w->at[2] != ':' || (w->length == 8 && w->at[5] != ':'))
		return -1;
	int hour = number(w->at, 2, 2, 2), minute = number(w->at + 3, 2, 2, 2);
	if (w->length == 8)
		second = number(w->at + 6, 2, 2, 2);
	return hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second <= 60 ? 3600 * hour + 60 * minute + second : -1;
}

/* "+0100" as seconds east; false if it is no such zone. */
static bool
zone_of(const struct word *w, int *east)
{
	if (w->length != 5 || (w->at[0] != '+' && w->at[0] != '-'))
		return false;
	int hours = number(w->at + 1, 2, 2, 2), minutes = number(w->at + 3, 2, 2, 2);
	if (hours < 0 || hours > 14 || minutes < 0 || minutes > 59)
		return false;
	*east = (w->at[0] == '-' ? -1 : 1) * (3600 * hours + 60 * minutes);
	return true;
}

/* Days from 1970-01-01 to this one, by the Gregorian calendar. */
static int64_t
days_of(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year, m = month <= 2 ? month + 9 : month - 3;

	return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static bool
day_is(int year, int month, int day)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return day >= 1 && day <= days[month - 1] + (month == 2 && leap);
}

int64_t
age_from_line(const char *line, size_t length)
{
	struct word words[WORDS_MAX];
	size_t count = split(line, length, words);
	int month = 0, day = -1, year = -1, seconds = -1, east = -WESTERNMOST;

	/* from the end: year and time in either order, a zone before, between or behind, then the month beside its day */
	for (size_t i = 0; i < count && i < 8 && month == 0; i++) {
		int y = number(words[i].at, words[i].length, 4, 4), s = clock_of(&words[i]);
		if (year == -1 && y >= 1970)
			year = y;
		else if (seconds == -1 && s != -1)
			seconds = s;
		else
			(void)zone_of(&words[i], &east);
		if ((month = month_of(&words[i])) == 0)
			continue;
		if (i > 0)
			day = number(words[i - 1].at, words[i - 1].length, 1, 2);
		if (day == -1 && i + 1 < count)
			day = number(words[i + 1].at, words[i + 1].length, 1, 2);
	}
	if (month == 0 || year == -1 || seconds == -1 || !day_is(year, month, day))
		return 0;
	return days_of(year, month, day) * DAY + seconds - east;
}
