/*
 * Days as the Gregorian calendar names them. Not gmtime_r(): that reads the time zone's file first,
 * which a process that has given up its rights may not, and which each machine would wait for.
 */
#pragma once

#include <stdint.h>

/* month, day: from 1 on; weekday 0: Sunday */
struct calendar_day { int year, month, day, weekday; };

/* So many days after 1970-01-01, of the years from 0 on to 9999. */
struct calendar_day calendar_of_days(int64_t days);
