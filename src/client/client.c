/* See umbra-client.h: requests are made here of arguments; http.c sends them. */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_internal.h"

struct text { FILE *file; char *data; size_t bytes; };

static int text_open(struct text *text)
{
	*text = (struct text){ 0 };
	text->file = open_memstream(&text->data, &text->bytes);
	return text->file ? 0 : -ENOMEM;
}

/* What was written, to be freed; NULL: no memory. */
static char *text_close(struct text *text)
{
	bool is_whole = !ferror(text->file);

	if (!fclose(text->file) && is_whole)
		return text->data;
	free(text->data);
	return NULL;
}

/* ---- values ---- */

static const char *text_at(const void *arguments, const struct client_member *member)
{
	return *(const char *const *)((const uint8_t *)arguments + member->offset);
}

static const char *const *texts_at(const void *arguments, const struct client_member *member)
{
	return *(const char *const *const *)((const uint8_t *)arguments + member->offset);
}

static bool flag_at(const void *arguments, const struct client_member *member)
{
	return *(const bool *)((const uint8_t *)arguments + member->offset);
}

static long long number_at(const void *arguments, const struct client_member *member)
{
	return *(const long long *)((const uint8_t *)arguments + member->offset);
}

static bool is_said(const void *arguments, const struct client_member *member)
{
	switch (member->kind) {
	case CLIENT_TEXT: return text_at(arguments, member);
	case CLIENT_TEXTS: return texts_at(arguments, member);
	case CLIENT_FLAG: return flag_at(arguments, member);
	default: return member->is_needed || number_at(arguments, member);
	}
}

static void write_encoded(FILE *file, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~";

	for (; *value; value++)
		fprintf(file, strchr(plain, *value) ? "%c" : "%%%02X", (unsigned char)*value);
}

static void write_json_text(FILE *file, const char *value)
{
	fputc('"', file);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', file);
		if ((unsigned char)*value < ' ')
			fprintf(file, "\\u%04x", (unsigned char)*value);
		else
			fputc(*value, file);
	}
	fputc('"', file);
}

/* ---- the path and its query ---- */

static const struct client_member *find(const struct client_operation *operation, const char *name,
					size_t bytes)
{
	for (const struct client_member *member = operation->members; member && member->name;
	     member++)
		if (strlen(member->name) == bytes && !memcmp(member->name, name, bytes))
			return member;
	return NULL;
}

/* Members in braces are what they stand for. */
static void write_path(FILE *file, const struct client_operation *operation, const void *arguments)
{
	const char *at = operation->path;

	while (*at) {
		size_t bytes = strcspn(at, "{");
		const struct client_member *member;

		fwrite(at, 1, bytes, file);
		at += bytes;
		if (!*at)
			return;
		bytes = strcspn(at, "}") - 1;
		member = find(operation, at + 1, bytes);
		if (member)
			write_encoded(file, text_at(arguments, member));
		at += bytes + 2;
	}
}

static void write_pair(FILE *file, bool *is_first, const char *name, const char *value)
{
	fprintf(file, "%c%s=", *is_first ? '?' : '&', name);
	write_encoded(file, value);
	*is_first = false;
}

static void write_query_member(FILE *file, bool *is_first, const struct client_member *member,
			       const void *arguments)
{
	char number[24];

	switch (member->kind) {
	case CLIENT_TEXT:
		write_pair(file, is_first, member->name, text_at(arguments, member));
		return;
	case CLIENT_TEXTS:
		for (const char *const *at = texts_at(arguments, member); *at; at++)
			write_pair(file, is_first, member->name, *at);
		return;
	case CLIENT_FLAG:
		write_pair(file, is_first, member->name, "true");
		return;
	default:
		snprintf(number, sizeof(number), "%lld", number_at(arguments, member));
		write_pair(file, is_first, member->name, number);
	}
}

/* To be freed; NULL: no memory. */
static char *make_path(const struct client_operation *operation, const void *arguments)
{
	bool is_first = true;
	struct text text;

	if (text_open(&text))
		return NULL;
	write_path(text.file, operation, arguments);
	for (const struct client_member *member = operation->members; member && member->name;
	     member++)
		if (member->place == CLIENT_IN_QUERY && is_said(arguments, member))
			write_query_member(text.file, &is_first, member, arguments);
	return text_close(&text);
}

/* ---- the body ---- */

static void write_body_member(FILE *file, const struct client_member *member,
			      const void *arguments)
{
	const char *const *first = member->kind == CLIENT_TEXTS ? texts_at(arguments, member)
								: NULL;

	fprintf(file, "\"%s\":", member->name);
	switch (member->kind) {
	case CLIENT_TEXT: write_json_text(file, text_at(arguments, member)); return;
	case CLIENT_FLAG: fputs("true", file); return;
	case CLIENT_NUMBER: fprintf(file, "%lld", number_at(arguments, member)); return;
	default: break;
	}
	fputc('[', file);
	for (const char *const *at = first; at && *at; at++) {
		if (at != first)
			fputc(',', file);
		write_json_text(file, *at);
	}
	fputc(']', file);
}

/* To be freed; NULL with 0: the operation has none. */
static int make_body(const struct client_operation *operation, const void *arguments, char **ret)
{
	unsigned written = 0;
	bool has_body = false;
	struct text text;

	*ret = NULL;
	if (text_open(&text))
		return -ENOMEM;
	fputc('{', text.file);
	for (const struct client_member *member = operation->members; member && member->name;
	     member++) {
		has_body |= member->place == CLIENT_IN_BODY;
		if (member->place != CLIENT_IN_BODY || !is_said(arguments, member))
			continue;
		if (written++)
			fputc(',', text.file);
		write_body_member(text.file, member, arguments);
	}
	fputc('}', text.file);
	*ret = text_close(&text);
	if (!*ret)
		return -ENOMEM;
	if (!has_body) {
		free(*ret);
		*ret = NULL;
	}
	return 0;
}

/* ---- a call ---- */

static bool is_complete(const struct client_operation *operation, const void *arguments)
{
	for (const struct client_member *member = operation->members; member && member->name;
	     member++)
		if (member->is_needed && (!arguments || !is_said(arguments, member)))
			return false;
	return true;
}

int client_call(struct umbra_client *client, const struct client_operation *operation,
		const void *arguments, struct umbra_answer *ret)
{
	static const struct client_member none = { 0 };
	struct client_operation said = *operation;
	char *path;
	char *body;
	int error;

	*ret = (struct umbra_answer){ 0 };
	if (!is_complete(operation, arguments))
		return -EINVAL;
	if (!arguments)
		said.members = &none;
	path = make_path(&said, arguments);
	error = path ? make_body(&said, arguments, &body) : -ENOMEM;
	if (!error) {
		error = umbra_client_ask(client, operation->method, path, body, ret);
		free(body);
	}
	free(path);
	return error;
}
