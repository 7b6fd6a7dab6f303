/* See calendar.h. */
#include "calendar.h"

#include <assert.h>

/*
 * Years begin with March here, so that a leap day is the last one of its year, and months have
 * lengths that repeat after five: 153 days.
 */
enum {
	DAYS_OF_ERA = 146097, /* 400 years */
	DAYS_OF_CENTURY = 36524, DAYS_OF_FOUR_YEARS = 1460,
	DAYS_BEFORE_1970 = 719468, /* since 0000-03-01 */
	WEEKDAY_OF_1970 = 4, WEEK = 7, MARCH = 3, MONTHS = 12
};

struct calendar_day calendar_of_days(int64_t days)
{
	const int64_t since = days + DAYS_BEFORE_1970 + DAYS_OF_ERA; /* of an era more */
	const int64_t era = since / DAYS_OF_ERA - 1;
	const int in_era = (int)(since % DAYS_OF_ERA);
	const int year_of_era = (in_era - in_era / DAYS_OF_FOUR_YEARS + in_era / DAYS_OF_CENTURY -
				 in_era / (DAYS_OF_ERA - 1)) / 365;
	const int in_year =
		in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	const int month = (5 * in_year + 2) / 153; /* 0: March */
	const int named = month + MARCH > MONTHS ? month + MARCH - MONTHS : month + MARCH;

	assert(since >= 0);
	return (struct calendar_day){
		.year = (int)era * 400 + year_of_era + (named < MARCH),
		.month = named,
		.day = in_year - (153 * month + 2) / 5 + 1,
		.weekday = (int)((since + WEEKDAY_OF_1970 + WEEK -
				  (DAYS_BEFORE_1970 + DAYS_OF_ERA) % WEEK) % WEEK),
	};
}
