/* See memory_option.h. */
#include "memory_option.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum {
	LEAST_MEMORY_BYTES = 64 << 20,
	PAGE_BYTES = 4096,
	TEXT_BYTES = 128,
	DEFAULT_WEIGHT = 5000,
	MOST_WEIGHT = 10000,
	LEAST_BUFFER_PERCENT = 5,
	MOST_BUFFER_PERCENT = 2000
};

struct words {
	uint64_t start, least, most;
	unsigned long buffer_percent, weight;
};

static const char *after(const char *word, const char *prefix)
{
	return strncmp(word, prefix, strlen(prefix)) ? NULL : word + strlen(prefix);
}

static bool parse_memory(const char *text, uint64_t *ret)
{
	return parse_size(text, ret) && *ret >= LEAST_MEMORY_BYTES && *ret % PAGE_BYTES == 0;
}

static bool parse_between(const char *text, const char *end_text, unsigned long low,
			  unsigned long high, unsigned long *ret)
{
	char *end;

	*ret = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !strcmp(end, end_text) && *ret >= low &&
	       *ret <= high;
}

static bool take_word(struct words *words, const char *word)
{
	const struct {
		const char *prefix;
		uint64_t *size;
	} sizes[] = { { "start=", &words->start },
		      { "min=", &words->least },
		      { "max=", &words->most } };
	const char *value;

	for (unsigned n = 0; n < sizeof(sizes) / sizeof(sizes[0]); n++) {
		value = after(word, sizes[n].prefix);
		if (value)
			return !*sizes[n].size && parse_memory(value, sizes[n].size);
	}
	value = after(word, "buffer=");
	if (value)
		return parse_between(value, "%", LEAST_BUFFER_PERCENT, MOST_BUFFER_PERCENT,
				     &words->buffer_percent);
	value = after(word, "weight=");
	return value && parse_between(value, "", 1, MOST_WEIGHT, &words->weight);
}

static int parse_words(const char *text, struct words *words)
{
	char copy[TEXT_BYTES];
	char *rest = copy;
	char *word;

	if (plan_set_text(copy, sizeof(copy), text))
		return complain(EXIT_USAGE, "too long", "--memory", "see umbra run --help");
	while ((word = strsep(&rest, ",")))
		if (!take_word(words, word))
			return complain(EXIT_USAGE, "not about memory, or not in its bounds", word,
					"say for example --memory "
					"start=512M,min=256M,max=4G,buffer=20%,weight=5000");
	return 0;
}

/* What was not said. */
static void complete(struct words *words)
{
	const uint64_t default_bytes = 512 << 20;

	if (!words->start)
		words->start = words->most && (!words->least || words->most < default_bytes)
				       ? words->most
				       : default_bytes;
	if (words->start < words->least)
		words->start = words->least;
	if (words->most && words->start > words->most)
		words->start = words->most;
	if (!words->most)
		words->most = words->start;
	if (!words->least)
		words->least = words->start;
}

static int check(const struct words *words, const char *text)
{
	if (words->least > words->start || words->start > words->most)
		return complain(EXIT_USAGE, "min, start and max are not in this order", text,
				"say for example --memory start=512M,min=256M,max=4G");
	if (words->start < words->most &&
	    (words->start % MACHINE_REGION_BYTES || words->most % MACHINE_REGION_BYTES))
		return complain(EXIT_USAGE, "memory is added in pieces of 128M", text,
				"let start and max be whole multiples of 128M");
	return 0;
}

int memory_option_take(const char *text, const char *least, uint64_t host_bytes,
		       struct machine_plan *plan)
{
	struct words words = { .buffer_percent = MACHINE_DEFAULT_BUFFER_PERCENT,
			       .weight = DEFAULT_WEIGHT };
	int code = 0;

	if (text && strchr(text, '='))
		code = parse_words(text, &words);
	else if (!parse_memory(text ? text : "512M", &words.most))
		words.most = UINT64_MAX;
	if (code)
		return code;
	if (least && words.least)
		return complain(EXIT_USAGE, "said twice", "--memory-min",
				"leave it out, or min= of --memory");
	if (least && (!parse_memory(least, &words.least) ||
		      words.least > (words.most ? words.most : words.start)))
		return complain(EXIT_USAGE, "not a memory size from 64M to --memory", least,
				"say for example --memory 2G --memory-min 512M");
	if (text && !strchr(text, '='))
		words.start = words.most;
	complete(&words);
	if (words.most > host_bytes)
		return complain(EXIT_USAGE, "not a memory size from 64M to what the host has",
				text ? text : "512M", "say for example --memory 512M");
	plan->memory_bytes = words.most;
	plan->start_memory_bytes = words.start;
	plan->least_memory_bytes = words.least;
	plan->memory_buffer_percent = (uint32_t)words.buffer_percent;
	plan->memory_weight = (uint32_t)words.weight;
	return check(&words, text ? text : "512M");
}

bool memory_is_adjusted(const struct machine_plan *plan)
{
	return plan->least_memory_bytes && (plan->least_memory_bytes < plan->memory_bytes ||
					    plan->start_memory_bytes < plan->memory_bytes);
}

bool memory_is_balanced(const char *text, const struct machine_plan *plan)
{
	return text && strchr(text, '=') && memory_is_adjusted(plan);
}
