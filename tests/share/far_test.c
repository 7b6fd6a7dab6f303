/*
 * What is done of a far disk (share/far.h) against a model that remembers everything: sequences of
 * requests that are asked, asked again, overtaken and of other sessions. Prints TAP.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "far_check.h"
#include "share/far.h"

enum { NUMBERS = 100000, STEPS = 400000, AGAIN = 3 };

/* What a proxy does: numbers within a span from its oldest, each asked until it is answered. */
struct model {
	uint8_t times[NUMBERS + SHARE_DISK_SPAN], status[NUMBERS + SHARE_DISK_SPAN];
	uint64_t oldest;
};

static bool is_right(struct far_record *record, struct model *model, uint64_t number)
{
	const struct share_disk_request request = { .number = number, .oldest = model->oldest };
	uint32_t status = ~0u;
	enum far_found found = far_record_find(record, &request, &status);

	if (number < model->oldest || number - model->oldest >= SHARE_DISK_SPAN)
		return found == FAR_PAST;
	if (found == FAR_KNOWN)
		return model->times[number] == 1 && status == model->status[number];
	if (found != FAR_NEW || model->times[number])
		return false;
	model->times[number]++;
	model->status[number] = (uint8_t)random_below(3);
	far_record_put(record, number, model->status[number]);
	return true;
}

static void sequences(void)
{
	static struct model model;
	static struct far_record record;
	unsigned right = 0;
	unsigned once = 0;

	model.oldest = 1;
	far_record_begin(&record, 1);
	for (unsigned n = 0; n < STEPS; n++) {
		right += is_right(&record, &model, model.oldest + random_below(SHARE_DISK_SPAN));
		while (!random_below(AGAIN) && model.oldest < NUMBERS &&
		       is_right(&record, &model, model.oldest))
			model.oldest++;
		far_record_begin(&record, 1);
	}
	for (uint64_t n = 1; n < model.oldest; n++)
		once += model.times[n] == 1;
	check("each step is as the model has it", right == STEPS);
	check("each number was done once", model.oldest > NUMBERS / 2 && once == model.oldest - 1);
}

static void sessions(void)
{
	const struct share_disk_request request = { .number = 5, .oldest = 5 };
	const struct share_disk_request old = { .number = 5, .oldest = 1 };
	struct far_record record = { .is_there = false };
	uint32_t status;

	check("nothing before a hello", far_record_find(&record, &request, &status) == FAR_PAST);
	far_record_begin(&record, 1);
	far_record_put(&record, 5, 2);
	check("what is done is known",
	      far_record_find(&record, &request, &status) == FAR_KNOWN && status == 2);
	far_record_put(&record, 5 + SHARE_DISK_SPAN, 0);
	check("what was overtaken is past", far_record_find(&record, &old, &status) == FAR_PAST);
	far_record_begin(&record, 2);
	check("another session knows nothing",
	      far_record_find(&record, &request, &status) == FAR_NEW);
}

static void frames(void)
{
	uint8_t head[FAR_HEAD_BYTES];
	struct far_head taken;
	union far_message message = { .done = { .kind = SHARE_DISK_DONE } };

	far_put_head(sizeof(message.done), 9, head);
	check("a head", !far_take_head(head, &taken) && taken.data_bytes == 9);
	check("a good answer", !far_check(&taken, &message, FAR_ANSWERS));
	check("is no question", far_check(&taken, &message, FAR_ASKS) == -EBADMSG);
	head[0] ^= 1;
	check("of another protocol", far_take_head(head, &taken) == -EBADMSG);
}

int main(void)
{
	sequences();
	sessions();
	frames();
	printf("1..%u\n", checks);
	return bad != 0;
}
