/* What operations.c says of each operation, and who does it (client.c). */
#pragma once

#include "umbra-client.h"

enum client_kind { CLIENT_TEXT = 1, CLIENT_TEXTS, CLIENT_FLAG, CLIENT_NUMBER };
enum client_place { CLIENT_IN_PATH, CLIENT_IN_QUERY, CLIENT_IN_BODY };

struct client_member {
	const char *name;
	enum client_kind kind;
	enum client_place place;
	bool is_needed;
	size_t offset; /* in the structure of arguments */
};

struct client_operation {
	const char *method, *path;
	const struct client_member *members; /* ended by one without a name; NULL: none */
};

int client_call(struct umbra_client *client, const struct client_operation *operation,
		const void *arguments, struct umbra_answer *ret);
