/* In place of postgres_store.c where libpq was not there when this was built. */
#include "store.h"

#include <errno.h>

static int refuse_open(const char *where, const char *host, void **ret_self)
{
	(void)host;
	(void)where;
	(void)ret_self;
	return -EPROTONOSUPPORT;
}

const struct store_driver store_postgres = { .open = refuse_open };
