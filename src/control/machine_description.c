/* See machine_description.h. */
#include "machine_description.h"

#include <stdio.h>
#include <string.h>

static const char *guest_word(const struct record_state *state)
{
	if (state->flags & STATE_ANSWERS)
		return "answers";
	return state->flags & STATE_SILENT ? "silent" : "unknown";
}

static const char *memory_word(const struct record_state *state)
{
	if (!(state->flags & STATE_MEMORY_DRIVER))
		return "no driver";
	if (!(state->flags & STATE_AUTOMATIC))
		return "set";
	return state->flags & STATE_ADVISED ? "balanced" : "automatic";
}

json_t *json_shown(uint64_t value)
{
	return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

/* Why it does not get more than it has. */
static void add_growth(json_t *machine, const struct record_state *state)
{
	const char *word = state->flags & STATE_GROWS ? "can" : "cannot";

	if (state->unused_regions)
		word = "not put on line";
	else if (state->refused_regions)
		word = "refused";
	if (state->flags & STATE_MEMORY_DRIVER)
		json_object_set_new(machine, "growth", json_string(word));
	if (state->flags & STATE_MEMORY_SILENT)
		json_object_set_new(machine, "silent", json_true());
}

/*
 * So many, and so much text, that a line with all of them is never longer than who hears it has
 * room for: the machine process says what it likes.
 */
enum { KEYS_MOST = 64, KEYS_MOST_BYTES = 4096 };
#define REMOTE_MOST_BYTES (16ll << 40) /* more disks do not come (wire/parcel.h) */

/* Nothing that takes two characters in JSON. */
static json_t *plain_text(const char *text, size_t bytes)
{
	char plain[KEYS_MOST_BYTES];

	for (size_t n = 0; n < bytes; n++)
		plain[n] = text[n] == '"' || text[n] == '\\' ? '\'' : text[n];
	return json_stringn(plain, bytes);
}

static void add_key(json_t *keys, const char *line, size_t bytes)
{
	const char *middle = memchr(line, '=', bytes);
	const size_t key_bytes = middle ? (size_t)(middle - line) : 0;
	json_t *key = plain_text(line, key_bytes);

	if (key_bytes)
		json_object_set_new(keys, json_string_value(key),
				    plain_text(middle + 1, bytes - key_bytes - 1));
	json_decref(key);
}

void control_set_keys(struct control *control, const char *text)
{
	const char *begin = text;

	json_decref(control->keys);
	control->keys = json_object();
	for (unsigned n = 0; n < KEYS_MOST && *text; n++) {
		const size_t bytes = strcspn(text, "\n");

		if ((size_t)(text - begin) + bytes >= KEYS_MOST_BYTES)
			return;
		add_key(control->keys, text, bytes);
		text += bytes;
		text += *text == '\n';
	}
}

/* Who says it may be lost: no more than there is. */
static void add_left(json_t *machine, const char *key, const _Atomic uint64_t *bytes,
		     json_int_t most)
{
	const uint64_t left = bytes ? atomic_load_explicit(bytes, memory_order_relaxed) : 0;

	if (left)
		json_object_set_new(machine, key,
				    json_integer(left < (uint64_t)most ? (json_int_t)left : most));
}

static void add_remote(json_t *machine, const struct control *control)
{
	add_left(machine, "remote", control->remote_bytes,
		 json_integer_value(json_object_get(machine, "memory")));
	add_left(machine, "remote-disks", control->remote_disk_bytes, REMOTE_MOST_BYTES);
}

json_t *machine_describe(const struct control *control)
{
	json_t *machine = json_is_object(control->description) ? json_copy(control->description)
							       : json_object();
	const struct record_state *state = &control->state;

	json_object_set_new(machine, "process", json_integer(control->process));
	if (control->suspended)
		json_object_set_new(machine, "suspended", json_true());
	if (control->layers && (control->forks || control->save == SAVE_LAYERS))
		json_object_set_new(machine, "layering", json_true());
	add_remote(machine, control);
	if (control->keys && json_object_size(control->keys))
		json_object_set(machine, "keys", control->keys);
	if (!control->has_state)
		return machine;
	json_object_set_new(machine, "guest", json_string(guest_word(state)));
	json_object_set_new(machine, "memory-mode", json_string(memory_word(state)));
	json_object_set_new(machine, "held", json_shown(state->held_bytes));
	json_object_set_new(machine, "assigned", json_shown(state->assigned_bytes));
	json_object_set_new(machine, "target", json_shown(state->target_bytes));
	json_object_set_new(machine, "given-back", json_shown(state->given_back_bytes));
	add_growth(machine, state);
	json_object_set_new(machine, "reports", json_shown(state->reports));
	if (!(state->flags & STATE_MEMORY_STATUS))
		return machine;
	json_object_set_new(machine, "available", json_shown(state->available_bytes));
	json_object_set_new(machine, "committed", json_shown(state->committed_bytes));
	return machine;
}

/* ---- where its processors are ---- */

/* Beyond what JSON's readers take: as text. */
static void set_hexadecimal(json_t *object, const char *name, uint64_t value)
{
	char text[sizeof("0x0123456789abcdef")];

	snprintf(text, sizeof(text), "%#lx", value);
	json_object_set_new(object, name, json_string(text));
}

/* Letters, digits and what else names of functions have; the machine process may say anything. */
static bool is_symbol(const char *text)
{
	return *text && memchr(text, 0, REGISTERS_SYMBOL_BYTES) &&
	       !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789_.$+")];
}

json_t *registers_describe(const struct record_registers *registers)
{
	static const char *const gprs[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					      "r12", "r13", "r14", "r15" };
	static const char *const states[] = { "runs", "halted", "waits for its start",
					      "asleep" };
	json_t *object = json_object();

	json_object_set_new(
		object, "state",
		json_string(states[registers->state < REGISTERS_STATES ? registers->state : 0]));
	set_hexadecimal(object, "rip", registers->rip);
	set_hexadecimal(object, "rflags", registers->rflags);
	for (unsigned n = 0; n < 16; n++)
		set_hexadecimal(object, gprs[n], registers->gpr[n]);
	set_hexadecimal(object, "cs", registers->cs);
	set_hexadecimal(object, "ss", registers->ss);
	set_hexadecimal(object, "cr0", registers->cr0);
	set_hexadecimal(object, "cr2", registers->cr2);
	set_hexadecimal(object, "cr3", registers->cr3);
	set_hexadecimal(object, "cr4", registers->cr4);
	set_hexadecimal(object, "efer", registers->efer);
	set_hexadecimal(object, "lstar", registers->lstar);
	json_object_set_new(object, "last-exception", json_integer(registers->fault_vector));
	if (is_symbol(registers->symbol))
		json_object_set_new(object, "symbol", json_string(registers->symbol));
	return object;
}
