/* What the sections of an image may look like (docs/image.schema.json says the same to other
 * programs): checked before they are kept. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "image/image_internal.h"

enum shape { TEXT, TEXTS, TIME, NUMBER, FLAG, OBJECT, LISTS /* an object of TEXTS */ };

static const char *const shape_names[] = { "a text",
					   "a list of texts",
					   "a time such as 2027-01-31 or 2027-01-31T12:00:00Z",
					   "a number",
					   "true or false",
					   "an object",
					   "an object of lists of texts" };

static const struct { const char *key; enum shape shape;
} keys[] = {
	{ "title", TEXT },
	{ "expires", TIME },
	{ "tags", TEXTS },
	{ "rights", LISTS },
	{ "patches", OBJECT },
	{ "patches.level", TEXT },
	{ "network", OBJECT },
	{ "configuration", OBJECT },
	{ "saved-states", OBJECT },
	{ "extensions", OBJECT },
	{ "compatible", OBJECT },
	{ "compatible.hosts", TEXTS },
	{ "compatible.hardware", OBJECT },
	{ "compatible.hardware.vendor", TEXT },
	{ "compatible.hardware.machine", TEXT },
	{ "compatible.hardware.features", TEXTS },
	{ "compatible.hardware.memory", NUMBER },
	{ "policy", OBJECT },
};

/* Of `policy`, where a name that is not here is a mistake: it would refuse everything. */
static const struct { const char *key; enum shape shape;
} rules[] = {
	{ "not-after", TIME },    { "hosts", TEXTS },        { "hardware", OBJECT },
	{ "users", TEXTS },       { "rights", LISTS },       { "minimum-patches", TEXTS },
	{ "patch-level", TEXT },  { "require-tags", TEXTS }, { "require-signature", TEXTS },
	{ "read-only", FLAG },    { "no-fork", FLAG },       { "no-export", FLAG },
	{ "overridable", TEXTS },
};

static bool are_texts(const json_t *json)
{
	for (size_t n = 0; n < json_array_size(json); n++)
		if (!json_is_string(json_array_get(json, n)))
			return false;
	return json_is_array(json);
}

static bool are_lists(const json_t *json)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)json, key,
			    value) if (!are_texts(value)) return false;
	return json_is_object(json);
}

static bool has_shape(const json_t *json, enum shape shape)
{
	time_t parsed;

	switch (shape) {
	case TEXT: return json_is_string(json);
	case TEXTS: return are_texts(json);
	case TIME:
		return json_is_string(json) && image_parse_time(json_string_value(json), &parsed);
	case NUMBER: return json_is_integer(json) && json_integer_value(json) >= 0;
	case FLAG: return json_is_boolean(json);
	case OBJECT: return json_is_object(json);
	case LISTS: return are_lists(json);
	}
	return false;
}

static int complain_of(const char *key, enum shape shape, char why[160])
{
	snprintf(why, 160, "%.80s must be %.70s", key, shape_names[shape]);
	return -EINVAL;
}

static int check_policy(const json_t *policy, char why[160])
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)policy, key, value)
	{
		size_t n = 0;

		while (n < sizeof(rules) / sizeof(rules[0]) && strcmp(rules[n].key, key))
			n++;
		if (n == sizeof(rules) / sizeof(rules[0])) {
			snprintf(why, 160, "there is no rule %.100s", key);
			return -EINVAL;
		}
		if (!has_shape(value, rules[n].shape))
			return complain_of(key, rules[n].shape, why);
	}
	return 0;
}

int image_check_about(const json_t *about, char why[160])
{
	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++) {
		const json_t *value = image_get(about, keys[n].key);

		if (value && !has_shape(value, keys[n].shape))
			return complain_of(keys[n].key, keys[n].shape, why);
	}
	return check_policy(json_object_get(about, "policy"), why);
}
