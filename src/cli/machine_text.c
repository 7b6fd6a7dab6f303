/* See machine_text.h. What it prints may be the guest's, or of a file's name. */
#include "machine_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/plain_text.h"

enum { WIDTH = 10 };

void machine_text_word(int width, const char *key, const char *word)
{
	printf("%-*s ", width, key);
	plain_put(stdout, word);
	putchar('\n');
}

/* What the guest says of itself. */
static void print_keys(json_t *keys)
{
	json_t *value;
	const char *key;

	json_object_foreach(keys, key, value)
		if (json_string_length(value)) {
			printf("guest ");
			plain_put(stdout, key);
			printf(": ");
			plain_put(stdout, json_string_value(value));
			putchar('\n');
		}
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void print_numbered(const char *what, size_t number)
{
	const int used = printf("%s %zu ", what, number);

	printf("%*s", used <= WIDTH ? WIDTH + 1 - used : 0, "");
}

static void print_disk(size_t number, const json_t *disk)
{
	const bool has_file = json_object_get(disk, "file");

	print_numbered("disk", number);
	plain_put(stdout, has_file ? text_of(disk, "file") : "no disc in it");
	printf(", ");
	plain_put(stdout, text_of(disk, "format"));
	if (json_is_true(json_object_get(disk, "dvd")))
		printf(", dvd");
	else if (json_is_true(json_object_get(disk, "read-only")))
		printf(", read-only");
	puts(json_is_true(json_object_get(disk, "direct")) ? ", direct" : "");
}

static void print_card(size_t number, const json_t *card)
{
	const json_t *forward;
	size_t n;

	print_numbered("card", number);
	plain_put(stdout, text_of(card, "kind"));
	if (*text_of(card, "name")) {
		putchar('=');
		plain_put(stdout, text_of(card, "name"));
	}
	printf(", ");
	plain_put(stdout, text_of(card, "mac"));
	puts(json_is_true(json_object_get(card, "host-loopback")) ? ", host-loopback" : "");
	json_array_foreach(json_object_get(card, "forwards"), n, forward)
		machine_text_word(WIDTH, "port", json_string_value(forward));
}

/* Of a list what has lines of its own; null is of a number that is nobody's. */
static void print_list(const char *key, const json_t *list)
{
	const bool are_disks = !strcmp(key, "disks");
	const json_t *about;
	size_t n;

	if (!are_disks && strcmp(key, "cards"))
		return;
	json_array_foreach(list, n, about) {
		if (!json_is_object(about))
			continue;
		if (are_disks)
			print_disk(n, about);
		else
			print_card(n, about);
	}
}

void machine_text_print(const json_t *machine)
{
	json_t *value;
	const char *key;

	json_object_foreach((json_t *)(uintptr_t)machine, key, value) {
		char *text = json_dumps(value, JSON_ENCODE_ANY);

		if (json_is_object(value))
			print_keys(value);
		else if (json_is_array(value))
			print_list(key, value);
		else
			machine_text_word(WIDTH, key, json_is_string(value)
							      ? json_string_value(value)
							      : text);
		free(text);
	}
}
