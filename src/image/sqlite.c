/* See sqlite.h. */
#include "sqlite.h"

#include "lib/late.h"

#define CALLS(X)										\
	X(sqlite3_bind_blob)									\
	X(sqlite3_bind_int64)									\
	X(sqlite3_bind_text)									\
	X(sqlite3_busy_timeout)									\
	X(sqlite3_clear_bindings)								\
	X(sqlite3_close)									\
	X(sqlite3_column_blob)									\
	X(sqlite3_column_bytes)									\
	X(sqlite3_column_int64)									\
	X(sqlite3_column_text)									\
	X(sqlite3_column_type)									\
	X(sqlite3_db_config)									\
	X(sqlite3_deserialize)									\
	X(sqlite3_errcode)									\
	X(sqlite3_exec)										\
	X(sqlite3_finalize)									\
	X(sqlite3_initialize)									\
	X(sqlite3_last_insert_rowid)								\
	X(sqlite3_limit)									\
	X(sqlite3_open)										\
	X(sqlite3_open_v2)									\
	X(sqlite3_prepare_v2)									\
	X(sqlite3_prepare_v3)									\
	X(sqlite3_progress_handler)								\
	X(sqlite3_randomness)									\
	X(sqlite3_reset)									\
	X(sqlite3_step)

CALLS(LATE_CALL)

bool sqlite_load(void)
{
	static const struct late_call calls[] = { CALLS(LATE_ROW) };
	static const struct late_library library = {
		.file = "libsqlite3.so.0",
		.call = calls,
		.calls = sizeof(calls) / sizeof(calls[0]),
	};

	return late_load(&library);
}
