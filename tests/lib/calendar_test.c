/* Every day of a few thousand years is what the C library says that it is. */
#include <stdio.h>
#include <time.h>

#include "lib/calendar.h"

enum { FIRST_DAY = -719528, LAST_DAY = 2932896, DAY_S = 86400 }; /* 0000-01-01, 9999-12-31 */

int main(void)
{
	for (int64_t days = FIRST_DAY; days <= LAST_DAY; days++) {
		const time_t at = days * DAY_S;
		const struct calendar_day day = calendar_of_days(days);
		struct tm tm;

		gmtime_r(&at, &tm);
		if (day.year != tm.tm_year + 1900 || day.month != tm.tm_mon + 1 ||
		    day.day != tm.tm_mday || day.weekday != tm.tm_wday) {
			printf("FAIL day %lld: %d-%d-%d, day %d of the week\n", (long long)days,
			       day.year, day.month, day.day, day.weekday);
			return 1;
		}
	}
	printf("%d days\n", LAST_DAY - FIRST_DAY + 1);
	return 0;
}
