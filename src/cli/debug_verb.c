/*
 * umbra debug: a look inside what a machine's processors execute. block: what is translated at an
 * address of the guest's, or where its processors are most often. The machine is as little believed
 * as its guest: what it says is checked (ipc/code_listing.h), and there is a limit to it.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "instruction_text.h"
#include "listing_text.h"
#include "option.h"
#include "talk.h"

static const char debug_help[] =
	"usage: umbra debug block NAME ADDRESS [--root CR3] [--json]\n"
	"       umbra debug block NAME --hot N [--json]\n"
	"Lists what the machine NAME has translated at an address of its guest's, guest and\n"
	"host side by side, with the cold parts that were made; or where its processors are\n"
	"most often, the N places found most in a second. An address is hexadecimal, as the\n"
	"page tables at CR3 have it, or those that a processor uses now.\n";

enum { ANSWER_BYTES = LISTINGS_MOST * LISTING_BYTES, ERRNO_MAX = 4095 };
enum { BUSY_TRIES = 50, BUSY_US = 100000, PLACES_MOST = 4096, HOT_MOST = 64 };
enum { LOOK_MS = 1000, PAUSE_MS = 4, MS_PER_S = 1000, NS_PER_MS = 1000000 };
enum { HEXADECIMAL = 16, PRIVILEGE_MASK = 3 };
#define ROOT_MASK 0x000ffffffffff000ull

/* Where a processor was, and in which address space. */
struct place { uint64_t at, root, count; };

struct debug_view {
	const char *name;
	FILE *peer;
	bool json, has_words;
	uint8_t *answer; /* ANSWER_BYTES */
	size_t used;
	struct place *place; /* PLACES_MOST */
	size_t places;
	json_t *blocks;
};

/* ---- what is answered ---- */

static int hear_piece(struct debug_view *view, json_int_t bytes)
{
	if (bytes <= 0 || (size_t)bytes > ANSWER_BYTES - view->used)
		return -EPROTO;
	if (fread(view->answer + view->used, (size_t)bytes, 1, view->peer) != 1)
		return -ECONNRESET;
	view->used += (size_t)bytes;
	return 1;
}

/* 1: there is more to hear; 0; -errno. */
static int take_line(struct debug_view *view, const json_t *line)
{
	const json_t *bytes = json_object_get(line, "data");
	const json_int_t number = json_integer_value(json_object_get(line, "errno"));

	if (!line)
		return -ECONNRESET;
	if (bytes)
		return hear_piece(view, json_integer_value(bytes));
	if (json_is_true(json_object_get(line, "ok")))
		return 0;
	return number > 0 && number <= ERRNO_MAX ? -(int)number : -EPROTO;
}

/* root: 0: of nobody's. */
static int ask_once(struct debug_view *view, uint64_t at, uint64_t root)
{
	char of_root[40] = "";
	int got;

	if (root)
		snprintf(of_root, sizeof(of_root), ",\"root\":\"%lx\"", root);
	got = fprintf(view->peer, "{\"id\":1,\"do\":\"block\",\"at\":\"%lx\"%s}\n", at, of_root);
	got = got > 0 && !fflush(view->peer) ? 1 : -ECONNRESET;
	view->used = 0;
	while (got > 0) {
		json_t *line = talk_hear(view->peer);

		got = take_line(view, line);
		json_decref(line);
	}
	return got;
}

/* Somebody else's question is soon over. */
static int ask(struct debug_view *view, uint64_t at, uint64_t root)
{
	int error = ask_once(view, at, root);

	for (unsigned n = 0; n < BUSY_TRIES && error == -EBUSY; n++) {
		usleep(BUSY_US);
		error = ask_once(view, at, root);
	}
	return error;
}

/* looks: how often a processor was there; 0: nobody looked. */
static int show_answer(struct debug_view *view, uint64_t looks)
{
	struct listing listing;
	json_t *block;

	for (size_t at = 0, bytes; at < view->used; at += bytes) {
		bytes = listing_read(view->answer + at, view->used - at, &listing);
		if (!bytes)
			return -EPROTO;
		if (!view->json) {
			listing_print(&listing, view->has_words);
			continue;
		}
		block = listing_describe(&listing);
		if (looks)
			json_object_set_new(block, "looks", json_integer((json_int_t)looks));
		json_array_append_new(view->blocks, block);
	}
	return 0;
}

/* ---- where processors are ---- */

static uint64_t register_of(const json_t *processor, const char *name)
{
	const char *text = json_string_value(json_object_get(processor, name));

	return text ? strtoull(text, NULL, HEXADECIMAL) : 0;
}

/* Of a kernel all address spaces have the same. */
static void count_processor(struct debug_view *view, const json_t *processor)
{
	const char *state = json_string_value(json_object_get(processor, "state"));
	const struct place here = { .at = register_of(processor, "rip"),
				    .root = register_of(processor, "cr3") & ROOT_MASK };
	const bool is_user = (register_of(processor, "cs") & PRIVILEGE_MASK) == PRIVILEGE_MASK;
	size_t n = 0;

	if (state && strcmp(state, "runs"))
		return;
	while (n < view->places && (view->place[n].at != here.at ||
				    (is_user && view->place[n].root != here.root)))
		n++;
	if (n == PLACES_MOST)
		return;
	if (n == view->places)
		view->place[view->places++] = here;
	view->place[n].count++;
}

/* False: the machine does not answer any more. */
static bool look(struct debug_view *view)
{
	json_t *answer = talk_ask(view->peer, "registers") ? talk_hear(view->peer) : NULL;
	json_t *processors = json_object_get(answer, "processors");
	json_t *processor;
	size_t n;

	json_array_foreach(processors, n, processor)
		count_processor(view, processor);
	json_decref(answer);
	return answer;
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * MS_PER_S + (uint64_t)(now.tv_nsec / NS_PER_MS);
}

static int compare_places(const void *a, const void *b)
{
	const struct place *left = a;
	const struct place *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	return left->at < right->at ? -1 : left->at > right->at;
}

/* What was translated there may be gone by now. */
static int show_hot(struct debug_view *view, size_t most)
{
	const struct timespec pause = { 0, PAUSE_MS * NS_PER_MS };
	const uint64_t end = now_ms() + LOOK_MS;
	bool answers = look(view);
	int error;

	for (; answers && now_ms() < end; answers = look(view))
		nanosleep(&pause, NULL);
	error = answers ? 0 : -ECONNRESET;
	qsort(view->place, view->places, sizeof(*view->place), compare_places);
	for (size_t n = 0; !error && n < view->places && n < most; n++) {
		const struct place *place = &view->place[n];

		if (!view->json)
			printf("# %lx, found %lu times\n", place->at, place->count);
		error = ask(view, place->at, place->root);
		if (!error)
			error = show_answer(view, place->count);
		else if (error == -ENXIO)
			error = 0;
	}
	return error;
}

/* ---- an address ---- */

/* As one of the processors has it, also one that sleeps. */
static int ask_everywhere(struct debug_view *view, uint64_t at)
{
	json_t *answer = talk_ask(view->peer, "registers") ? talk_hear(view->peer) : NULL;
	json_t *processor;
	int error = -ENXIO;
	size_t n;

	json_array_foreach(json_object_get(answer, "processors"), n, processor)
		if (error == -ENXIO)
			error = ask(view, at, register_of(processor, "cr3") & ROOT_MASK);
	json_decref(answer);
	return error;
}

static int show_place(struct debug_view *view, const struct place *wanted)
{
	int error = wanted->root ? ask(view, wanted->at, wanted->root)
				 : ask_everywhere(view, wanted->at);

	return error ? error : show_answer(view, 0);
}

/* ---- the verb ---- */

static int debug(struct debug_view *view, const struct place *wanted, size_t hot)
{
	int error;

	view->peer = talk_to(view->name, &error);
	if (!view->peer)
		return talk_failed(view->name, error);
	error = hot ? show_hot(view, hot) : show_place(view, wanted);
	fclose(view->peer);
	if (error == -ENXIO)
		return complain(EXIT_UNUSABLE, "nothing is translated there", view->name,
				"name an address that was executed, or say --hot 3");
	if (error)
		return talk_failed(view->name, error);
	if (view->json) {
		json_dumpf(view->blocks, stdout, JSON_INDENT(2));
		puts("");
	}
	return 0;
}

static int debug_block(const char *name, const struct place *wanted, size_t hot, bool json)
{
	struct debug_view view = { .name = name,
				   .json = json,
				   .has_words = !json && instruction_text_load(),
				   .answer = malloc(ANSWER_BYTES),
				   .place = calloc(PLACES_MOST, sizeof(struct place)),
				   .blocks = json_array() };
	int code;

	if (view.answer && view.place && view.blocks)
		code = debug(&view, wanted, hot);
	else
		code = complain(EXIT_UNUSABLE, strerror(ENOMEM), name, "free some memory");
	free(view.answer);
	free(view.place);
	json_decref(view.blocks);
	return code;
}

static int parse_address(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, HEXADECIMAL);
	if (end == text || *end || errno || *text == '-' || *text == '+')
		return complain(EXIT_USAGE, "no address", text,
				"say it in hexadecimal, ffffffff81000000");
	return 0;
}

static int parse_hot(const char *text, size_t *ret)
{
	char *end;
	const unsigned long number = strtoul(text, &end, 10);

	if (end == text || *end || !number || number > HOT_MOST)
		return complain(EXIT_USAGE, "no number of places", text, "say 1 to 64");
	*ret = number;
	return 0;
}

static int wrong_arguments(void)
{
	return complain(EXIT_USAGE, "wrong arguments", "debug", "see umbra debug --help");
}

int verb_debug(int argc, char **argv)
{
	static const struct option longs[] = { { "hot", 1, 0, 'n' },
					       { "root", 1, 0, 'r' },
					       { "json", 0, 0, 'j' },
					       { "help", 0, 0, 'h' },
					       { 0 } };
	struct place wanted = { 0 };
	size_t hot = 0;
	bool json = false;
	int code = 0;
	int option;

	while (!code && (option = option_of_verb(argv[0], argc, argv, "h", longs)) != -1)
		switch (option) {
		case 'n': code = parse_hot(optarg, &hot); break;
		case 'r': code = parse_address(optarg, &wanted.root); break;
		case 'j': json = true; break;
		case 'h': fputs(debug_help, stdout); return 0;
		default: return EXIT_USAGE;
		}
	if (!code && (argc - optind != (hot ? 2 : 3) || strcmp(argv[optind], "block")))
		code = wrong_arguments();
	if (!code && !hot)
		code = parse_address(argv[optind + 2], &wanted.at);
	return code ? code : debug_block(argv[optind + 1], &wanted, hot, json);
}
