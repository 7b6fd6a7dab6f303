/* umbra image history, policy, key, sign, verify: what happened to an image, what may be done with
 * it, who vouches for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_cli.h"
#include "image_cli.h"
#include "lib/plain_text.h"

static void print_entry(const json_t *entry)
{
	static const char *const keys[] = { "time", "host", "by", "event" };
	const char *key;
	json_t *value;

	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++) {
		print_safely(json_string_value(json_object_get(entry, keys[n])) ?: "?");
		putchar(n < 3 ? ' ' : ':');
	}
	json_object_foreach((json_t *)(uintptr_t)entry, key, value)
	{
		static const char *const plain[] = { "reason", "from", "what",
						     "end",    "size", "read-only" };
		char *text = NULL;

		for (size_t n = 0; n < sizeof(plain) / sizeof(plain[0]) && !text; n++)
			text = strcmp(key, plain[n])
				       ? NULL
				       : json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII |
								   JSON_COMPACT);
		if (text)
			printf(" %s %s", key, text);
		free(text);
	}
	puts("");
}

int image_verb_history(struct image_arguments *arguments)
{
	struct disk *disk;
	json_t *history, *entry;
	size_t wrong = 0;
	size_t n;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int error;

	if (code)
		return code;
	error = image_load_history(disk, &history);
	if (error)
		return disk_access_close(disk, image_failed(arguments->disk.file, error));
	if (arguments->disk.json)
		print_json(json_incref(history));
	else
		json_array_foreach(history, n, entry)
			print_entry(entry);
	if (image_verify_history(history, &wrong)) {
		plain_line(stderr,
			   "umbra: %s: entry %zu of its history is not the one that was written; "
			   "trust none from there on",
			   arguments->disk.file, wrong + 1);
		code = EXIT_UNUSABLE;
	}
	json_decref(history);
	return disk_access_close(disk, code);
}

/* Whether an action would be allowed now; without one, which are. */
int image_verb_policy(struct image_arguments *arguments)
{
	static const char *const names[] = { "read", "write", "fork", "export", "attach" };
	struct disk *disk;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int result = 0;
	bool known = arguments->count < 2;
	json_t *all = json_object();

	if (code) {
		json_decref(all);
		return code;
	}
	for (int n = ACTION_READ; n <= ACTION_ATTACH; n++) {
		struct disk_error why;
		bool allowed;

		if (arguments->count > 1 && strcmp(arguments->values[1], names[n]))
			continue;
		known = true;
		allowed = !disk_cli_allows(disk, (enum image_action)n, &why);
		result = allowed ? result : EXIT_POLICY;
		if (arguments->disk.json)
			json_object_set_new(all, names[n],
					    json_pack("{s:b, s:s*}", "allowed", allowed, "why",
						      allowed ? NULL : why.text));
		else
			printf("%-7s %s%s\n", names[n],
			       allowed ? "yes" : "no: ", allowed ? "" : why.text);
	}
	if (arguments->disk.json && known)
		print_json(json_incref(all));
	json_decref(all);
	return disk_access_close(disk,
				 known ? result
				       : complain(EXIT_USAGE, "not an action", arguments->values[1],
						  "say read, write, fork, export or attach"));
}

int image_verb_key(struct image_arguments *arguments)
{
	int error = image_make_key(arguments->disk.file);

	return error ? disk_access_failed(arguments->disk.file, error) : 0;
}

int image_verb_sign(struct image_arguments *arguments)
{
	struct disk *disk;
	int error;
	int code = arguments->key ? image_cli_open(arguments, ACTION_ANNOTATE, &disk)
				  : complain(EXIT_USAGE, "no key given", arguments->disk.file,
					     "say --key KEY, from umbra image key");

	if (code)
		return code;
	error = image_sign(disk, arguments->key);
	code = 0;
	if (error == -EBADMSG)
		code = complain(EXIT_UNUSABLE, "not a key, or a history that is not sound",
				arguments->key, "make one with umbra image key");
	else if (error)
		code = image_failed(arguments->disk.file, error);
	return disk_access_close(disk, code);
}

/* The key that is asked for: of a file, or as it is. */
static void wanted_key(const char *text, char key[65])
{
	FILE *from = fopen(text, "r");

	if (!from || !fgets(key, 65, from))
		snprintf(key, 65, "%s", text);
	if (from)
		fclose(from);
	key[strcspn(key, "\n")] = 0;
}

int image_verb_verify(struct image_arguments *arguments)
{
	char key[65];
	char wanted[65] = "";
	const char *what;
	struct disk *disk;
	int code = image_cli_open(arguments, ACTION_INSPECT, &disk);
	int error;

	if (code)
		return code;
	error = image_verify(disk, false, key, &what);
	if (arguments->key)
		wanted_key(arguments->key, wanted);
	code = !error && (!arguments->key || !strcmp(key, wanted)) ? 0 : 1;
	if (arguments->disk.json && (!error || error == -ENOENT || error == -EBADMSG))
		print_json(json_pack("{s:b, s:b, s:s*, s:s*}", "signed", error != -ENOENT,
				     "as-signed", !error, "changed",
				     error == -EBADMSG ? what : NULL, "key", key[0] ? key : NULL));
	else if (error == -ENOENT)
		printf("%s: not signed\n", arguments->disk.file);
	else if (error == -EBADMSG)
		printf("%s: %s is not what was signed\n", arguments->disk.file, what);
	else if (!error)
		printf("%s: %s %s\n", arguments->disk.file,
		       code ? "signed with another key:" : "as it was signed with", key);
	return disk_access_close(disk, error && error != -ENOENT && error != -EBADMSG
					       ? image_failed(arguments->disk.file, error)
					       : code);
}
